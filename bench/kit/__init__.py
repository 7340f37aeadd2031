"""What methods and evaluators build with: data, views, models, teachers, labels and images on disk."""

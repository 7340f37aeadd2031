"""Building blocks of methods and evaluators: data, views, models, teachers, labels and images on disk."""

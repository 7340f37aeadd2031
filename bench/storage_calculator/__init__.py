"""The calculator: what images, labels, teachers and projectors weigh, by arithmetic alone. Torch-free."""

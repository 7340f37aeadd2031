"""What the two promptable methods are made of: the teacher, the projector, and the loop that trains both."""

"""Stored soft labels, torch-free: the codec, the layout of the files and their sizes."""

"""Promptable segmentation: networks that answer an image and a click with a mask, their losses and their measure."""

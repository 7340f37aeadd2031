"""Promptable segmentation as a plug-in: methods, networks, losses and a data set; tested by evaluators.segmentation."""

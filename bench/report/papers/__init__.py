"""Printed results of papers next to measured ones: numbers, trends of experiments, costs of training."""

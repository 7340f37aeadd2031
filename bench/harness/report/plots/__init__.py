"""Plots of a board: accuracy against what is stored and spent, each as SVG, PNG and the data it shows as CSV."""

from bench.harness.report.plots.draw import draw, names, stale
from bench.harness.report.plots.points import Published

__all__ = ["Published", "draw", "names", "stale"]

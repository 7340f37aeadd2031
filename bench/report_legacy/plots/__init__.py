"""Plots of a board: accuracy against what is stored and spent, each as SVG, PNG and the data it shows as CSV."""

from bench.report_legacy.plots.draw import draw, names, stale
from bench.report_legacy.plots.points import Published

__all__ = ["Published", "draw", "names", "stale"]

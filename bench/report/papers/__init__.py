"""What papers print, beside what was measured: numbers, trends of experiments, costs of training."""

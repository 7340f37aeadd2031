"""Teachers: training trajectories, foreign checkpoints, and the accuracy check before any use of them."""

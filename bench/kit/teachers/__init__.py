"""Teachers: training trajectories, foreign checkpoints, and the gate before any use of them."""

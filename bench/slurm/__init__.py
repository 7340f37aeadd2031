"""What knows of Slurm: profiles of clusters, the arrays of a run and their submission, the journal of what was
submitted, the task that runs in an array, and the questions put to squeue, sacct and scontrol."""

"""Execution of cells: in this process, in a pool of processes, or in Slurm tasks, all by the same worker."""

"""Execution on Slurm: profiles, job arrays, submission, the tasks, and queries to squeue, sacct and scontrol."""

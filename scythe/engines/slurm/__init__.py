"""Slurm as an engine: a job array works on a run from its folder, and a job behind it gathers. Nothing listens anywhere."""

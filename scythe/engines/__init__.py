"""The engines: who calls the leaf. `inline` this process, `local` a pool of processes, `slurm` and `hatchet` a cluster."""

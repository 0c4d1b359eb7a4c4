"""The engines: who calls the leaf. `inline` this process, `local` a pool of processes, `hatchet` a cluster."""

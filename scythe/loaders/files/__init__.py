"""The files of a batch: found, read and decoded. `source` alone knows of runs."""

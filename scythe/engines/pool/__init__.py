"""Worker processes of one machine: started, fed with chunks, watched, replaced. `child`, `job` and `crashes` alone know of runs."""

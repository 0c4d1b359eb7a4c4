"""Worker processes of one machine: started, fed with chunks, watched, replaced. `child` and `job` alone know of runs."""

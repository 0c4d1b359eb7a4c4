"""Worker processes of one machine: started, fed with chunks, watched, replaced. Knows no run's folder."""

"""The report of a run: its facts, aggregated; figures of them; one HTML page. It runs nothing and changes no run."""

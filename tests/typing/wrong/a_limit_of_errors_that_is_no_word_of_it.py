import scythe

scythe.open_run("simulate_energy").retry_errors(max_errors="all")  # refused

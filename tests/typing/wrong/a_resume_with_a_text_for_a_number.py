import scythe

scythe.open_run("simulate_energy").resume(workers="4")  # refused

import scythe

run = scythe.open_run("simulate_energy")
print(run.result.rows)  # refused

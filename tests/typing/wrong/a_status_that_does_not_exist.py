import scythe

run = scythe.open_run("simulate_energy")
if run.status == "done":  # refused
    print("over")

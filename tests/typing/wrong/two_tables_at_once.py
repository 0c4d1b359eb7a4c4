import scythe

scythe.scan("simulate_energy", table=["scalars", "errors"])  # refused

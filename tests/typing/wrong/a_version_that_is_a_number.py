import scythe

scythe.read("simulate_energy", version=1.2)  # refused

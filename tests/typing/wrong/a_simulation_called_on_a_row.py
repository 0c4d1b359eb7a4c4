from simulation import simulate_energy

energy = simulate_energy({"r_value": 2.0})  # refused

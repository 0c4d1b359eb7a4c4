from simulation import simulate_energy

import scythe

for _, energy in scythe.rows(simulate_energy):
    print(energy.heatin)  # refused

from simulation import BuildingInput, BuildingOutput, simulate_hourly

import scythe


def pairs() -> list[tuple[BuildingOutput, BuildingInput]]:
    return list(scythe.rows(simulate_hourly))  # refused

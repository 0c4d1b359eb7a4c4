from simulation import BuildingInput

from scythe import ExperimentRegistry


@ExperimentRegistry.Register()  # refused
def simulate_loss(input_spec: BuildingInput) -> float:
    return 1 / input_spec.r_value

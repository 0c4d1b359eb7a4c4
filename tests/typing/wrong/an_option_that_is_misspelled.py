from simulation import BuildingInput, BuildingOutput

from scythe import ExperimentRegistry


@ExperimentRegistry.Register(local_file_location="tempdir")  # refused
def simulate_loss(input_spec: BuildingInput) -> BuildingOutput:
    return BuildingOutput(heating=1 / input_spec.r_value)

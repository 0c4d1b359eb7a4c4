"""Models and simulations of a user, in each of the shapes that can be registered."""

from pathlib import Path

import polars as pl
from pydantic import Field

from scythe import (
    ExperimentInputSpec,
    ExperimentOutputSpec,
    ExperimentRegistry,
    FileReference,
    LocalOptions,
    OptionalFileReference,
)


class BuildingInput(ExperimentInputSpec):
    r_value: float = Field(description="R-value of the envelope [m2K/W]", gt=0)
    weather: FileReference


class BuildingOutput(ExperimentOutputSpec):
    heating: float = Field(description="Heating energy [kWh/m2]", ge=0)
    hourly: OptionalFileReference = None


@ExperimentRegistry.Register(retries=2, execution_timeout="90s", engine_options={"local": LocalOptions(workers=2)})
def simulate_energy(input_spec: BuildingInput) -> BuildingOutput:
    input_spec.log("simulating")
    return BuildingOutput(heating=80 / input_spec.r_value)


@ExperimentRegistry.Register(name="hourly", local_file_location="copied-to-tempdir")
def simulate_hourly(building: BuildingInput, tempdir: Path) -> BuildingOutput:
    frame = pl.DataFrame({"hour": range(24)})
    frame.write_parquet(tempdir / "hourly.pq")
    return BuildingOutput(heating=1, hourly=tempdir / "hourly.pq", dataframes={"hours": frame})


@ExperimentRegistry.Register()
class ClimateModel:
    def __init__(self) -> None:
        self.outdoor = 4.0

    def run(self, input_spec: BuildingInput) -> BuildingOutput:
        return BuildingOutput(heating=(20 - self.outdoor) / input_spec.r_value)


@ExperimentRegistry.Register()
class ClimateFiles:
    def run(self, input_spec: BuildingInput, tempdir: Path) -> BuildingOutput:
        return BuildingOutput(heating=1 / input_spec.r_value, hourly=tempdir / "hourly.pq")


@ExperimentRegistry.Register()
class Wall(ExperimentInputSpec):
    thickness: float

    def run(self) -> BuildingOutput:
        return BuildingOutput(heating=8 / self.thickness)


@ExperimentRegistry.Register()
class WallWithFiles(ExperimentInputSpec):
    thickness: float

    def run(self, tempdir: Path) -> BuildingOutput:
        return BuildingOutput(heating=8 / self.thickness, hourly=tempdir / "hourly.pq")

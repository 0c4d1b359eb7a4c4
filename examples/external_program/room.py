"""A room's heating, by a simulator that is not ours: the input becomes its files, its files become the output."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
from program import run_program
from pydantic import Field

from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference

SIMULATOR = Path(__file__).resolve().parent / "simulator" / "simulate.sh"
#: A room takes a twentieth of a second: one that takes so long will not end.
LIMIT = 2.0


class RoomInput(ExperimentInputSpec):
    """A room, its thermostat and its weather."""

    window_area: float = Field(description="Area of the windows [m2]", gt=0)
    u_value: float = Field(description="U-value of the wall [W/m2K]", gt=0, le=5)
    heat_capacity: float = Field(description="Heat capacity of the room [kJ/K]", gt=0)
    heater: float = Field(description="Highest power of the heater [W]", gt=0)
    gain: float = Field(default=40, description="Gain of the thermostat [W/K]", gt=0)
    weather_file: FileReference = Field(description="Outdoor temperature, one value an hour [deg.C]")


class RoomOutput(ExperimentOutputSpec):
    """What the simulator found, and its own files."""

    heating: float = Field(description="Heating energy [kWh]", ge=0)
    coldest: float = Field(description="Lowest temperature of the room [deg.C]")
    hourly: FileReference = Field(description="What the simulator wrote, hour by hour [.csv]")
    log: FileReference = Field(description="What the simulator printed [.txt]")


@ExperimentRegistry.Register(retries=0)  # the same files would fail again
def room(input_spec: RoomInput, tempdir: Path) -> RoomOutput:
    """Writes the simulator's files, runs it in a folder of its own, and reads what it wrote."""
    (tempdir / "weather.txt").write_text(Path(str(input_spec.weather_file)).read_text())
    values = input_spec.model_dump(include={"window_area", "u_value", "heat_capacity", "heater", "gain"})
    case = tempdir / "case.ini"
    case.write_text("[room]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()))

    log = run_program([str(SIMULATOR), case.name], tempdir, LIMIT, {"ROOM_PYTHON": sys.executable})

    hourly = case.with_suffix(".csv")
    table = pl.read_csv(hourly)  # an exit code of 0 is a claim: a file that is missing or broken is this input's error
    return RoomOutput(
        heating=table["power"].sum() / 1000,
        coldest=table["indoors"].min(),
        hourly=hourly,
        log=log,
    )

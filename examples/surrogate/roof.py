"""The yearly yield of a rooftop PV system in Greensboro, as a function of what its owner can choose: real physics, real weather."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field

from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference

PV_YIELD = Path(__file__).resolve().parents[1] / "pv_yield"
sys.path.append(str(PV_YIELD))
from pv_yield import load_weather, simulate  # noqa: E402 - its folder is on the path from here on


class RoofInput(ExperimentInputSpec):
    """A rooftop PV system of 1 kW."""

    tilt: float = Field(description="Surface tilt, 0 is flat [deg]", ge=0, le=90)
    azimuth: float = Field(description="Surface azimuth, clockwise from north [deg]", ge=0, lt=360)
    dc_ac_ratio: float = Field(description="DC rating over AC rating of the inverter [kW/kW]", ge=0.5, le=3)
    losses: float = Field(description="Soiling, shading, wiring, ageing [%]", ge=0, le=40)
    weather: FileReference = PV_YIELD / "weather" / "greensboro.csv"


class RoofOutput(ExperimentOutputSpec):
    """What it does in a typical year."""

    specific_yield: float = Field(description="AC energy of the year [kWh/kW]", ge=0)


@ExperimentRegistry.Register()
def roof(spec: RoofInput) -> RoofOutput:
    """Simulates a system over a typical year, hour by hour."""
    hours = simulate(load_weather(Path(str(spec.weather))), spec.tilt, spec.azimuth, spec.dc_ac_ratio, spec.losses)
    return RoofOutput(specific_yield=hours.ac.sum())

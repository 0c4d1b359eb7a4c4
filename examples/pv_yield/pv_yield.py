"""The yearly yield of a rooftop PV system: one input is one system at one site, one output its year in hours."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pvlib
from numpy.typing import NDArray
from pydantic import Field

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

Array = NDArray[Any]

ALBEDO = 0.2
#: Temperature coefficient of the modules' power, crystalline silicon [1/K].
GAMMA_PDC = -0.0037
#: Heat loss of modules that lie close to the roof (Sandia's array performance model).
MOUNTING = pvlib.temperature.TEMPERATURE_MODEL_PARAMETERS["sapm"]["close_mount_glass_glass"]
INVERTER_EFFICIENCY = 0.96


class PVSystemInput(ExperimentInputSpec):
    """A rooftop PV system of 1 kW (DC, at standard test conditions)."""

    site: Literal["Sand Point", "Piedmont", "Greensboro", "Miami"] = Field(description="Where the system stands")
    tilt: float = Field(description="Surface tilt, 0 is flat [deg]", ge=0, le=90)
    azimuth: float = Field(description="Surface azimuth, clockwise from north [deg]", ge=0, lt=360)
    dc_ac_ratio: float = Field(
        description="DC rating of the array over AC rating of the inverter [kW/kW]", ge=0.5, le=3
    )
    losses: float = Field(
        default=14.1, description="Soiling, shading, mismatch, wiring, ageing, downtime [%]", ge=0, lt=100
    )
    weather_file: FileReference = Field(description="A typical year of the site [TMY3 .csv]")


class PVSystemOutput(ExperimentOutputSpec):
    """What the system does in a typical year. Energies are per kW of DC rating."""

    specific_yield: float = Field(description="AC energy of the year [kWh/kW]", ge=0)
    capacity_factor: float = Field(description="Mean AC power over DC rating [kW/kW]", ge=0, le=1)
    performance_ratio: float = Field(description="AC energy over energy at the DC rating's efficiency [kWh/kWh]", ge=0)
    poa_insolation: float = Field(description="Irradiation of the plane of array [kWh/m2]", ge=0)
    peak_ac_power: float = Field(description="Highest AC power of an hour [kW/kW]", ge=0)
    clipping_loss: float = Field(description="DC energy beyond the inverter's limit [kWh/kWh]", ge=0, le=1)
    cell_temperature: float = Field(description="Cell temperature, weighted by irradiance [deg.C]")
    hourly: FileReference = Field(description="Hourly series: irradiance, cell temperature, DC and AC power [.pq]")


class Weather(NamedTuple):
    """A year at a site, hour by hour, with all that does not depend on the system."""

    #: Beginnings of the hours, in local standard time.
    time: Array
    ghi: Array
    dni: Array
    dhi: Array
    temp_air: Array
    wind_speed: Array
    #: Where the sun stands in the middle of the hour.
    solar_zenith: Array
    solar_azimuth: Array
    dni_extra: Array
    airmass: Array


@lru_cache(maxsize=16)
def load_weather(path: Path) -> Weather:
    """Reads a TMY3 file and follows the sun: once per process and file."""
    data, site = pvlib.iotools.read_tmy3(path, map_variables=True, coerce_year=1990)
    # TMY3 stamps an hour by its end; the sun stands for it as it does in the middle.
    begin = pd.DatetimeIndex(data.index) - pd.Timedelta(hours=1)
    middle = begin + pd.Timedelta(minutes=30)
    sun = pvlib.solarposition.get_solarposition(middle, site["latitude"], site["longitude"], site["altitude"])
    zenith = sun["apparent_zenith"].to_numpy()
    ghi, dni, dhi, temp_air, wind_speed = (
        data[name].to_numpy(float) for name in ("ghi", "dni", "dhi", "temp_air", "wind_speed")
    )
    return Weather(
        begin.tz_localize(None).to_numpy(), ghi, np.where(zenith < 90, dni, 0.0), dhi, temp_air, wind_speed,
        zenith, sun["azimuth"].to_numpy(), pvlib.irradiance.get_extra_radiation(middle).to_numpy(),
        pvlib.atmosphere.get_relative_airmass(zenith),
    )  # fmt: skip


def plane_of_array(weather: Weather, tilt: float, azimuth: float) -> tuple[Array, Array]:
    """Irradiance on the plane, and the part of it that passes the glass [W/m2]: Perez's sky, Fresnel's reflection."""
    sun = weather.solar_zenith, weather.solar_azimuth
    poa = pvlib.irradiance.get_total_irradiance(
        tilt, azimuth, *sun, weather.dni, weather.ghi, weather.dhi,
        dni_extra=weather.dni_extra, airmass=weather.airmass, albedo=ALBEDO, model="perez",
    )  # fmt: skip
    beam, sky, ground = (np.nan_to_num(poa[k]) for k in ("poa_direct", "poa_sky_diffuse", "poa_ground_diffuse"))
    through_glass = pvlib.iam.marion_diffuse("physical", tilt)
    effective = beam * pvlib.iam.physical(pvlib.irradiance.aoi(tilt, azimuth, *sun)) + sky * through_glass["sky"]
    if tilt > 0:  # a flat plane sees no ground
        effective += ground * np.nan_to_num(through_glass["ground"])
    return beam + sky + ground, effective


class Hours(NamedTuple):
    """What a system does hour by hour; powers are per kW of DC rating."""

    #: W/m2.
    poa: Array
    #: deg.C.
    temp_cell: Array
    #: kW per kW, before the inverter limits it.
    dc: Array
    #: kW per kW.
    ac: Array


def simulate(weather: Weather, tilt: float, azimuth: float, dc_ac_ratio: float, losses: float) -> Hours:
    """A typical year of a rooftop PV system, with the models of NREL's PVWatts; arguments as in `PVSystemInput`."""
    poa, effective = plane_of_array(weather, tilt, azimuth)
    temp_cell = pvlib.temperature.sapm_cell(poa, weather.temp_air, weather.wind_speed, **MOUNTING)
    dc = pvlib.pvsystem.pvwatts_dc(effective, temp_cell, pdc0=1.0, gamma_pdc=GAMMA_PDC) * (1 - losses / 100)
    dc_limit = 1 / dc_ac_ratio / INVERTER_EFFICIENCY
    return Hours(poa, temp_cell, dc, pvlib.inverter.pvwatts(dc, dc_limit, eta_inv_nom=INVERTER_EFFICIENCY))


@ExperimentRegistry.Register()
def pv_yield(input_spec: PVSystemInput, tempdir: Path) -> PVSystemOutput:
    """Simulates a rooftop PV system over a typical year, hour by hour, with the models of NREL's PVWatts."""
    weather = load_weather(Path(str(input_spec.weather_file)))
    poa, temp_cell, dc, ac = simulate(
        weather, input_spec.tilt, input_spec.azimuth, input_spec.dc_ac_ratio, input_spec.losses
    )

    hourly = pl.DataFrame(
        {
            "time": weather.time,
            "poa_irradiance": poa,  # W/m2
            "cell_temperature": temp_cell,  # deg.C
            "dc_power": dc,  # kW per kW, before the inverter limits it
            "ac_power": ac,  # kW per kW
        }
    )
    monthly = hourly.group_by(pl.col("time").dt.month().alias("month")).agg(
        (pl.sum("poa_irradiance") / 1000).alias("poa_insolation"),  # kWh/m2
        pl.sum("ac_power").alias("ac_energy"),  # kWh/kW
    )
    clipped = np.maximum(dc - 1 / input_spec.dc_ac_ratio / INVERTER_EFFICIENCY, 0)
    path = tempdir / "hourly.pq"
    hourly.cast({pl.Float64: pl.Float32}).write_parquet(path)

    insolation, energy = poa.sum() / 1000, ac.sum()
    return PVSystemOutput(
        specific_yield=energy,
        capacity_factor=ac.mean(),
        performance_ratio=energy / insolation,
        poa_insolation=insolation,
        peak_ac_power=ac.max(),
        clipping_loss=clipped.sum() / dc.sum(),
        cell_temperature=np.average(temp_cell, weights=poa),
        hourly=path,
        dataframes={"monthly": monthly.sort("month")},
    )

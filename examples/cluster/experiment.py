"""How a solid wall damps and delays the daily swing of the outdoor temperature.

The wall is one homogeneous layer between a room of constant temperature and the outdoors, whose temperature is a sine
of one day. Heat conduction in one dimension is integrated by finite volumes (Crank-Nicolson) until the day repeats
itself. The quantities are those of ISO 13786, the surface resistances those of ISO 6946 for horizontal heat flow.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

STEPS, SECONDS = 1440, 60.0  # of a day
CELLS = 60
INDOORS, OUTDOORS = 0.13, 0.04  # surface resistances [m2K/W]


class Wall(ExperimentInputSpec):
    """A homogeneous wall."""

    thickness: float = Field(description="Thickness [m]", ge=0.05, le=0.6)
    conductivity: float = Field(description="Thermal conductivity [W/mK]", ge=0.03, le=2.5)
    density: float = Field(description="Density [kg/m3]", ge=30, le=2600)
    heat_capacity: float = Field(default=1000, description="Specific heat capacity [J/kgK]", ge=500, le=2500)


class Response(ExperimentOutputSpec):
    """Its answer to a cycle of one day."""

    u_value: float = Field(description="Thermal transmittance [W/m2K]", gt=0)
    decrement_factor: float = Field(
        description="Swing of the heat flow into the room, over that of a wall without mass"
    )
    time_lag: float = Field(
        description="Delay of the heat flow behind the outdoor temperature, within one day: 27 h are 3 h [h]",
        ge=0,
        lt=24,
    )


@ExperimentRegistry.Register(execution_timeout="5m")
def wall_response(wall: Wall) -> Response:
    """Decrement factor and time lag of a wall."""
    width = wall.thickness / CELLS
    between = wall.conductivity / width  # W/m2K
    to_outdoors, to_room = (1 / (width / 2 / wall.conductivity + r) for r in (OUTDOORS, INDOORS))
    rates = np.diag(np.full(CELLS - 1, between), 1) + np.diag(np.full(CELLS - 1, between), -1)
    np.fill_diagonal(rates, -2 * between)
    rates[0, 0], rates[-1, -1] = -between - to_outdoors, -between - to_room
    half = rates * SECONDS / (2 * wall.density * wall.heat_capacity * width)
    solve = np.linalg.inv(np.eye(CELLS) - half)
    ahead = solve @ (np.eye(CELLS) + half)
    heated = solve[:, 0] * to_outdoors * SECONDS / (wall.density * wall.heat_capacity * width)

    wave = np.exp(2j * np.pi * np.arange(STEPS + 1) / STEPS)
    outdoors = wave.real  # K above the mean, as all temperatures here
    cells, amplitude = np.zeros(CELLS), 0j
    u_value = 1 / (INDOORS + wall.thickness / wall.conductivity + OUTDOORS)
    for _ in range(200):
        before, amplitude = amplitude, 0j
        for step in range(STEPS):
            cells = ahead @ cells + heated * (outdoors[step] + outdoors[step + 1]) / 2
            amplitude += to_room * cells[-1] * wave[step + 1].conjugate()
        amplitude *= 2 / STEPS
        if abs(amplitude - before) < 1e-5 * u_value:
            break
    lag = -np.angle(amplitude) / (2 * np.pi) * 24
    return Response(u_value=u_value, decrement_factor=abs(amplitude) / u_value, time_lag=float(lag % 24))

"""A steel plate that is heated in the middle, and cooled by the air and at its rim: the steady temperature, by relaxation."""

import numpy as np
from pydantic import Field

from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry


class Plate(ExperimentInputSpec):
    """A square plate."""

    power: float = Field(description="Heat that is brought into the middle [W]", gt=0, le=2000)
    width: float = Field(description="Width [m]", gt=0, le=2)
    thickness: float = Field(description="Thickness [m]", gt=0.001, le=0.05)
    air: float = Field(description="Heat transfer to the air, on each side [W/m2K]", ge=2, le=200)
    cells: int = Field(default=41, description="Cells a side of the grid", ge=5, le=401)


class Temperature(ExperimentOutputSpec):
    """Above that of the rim."""

    hottest: float = Field(description="Highest temperature [K]", ge=0)
    mean: float = Field(description="Mean temperature [K]", ge=0)
    steps: int = Field(description="Steps until it was steady")


CONDUCTIVITY = 50.0  # of steel [W/(m K)]


@ExperimentRegistry.Register()
def cool(input_spec: Plate) -> Temperature:
    """Gauss-Seidel by colours, until no cell changes by more than a millionth of the highest temperature."""
    n, conducts = input_spec.cells, CONDUCTIVITY * input_spec.thickness
    cell = input_spec.width / (n - 1)
    to_air = 2 * input_spec.air * cell**2 / conducts  # beside 1 to each neighbour
    field, source = np.zeros((n, n)), np.zeros((n, n))
    source[n // 2, n // 2] = input_spec.power / conducts
    inner = np.zeros((n, n), bool)
    inner[1:-1, 1:-1] = True
    colours = [inner & (np.indices((n, n)).sum(axis=0) % 2 == which) for which in (0, 1)]
    steps, change = 0, np.inf
    while change > 1e-6 * field.max():
        before = field
        for colour in colours:
            around = sum(np.roll(field, shift, axis) for shift in (1, -1) for axis in (0, 1))
            field = np.where(colour, (around + source) / (4 + to_air), field)
        steps, change = steps + 1, np.abs(field - before).max()
    return Temperature(hottest=float(field.max()), mean=float(field.mean()), steps=steps)

"""An epidemic in a closed population (SEIR): one input is one disease and one share of immune people, one output its course."""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import Field
from scipy.integrate import solve_ivp

from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

#: An epidemic is over when fewer than one in ten million are infected.
OVER = 1e-7
#: The longest that we wait for that [d].
HORIZON = 20 * 365.0


class EpidemicInput(ExperimentInputSpec):
    """A disease, and the population that it meets."""

    r0: float = Field(description="Basic reproduction number: infections by one case if nobody is immune", gt=0, le=20)
    incubation_days: float = Field(
        default=4, description="Mean time from infection to being infectious [d]", gt=0, le=30
    )
    infectious_days: float = Field(default=6, description="Mean time of being infectious [d]", gt=0, le=60)
    immune: float = Field(default=0, description="Immune at the start, by vaccination say, over all people", ge=0, lt=1)
    seed_cases: float = Field(default=1e-4, description="Exposed at the start, over all people", gt=0, le=0.01)

    @property
    def computed_features(self) -> dict[str, float]:
        """What decides whether there is an epidemic at all."""
        return {"r_start": self.r0 * (1 - self.immune)}


class EpidemicOutput(ExperimentOutputSpec):
    """The epidemic in numbers; its curve is the dataframe `curve`."""

    attack_rate: float = Field(description="Infected in all, over all people", ge=0, le=1)
    peak: float = Field(description="Infectious at the peak, over all people", ge=0, le=1)
    peak_day: float = Field(description="When the peak is reached [d]", ge=0)
    duration: float = Field(description="Until the epidemic is over [d]", ge=0)


class NoOutbreak(ValueError):
    """Each case infects less than one other: what is asked for is not defined."""


@ExperimentRegistry.Register(retries=0)  # it would fail again
def epidemic(input_spec: EpidemicInput) -> EpidemicOutput:
    """Solves Kermack and McKendrick's equations with an incubation time until the epidemic is over."""
    r_start = input_spec.r0 * (1 - input_spec.immune)
    if r_start <= 1:
        raise NoOutbreak(f"one case infects {r_start:.2f} others at the start: there is no epidemic, and no peak")
    sigma, gamma = 1 / input_spec.incubation_days, 1 / input_spec.infectious_days
    beta = input_spec.r0 * gamma

    def change(_: float, y: np.ndarray) -> list[float]:
        susceptible, exposed, infectious, _ = y
        new = beta * susceptible * infectious
        return [-new, new - sigma * exposed, sigma * exposed - gamma * infectious, gamma * infectious]

    def over(_: float, y: np.ndarray) -> float:
        return y[1] + y[2] - OVER

    over.terminal = True  # type: ignore[attr-defined]
    first = [1 - input_spec.immune - input_spec.seed_cases, input_spec.seed_cases, 0.0, input_spec.immune]
    solved = solve_ivp(change, (0, HORIZON), first, "LSODA", dense_output=True, events=over, rtol=1e-7, atol=1e-11)
    end = float(solved.t[-1])

    days = np.arange(0, 366, 3.0)
    curve = np.clip(solved.sol(np.minimum(days, end)), 0, 1)  # after its end nothing changes
    fine = np.linspace(0, end, 2000)
    infectious = solved.sol(fine)[2]
    names = ["susceptible", "exposed", "infectious", "removed"]
    return EpidemicOutput(
        attack_rate=1 - input_spec.immune - float(solved.y[0, -1]),
        peak=float(infectious.max()),
        peak_day=float(fine[infectious.argmax()]),
        duration=end,
        dataframes={"curve": pl.DataFrame({"day": days, **dict(zip(names, curve, strict=True))})},
    )

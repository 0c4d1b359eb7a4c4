"""Learns what a rooftop PV system yields from as few simulations as it can: sample, run, train, look where it errs, grow.

python examples/surrogate/main.py [--threshold 3.2] [--seeds 3] [--engine local] [--plot surrogate.png]

It can be stopped at any moment and started again: what was simulated is not simulated again.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from plot import plot
from roof import RoofInput, roof
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

import scythe
from scythe import BaseExperiment

BATCH, CANDIDATES, HELD_OUT, ROUNDS = 50, 2000, 400, 8
FIELDS = ["tilt", "azimuth", "dc_ac_ratio", "losses"]
STUDY = BaseExperiment(roof)


@dataclass
class Grown:
    """How a surrogate got better as its training set grew."""

    simulations: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    specs: pl.DataFrame = field(default_factory=pl.DataFrame)


def features(x: Any) -> Any:
    """What the model sees of inputs: the azimuth goes around."""
    tilt, azimuth, ratio, losses = np.asarray(x, float).T
    around = np.radians(azimuth)
    return np.column_stack([tilt / 90, np.cos(around), np.sin(around), ratio / 3, losses / 40])


def simulated(specs: pl.DataFrame, engine: str | None, note: str) -> dict[str, Any]:
    """Inputs and outputs as arrays; those that are known are not simulated again."""
    run, ref = STUDY.allocate(specs, reuse=True, engine=engine, note=note)
    ref.result()
    data = scythe.dataset(roof, run=run, x=FIELDS, y="specific_yield", dtype="float64")
    return data.batches(len(data), seed=0).at(0)[0]


def trained(data: dict[str, Any]) -> Any:
    """A Gaussian process, which knows where it knows little."""
    kernel = ConstantKernel() * Matern(np.ones(5), (1e-2, 1e3), nu=2.5) + WhiteKernel(1e-6, (1e-10, 1e-2))
    model: Any = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    return model.fit(features(data["x"]), data["y"])


def least_known(model: Any, x: Any) -> list[int]:
    """A batch of candidates, each the one that is least known once those before it are."""
    covariance = model.predict(features(x), return_cov=True)[1]
    variance, chosen, known = covariance.diagonal().copy(), [], np.zeros((BATCH, len(x)))
    for i in range(BATCH):
        at = int(variance.argmax())
        known[i] = (covariance[at] - known[:i, at] @ known[:i]) / np.sqrt(variance[at])
        variance = np.maximum(variance - known[i] ** 2, 0)
        variance[[*chosen, at]] = 0
        chosen.append(at)
    return chosen


def grown(how: str, seed: int, truth: dict[str, Any], engine: str | None, threshold: float, most: int) -> Grown:
    """Grows a training set by batches, until the held-out error is small enough or it has `most` rows."""
    found = Grown(specs=scythe.sample(RoofInput, BATCH, "random", seed=seed).with_columns(round=pl.lit(0)))
    for number in range(1, ROUNDS + 1):
        model = trained(simulated(found.specs.drop("round"), engine, f"{how}, seed {seed}, round {number}"))
        off = model.predict(features(truth["x"])) - truth["y"]
        found.simulations.append(found.specs.height)
        found.errors.append(float(np.sqrt(np.mean(off**2))))
        print(f"{how:<12} seed {seed}  {found.specs.height:>4} simulations  error {found.errors[-1]:6.2f} kWh/kW")
        if found.errors[-1] < threshold or found.specs.height >= most:
            break
        candidates = scythe.sample(RoofInput, CANDIDATES, "random", seed=1000 * (seed + 1) + number)
        chosen = least_known(model, candidates.select(FIELDS).to_numpy()) if how == "least known" else range(BATCH)
        more = candidates[list(chosen)].with_columns(round=pl.lit(number))
        found.specs = pl.concat([found.specs, more])
    return found


def main() -> None:
    """Grows where the surrogate knows least until it is good enough, and at random to the same number of simulations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threshold", type=float, default=3.2, help="held-out error to come to [kWh/kW]")
    parser.add_argument("--seeds", type=int, default=3, help="how often, from other first samples")
    parser.add_argument("--engine", default=None, help="inline, local (the default) or hatchet")
    parser.add_argument("--plot", type=Path, default=Path("surrogate.png"), help="where to save the plot")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # of a kernel's bounds, which are wide on purpose

    truth = simulated(scythe.sample(RoofInput, HELD_OUT, seed=99), args.engine, "held out")
    pairs: list[tuple[Grown, Grown]] = []
    for seed in range(args.seeds):
        best = grown("least known", seed, truth, args.engine, args.threshold, BATCH * ROUNDS)
        pairs.append((best, grown("at random", seed, truth, args.engine, 0, best.simulations[-1])))
    ratios = [best.errors[-1] / other.errors[-1] for best, other in pairs]
    print(f"\nat equal numbers of simulations the error is {1 - np.mean(ratios):.0%} lower than with random growth")
    print(
        f"(seed by seed: {', '.join(f'{1 - ratio:.0%}' for ratio in ratios)}); a mean yield is {np.mean(truth['y']):,.0f} kWh/kW"
    )
    print(f"plot: {plot(pairs, args.threshold, args.plot)}")


if __name__ == "__main__":
    main()

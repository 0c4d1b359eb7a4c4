"""Runs epidemics of many diseases, reads the table back, shows what failed and plots.

python examples/epidemic/main.py [--n 300] [--engine local] [--plot epidemic.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import polars.selectors as cs
from epidemic import epidemic
from scipy.special import lambertw

import scythe
from scythe import BaseExperiment

SHOWN = ["r0", "immune", "r_start", "attack_rate", "peak", "peak_day"]
INK, FAINT, RED = "#1f2933", "#9aa5b1", "#d1495b"
STYLE = {
    "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlesize": 11, "grid.color": "#e4e7eb", "axes.axisbelow": True,
}  # fmt: skip


def sample(n: int) -> pl.DataFrame:
    """Diseases spread over the design space: the same ones every time. Some of them cannot spread."""
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "r0": rng.uniform(1.2, 5, n).round(2),
            "incubation_days": rng.uniform(1, 8, n).round(1),
            "infectious_days": rng.uniform(3, 12, n).round(1),
            "immune": rng.uniform(0, 0.5, n).round(2),
        }
    )


def final_size(r0: np.ndarray, immune: float) -> np.ndarray:
    """Who is infected in the end, in closed form: s = s0 exp(-r0 (s0 - s))."""
    start = 1 - immune
    return start + np.real(lambertw(-r0 * start * np.exp(-r0 * start))) / r0


def plot(table: pl.DataFrame, curves: pl.DataFrame, errors: pl.DataFrame, path: Path) -> Path:
    """Saves two pictures side by side: the curves, and how many are infected in the end."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colors = mpl.colormaps["viridis_r"]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
        _curves(left, curves, lambda r: colors((r - 1) / 4))
        dots = right.scatter(table["r0"], table["attack_rate"], c=table["immune"], cmap="viridis", s=16, lw=0)
        r0 = np.linspace(1.001, 5, 200)
        right.plot(r0, final_size(r0, 0.0), color=INK, lw=1, label="final size if nobody is immune, in closed form")
        right.plot(errors["r0"], [0] * errors.height, "x", color=RED, ms=5, label="failed: no outbreak")
        right.set(xlabel="Basic reproduction number", ylabel="Infected in all", title="How many it reaches")
        right.grid(axis="y")
        right.legend(frameon=False, loc="upper left", fontsize=9)
        right.set_ylim(-0.03, 1.2)
        bar = figure.colorbar(dots, ax=right, label="Immune at the start")
        bar.outline.set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)
    return path


def _curves(ax: Any, curves: pl.DataFrame, color: Any) -> None:
    """Medians and the middle 80 % of epidemics of like strength at their start."""
    bounds = [(1, 1.5), (1.5, 2.5), (2.5, 5)]
    for low, high in bounds:
        group = curves.filter(pl.col("r_start").is_between(low, high, closed="left"))
        bands = group.group_by("day").agg(
            low=pl.quantile("infectious", 0.1), mid=pl.median("infectious"), high=pl.quantile("infectious", 0.9)
        )
        bands = bands.sort("day")
        shade = color((low + high) / 2)
        ax.fill_between(bands["day"], bands["low"], bands["high"], color=shade, alpha=0.25, lw=0)
        ax.plot(bands["day"], bands["mid"], color=shade, lw=2, label=f"{low:g} to {high:g}")
    ax.set(xlabel="Day", ylabel="Infectious", title="The curve (lines: median, bands: middle 80 %)", xlim=(0, 300))
    ax.set_ylim(bottom=0)
    ax.grid(axis="y")
    ax.legend(frameon=False, title="Others infected by the first case")


def main() -> None:
    """Allocates, waits, reads, prints and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="number of epidemics")
    parser.add_argument("--engine", default=None, help="inline, local (the default) or hatchet")
    parser.add_argument("--plot", type=Path, default=Path("epidemic.png"), help="where to save the plot")
    args = parser.parse_args()

    run, ref = BaseExperiment(epidemic).allocate(sample(args.n), version="auto", engine=args.engine)
    result = ref.result()

    table = scythe.read(epidemic, run=run, ids=False)
    curves = scythe.read(epidemic, run=run, table="curve")
    errors = scythe.read(epidemic, run=run, table="errors")
    print(f"\n{result.rows:,} epidemics in {result.seconds:.1f} s, {result.errors:,} failed, in {run.uri}")
    with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(table.select(SHOWN).head(5).with_columns(cs.float().round(3)))
    if result.errors:
        weakest, strongest = table["r_start"].min(), errors["r_start"].max()
        print(f"\n{result.errors_told}")
        print(f"Those that failed have r_start up to {strongest:.2f}, the others from {weakest:.2f} on.")
    print(f"\nplot: {plot(table, curves, errors, args.plot)}")


if __name__ == "__main__":
    main()

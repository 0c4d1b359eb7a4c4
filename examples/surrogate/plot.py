"""One picture of the loop: the error against simulations, both ways, and where it looked, by round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

INK, MUTED, KNOWN, RANDOM = "#1f2933", "#616e7c", "#1d6fa5", "#c8553d"
STYLE = {
    "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#9aa5b1", "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlesize": 11, "figure.facecolor": "white", "grid.color": "#e4e7eb",
}  # fmt: skip


def plot(pairs: list[tuple[Any, Any]], threshold: float, path: Path) -> Path:
    """Saves the picture as PNG and returns its path."""
    with plt.rc_context(STYLE):
        figure, (errors, around, electric) = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
        _errors(errors, pairs, threshold)
        specs = pairs[0][0].specs
        last = max(int(specs["round"].max()), 1)
        colors = plt.get_cmap("viridis", last + 1)
        for ax, x, y, title in (
            (around, "azimuth", "tilt", "Where it looked: how a roof lies [deg]"),
            (electric, "dc_ac_ratio", "losses", "and what hangs on it"),
        ):
            dots = ax.scatter(specs[x], specs[y], c=specs["round"], cmap=colors, vmin=-0.5, vmax=last + 0.5, s=22, lw=0)
            ax.set(xlabel=_LABELS[x], ylabel=_LABELS[y], title=title)
        around.set_xticks([0, 90, 180, 270, 360])
        bar = figure.colorbar(dots, ax=electric, ticks=range(last + 1))
        bar.set_label("Round")
        bar.outline.set_visible(False)
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path


_LABELS = {
    "azimuth": "Azimuth [deg]", "tilt": "Tilt [deg]", "dc_ac_ratio": "DC/AC ratio [kW/kW]", "losses": "Losses [%]",
}  # fmt: skip


def _errors(ax: Any, pairs: list[tuple[Any, Any]], threshold: float) -> None:
    for which, (color, label) in enumerate(((KNOWN, "where it knows least"), (RANDOM, "at random"))):
        runs = [pair[which] for pair in pairs]
        for run in runs:
            ax.plot(run.simulations, run.errors, color=color, lw=0.8, alpha=0.45)
        shared = min(len(run.errors) for run in runs)
        means = np.mean([run.errors[:shared] for run in runs], axis=0)
        ax.plot(runs[0].simulations[:shared], means, color=color, lw=2.4, marker="o", ms=5, label=label)
    ax.axhline(threshold, color=MUTED, lw=1, ls=(0, (4, 3)))
    ax.text(pairs[0][0].simulations[0], threshold, "threshold", va="bottom", color=MUTED, fontsize=9)
    ax.set_yscale("log")
    ax.set_yticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
    ax.minorticks_off()
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set(
        xlabel="Simulations",
        ylabel="Held-out error [kWh/kW]",
        title=f"Error as the training set grows ({len(pairs)} seeds)",
    )
    ax.legend(frameon=False)

"""One picture of a run: where to point a PV system, how large an inverter it needs, and what the months bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from numpy.typing import NDArray

Array = NDArray[np.float64]

INK, FAINT = "#1f2933", "#9aa5b1"
COLORS = {"Sand Point": "#3b6fb6", "Piedmont": "#2a9d8f", "Greensboro": "#e09f1f", "Miami": "#d1495b"}
WHERE = {
    "Sand Point": "Alaska, 55° N",
    "Piedmont": "Italy, 45° N",
    "Greensboro": "North Carolina, 36° N",
    "Miami": "Florida, 26° N",
}
MONTHS = "JFMAMJJASOND"
#: The DC/AC ratio at which the surfaces are drawn, and how many simulations of a site they need.
RATIO, ENOUGH = 1.2, 60
STYLE = {
    "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlesize": 11, "figure.facecolor": "white", "grid.color": "#e4e7eb",
}  # fmt: skip


def plot(yields: pl.DataFrame, monthly: pl.DataFrame, path: Path) -> Path:
    """Saves the picture as PNG and returns its path."""
    sites = [site for site in COLORS if site in yields["site"].unique().to_list()]
    levels = np.linspace(*_range(yields), 15)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(13, 8.6), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[1.12, 1])
        polar: Any = above.subplots(1, len(sites), subplot_kw={"projection": "polar"}, squeeze=False)[0]
        mappable = None
        for ax, site in zip(polar, sites, strict=True):
            mappable = _orientation(ax, site, yields.filter(pl.col("site") == site), levels)
        bar = above.colorbar(mappable, ax=polar, shrink=0.72, pad=0.02, aspect=18, format="%d", ticks=levels[::2])
        bar.set_label("Yield [kWh/kW a]")
        bar.outline.set_visible(False)
        left, right = below.subplots(1, 2)
        _clipping(left, yields, sites)
        _months(right, yields, monthly, sites)
        figure.suptitle(
            f"Rooftop PV: {yields.height:,} simulated systems", x=0.012, ha="left", fontsize=16, fontweight="bold"
        )
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path


def _range(yields: pl.DataFrame) -> tuple[float, float]:
    column = yields["specific_yield"]
    return float(np.floor(column.min() / 100) * 100), float(np.ceil(column.max() / 100) * 100)  # pyright: ignore


def _basis(tilt: Array, azimuth: Array, ratio: Array) -> Array:
    """Polynomials in the direction that the plane faces, and how the DC/AC ratio bends them."""
    t, a = np.radians(tilt), np.radians(azimuth)
    x, y, z = np.sin(t) * np.sin(a), np.sin(t) * np.cos(a), np.cos(t)
    shape = [x**i * y**j * z**k for i in range(4) for j in range(4 - i) for k in (0, 1) if i + j + k < 4]
    r = ratio - 1
    return np.column_stack([*shape, *(s * r**p for p in (1, 2) for s in (np.ones_like(r), x, y, z))])


def _orientation(ax: Any, site: str, rows: pl.DataFrame, levels: Array) -> Any:
    """A compass seen from above: azimuth around, tilt outwards, the yield as colour."""
    tilt, azimuth, energy = (rows[name].to_numpy() for name in ("tilt", "azimuth", "specific_yield"))
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    dots = {"c": energy, "cmap": "inferno", "vmin": levels[0], "vmax": levels[-1]}
    ax.grid(False)
    if rows.height >= ENOUGH:
        weights = np.linalg.lstsq(_basis(tilt, azimuth, rows["dc_ac_ratio"].to_numpy()), energy, rcond=None)[0]
        angles, tilts = np.meshgrid(np.linspace(0, 360, 181), np.linspace(0, 60, 61))
        flat = _basis(tilts.ravel(), angles.ravel(), np.full(tilts.size, RATIO)) @ weights
        surface = flat.reshape(tilts.shape)
        ax.contourf(np.radians(angles), tilts, surface, levels=levels, cmap="inferno", extend="both")
        best = np.unravel_index(surface.argmax(), surface.shape)
        ax.plot(np.radians(angles[best]), tilts[best], marker="*", ms=15, mfc="white", mec=INK, mew=0.8, zorder=4)
        note = f"best {surface[best]:,.0f} at {tilts[best]:.0f}°, {angles[best]:.0f}°"
    else:
        note = f"best of {rows.height}: {energy.max():,.0f}"
    points = ax.scatter(np.radians(azimuth), tilt, s=13, edgecolors="white", linewidths=0.45, zorder=3, **dots)
    ax.set_ylim(0, 60)
    ax.set_yticks([20, 40, 60], ["20°", "40°", ""], fontsize=8, color="white")
    ax.set_rlabel_position(45)
    ax.set_xticks(np.radians([0, 90, 180, 270]), ["N", "E", "S", "W"], fontsize=9)
    ax.tick_params(pad=-1)
    ax.spines["polar"].set_visible(False)
    ax.set_title(f"{site}", loc="center", color=COLORS[site], fontsize=13, pad=22)
    ax.text(0.5, 1.115, WHERE[site], transform=ax.transAxes, ha="center", fontsize=9, color=INK)
    ax.text(0.5, -0.15, note, transform=ax.transAxes, ha="center", fontsize=9.5, color=INK)
    return points


def _clipping(ax: Any, yields: pl.DataFrame, sites: list[str]) -> None:
    """What the inverter throws away."""
    for site in sites:
        rows = yields.filter(pl.col("site") == site)
        ax.scatter(
            rows["dc_ac_ratio"], rows["clipping_loss"] * 100, s=16, color=COLORS[site], alpha=0.75, lw=0, label=site
        )
    ax.set_title("Energy lost to clipping")
    ax.set_xlabel("DC/AC ratio [kW/kW]")
    ax.set_ylabel("Clipping loss [% of DC energy]")
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="upper left", handletextpad=0.2)


def _months(ax: Any, yields: pl.DataFrame, monthly: pl.DataFrame, sites: list[str]) -> None:
    """The year of each site's best system, within the range of all."""
    ends: list[tuple[float, str]] = []
    for site in sites:
        rows = monthly.filter(pl.col("site") == site)
        best = yields.filter(pl.col("site") == site).sort("specific_yield")[-1]
        line = rows.filter(pl.col("sort_index") == best["sort_index"][0]).sort("month")["ac_energy"].to_numpy()
        spread = rows.group_by("month").agg(low=pl.min("ac_energy"), high=pl.max("ac_energy")).sort("month")
        ax.fill_between(spread["month"], spread["low"], spread["high"], color=COLORS[site], alpha=0.09, lw=0)
        ax.plot(range(1, 13), line, color=COLORS[site], lw=2.2, marker="o", ms=4)
        ends.append((float(line[-1]), site))
    for height, site in _apart(ends, 9.0):
        ax.annotate(site, (12.2, height), color=COLORS[site], fontweight="bold", va="center", annotation_clip=False)
    ax.set_title("A year of each site's best system (bands: all systems)")
    ax.set_xticks(range(1, 13), list(MONTHS))
    ax.set_xlim(0.8, 13.6)
    ax.set_ylim(bottom=0)
    ax.spines["bottom"].set_bounds(1, 12)
    ax.set_ylabel("AC energy [kWh/kW]")
    ax.grid(axis="y")
    ax.set_axisbelow(True)


def _apart(labels: list[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Labels moved up so far that no two overlap."""
    placed: list[tuple[float, str]] = []
    for height, text in sorted(labels):
        placed.append((max(height, placed[-1][0] + least) if placed else height, text))
    return placed

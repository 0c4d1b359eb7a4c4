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

INK, MUTED, FAINT = "#1f2933", "#616e7c", "#9aa5b1"
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
    levels = _levels(yields["specific_yield"].to_numpy())
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(13, 8.8), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        above, below = figure.subfigures(2, 1, height_ratios=[1.05, 1])
        polar: Any = above.subplots(1, len(sites), subplot_kw={"projection": "polar"}, squeeze=False)[0]
        mappable = None
        for ax, site in zip(polar, sites, strict=True):
            mappable = _orientation(ax, site, yields.filter(pl.col("site") == site), levels)
        bar = above.colorbar(mappable, ax=polar, shrink=0.78, pad=0.015, aspect=20)
        bar.set_label("Specific yield [kWh/kW]")
        bar.outline.set_visible(False)
        above.suptitle(
            f"Specific yield of {yields.height:,} rooftop PV systems by orientation",
            x=0.012, ha="left", fontsize=15, fontweight="bold",
        )  # fmt: skip
        above.supxlabel(
            f"Angle: azimuth, radius: tilt (0 to 60°). Dots: simulated systems. Surface: a polynomial fitted to them, "
            f"at DC/AC = {RATIO}. Star: its best orientation.",
            x=0.012, ha="left", fontsize=9, color=MUTED,
        )  # fmt: skip
        left, right = below.subplots(1, 2)
        _clipping(left, yields, sites)
        _months(right, yields, monthly, sites)
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path


def _levels(energy: Array) -> Array:
    """Round steps of 50 kWh/kW that hold all values."""
    return np.arange(np.floor(energy.min() / 50), np.floor(energy.max() / 50) + 2) * 50


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
    if rows.height >= ENOUGH:
        weights = np.linalg.lstsq(_basis(tilt, azimuth, rows["dc_ac_ratio"].to_numpy()), energy, rcond=None)[0]
        angles, tilts = np.meshgrid(np.linspace(0, 360, 181), np.linspace(0, 60, 61))
        flat = _basis(tilts.ravel(), angles.ravel(), np.full(tilts.size, RATIO)) @ weights
        surface = flat.reshape(tilts.shape)
        ax.contourf(np.radians(angles), tilts, surface, levels=levels, cmap="inferno", extend="both")
        best = np.unravel_index(surface.argmax(), surface.shape)
        ax.plot(np.radians(angles[best]), tilts[best], marker="*", ms=17, mfc="white", mec=INK, mew=0.9, zorder=4)
        note = f"{surface[best]:,.0f} kWh/kW\nat tilt {tilts[best]:.0f}°, azimuth {angles[best]:.0f}°"
    else:
        note = f"{energy.max():,.0f} kWh/kW\nthe best of {rows.height}"
        ax.set_facecolor("#d5dae0")
    points = ax.scatter(np.radians(azimuth), tilt, s=15, edgecolors="white", linewidths=0.6, zorder=3, **dots)
    ax.set_ylim(0, 60)
    ax.set_yticks([20, 40], ["", ""])
    ax.set_xticks(np.radians([0, 90, 180, 270]), ["N", "E", "S", "W"], fontsize=9)
    ax.tick_params(pad=-2)
    ax.grid(True, color="white", alpha=0.35, lw=0.7)
    ax.set_axisbelow(False)
    ax.spines["polar"].set_visible(False)
    ax.set_title(site, loc="center", color=COLORS[site], fontsize=13, pad=35)
    ax.text(0.5, 1.13, WHERE[site], transform=ax.transAxes, ha="center", fontsize=9, color=MUTED)
    ax.text(0.5, -0.11, note, transform=ax.transAxes, ha="center", va="top", fontsize=9.5, linespacing=1.35)
    return points


def _clipping(ax: Any, yields: pl.DataFrame, sites: list[str]) -> None:
    """What the inverter throws away."""
    for site in sites:
        rows = yields.filter(pl.col("site") == site)
        loss = 100 * rows["clipping_loss"]
        ax.scatter(rows["dc_ac_ratio"], loss, s=14, color=COLORS[site], alpha=0.45, lw=0)
        bins = (pl.col("dc_ac_ratio") * 10).floor().clip(upper_bound=19) / 10 + 0.05
        means = rows.group_by(bins.alias("ratio")).agg(loss=100 * pl.mean("clipping_loss")).sort("ratio")
        ax.plot(means["ratio"], means["loss"], color=COLORS[site], lw=2.2, label=site)
    ax.set_title("Clipping by the inverter (lines: mean of all orientations)")
    ax.set_xlabel("DC/AC ratio [kW/kW]")
    ax.set_ylabel("DC energy beyond the inverter's limit [%]")
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="upper left")


def _months(ax: Any, yields: pl.DataFrame, monthly: pl.DataFrame, sites: list[str]) -> None:
    """The year of each site's best system."""
    ends: list[tuple[float, str]] = []
    for site in sites:
        rows = monthly.filter(pl.col("site") == site)
        best = yields.filter(pl.col("site") == site).sort("specific_yield")[-1]
        line = rows.filter(pl.col("sort_index") == best["sort_index"][0]).sort("month")["ac_energy"].to_numpy()
        ax.plot(range(1, 13), line, color=COLORS[site], lw=2.2, marker="o", ms=4)
        ends.append((float(line[-1]), site))
    for height, site in _apart(ends, 9.0):
        ax.annotate(site, (12.2, height), color=COLORS[site], fontweight="bold", va="center", annotation_clip=False)
    ax.set_title("Monthly energy of each site's best system")
    ax.set_xticks(range(1, 13), list(MONTHS))
    ax.set_xlim(0.8, 13.9)
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

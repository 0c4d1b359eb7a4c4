"""Facts drawn as SVG by Matplotlib, to stand in a page: colours are the page's, text is text. Computes no facts.

Nothing of a figure depends on light or dark: each colour is a variable of the page's style, and images of densities are
one colour with more or less of it. So a page needs neither a script nor a second set of figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from scythe.errors import ReportError
from scythe.reporting.facts import Band, Failing, FailureMap, Grid, Machine, Middle, Relation, Scale, Spread
from scythe.reporting.spreads import GROUPED, cut, shown
from scythe.reporting.svg import ACCENT, BAD, FONT, LINE, QUIET, STRONG, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What densities are drawn in, light or dark: red, green, blue.
_DENSITY, _GOOD_DENSITY, _BAD_DENSITY = (20, 150, 140), (125, 143, 146), (225, 55, 60)
SMALL, WIDE = (236, 142), (390, 190)
#: A step between marks that is less than this part of the values is written as a difference.
_NARROW = 1e-5
_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
_LABEL_LETTERS, _WORKER_LETTERS = 14, 18
#: Where the calendar begins and ends, with room [days since 1970]; and how many days Matplotlib's marks are not made for.
_FIRST_DAY, _LAST_DAY, _CENTURIES = -719_000.0, 2_932_800.0, 365 * 400.0


def check_extra() -> None:
    """Nothing where the library that draws is installed.

    Raises:
        ReportError: it is not.
    """
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise ReportError(
            f"reports are drawn by Matplotlib, which cannot be imported ({error}): pip install matplotlib"
        ) from error


# --- the figures ------------------------------------------------------------------------------------------


def histogram(spread: Spread, *, wide: bool = False) -> str:
    """How many rows lie in each bin, or in each category."""
    assert spread.scale is not None
    name = f"Histogram of {spread.variable.name}"
    return _histogram(WIDE if wide else SMALL, name, spread.scale, [(spread.counts, ACCENT)], spread.span)


def relation(one: Relation) -> str:
    """An output over an input: where the rows lie, the median and the band of nine tenths."""
    name = f"{one.output.name} against {one.input.name}"
    with figure(SMALL, name, left=_label_room(one.output_scale)) as (axes, made):
        if one.points:
            xs, ys = zip(*one.points, strict=True)
            size = min(5.0, max(2.6, 35 / len(xs) ** 0.5))  # few are to be seen, many not to hide each other
            axes.plot(
                xs, ys, linestyle="none", marker="o", markersize=size, color=ACCENT, alpha=0.55, markeredgewidth=0
            )
        else:
            _density(axes, one.grid, one.input_scale, one.output_scale, _DENSITY)
        _middle_lines(axes, one.middles, one.input_scale)
        _along_x(axes, one.input_scale)
        _along_y(axes, one.output_scale)
    return made[0]


def failing(one: Failing) -> str:
    """The inputs along one of them, those that failed in their own colour at the bottom of each bar."""
    both = tuple(g + b for g, b in zip(one.good, one.bad, strict=True))
    name = f"Failed inputs along {one.variable.name}"
    return _histogram(SMALL, name, one.scale, [(both, LINE), (one.bad, BAD)])


def failure_map(one: FailureMap) -> str:
    """Good inputs as a density, failed ones as crosses or, where they are many, as a second density."""
    name = f"Failed inputs in the plane of {one.x.name} and {one.y.name}"
    with figure((390, 230), name, left=_label_room(one.y_scale)) as (axes, made):
        _density(axes, one.good, one.x_scale, one.y_scale, _GOOD_DENSITY)
        if one.points:
            xs, ys = zip(*one.points, strict=True)
            axes.plot(xs, ys, linestyle="none", marker="x", markersize=4, markeredgewidth=1.1, color=BAD, clip_on=False)
        else:
            _density(axes, one.bad, one.x_scale, one.y_scale, _BAD_DENSITY)
        _along_x(axes, one.x_scale)
        _along_y(axes, one.y_scale)
    return made[0]


def at_work(one: Machine) -> str:
    """How many workers were at work over time."""
    with figure(WIDE, "Workers at work over time", left=FONT * 4) as (axes, made):
        axes.stairs(one.at_work, one.edges, fill=True, color=ACCENT, alpha=0.75, linewidth=0)
        axes.axhline(one.count, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlim(one.edges[0], one.edges[-1])
        axes.set_ylim(0, one.count * 1.08)
        _time_ticks(axes, one.edges[-1])
        ticks = [0, one.count // 2, one.count] if one.count % 2 == 0 else [0, one.count]
        axes.set_yticks(ticks, [f"{t:,}" for t in ticks])
    return made[0]


def workers(one: Machine) -> str:
    """A line a worker: the more colour, the busier it was."""
    size = (WIDE[0], 34 + 13 * len(one.workers))
    names = [cut(name, _WORKER_LETTERS) for name in reversed(one.workers)]
    left = 14 + FONT * 0.58 * max(map(len, names))
    with figure(size, "Each worker over time", left=left, flat=True) as (axes, made):
        _image(axes, np.asarray(one.busy)[::-1], _DENSITY, (0.0, one.edges[-1], -0.5, len(names) - 0.5))
        for line in range(1, len(names)):
            axes.axhline(line - 0.5, color=LINE, linewidth=0.6)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        _time_ticks(axes, one.edges[-1])
    return made[0]


def band(one: Band) -> str:
    """A column of a dataframe over the first one: median and the band of nine tenths."""
    with figure(SMALL, f"{one.y.name} over {one.x.name} of {one.frame}", left=FONT * 4) as (axes, made):
        at = [m.at for m in one.middles]
        lows, highs = [m.low for m in one.middles], [m.high for m in one.middles]
        axes.fill_between(at, lows, highs, color=ACCENT, alpha=0.22, linewidth=0)
        axes.plot(at, [m.median for m in one.middles], color=ACCENT, linewidth=1.6)
        axes.margins(x=0)
        low, high = min(lows), max(highs)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        axes.set_ylim(low - room, high + room)
        _ticks(axes.yaxis, low, high, Scale("number"), 4)
        _along_x(axes, one.x_scale)
    return made[0]


# --- their parts ------------------------------------------------------------------------------------------


def _histogram(
    size: tuple[float, float],
    name: str,
    scale: Scale,
    bars: Sequence[tuple[Sequence[int], str]],
    span: tuple[float, float] | None = None,
) -> str:
    """Counts along a scale, each in its colour; the first are the tallest, the others stand before them."""
    is_category = scale.kind == "category"
    with figure(size, name, left=_label_room(scale) if is_category else 8, flat=True) as (axes, made):
        if is_category:
            _category_bars(axes, scale, bars)
        else:
            for counts, colour in bars:
                axes.stairs(counts, scale.edges, fill=True, color=colour, linewidth=0)
            axes.set_ylim(0, max(axes.get_ylim()[1], 1))
            _along_x(axes, scale, span)
            axes.set_yticks([])
    return made[0]


def _category_bars(axes: Axes, scale: Scale, bars: Sequence[tuple[Sequence[int], str]]) -> None:
    places = np.arange(len(scale.labels))
    for counts, colour in bars:
        axes.barh(places, counts, height=0.68, color=colour, linewidth=0)
    axes.invert_yaxis()
    axes.set_yticks(places, [cut(label, _LABEL_LETTERS) for label in scale.labels])
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([])
    most = max(1, *bars[0][0])
    axes.set_xlim(0, most * 1.22)
    for place, count in enumerate(bars[0][0]):
        axes.text(count + most * 0.02, place, f"{count:,}", va="center", fontsize=FONT - 0.5, color=QUIET)
    axes.spines["bottom"].set_visible(False)


def _middle_lines(axes: Axes, middles: Sequence[Middle], scale: Scale) -> None:
    at, median = [m.at for m in middles], [m.median for m in middles]
    if scale.kind == "category":
        axes.vlines(at, [m.low for m in middles], [m.high for m in middles], color=STRONG, linewidth=1.2)
        axes.plot(at, median, linestyle="none", marker="o", markersize=5, color=STRONG)
    elif len(middles) > 1:
        axes.plot(at, median, color=STRONG, linewidth=1.6)
        for edge in ([m.low for m in middles], [m.high for m in middles]):
            axes.plot(at, edge, color=STRONG, linewidth=0.7, linestyle=(0, (3, 2)))


def _density(axes: Axes, grid: Grid, x: Scale, y: Scale, colour: tuple[int, int, int]) -> None:
    """Counts in the plane as one colour, the more the denser; nothing where there is none."""
    counts = np.asarray(grid, float).T
    if not counts.size or not counts.max():
        return
    if x.kind == "category":  # how the output spreads within each category, however many rows that has
        counts = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    alpha = np.where(counts > 0, 0.12 + 0.78 * np.sqrt(counts / counts.max()), 0)
    _image(axes, alpha, colour, (0.0, float(alpha.shape[1]), 0.0, float(alpha.shape[0])), over=True)


def _image(
    axes: Axes,
    alpha: np.ndarray,
    colour: tuple[int, int, int],
    extent: tuple[float, float, float, float],
    *,
    over: bool = False,
) -> None:
    """An image of one colour; with `over` it fills the figure, whatever the scales of its axes."""
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.round(np.clip(alpha, 0, 1) * 255)
    where: Any = (0, 1, 0, 1) if over else extent
    transform: dict[str, Any] = {"transform": axes.transAxes} if over else {}
    axes.imshow(pixels, origin="lower", aspect="auto", interpolation="none", extent=where, **transform)


def _along_x(axes: Axes, scale: Scale, span: tuple[float, float] | None = None) -> None:
    """Limits and marks of the lower axis."""
    if scale.kind == "category":
        axes.set_xlim(-0.5, len(scale.labels) - 0.5)
        room = max(3, int(36 / max(1, len(scale.labels))))
        axes.set_xticks(range(len(scale.labels)), [cut(label, room) for label in scale.labels])
        axes.tick_params(axis="x", length=0)
        return
    if scale.log:
        axes.set_xscale("log")
    low, high = span or (scale.edges[0], scale.edges[-1])
    axes.set_xlim(low, high)
    _ticks(axes.xaxis, low, high, scale, 5)


def _along_y(axes: Axes, scale: Scale) -> None:
    """Limits and marks of the left axis."""
    if scale.kind == "category":
        axes.set_ylim(-0.5, len(scale.labels) - 0.5)
        axes.set_yticks(range(len(scale.labels)), [cut(label, _LABEL_LETTERS) for label in scale.labels])
        axes.tick_params(axis="y", length=0)
        return
    if scale.log:
        axes.set_yscale("log")
    axes.set_ylim(scale.edges[0], scale.edges[-1])
    _ticks(axes.yaxis, scale.edges[0], scale.edges[-1], scale, 4)


def _ticks(axis: Any, low: float, high: float, scale: Scale, most: int) -> None:
    """A few marks at round values, written as people write them."""
    from matplotlib import ticker

    axis.set_minor_locator(ticker.NullLocator())
    if scale.kind == "time":
        if high - low > _CENTURIES or not _FIRST_DAY < low <= high < _LAST_DAY:
            _year_ticks(axis, low, high, most)
        else:
            _date_ticks(axis)
        return
    if scale.log:
        exponents = range(int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9)) + 1)
        step = max(1, round(len(exponents) / most))
        values = [10.0**e for e in exponents][::step]
        labels = [shown(v) for v in values]
    else:
        locator = ticker.MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=scale.whole)
        values = [v for v in locator.tick_values(low, high) if low <= v <= high]
        labels = _labels(values)
    axis.set_major_locator(ticker.FixedLocator(values))
    axis.set_major_formatter(ticker.FixedFormatter(labels))


def _labels(values: Sequence[float]) -> list[str]:
    """Round values with as many decimals as tell them apart."""
    if len(values) < 2:
        return [shown(v) for v in values]
    step, largest = values[1] - values[0], max(abs(v) for v in values)
    if step < largest * _NARROW:
        return [f"+{shown(v - values[0])}" for v in values]
    if largest >= 1e6 or largest < 1e-3:
        digits = max(1, int(np.ceil(np.log10(largest / step))) + 1)
        told = [f"{v:.{digits}g}" for v in values]
        return [t.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e").replace("-", "−") for t in told]
    decimals = max(0, -int(np.floor(np.log10(step) + 1e-9)))
    if round(step * 10**decimals, 6) % 1:
        decimals += 1
    comma = "," if largest >= GROUPED else ""
    return [f"{v + 0.0:{comma}.{decimals}f}".replace("-", "−") for v in values]


def _date_ticks(axis: Any) -> None:
    from matplotlib import dates

    locator = dates.AutoDateLocator(minticks=2, maxticks=5)
    locator.set_axis(axis)
    axis.set_major_locator(locator)
    axis.set_major_formatter(dates.ConciseDateFormatter(locator, show_offset=False))


def _year_ticks(axis: Any, low: float, high: float, most: int) -> None:
    """Marks at years, for what reaches as far as the calendar does, beyond which Matplotlib's have no date; else at both ends."""
    from matplotlib import ticker

    year = 365.2425  # days since 1970, as the scale
    values = ticker.MaxNLocator(most, integer=True).tick_values(low / year + 1970, high / year + 1970)
    years = [int(v) for v in values if v >= 1]
    places = {(y - 1970) * year: f"{y}" for y in years if low <= (y - 1970) * year <= high}
    if len(places) < 2:
        places = {value: shown(value, "time") for value in (low, high)}
    axis.set_ticks(list(places), list(places.values()))


def _time_ticks(axes: Axes, seconds: float) -> None:
    """Marks of a time since a start, in the unit that fits."""
    size, unit = next(((s, u) for s, u in _UNITS if seconds >= 2 * s), (1e-6, "µs"))
    from matplotlib import ticker

    values = [v for v in ticker.MaxNLocator(5).tick_values(0, seconds / size) if 0 <= v <= seconds / size]
    axes.set_xticks([v * size for v in values], [f"{label} {unit}" for label in _labels(values)])


def _label_room(scale: Scale) -> float:
    """The room left of a figure for the marks of its vertical axis."""
    if scale.kind != "category":
        return FONT * 4
    return 12 + FONT * 0.6 * max(len(cut(label, _LABEL_LETTERS)) for label in scale.labels)

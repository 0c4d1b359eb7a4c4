"""Values of a column laid out along an axis: scales, histograms, and the place of each row. Pure; knows no run."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from scythe.reporting.facts import Middle, Scale, Spread, Variable

BINS, MOST_CATEGORIES = 40, 12
OTHERS = "others"
#: Why a column has no histogram, where there is nothing to see in it.
SAME, NOTHING = "always the same value", "no value"
#: Where there are fewer rows than this, so many bins.
_BINS_OF_FEW = ((300, 16), (2500, 24))
_LOG_SPAN = 100.0
_DAY_US = 86_400e6
_MOST_LETTERS = 40
#: From here on thousands are set apart: a year has four digits.
GROUPED = 10_000


@dataclass(frozen=True)
class Axis:
    """A column whose rows have places on a scale."""

    variable: Variable
    scale: Scale
    #: The place of each row, -1 where it has none.
    places: np.ndarray
    #: The values of numbers and times, NaN where there is none; of categories the place as a number.
    values: np.ndarray
    #: Of categories the number of each row's own, also where several share a place; -1 where it has none.
    own: np.ndarray | None = None

    @property
    def categories(self) -> np.ndarray:
        """Of categories the number of each row's own, -1 where it has none."""
        return self.places if self.own is None else self.own

    @property
    def is_category(self) -> bool:
        return self.scale.kind == "category"

    def counts(self, rows: np.ndarray | None = None) -> tuple[int, ...]:
        """How many rows (of those given) lie in each place."""
        places = self.places if rows is None else self.places[rows]
        return tuple(int(n) for n in np.bincount(places[places >= 0], minlength=self.scale.places))


def numeric(column: pl.Series) -> np.ndarray | None:
    """Numbers and times as floats, NaN where there is none (times in days since 1970); None for any other type."""
    dtype = column.dtype
    if dtype.is_numeric():
        floats = column.cast(pl.Float64)
    elif dtype == pl.Date:
        floats = column.cast(pl.Int32).cast(pl.Float64)
    elif isinstance(dtype, pl.Datetime):
        floats = column.cast(pl.Datetime("us", dtype.time_zone)).cast(pl.Int64).cast(pl.Float64) / _DAY_US
    elif isinstance(dtype, pl.Duration):
        floats = column.cast(pl.Duration("us")).cast(pl.Int64).cast(pl.Float64) / 1e6
    elif dtype == pl.Time:
        floats = column.cast(pl.Int64).cast(pl.Float64) / 3.6e12
    else:
        return None
    return floats.fill_null(math.nan).to_numpy()


def laid_out(variable: Variable, column: pl.Series) -> tuple[Spread, Axis | None]:
    """The histogram of a column, and its axis; no axis where there is nothing to lay out, or nothing that differs."""
    bins = next((n for most, n in _BINS_OF_FEW if len(column) < most), BINS)
    if isinstance(column.dtype, pl.Duration | pl.Time) and variable.unit is None:
        variable = Variable(variable.name, "s" if isinstance(column.dtype, pl.Duration) else "h", variable.doc)
    values = numeric(column)
    if values is not None:
        is_time = column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime)
        return _numbers(variable, values, column.null_count(), is_time, column, bins)
    if isinstance(column.dtype, pl.Boolean | pl.String | pl.Enum | pl.Categorical):
        return _categories(variable, column)
    told = f"{_typed(column.dtype)}: not drawn" if column.null_count() < len(column) else NOTHING
    return Spread(variable, None, missing=column.null_count(), told=told), None


def _numbers(
    variable: Variable, values: np.ndarray, missing: int, is_time: bool, column: pl.Series, bins: int
) -> tuple[Spread, Axis | None]:
    finite = values[np.isfinite(values)]
    infinite = len(values) - len(finite) - missing
    if not len(finite):
        return Spread(variable, None, missing=missing, infinite=infinite, told=NOTHING), None
    is_integer = column.dtype.is_integer()
    low, median, high = (float(v) for v in (finite.min(), _median(finite), finite.max()))
    edges, log = edges_of(low, median, high, is_integer, bins)
    if not edges:
        same = (
            low == high and column.filter(np.isfinite(values)).n_unique() == 1
        )  # whole numbers of many digits are one float
        told = SAME if same else "too wide a range, or too narrow a one, to be drawn"
        scale = Scale("time") if is_time else None
        return Spread(variable, scale, (), low, median, high, missing, infinite, told), None
    scale = Scale("time" if is_time else "number", edges, log=log, whole=is_integer)
    axis = Axis(variable, scale, places_of(values, scale), values)
    return Spread(variable, scale, axis.counts(), low, median, high, missing, infinite), axis


def _median(values: np.ndarray) -> float:
    """The median, also of values whose sum is too large to be one."""
    two = [(len(values) - 1) // 2, len(values) // 2]
    low, high = np.partition(values, two)[two]
    return float(low if low == high else low / 2 + high / 2)


def edges_of(low: float, median: float, high: float, is_integer: bool, bins: int) -> tuple[tuple[float, ...], bool]:
    """The edges of equally wide bins, and whether they are so in the logarithm; none where there can be none."""
    if low == high or not math.isfinite(high - low):
        return (), False
    log = False
    if is_integer and high - low < bins:
        found = np.arange(low - 0.5, high + 1)
    else:
        log = low > 0 and high / low > _LOG_SPAN and median < low + (high - low) / 10
        found = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
        found[0], found[-1] = low, high
    return (tuple(float(e) for e in found), log) if np.all(np.diff(found) > 0) else ((), False)


def places_of(values: np.ndarray, scale: Scale) -> np.ndarray:
    """The bin of each value, -1 of those that are outside or none."""
    edges = np.asarray(scale.edges)
    found = np.searchsorted(edges, values, side="right") - 1
    found[values == edges[-1]] = len(edges) - 2
    found[~np.isfinite(values) | (found >= len(edges) - 1)] = -1
    return found.astype(np.int32)


def _categories(variable: Variable, column: pl.Series) -> tuple[Spread, Axis | None]:
    missing = column.null_count()
    texts = column.cast(pl.String).alias("value")
    counted = texts.drop_nulls().value_counts().sort("count", "value", descending=[True, False])
    if not counted.height:
        return Spread(variable, None, missing=missing, told=NOTHING), None
    if counted.height > MOST_CATEGORIES and counted["count"][0] * 100 < len(column):
        told = f"{counted.height:,} different texts, {shortened(counted['value'][0])!r} among them"
        return Spread(variable, None, missing=missing, told=told), None
    kept = counted["value"].head(MOST_CATEGORIES - int(counted.height > MOST_CATEGORIES)).to_list()
    if isinstance(column.dtype, pl.Enum):
        kept = [name for name in column.dtype.categories if name in set(kept)]
    elif column.dtype == pl.Boolean:
        kept.sort()
    labels = [shortened(name) for name in kept]
    if counted.height > len(kept):
        labels.append(f"{counted.height - len(kept):,} {OTHERS}")
    places = texts.replace_strict(kept, list(range(len(kept))), default=len(kept), return_dtype=pl.Int32)
    codes = pl.select(pl.when(texts.is_null()).then(-1).otherwise(places)).to_series().to_numpy().astype(np.int32)
    own = (
        texts.cast(pl.Categorical).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        if len(labels) > len(kept)
        else None
    )
    axis = Axis(variable, Scale("category", labels=tuple(labels)), codes, codes.astype(float), own)
    told = SAME if len(labels) == 1 else ""
    return Spread(variable, axis.scale, axis.counts(), missing=missing, told=told), None if told else axis


def middles(rows: pl.DataFrame, at: pl.Expr, least: int = 1) -> tuple[Middle, ...]:
    """Median and the 5th and 95th percentile of `y` in each `place` that has so many rows; `at` says where along x it is."""
    y = pl.col("y")
    low, high = y.quantile(0.05, "linear").alias("low"), y.quantile(0.95, "linear").alias("high")
    found = rows.group_by("place").agg(at.alias("at"), low, y.median().alias("median"), high, pl.len().alias("rows"))
    found = found.filter(pl.col("rows") >= least).sort("place")
    return tuple(Middle(*row) for row in found.select("at", "low", "median", "high").rows())


def shown(value: float, kind: str = "number") -> str:
    """A value for people: four digits, or a date."""
    if kind == "time":
        try:
            moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=value)
        except OverflowError:
            return "…"
        return moment.strftime("%Y-%m-%d") if value == int(value) else moment.strftime("%Y-%m-%d %H:%M")
    if abs(value) < 1e6 and (value == int(value) or abs(value) >= GROUPED):
        return f"{value + 0.0:{',' if abs(value) >= GROUPED else ''}.0f}".replace("-", "−")
    text = f"{value:.4g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−").replace("e−0", "e−").replace("e+0", "e").replace("e+", "e")


def aligned(one: Sequence[Spread], other: Sequence[Spread]) -> tuple[Spread, ...]:
    """The first spreads, on axes that reach as far as those of the other run's variables of these names."""
    others = {spread.variable.name: spread for spread in other}
    return tuple(_beside(spread, others.get(spread.variable.name)) for spread in one)


def _beside(one: Spread, other: Spread | None) -> Spread:
    if other is None or one.scale is None or other.scale is None or not (one.counts and other.counts):
        return one
    if one.variable.unit != other.variable.unit:
        return one
    if one.scale.kind != other.scale.kind or one.scale.kind == "category" or one.scale.log != other.scale.log:
        return one
    edges = (*one.scale.edges, *other.scale.edges)
    return replace(one, span=(min(edges), max(edges)))


def shortened(text: str) -> str:
    """A text in one line, cut where it is too long to be shown."""
    return cut(" ".join(text.split()), _MOST_LETTERS) or ("(blank)" if text else "(empty)")


def cut(text: str, most: int) -> str:
    """A text of so many letters at most."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _typed(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List | pl.Array):
        return "lists"
    if isinstance(dtype, pl.Struct):
        return "several values in one"
    return "bytes" if dtype == pl.Binary else str(dtype).partition("(")[0].lower()

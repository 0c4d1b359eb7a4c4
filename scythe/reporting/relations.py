"""Each output against each input: how strongly their ranks go together, and how many rows lie where. Pure; knows no run.

Of two numbers it is Spearman's rho; where one is a category eta, the root of the share of the ranks' variance that lies
between the categories; where both are, Cramér's V. Times are numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from scythe.reporting.facts import Grid, Middle, Relation, Relations
from scythe.reporting.spreads import Axis, middles

MOST_DRAWN, MOST_IN_TABLE = 40, 15
_MOST_POINTS = 300
#: Of a number, along the other axis, and how many rows each should hold.
_PLACES, _ROWS_A_PLACE = 24, 24
_LEAST_ROWS = 3
#: Of more pairs, rows with gaps keep the ranks that they have among all rows of their column.
_MOST_EXACT = 400

Strength = tuple[Literal["ρ", "η", "V"], float]


def relations(inputs: Sequence[Axis], outputs: Sequence[Axis]) -> Relations:
    """The relations of all pairs, the strongest first."""
    ranks = {id(axis): _standard_ranks(axis) for axis in (*inputs, *outputs)}
    exact = len(inputs) * len(outputs) <= _MOST_EXACT
    found: list[tuple[float, int, int, Strength]] = []
    table: list[list[Strength | None]] = []
    for o, output in enumerate(outputs):
        row = [strength(given, output, ranks[id(given)], ranks[id(output)], exact=exact) for given in inputs]
        table.append(list(row))
        found += [(-abs(one[1]), o, i, one) for i, one in enumerate(row) if one is not None]
    found.sort(key=lambda one: one[:3])
    drawn = tuple(_relation(inputs[i], outputs[o], one) for _, o, i, one in found[:MOST_DRAWN])
    columns, rows = _strongest(table, 1), _strongest(table, 0)
    return Relations(
        drawn,
        tuple(inputs[i].variable.name for i in columns),
        tuple(outputs[o].variable.name for o in rows),
        tuple(tuple(table[o][i] for i in columns) for o in rows),
        len(found),
    )


def _strongest(table: list[list[Strength | None]], axis: int) -> list[int]:
    """Rows (0) or columns (1) of the table that have the strongest relations, in their own order."""
    if not table or not table[0]:
        return []
    values = np.array([[abs(one[1]) if one is not None else 0.0 for one in row] for row in table])
    order = np.argsort(-values.max(axis=1 - axis), kind="stable")[:MOST_IN_TABLE]
    return sorted(int(i) for i in order)


def strength(
    x: Axis, y: Axis, x_ranks: np.ndarray | None = None, y_ranks: np.ndarray | None = None, *, exact: bool = True
) -> Strength | None:
    """How strongly two columns go together, over the rows that have both; None where that cannot be told."""
    both = (x.places >= 0) & (y.places >= 0)
    rows = int(both.sum())
    if rows < _LEAST_ROWS:
        return None
    if x.is_category and y.is_category:
        return _cramer(x.categories[both], y.categories[both])

    def ranks(axis: Axis, known: np.ndarray | None) -> np.ndarray:
        if known is not None and rows == len(both):
            return known
        return _standard(known[both]) if known is not None and not exact else _ranked(axis.values[both])

    if x.is_category:
        return _eta(x.categories[both], ranks(y, y_ranks))
    if y.is_category:
        return _eta(y.categories[both], ranks(x, x_ranks))
    one, other = ranks(x, x_ranks), ranks(y, y_ranks)
    if not (one.any() and other.any()):
        return None
    return "ρ", float(np.clip(np.dot(one, other) / rows, -1, 1))


def _standard_ranks(axis: Axis) -> np.ndarray | None:
    """The ranks of a column among its own rows, 0 in its gaps; None of a category."""
    if axis.is_category:
        return None
    there = axis.places >= 0
    ranks = np.zeros(len(there))
    ranks[there] = _ranked(axis.values[there])
    return ranks


def _ranked(values: np.ndarray) -> np.ndarray:
    """Ranks (ties share theirs) with mean 0 and variance 1; all 0 where every value is the same."""
    return _standard(pl.Series(values).rank("average").to_numpy().astype(float))


def _standard(ranks: np.ndarray) -> np.ndarray:
    if not len(ranks):
        return ranks
    centred = ranks - ranks.mean()
    deviation = centred.std()
    return centred / deviation if deviation > 0 else centred


def _eta(places: np.ndarray, ranks: np.ndarray) -> Strength | None:
    if not ranks.any():
        return None
    counts, sums = np.bincount(places), np.bincount(places, weights=ranks)
    present = counts > 0
    if present.sum() < 2:
        return None
    between = float((sums[present] ** 2 / counts[present]).sum())
    return "η", float(np.sqrt(np.clip(between / len(ranks), 0, 1)))


def _cramer(x: np.ndarray, y: np.ndarray) -> Strength | None:
    (_, x), (_, y) = np.unique(x, return_inverse=True), np.unique(y, return_inverse=True)
    xs, ys = np.bincount(x), np.bincount(y)
    smaller = min(len(xs), len(ys)) - 1
    if smaller < 1:
        return None
    pairs, counts = np.unique(x.astype(np.int64) * len(ys) + y, return_counts=True)  # most of many are empty
    share = float((counts**2 / (xs[pairs // len(ys)] * ys[pairs % len(ys)])).sum())
    return "V", float(np.sqrt(np.clip((share - 1) / smaller, 0, 1)))


def joint(x: Axis, y: Axis, rows: np.ndarray | None = None) -> np.ndarray:
    """How many rows (of those given) lie in each place of two axes: x first, y second."""
    xs, ys = (x.places, y.places) if rows is None else (x.places[rows], y.places[rows])
    both = (xs >= 0) & (ys >= 0)
    width, height = x.scale.places, y.scale.places
    counted = np.bincount(xs[both].astype(np.int64) * height + ys[both], minlength=width * height)
    return counted.reshape(width, height)


def grid_of(counts: np.ndarray) -> Grid:
    """Counts as plain values."""
    return tuple(tuple(int(n) for n in row) for row in counts)


def _relation(x: Axis, y: Axis, one: Strength) -> Relation:
    both = (x.places >= 0) & (y.places >= 0)
    few = int(both.sum()) <= _MOST_POINTS and not (x.is_category or y.is_category)
    points = tuple(zip(x.values[both].tolist(), y.values[both].tolist(), strict=True)) if few else ()
    along = _middles(x, y, both) if not y.is_category else ()
    return Relation(x.variable, y.variable, x.scale, y.scale, one[0], one[1], grid_of(joint(x, y)), along, points)


def _middles(x: Axis, y: Axis, both: np.ndarray) -> tuple[Middle, ...]:
    """Median and the 5th and 95th percentile of y along x, in bins of neighbours that hold enough rows."""
    # Bins of equal numbers of rows would follow the data; bins of equal width can be compared by eye.
    places = min(_PLACES, max(4, int(both.sum()) // _ROWS_A_PLACE))
    merge = 1 if x.is_category else -(-x.scale.places // places)
    rows = pl.DataFrame({"place": x.places[both] // merge, "x": x.values[both], "y": y.values[both]})
    return middles(rows, pl.col("x").median(), 1 if x.is_category else _ROWS_A_PLACE // 3)

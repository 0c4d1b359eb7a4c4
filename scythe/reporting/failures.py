"""Which inputs failed: along each of them, and in the plane of the two that tell most. Pure; knows no run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scythe.reporting.facts import Failing, FailureMap, Failures, Kind
from scythe.reporting.relations import grid_of, joint
from scythe.reporting.spreads import Axis, shown

MOST_ALONG, MOST_MAPS = 8, 2
_MOST_POINTS = 300
_LISTED = 4


def failures(axes: Sequence[Axis], failed: np.ndarray, kinds: tuple[Kind, ...], count: int, inputs: int) -> Failures:
    """Where the failed inputs lie; `failed` says of each row of the axes whether it is one."""
    if not failed.any():
        return Failures(count, inputs, kinds)
    told = sorted((_along(axis, failed) for axis in axes), key=lambda one: -one.apart)
    return Failures(count, inputs, kinds, tuple(told[:MOST_ALONG]), _maps(axes, told, failed))


def _along(axis: Axis, failed: np.ndarray) -> Failing:
    good, bad = axis.counts(~failed), axis.counts(failed)
    return Failing(
        axis.variable, axis.scale, good, bad, _apart(good, bad, axis.is_category),
        _range(axis, ~failed, good), _range(axis, failed, bad),
    )  # fmt: skip


def _apart(good: Sequence[int], bad: Sequence[int], is_category: bool) -> float:
    """The largest gap between the cumulated shares of both (half the sum of the differences, of categories)."""
    if not sum(good) or not sum(bad):
        return 0.0
    gap = np.asarray(bad) / sum(bad) - np.asarray(good) / sum(good)
    return float(np.abs(gap).sum() / 2 if is_category else np.abs(np.cumsum(gap)).max())


def _range(axis: Axis, rows: np.ndarray, counts: Sequence[int]) -> str:
    if axis.is_category:
        there = [label for label, n in zip(axis.scale.labels, counts, strict=True) if n]
        return ", ".join(there[:_LISTED]) + (", …" if len(there) > _LISTED else "")
    values = axis.values[rows]
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = shown(float(values.min()), axis.scale.kind), shown(float(values.max()), axis.scale.kind)
    return low if low == high else f"{low} to {high}"


def _maps(axes: Sequence[Axis], told: Sequence[Failing], failed: np.ndarray) -> tuple[FailureMap, ...]:
    """The planes of the number among the inputs that tells failed from good best, and the two next to it."""
    order = {one.variable.name: i for i, one in enumerate(told)}
    numbers = sorted((a for a in axes if not a.is_category), key=lambda a: order[a.variable.name])
    return tuple(_map(numbers[0], y, failed) for y in numbers[1 : 1 + MOST_MAPS])


def _map(x: Axis, y: Axis, failed: np.ndarray) -> FailureMap:
    there = failed & (x.places >= 0) & (y.places >= 0)
    few = int(there.sum()) <= _MOST_POINTS
    points = tuple(zip(x.values[there].tolist(), y.values[there].tolist(), strict=True)) if few else ()
    good, bad = grid_of(joint(x, y, ~failed)), grid_of(joint(x, y, failed))
    return FailureMap(x.variable, y.variable, x.scale, y.scale, good, bad, points)

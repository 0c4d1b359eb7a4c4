"""Plans for a sensitivity analysis, by SALib: points of the unit cube, and what it makes of the results. Knows no fields."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from scythe.errors import InputError
from scythe.sampling.domains import Choice, Distributed, Domain

PLANS = ("morris", "saltelli")
#: Levels of Morris's grid, as SALib has them.
_LEVELS = 4
#: How far they are changed at once, by https://doi.org/10.1080/00401706.1991.10484804.
_STEP = _LEVELS / (2 * (_LEVELS - 1))
#: Of more values than these a step is one of any number as far as a float tells.
_COUNTED = 2**20


def check_choices(choices: Mapping[str, Choice]) -> None:
    """Nothing where Morris's steps lead from every choice of a field to others, as far from it as their numbers are.

    Raises:
        InputError: naming a field of which some would never be drawn, or be compared with some others alone.
    """
    for name, choice in choices.items():
        if choice.count <= 2:
            continue
        if choice.count > _LEVELS:
            raise InputError(
                f'method="morris" has {_LEVELS} levels, and {name!r} {choice.count} values, some of which would never be drawn: '
                f'take "saltelli", or choose two of them, {name}=[...]'
            )
        if not choice.is_even:
            raise InputError(
                f'method="morris" compares values that lie two thirds of the way apart, and those of {name!r} have no such order: it would tell '
                f'nothing of some of them. Take "saltelli", or choose two of them, {name}=[...]'
            )


def spread(points: np.ndarray, domains: Sequence[Domain]) -> tuple[np.ndarray, list[float]]:
    """Morris's points with those of fields that have so many values moved into the middle of one's share, and those of distributions off their
    ends, which may be infinite; and what a step of each is.

    Each of the levels gets the value that lies nearest to its place between the first and the last, so that all steps of a field are alike, as a
    share of the way between these two.
    """
    moved, steps = points.copy(), [_STEP] * len(domains)
    for i, domain in enumerate(domains):
        count = domain.count
        if isinstance(domain, Distributed):
            moved[:, i] = (np.rint(points[:, i] * (_LEVELS - 1)) + 0.5) / _LEVELS
        if count is not None and count <= _COUNTED:
            moved[:, i] = (np.rint(points[:, i] * (count - 1)) + 0.5) / count
            steps[i] = float(np.rint(_STEP * (count - 1)) / (count - 1))
    return moved, steps


def unit_plan(method: str, names: Sequence[str], n: int, seed: int) -> np.ndarray:
    """The points of a plan, (rows, fields) from 0 to below 1.

    Raises:
        InputError: nothing varies, or SALib is not installed.
    """
    if not names:
        raise InputError(f"{method!r}: no field varies")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # n need be no power of two
        if method == "morris":
            found = _salib("sample.morris").sample(_problem(names), n, num_levels=_LEVELS, seed=seed)
        else:
            found = _salib("sample.sobol").sample(_problem(names), n, calc_second_order=False, seed=seed)
    return np.minimum(found, np.nextafter(1.0, 0.0))


def mark_of(points: np.ndarray) -> str:
    """What tells one plan from another: another version of SALib may draw other points."""
    return hashlib.sha256(np.round(points, 9).astype("<f8").tobytes()).hexdigest()[:16]


def library() -> str:
    """The version of SALib."""
    return version("SALib")


def effects(
    method: str, names: Sequence[str], points: np.ndarray, results: np.ndarray, seed: int, steps: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """What SALib tells of one output: a number a field for each name of an index.

    `steps` are those of Morris's plan, of fields where they are not those of SALib, by which it divides.

    Raises:
        InputError: SALib is not installed.
    """
    seed += 1  # of 0 SALib makes none
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if method == "morris":
            found = _salib("analyze.morris").analyze(_problem(names), points, results, num_levels=_LEVELS, seed=seed)
            told = {"mu_star": "mu_star", "mu_star_conf": "mu_star_conf", "sigma": "sigma"}
        else:
            found = _salib("analyze.sobol").analyze(_problem(names), results, calc_second_order=False, seed=seed)
            told = {"first": "S1", "first_conf": "S1_conf", "total": "ST", "total_conf": "ST_conf"}
    share = np.array([_STEP / steps.get(name, _STEP) for name in names])
    return {name: np.asarray(found[key], dtype=float) * share for name, key in told.items()}


def _problem(names: Sequence[str]) -> dict[str, Any]:
    return {"num_vars": len(names), "names": list(names), "bounds": [[0.0, 1.0]] * len(names)}


def _salib(module: str) -> Any:
    try:
        return import_module(f"SALib.{module}")
    except ImportError as error:
        raise InputError(
            f"plans for a sensitivity analysis are SALib's, which cannot be imported ({error}): pip install SALib"
        ) from None

"""Which sort of value a Python object is, so that a column of unlike ones is named before Arrow makes them one.

Arrow's inference takes a day and an instant for two days, a duration and a number for two durations.
Never converts a value.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Collection, Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import numpy as np

_FAMILIES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((type(None),), ""),
    ((enum.Enum,), "members of an Enum"),
    ((bool, np.bool_), "truth values"),
    ((int, float, Decimal, np.number), "numbers"),
    ((str, PurePath), "text"),
    ((uuid.UUID,), "UUIDs"),
    ((bytes, bytearray, memoryview), "bytes"),
    ((dt.datetime, np.datetime64), "instants"),
    ((dt.date,), "days"),
    ((dt.time,), "times of day"),
    ((dt.timedelta, np.timedelta64), "durations"),
    ((Mapping,), "dicts"),
    ((list, tuple, set, frozenset, np.ndarray), "lists"),
)


@lru_cache(maxsize=1024)
def family(python: type) -> str:
    """The sort of value that a class stands for, in words; empty for None."""
    if issubclass(python, np.timedelta64):  # numpy counts it among the numbers
        return "durations"
    return next((name for classes, name in _FAMILIES if issubclass(python, classes)), python.__name__)


def families(values: Collection[Any]) -> set[str]:
    """The sorts of values that are there, nulls passed over; instants with and without a zone are two."""
    kinds = set(map(type, values))
    found = {family(python) for python in kinds} - {""}
    if "instants" in found:
        zoned = {v.tzinfo is not None for v in values if isinstance(v, dt.datetime) and v == v}  # noqa: PLR0124 - NaT
        if True in zoned:
            found |= {"instants with a time zone"}
            found -= set() if False in zoned else {"instants"}
    return found


def mixture(values: Collection[Any]) -> str | None:
    """The unlike sorts of values in words, None where all are alike."""
    found = sorted(families(values))
    return " and ".join(found) if len(found) > 1 else None

"""Durations as people write them: a timedelta, seconds, or a text like "90s". Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_CLOCK = re.compile(r"(\d+):(\d{2}):(\d{2}(?:\.\d+)?)")


def seconds_of(duration: Any) -> float:
    """Seconds of a timedelta, a number (or its text), or a text such as "90s", "1m30s", "2h", "00:01:30".

    Raises:
        ValueError: it is none of these, or not positive.
    """
    seconds = _seconds(duration)
    if seconds is None or not 0 < seconds < timedelta.max.total_seconds():
        raise ValueError(f"a time limit must be a positive timedelta, seconds, or a text like '90s'; got {duration!r}")
    return seconds


def _seconds(duration: Any) -> float | None:
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, int | float) and not isinstance(duration, bool):
        return float(duration)
    if not isinstance(duration, str):
        return None
    text = duration.replace(" ", "")
    if clock := _CLOCK.fullmatch(text):
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        return None

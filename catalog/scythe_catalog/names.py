"""How names are compared: as DuckDB, Spark and file systems do, that take `r` and `R` for one. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): what keys are made of."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """What two names have in common that some reader cannot tell apart: composed form, without case."""
    return composed(composed(name).casefold())


def twins(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that some reader cannot tell apart, equal ones included; None where there are none."""
    known: dict[str, str] = {}
    for name in names:
        key = folded(name)
        if key in known:
            return known[key], name
        known[key] = name
    return None

"""Numbers as a file of inputs writes them, held against those that its readers make of them. Reads no file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import polars as pl

    from scythe_catalog.schema.kinds import Kind

_WHOLE = r"^[+-]?\d+$"
#: From here on not every whole number is a float.
_EXACT = 2**53


def check_texts(numbers: pl.Series, texts: pl.Series) -> None:
    """Nothing where floats are what was written, up to the digits that no float has.

    Raises:
        typer.BadParameter: one became infinite or 0, or is another whole number.
    """
    ends = (numbers.is_infinite() & ~texts.str.contains("(?i)inf")) | (
        (numbers == 0) & texts.str.contains("^[^eE]*[1-9]")
    )
    large = numbers.is_finite() & (numbers.abs() >= _EXACT) & texts.str.contains(_WHOLE)
    for number, text in zip(numbers.filter(ends | large), texts.filter(ends | large), strict=True):
        _check(numbers.name, int(text) if math.isfinite(number) and number else text, number)


def check_json(name: str, kind: Kind, values: Iterable[Any]) -> None:
    """Nothing where all numbers of JSON in places of floats are floats, up to the digits that no float has.

    Raises:
        typer.BadParameter: naming one that would be another number.
    """
    from scythe_catalog.schema import kinds as k

    for place, value in _numbers(kind, values):
        if isinstance(place, k.Float) and value:
            _check(name, value, float(Decimal(value)))


def _check(name: str, written: Any, number: float) -> None:
    if math.isinf(number) or number == 0:
        raise typer.BadParameter(
            f"{name}: {str(written)[:80]} is beyond 64-bit floats; give it in another unit", param_hint="specs"
        )
    if isinstance(written, int) and int(number) != written:
        raise typer.BadParameter(
            f"{name}: {written} is a whole number that no 64-bit float is; write {number!r} where that is meant",
            param_hint="specs",
        )


def _numbers(kind: Kind, values: Iterable[Any]) -> Iterator[tuple[Kind, int | Decimal]]:
    """All numbers within values of JSON, each with the kind of its place."""
    from scythe_catalog.schema import kinds as k
    from scythe_catalog.schema.lift import members_of, root_of

    if isinstance(kind, k.Struct) and (root := root_of(kind)) is not None:
        yield from _numbers(root, values)
        return
    for value in values:
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            yield kind, value
        elif isinstance(value, list):
            items: list[Any] = value
            kinds = [m.kind for m in kind.members] if isinstance(kind, k.Struct) else _of_items(kind, len(items))
            for inner, item in zip(kinds, items, strict=False):
                yield from _numbers(inner, [item])
        elif isinstance(value, dict):
            named: dict[str, Any] = value
            known = members_of(kind) if isinstance(kind, k.Struct) else {}
            for own, item in named.items():
                inner = kind.value if isinstance(kind, k.Map) else known.get(own)
                if inner is not None:
                    yield from _numbers(inner, [item])


def _of_items(kind: Kind, count: int) -> list[Kind]:
    from scythe_catalog.schema import kinds as k

    return [kind.item] * count if isinstance(kind, k.List) else []

"""`scythe.sample`: inputs of a model, drawn from what its fields declare. Runs nothing, writes nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import BaseModel

from scythe.errors import InputError
from scythe.remote.forks import check_fork
from scythe.sampling import plans
from scythe.sampling.domains import Choice, Distributed, Domain, Range
from scythe.sampling.drawn import remember
from scythe.sampling.fields import domains_of
from scythe.sampling.sequences import METHODS, SEQUENCES, Points, bits_of, fill_digits
from scythe.terminal.console import tell
from scythe_catalog.schema import compile_model

_BLOCK = 1 << 20
_MOST = 1 << 30
#: Combinations are told apart by places of eight bytes, a field and a row.
_MOST_OF_GRID = 100_000_000
#: A constraint that keeps fewer than this share of so many points keeps next to none.
_FEWEST, _TRIED = 1e-4, 1_000_000
#: By what a sequence gives at so many places its space is known again.
_PLACES = 64

Method = Literal["sobol", "halton", "lhs", "random", "grid", "morris", "saltelli"]


def sample(
    model: type[BaseModel],
    n: int | Mapping[str, int],
    method: Method = "sobol",
    *,
    seed: int = 0,
    skip: int = 0,
    constraint: pl.Expr | None = None,
    fields: Mapping[str, Any] | None = None,
    **more: Any,
) -> pl.DataFrame:
    """Inputs of a model as a table, drawn from the bounds and choices that its fields declare.

    A field that declares both ends (`Field(ge=0, le=10)`, of numbers, decimals, dates and times), or choices (Literal, Enum, bool), varies over all of
    them; any other stays at its default, and one with a `default_factory` has no column: `allocate` makes its values. Each field may be told more of by its name: `r_value=(1, 3)` narrows, `site=["Boston", "Oslo"]`
    chooses, `setpoint=20` fixes, `r_value=scipy.stats.lognorm(0.5)` distributes, within the bounds that the field declares.

    Args:
        model: The input model.
        n: How many rows. Of "grid": how many levels of each field that is no choice, or of each by its name; the rows are all combinations.
            Of the plans for a sensitivity analysis: rows come in groups, "saltelli" gives n (k + 2) and "morris" n (k + 1) rows for k fields
            that vary.
        method: "sobol" (scrambled) and "halton" are sequences that fill the space evenly, however many are drawn; "lhs" is a Latin hypercube;
            "random" is independent. "morris" and "saltelli" are SALib's.
        seed: The same seed gives the same rows.
        skip: So many rows of a sequence come before: `sample(M, 500, skip=2000)` goes on where `sample(M, 2000)` ended.
        constraint: A Polars expression of the fields. Rows for which it is not true are left out, and others drawn in their place.
        fields: As the keywords, for fields that are called as an argument of this function is.
        **more: What is said of fields.

    Returns:
        A column for each of these fields but `experiment_id` and `sort_index`, in the model's order; to be given to `allocate`.

    Raises:
        InputError: a field that nothing bounds, a value that does not fit, a constraint that leaves next to nothing, a library that is missing.

    Examples:
        >>> import scythe
        >>> specs = scythe.sample(BuildingInput, 4, r_value=[2.0, 4.0], setpoint=(18.0, 22.0))
        >>> specs.columns, specs.height
        (['r_value', 'setpoint'], 4)
        >>> bool(specs["setpoint"].is_between(18, 22).all())
        True
    """
    check_fork()
    given = {**(fields or {}), **more}
    seed, skip = _whole("seed", seed), _whole("skip", skip)
    _check(method, n, skip, constraint)
    n = {name: int(count) for name, count in n.items()} if isinstance(n, Mapping) else int(n)
    domains = domains_of(model, given)
    vary = [name for name, domain in domains.items() if domain.varies]
    if method in ("grid", "morris"):
        _check_ends(model, domains, method, n)
    if method == "morris":
        plans.check_choices({name: d for name, d in domains.items() if isinstance(d, Choice)})
    how: dict[str, Any] = {
        "model": model.__name__,
        "method": method,
        "n": n if isinstance(n, int) else dict(n),
        "seed": seed,
    }
    how |= {"skip": skip, "vary": vary, "constraint": str(constraint) if constraint is not None else None}
    bits = bits_of(method)
    wide = [i for i, name in enumerate(vary) if bits is not None and (domains[name].count or 0) > 2**bits]
    made = _Frames(model, domains, wide, bits)
    if method == "grid":
        frame = _kept(made.grid(n), constraint)
    elif method in plans.PLANS:
        points = plans.unit_plan(method, vary, cast(int, n), seed)
        how |= {"plan": plans.mark_of(points), "library": plans.library()}
        if method == "morris":
            points, steps = plans.spread(points, [domains[name] for name in vary])
            how["steps"] = dict(zip(vary, steps, strict=True))
        frame = made.at(points)
    else:
        frame = _drawn(made, Points(method, len(vary), seed), cast(int, n), method, skip, constraint)
    telling = [name for name, domain in domains.items() if domain.varies and isinstance(domain, Range | Distributed)]
    remember(frame, how, telling=telling, space=made.at(_somewhere(len(vary))) if method in SEQUENCES else None)
    return frame


def _somewhere(axes: int) -> np.ndarray:
    """Places of a space, always the same."""
    return np.repeat(((np.arange(_PLACES) + 0.5) / _PLACES)[:, None], axes, axis=1)


def _whole(name: str, given: object) -> int:
    if not _is_whole(given) or cast(int, given) < 0:
        raise InputError(f"{name}={given!r}: give a whole number from 0 on")
    return int(cast(int, given))


def _is_whole(given: object) -> bool:
    return isinstance(given, int | np.integer) and not isinstance(given, bool)


def _check(method: str, n: object, skip: int, constraint: object) -> None:
    known = (*METHODS, "grid", *plans.PLANS)
    if method not in known:
        raise InputError(f"method={method!r}: there are {', '.join(known)}")
    counts = list(n.values()) if isinstance(n, Mapping) and method == "grid" else [n]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if not counts or not all(_is_whole(count) and cast(int, count) > 0 for count in counts):  # pyright: ignore[reportUnknownVariableType]
        raise InputError(
            f"n={n!r}: give a whole number above 0" + (", or one for each field" if method == "grid" else "")
        )
    if skip and method not in SEQUENCES:
        raise InputError(f"skip={skip}: {method!r} has no next row; take another seed, or sobol or halton")
    if method != "grid" and skip + cast(int, n) > _MOST:
        raise InputError(
            f"n={n!r}, skip={skip}: {'a sequence' if method in SEQUENCES else 'a sample'} has 2**30 rows at most"
        )
    if constraint is not None and not isinstance(constraint, pl.Expr):
        raise InputError(
            f'constraint={constraint!r}: give a Polars expression of the fields, such as pl.col("r_value") < 6'
        )
    if constraint is not None and method in plans.PLANS:
        raise InputError(f"{method!r} is a plan of which no row may be left out: narrow the fields instead")


def _check_ends(model: type[BaseModel], domains: Mapping[str, Domain], method: str, n: int | Mapping[str, int]) -> None:
    """Nothing where each field has ends, which some methods draw.

    Raises:
        InputError: the next number to a bound that is left out, 0, is one by which nothing can be divided.
    """
    for name, domain in domains.items():
        levels = n.get(name, 1) if isinstance(n, Mapping) else n
        if not isinstance(domain, Range) or (method == "grid" and levels == 1):
            continue
        if any(0 < abs(end) < sys.float_info.min for end in (domain.low, domain.high)):
            end = "lowest" if domain.low > 0 else "highest"
            raise InputError(
                f"{model.__name__}.{name} has no {end} value, as 0 is left out, and method={method!r} draws both ends: say {name}=(low, high)"
            )


class _Frames:
    """Makes tables of points."""

    def __init__(
        self, model: type[BaseModel], domains: dict[str, Domain], wide: Sequence[int], bits: int | None
    ) -> None:
        """`wide` are the coordinates whose points have fewer digits (`bits`) than there are values."""
        self._domains, self._wide, self._bits = domains, wide, bits
        self._dtypes = {c.name: c.kind.polars() for c in compile_model(model).fields if c.name in domains}

    def at(self, points: np.ndarray) -> pl.DataFrame:
        """One row a point; a coordinate for each field that varies."""
        if self._wide and self._bits is not None:
            points = points.copy()
            fill_digits(points, self._wide, self._bits)
        columns, rows = iter(points.T), len(points)
        return self._frame({
            name: domain.at(np.ascontiguousarray(next(columns))) if domain.varies else domain.at(np.zeros(rows))
            for name, domain in self._domains.items()
        })  # fmt: skip

    def grid(self, n: int | Mapping[str, int]) -> pl.DataFrame:
        """All combinations of the levels, the last field changing first."""
        if isinstance(n, Mapping):
            unknown = [name for name in n if name not in self._domains]
            if unknown:
                raise InputError(f"n={dict(n)!r}: there is no field {unknown[0]!r}")
            lacking = [
                name for name, d in self._domains.items() if name not in n and len(d.levels(1)) < len(d.levels(2))
            ]
            if lacking:
                raise InputError(f"n={dict(n)!r} does not say how many levels {lacking[0]!r} has")
        if not self._domains:
            raise InputError("the model has no field to draw")
        levels = {
            name: domain.levels(n.get(name, 1) if isinstance(n, Mapping) else n)
            for name, domain in self._domains.items()
        }
        counts = {name: len(found) for name, found in levels.items()}
        if (rows := math.prod(counts.values())) > _MOST_OF_GRID:
            shown = " * ".join(f"{count} ({name})" for name, count in counts.items() if count > 1)
            raise InputError(
                f"a grid of {rows:,} rows, {shown}: more than {_MOST_OF_GRID:,}; give some fields one value or fewer levels, "
                'n={"r_value": 5, …}, or draw: method="sobol"'
            )
        places = np.indices([len(found) for found in levels.values()]).reshape(len(levels), -1)
        return self._frame({
            name: found.take(pa.array(at)) for (name, found), at in zip(levels.items(), places, strict=True)
        })  # fmt: skip

    def _frame(self, columns: dict[str, pa.Array]) -> pl.DataFrame:
        return cast(pl.DataFrame, pl.from_arrow(pa.table(columns))).cast(self._dtypes)  # pyright: ignore[reportArgumentType]


def _drawn(made: _Frames, points: Points, n: int, method: str, skip: int, constraint: pl.Expr | None) -> pl.DataFrame:
    if constraint is None:
        points.skip(skip)
        if method == "lhs":  # which is one whole
            drawn = points.draw(n)
            return pl.concat([made.at(drawn[start : start + _BLOCK]) for start in range(0, n, _BLOCK)])
        return pl.concat([made.at(points.draw(min(_BLOCK, n - start))) for start in range(0, n, _BLOCK)])
    kept: list[pl.DataFrame] = []
    wanted, found, tried = skip + n, 0, 0
    while found < wanted:
        share = found / tried if tried else 1.0
        # Of a hypercube that loses no row all of it is one.
        whole = method == "lhs" and not tried and wanted <= _BLOCK
        size = wanted if whole else min(_BLOCK, max(1024, int(1.1 * (wanted - found) / max(share, _FEWEST))))
        frame = _kept(made.at(points.draw(size)), constraint)
        tried, found = tried + size, found + frame.height
        kept.append(frame)
        if tried >= _TRIED and found < tried * _FEWEST:
            raise InputError(f"the constraint keeps {found:,} of {tried:,} points: narrow the fields to where it holds")
    tell(f"the constraint keeps {found / tried:.1%} of the points")
    return pl.concat(kept).slice(skip, n)


def _kept(frame: pl.DataFrame, constraint: pl.Expr | None) -> pl.DataFrame:
    if constraint is None:
        return frame
    try:
        return frame.filter(constraint)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"the constraint cannot be evaluated: {error}") from None


__all__ = ["sample"]

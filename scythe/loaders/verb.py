"""`scythe.dataset`: what is asked for, checked and pinned. Reads no rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from scythe.define.typed import Named
from scythe.errors import ReadError
from scythe.loaders.checks import check_groups
from scythe.loaders.data import Dataset
from scythe.loaders.groups import Group, group_of
from scythe.loaders.pinned.find import pinned
from scythe.reader.distinct import NO_DISTINCT
from scythe.reader.many_runs import is_all, truth
from scythe.reader.repeats import check_seeded
from scythe.reader.verbs import AskedRun, AskedVersion
from scythe.record.find import name_of
from scythe.settings import storage


def dataset(
    experiment: Named,
    version: AskedVersion = None,
    *,
    run: AskedRun = None,
    distinct: bool = False,
    where: pl.Expr | None = None,
    dtype: str = "float32",
    missing: Literal["raise", "drop"] = "raise",
    collate: Literal["stack", "list"] = "stack",
    **groups: str | Sequence[str] | Group,
) -> Dataset:
    """Rows of one run or many as what a training loop draws on: split, normalized, in batches that can be begun anywhere.

    Each further keyword names a group, a key of each batch: a column gives `(B,)`, a list of columns `(B, k)`, `scythe.File(column)` the content of a
    file of each row, `scythe.Frame(table, columns, rows=n)` its rows of a dataframe, `(B, n, k)`. Numbers and truth values come in `dtype`; Enums and
    Literals of texts one-hot, in the model's order.

    Args:
        experiment: A name or the registered function.
        version: As for `scythe.read`: None for the latest, `"all"` for all.
        run: As for `scythe.read`: None for the latest finished one, `"all"` for all.
        distinct: With `run="all"` of one version: each input once, by its newest row, as for `scythe.read`.
        where: A Polars expression of inputs and outputs, `version` and `run_datetime`: the rows for which it is true, evaluated on those of all
            runs together, in each process anew: what draws at random has a seed.
        dtype: The type of the arrays.
        missing: What happens to rows without a value, in a dataframe too: `"raise"`, or `"drop"`.
        collate: `"stack"` makes one array of the files and frames of a batch, whose shapes must be equal; `"list"` gives a list.
        **groups: The groups, `x=["r_value", "setpoint"], y="heating"` say.

    Returns:
        The dataset. It is pinned to the ends of the runs as they are now, until `refresh()`.

    Raises:
        NotFoundError: an experiment, version, run, column or dataframe that is not there.
        RunDamaged: with `run="all"`, a run's folder was removed, and the catalog still shows its rows.
        InputError: a column that is no number, or no file; rows without a value are told when rows are first asked for.
        ReadError: no group, or one that is none; a dtype that is none of NumPy's numbers; `distinct` without the runs of one version;
            a `where` that draws at random without a seed.
        ForkError: in a process that was forked beside running threads.

    Examples:
        >>> import scythe
        >>> ds = scythe.dataset("simulate_energy", x=["r_value", "setpoint"], y="heating", where=pl.col("r_value") < 6)
        >>> ds
        <Dataset of simulate_energy: 2 rows, x: (2,), y: ()>
        >>> ds[0]["x"].tolist(), ds.names["x"]
        ([2.0, 20.0], ('r_value', 'setpoint'))
    """
    if not groups:
        raise ReadError('a dataset needs a group: x=["column", ...], y="column"')
    for option, given, known in (("missing", missing, ("raise", "drop")), ("collate", collate, ("stack", "list"))):
        if given not in known:
            raise ReadError(f"{option}={given!r}: it is {known[0]!r} or {known[1]!r}")
    if where is not None and not isinstance(where, pl.Expr):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ReadError(f'where= is an expression of Polars, as pl.col("r_value") < 6, got {where!r}')
    if where is not None:
        check_seeded(where)
    distinct = truth("distinct", distinct)
    if distinct and (is_all(version) or not is_all(run)):
        raise ReadError(NO_DISTINCT)
    numbers = _numbers(dtype)
    objects, name = storage(), name_of(experiment)
    runs = pinned(objects, name, version, run)
    chosen = {group: group_of(group, given) for group, given in groups.items()}
    stands_for = check_groups(chosen, runs, where)
    return Dataset(
        name, objects, (version, run), [one.pin for one in runs], chosen, where, numbers, missing, collate, distinct, (), stands_for, runs
    )  # fmt: skip


def _numbers(dtype: str) -> np.dtype:
    try:
        found = np.dtype(dtype).newbyteorder("=") if dtype is not None else None  # pyright: ignore[reportUnnecessaryComparison]
    except TypeError:
        found = None
    if found is None or found.kind not in "biufc":
        raise ReadError(
            f"dtype={dtype!r} is none of NumPy's numbers: take dtype='float32', and make other types where you use it, as "
            'batch["x"].to("cuda", torch.bfloat16)'
        )
    return found


__all__ = ["dataset"]

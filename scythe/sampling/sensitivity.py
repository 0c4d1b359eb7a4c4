"""`scythe.sensitivity`: which inputs matter, from the results of a run whose inputs are a plan. Draws and runs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from polars import selectors as cs

from scythe.define.typed import Named
from scythe.errors import NotFoundError, ReadError
from scythe.names import ID_LEVELS
from scythe.reader.one_run import one_run
from scythe.reader.verbs import AskedRun, AskedVersion, read
from scythe.record.find import name_of
from scythe.record.layout import RunKey
from scythe.record.manifest import read_manifest, renames_now, schemas_of_run
from scythe.sampling import plans
from scythe.settings import storage
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects


def sensitivity(experiment: Named, version: AskedVersion = None, *, run: AskedRun = None) -> pl.DataFrame:
    """How much of each output's variation comes from each input, of a run whose inputs were drawn by `method="saltelli"` or "morris".

    Of Saltelli's plan these are Sobol's indices: `first`, the share of the variance that an input explains alone, and `total`, with all that it
    does together with others. Of Morris's plan `mu_star` is the mean of the absolute effects and `sigma` their spread, in the unit of the
    output. Both by SALib; an interval holds 95 % of what it gets by drawing anew from the rows.

    Args:
        experiment: A name or the registered function.
        version: As for `scythe.read`: None for the latest.
        run: As for `scythe.read`: None for the latest finished one.

    Returns:
        A row for each output that is a number and each input that varies, the most important input first: `output, input`, and `first,
        first_low, first_high, total, total_low, total_high`, or `mu_star, mu_star_low, mu_star_high, sigma`. Null where an output does not vary,
        or is missing, NaN or infinite for some input.

    Raises:
        NotFoundError: there is no such run.
        ReadError: its inputs are no plan, or some of them have no result, or no output is a number for all of them.
        InputError: SALib is not installed.

    Examples:
        >>> import scythe
        >>> from scythe import BaseExperiment
        >>> specs = scythe.sample(BuildingInput, 32, "saltelli", r_value=(1, 8), setpoint=(18, 22))
        >>> run, ref = BaseExperiment(simulate_energy).allocate(specs, "bumpminor", engine="inline")
        >>> _ = ref.result()
        >>> scythe.sensitivity("simulate_energy")["input"].to_list()
        ['r_value', 'setpoint']
    """
    objects, name = storage(), name_of(experiment)
    key, _ = one_run(objects, name, version, run)
    return of_run(objects, key)


def is_plan(how: Any) -> bool:
    """Whether what a manifest says of how inputs were drawn is a plan that can be analyzed."""
    return isinstance(how, dict) and how.get("method") in plans.PLANS and not how.get("changed")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def of_run(objects: Objects, key: RunKey) -> pl.DataFrame:
    """`sensitivity` of a run; raises as that does."""
    how: Any = read_manifest(objects, key).get("sampled")
    if not is_plan(how):
        raise ReadError(
            f"the inputs of {key.path} are no plan for a sensitivity analysis: draw them with "
            'scythe.sample(Model, n, "saltelli") (or "morris"), and allocate them as they are. What was drawn by another process is known once '
            "it is drawn again, by the same arguments, before it is allocated; of a run that is there already allocate(..., reuse=True) takes the rows"
        )
    names: list[str] = how["vary"]
    points = plans.unit_plan(how["method"], names, how["n"], how["seed"])
    if plans.mark_of(points) != how["plan"]:
        raise ReadError(
            f"the inputs of {key.path} were drawn by SALib {how['library']}, which drew other points than the one here: install that"
        )
    steps: dict[str, float] | None = how.get("steps")
    rows = _results(key, len(points))
    renamed = renames_now(objects, key.experiment).columns
    were_uneven = how["method"] == "morris" and steps is None
    if were_uneven and (uneven := [n for n in names if not rows.schema[renamed.get(n, n)].is_float()]):
        raise ReadError(
            f"the plan of {key.path} was drawn before the values of {uneven[0]!r} were spread evenly, and its effects would be wrong: "
            "draw a new one"
        )
    told = schemas_of_run(objects, key) or {}
    own = {renamed.get(name, name) for name in TableSchema.from_json(told["output"]).names}
    outputs = [name for name in rows.select(cs.numeric() | cs.boolean()).columns if name in own]
    finite = {output for output in outputs if rows[output].cast(pl.Float64).is_finite().fill_null(False).all()}
    if not finite:
        which = f" for all inputs ({', '.join(outputs)})" if outputs else ""
        raise ReadError(f"no output of {key.path} is a finite number{which}: indices of it mean nothing")
    found = [
        _of_output(how, names, points, rows[output], output, steps or {}, known=output in finite) for output in outputs
    ]
    return pl.concat(found).with_columns(pl.col("input").replace(renamed))


def _results(key: RunKey, wanted: int) -> pl.DataFrame:
    """The outputs of a run, a row an input in their order."""
    try:
        rows = read(key.experiment, key.version, run=key.folder)
        inputs = read(key.experiment, key.version, run=key.folder, table="tasks", columns=["sort_index"])
    except NotFoundError as error:
        raise ReadError(f"{key.path} has no results yet: {error}") from error
    if rows.height != wanted or inputs.height != wanted:
        lacking = sorted(set(range(wanted)) - set(rows["sort_index"]))
        raise ReadError(
            f"{len(lacking):,} of the {wanted:,} inputs of {key.path} have no result (the first: {lacking[0] if lacking else wanted}); "
            "a plan needs all of its rows: mend and retry what failed"
        )
    return rows.sort("sort_index").drop(*ID_LEVELS, strict=False)


def _of_output(
    how: dict[str, Any],
    names: list[str],
    points: np.ndarray,
    values: pl.Series,
    output: str,
    steps: dict[str, float],
    *,
    known: bool,
) -> pl.DataFrame:
    results = values.cast(pl.Float64).to_numpy() if known else np.zeros(len(points))
    index = {"output": [output] * len(names), "input": names}
    found = plans.effects(how["method"], names, points, results, how["seed"], steps)
    if np.ptp(results) == 0:
        found = {name: np.full(len(names), np.nan) for name in found}
    frame = pl.DataFrame({**index, **found}).with_columns(cs.float().fill_nan(None))
    main = "mu_star" if "mu_star" in found else "total"
    ordered = [column for name in found if not name.endswith("_conf") for column in _with_interval(name, found)]
    return frame.with_columns(
        (pl.col(name) + sign * pl.col(f"{name}_conf")).alias(f"{name}_{end}")
        for name in found if f"{name}_conf" in found
        for end, sign in (("low", -1), ("high", 1))
    ).select("output", "input", *ordered).sort(main, descending=True, nulls_last=True)  # fmt: skip


def _with_interval(name: str, found: dict[str, np.ndarray]) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"] if f"{name}_conf" in found else [name]


__all__ = ["sensitivity"]

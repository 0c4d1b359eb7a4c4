"""Reads results: typed frames of one run, one version or all of them. Writes nothing, runs nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Literal, overload

import polars as pl

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.experiment import Experiment
from scythe.define.typed import (
    I,
    Included,
    Named,
    O,
    Runs,
    RunsItself,
    RunsItselfWithTempdir,
    RunsWithTempdir,
    WithTempdir,
)
from scythe.errors import NotFoundError, ReadError, RunDamaged, RunError, StorageError
from scythe.names import TableName
from scythe.reader.beside import beside_deletions
from scythe.reader.distinct import NO_DISTINCT, newest_rows
from scythe.reader.many_runs import finished_runs, is_all, scan_many, truth, wanted_runs
from scythe.reader.one_run import chosen, one_run, scan_run
from scythe.reader.shown import gone_file
from scythe.record.find import experiment_names, name_of
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import renames_now
from scythe.record.plan import RunPlan
from scythe.record.results import finished_result
from scythe.record.versions import SemVer
from scythe.remote.forks import check_fork
from scythe.runs.listing import list_experiments, list_runs
from scythe.runs.run import ExperimentRun
from scythe.settings import engine_settings, storage
from scythe_catalog.storage.objects import Objects

#: The version that a reader asks for: one, the latest (None), or all.
AskedVersion = Literal["all"] | str | SemVer | None

#: The run that a reader asks for: one by its name, datetime or itself, the latest that is finished (None), or all.
AskedRun = Literal["all"] | str | dt.datetime | ExperimentRun | None


def read(
    experiment: Named,
    version: AskedVersion = None,
    *,
    table: TableName | str = "scalars",
    run: AskedRun = None,
    columns: Sequence[str] | None = None,
    ids: bool = True,
    distinct: bool = False,
) -> pl.DataFrame:
    """The rows of a table as a Polars frame, typed by the models, ordered by `run_datetime` and `sort_index`.

    Args:
        experiment: A name (with or without `scythe_experiment_`) or the registered function.
        version: `"v1.2.0"`, a SemVer, None for the latest, or `"all"`.
        table: `scalars`, `errors`, `tasks`, `result_file_refs`, `logs` or the name of a dataframe.
        run: None for the version's latest finished run, `"all"`, or one run, finished or not: its folder's name, its
            datetime, its whole name, or the ExperimentRun that `allocate` gave.
        columns: These columns only, in this order; one that was renamed by its name, or by a former one, which it then has.
        ids: False leaves out the identifiers `experiment_id`, `sort_index`, `root_workflow_run_id` and `workflow_run_id`;
            where `columns` is given, that decides.
        distinct: With `run="all"` of one version: each input once, by its newest row. Inputs are equal as `allocate(reuse=True)` has it.

    Returns:
        Inputs and outputs as columns; with `"all"` also `version` and `run_datetime`.

    Raises:
        NotFoundError: an experiment, version, run, table or column that is not there; the message lists what is.
        VersionError: `version` is none.
        ReadError: a column is asked for twice, `columns` is a single name, an option is neither True nor False, or `distinct` without the runs of one version,
            or a column has other units in one version than in another.
        RunDamaged: a file of the run is gone or damaged.
        CatalogError: the catalog has lost the table, or is that of another root; `scythe rebuild` makes it anew.
        StorageError: the root cannot be reached, or the table not be read.
        ForkError: in a process that was forked beside running threads.

    Examples:
        >>> import scythe
        >>> scythe.read("simulate_energy")["heating"].to_list()
        [40.0, 20.0, 10.0]
        >>> scythe.read("simulate_energy", "v1.0.0", table="errors").height
        0
        >>> scythe.read("simulate_energy", ids=False).columns
        ['r_value', 'setpoint', 'heating']
    """

    look = partial(_scan, experiment, version, table, run, columns, ids, distinct=distinct, in_order=True)

    def collected() -> pl.DataFrame:
        try:
            # Other ends of a run have other rows there; those of other tables may be as many.
            frame, rows = look(check=table != "scalars")
            found = frame.collect()
            if rows is None or found.height == rows or not found.width:  # without columns there are no rows
                return found
            frame, rows = look(check=True)  # which says why, or the run has ended anew meanwhile
            found = frame.collect()
            if rows is not None and found.height != rows:
                raise RunDamaged(
                    f"the table {table!r} of a run of {name_of(experiment)!r} has {found.height:,} rows, its result tells of {rows:,}"
                )
            return found
        except StorageError:
            raise
        except (OSError, pl.exceptions.PolarsError) as error:
            what = f"the table {table!r} of {name_of(experiment)!r} cannot be read: {str(error).splitlines()[0]}"
            if isinstance(error, FileNotFoundError):
                raise _gone(name_of(experiment), version, run, table) or RunDamaged(
                    f"{what}. The files of its runs are there: read it again; if that fails, too, the catalog has lost a file, and "
                    "`scythe rebuild` makes it anew"
                ) from error
            raise StorageError(what) from error

    return beside_deletions(storage(), name_of(experiment), collected)


def _gone(name: str, version: AskedVersion, run: AskedRun, table: str) -> RunDamaged | None:
    """That a file of a table is gone, where one of the runs that are asked for lacks one."""
    objects = storage()
    many = is_all(version) or is_all(run)
    keys = wanted_runs(objects, name, version, run) if many else [one_run(objects, name, version, run)[0]]
    gone = objects.each(lambda key: gone_file(objects, key, finished_result(objects, key), table), keys)
    return next(filter(None, gone), None)


def scan(
    experiment: Named,
    version: AskedVersion = None,
    *,
    table: TableName | str = "scalars",
    run: AskedRun = None,
    columns: Sequence[str] | None = None,
    ids: bool = True,
    distinct: bool = False,
) -> pl.LazyFrame:
    """The same as `read`, as a lazy frame: only the files of the runs that are asked for are ever opened.

    Rows of one run are ordered by `sort_index`. Those of many (`"all"`) are in no order: so they can be streamed.

    Args:
        experiment: A name (with or without `scythe_experiment_`) or the registered function.
        version: `"v1.2.0"`, a SemVer, None for the latest, or `"all"`.
        table: `scalars`, `errors`, `tasks`, `result_file_refs`, `logs` or the name of a dataframe.
        run: None for the version's latest finished run, `"all"`, or one run, finished or not: its folder's name, its
            datetime, its whole name, or the ExperimentRun that `allocate` gave.
        columns: These columns only, in this order; one that was renamed by its name, or by a former one, which it then has.
        ids: False leaves out the identifiers `experiment_id`, `sort_index`, `root_workflow_run_id` and `workflow_run_id`;
            where `columns` is given, that decides.
        distinct: With `run="all"` of one version: each input once, by its newest row. Inputs are equal as `allocate(reuse=True)` has it.

    Returns:
        Inputs and outputs as columns; with `"all"` also `version` and `run_datetime`.

    Raises:
        NotFoundError: an experiment, version, run, table or column that is not there; the message lists what is.
        VersionError: `version` is none.
        ReadError: a column is asked for twice, `columns` is a single name, an option is neither True nor False, or `distinct` without the
            runs of one version.
        RunDamaged: the result of a run is gone or damaged.
        StorageError: the root cannot be reached. What is wrong with a data file is raised by Polars, at `collect`.
        ForkError: in a process that was forked beside running threads.

    Examples:
        >>> import scythe
        >>> good = scythe.scan("simulate_energy").filter(pl.col("heating") < 30)
        >>> good.select("r_value", "heating").collect().rows()
        [(4.0, 20.0), (8.0, 10.0)]
    """
    return beside_deletions(
        storage(),
        name_of(experiment),
        lambda: _scan(experiment, version, table, run, columns, ids, distinct=distinct, in_order=False)[0],
    )


def _scan(
    experiment: Named,
    version: AskedVersion,
    table: str,
    run: AskedRun,
    columns: Sequence[str] | None,
    ids: bool,
    *,
    distinct: bool,
    in_order: bool,
    check: bool = True,
) -> tuple[pl.LazyFrame, int | None]:
    check_fork()
    objects, name = storage(), name_of(experiment)
    if not isinstance(table, str):  # pyright: ignore[reportUnnecessaryIsInstance] - the caller's own value
        raise NotFoundError(f"there is no table {table!r}: a table is named by a text")
    ids, distinct = truth("ids", ids), truth("distinct", distinct)
    if distinct and (is_all(version) or not is_all(run)):
        raise ReadError(NO_DISTINCT)
    catalog = catalog_of(objects, engine_settings().catalog)
    if not (is_all(version) or is_all(run)):
        key, result = one_run(objects, name, version, run)
        return scan_run(catalog, objects, key, result, table, columns, ids, check=check)
    frame, renamed = scan_many(catalog, objects, name, version, table, run, columns)
    wanted = chosen(columns, frame.collect_schema().names(), table, ids, renamed).shown
    if distinct:
        # An input may have no row in a table at all: which is the newest is told by those that have one of each.
        among = "tasks" if table in ("errors", "logs", "tasks") else "scalars"
        ended = None if table == among else scan_many(catalog, objects, name, version, among, run)[0]
        frame = newest_rows(objects, wanted_runs(objects, name, version, run), frame, ended)
    if in_order:  # by all of a row's place, whether or not it is selected; `version` parts runs of the same second
        frame = frame.sort("run_datetime", "sort_index", "version", maintain_order=True)
    return frame.select(wanted), None


def files(experiment: Named, version: AskedVersion = None, *, run: AskedRun = None) -> pl.DataFrame:
    """The table of file references: inputs, and one column per file output; values are URIs. `FileRefs` loads them.

    Args:
        experiment: A name (with or without `scythe_experiment_`) or the registered function.
        version: `"v1.2.0"`, a SemVer, None for the latest, or `"all"`.
        run: None for the version's latest finished run, `"all"`, or one run, as `read` takes it.

    Returns:
        One row for each input that succeeded, with identifiers, scalar inputs and one URI for each file output.

    Raises:
        NotFoundError: as `read`; also where the experiment has no file outputs.
        VersionError: `version` is none.
        RunDamaged: a file of the run is gone or damaged.
        StorageError: the root cannot be reached, or the table not be read.
        ForkError: in a process that was forked beside running threads.

    Examples:
        >>> import scythe
        >>> refs = scythe.files("simulate_energy")
        >>> pl.read_parquet(refs["hourly"][0]).height
        24
    """
    return read(experiment, version, table="result_file_refs", run=run)


# One a shape: mypy solves no union of them.
@overload
def rows(
    experiment: type[RunsItself[I, O]], version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[I, O]]: ...
@overload
def rows(
    experiment: type[RunsItselfWithTempdir[I, O]], version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[I, O]]: ...
@overload
def rows(
    experiment: type[Runs[I, O]], version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[I, O]]: ...
@overload
def rows(
    experiment: type[RunsWithTempdir[I, O]], version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[I, O]]: ...
@overload
def rows(
    experiment: Callable[[I], O], version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[I, O]]: ...
@overload
def rows(
    experiment: WithTempdir[I, O], version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[I, O]]: ...
@overload
def rows(
    experiment: str | Experiment | Included, version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[ExperimentInputSpec, ExperimentOutputSpec]]: ...
def rows(
    experiment: Named, version: AskedVersion = None, *, run: AskedRun = None
) -> Iterator[tuple[ExperimentInputSpec, ExperimentOutputSpec]]:
    """Typed (input, output) pairs of finished runs, ordered by `run_datetime` and `sort_index`, a batch in memory at a time.

    With `"all"`, of all finished runs that are asked for. The experiment must be registered here, for its models; its
    dataframes are tables of their own.

    Args:
        experiment: A name (with or without `scythe_experiment_`), the function, or its `BaseExperiment`; it must be registered here. Runs that were
            allocated with a `run_name` are read by that.
        version: `"v1.2.0"`, a SemVer, None for the latest, or `"all"`.
        run: None for the version's latest finished run, `"all"`, or one run that is finished, as `read` takes it.

    Returns:
        An iterator; of a function it is typed by its models. Files of this machine are paths, others URLs; inputs that failed are not among the pairs.

    Raises:
        NotFoundError: as `read`; also where the experiment is not registered.
        VersionError: `version` is none.
        RunError: the run is not finished; or, at the first pair, it was made with another schema than the models have now.
        RunDamaged: the result of a run is damaged.
        StorageError: the root cannot be reached.
        ForkError: in a process that was forked beside running threads.

    Examples:
        >>> import scythe
        >>> [(wall.r_value, energy.heating) for wall, energy in scythe.rows(simulate_energy)]
        [(2.0, 40.0), (4.0, 20.0), (8.0, 10.0)]
    """
    from scythe.reader.pairs import pairs
    from scythe.registry import experiment_of

    check_fork()
    objects, name = storage(), name_of(experiment)
    try:
        found = experiment_of(experiment)
    except NotFoundError:
        if not isinstance(experiment, str) or name not in experiment_names(objects):
            raise
        found = None  # the name of its runs, which they were given when they were allocated
    renamed = renames_now(objects, name).columns
    if is_all(version) or is_all(run):
        runs = finished_runs(objects, name, version, run)
    else:
        key, result = one_run(objects, name, version, run)
        if result is None:
            raise RunError(
                f"the run {key.path} is not finished: read its rows so far with scythe.read(..., run={key.folder!r})"
            )
        runs = [(key, result)]
    of = found if found is not None else _registered(objects, runs[-1][0])
    return chain.from_iterable(pairs(objects, of, result, renamed) for _, result in runs)


def _registered(objects: Objects, key: RunKey) -> Experiment:
    """The experiment of a run whose name is none that is registered.

    Raises:
        NotFoundError: it is not registered here either.
    """
    from scythe.source import registered

    plan = RunPlan.load(objects, key)
    if (found := registered(plan)) is None:
        raise NotFoundError(
            f"{key.path} is of the function {plan.qualname!r} of {plan.module}, which is not registered here: import it"
        )
    return found


__all__ = ["files", "list_experiments", "list_runs", "read", "rows", "scan"]

"""Goes on with a run: joins who works on it, or starts what is open of it anew."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from scythe.define.code import Code, read_code, values_of_loaded_script
from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine, FinishedRef, Launch, RunRef
from scythe.engines.options import EngineOptions
from scythe.engines.start import choose, engine_of, start
from scythe.engines.watched import WatchedRef
from scythe.errors import RunDamaged, RunError, SettingsError, VersionError
from scythe.gather.final import all_parts, coverage_of
from scythe.gather.parts import failed
from scythe.gather.publish import is_unpublished, settle
from scythe.record.attempt_plan import is_planned
from scythe.record.attempts import Attempt, check_arrived, check_free, latest_attempt
from scythe.record.generations import catalog_of, check_place
from scythe.record.layout import RunKey
from scythe.record.manifest import schemas_of_run
from scythe.record.plan import UNSET, MaxErrors, RunPlan, Unset, check_max_errors
from scythe.record.provenance import difference, recorded, short
from scythe.record.results import finished_result, read_result
from scythe.settings import engine_settings
from scythe.source import find_experiment
from scythe.terminal.console import tell
from scythe_catalog.schema import Change, Difference, Severity, TableSchema, compare
from scythe_catalog.storage.objects import Objects

#: So long it is waited for what was cancelled to end, looking so often [s].
_CANCELLED_SECONDS, _LOOK_SECONDS = 60.0, 1.0


@dataclass(frozen=True)
class GoOn:
    """How to go on, as `ExperimentRun.resume` is told it."""

    engine: str | EngineOptions | None = None
    workers: int | None = None
    module: str | None = None
    max_errors: MaxErrors | Unset = UNSET

    def __post_init__(self) -> None:
        """Raises AllocationError: `max_errors` is none."""
        if not isinstance(self.max_errors, Unset):
            check_max_errors(self.max_errors)

    def plan_of(self, objects: Objects, key: RunKey) -> RunPlan:
        """The plan of a run, with another limit of how many inputs may fail, where one is given."""
        plan = RunPlan.load(objects, key)
        return plan if isinstance(self.max_errors, Unset) else replace(plan, max_errors=self.max_errors)


def resumed(objects: Objects, key: RunKey, how: GoOn) -> RunRef:
    """A reference to what is run of what has neither row nor error, or to the end that there is.

    Raises:
        RunError: its download has come to no end; and what `_go_on` raises.
    """
    check_arrived(objects, key)
    finished, last = read_result(objects, key), latest_attempt(objects, key)
    if finished is not None and (last is None or last.number <= finished.attempt):  # else it is being redone
        if is_unpublished(objects, key):
            check_free(objects, key)
            settle(objects, catalog_of(objects, engine_settings().catalog), key)
        return queued(objects, key, finished.attempt) or FinishedRef(finished)
    plan = how.plan_of(objects, key)
    with _unchanged(objects, key, last):
        still_open = coverage_of(plan, all_parts(plan)).open_ranges()
    return _go_on(plan, still_open, how, show=True, after=last)


def retried(objects: Objects, key: RunKey, how: GoOn) -> RunRef:
    """A reference to what is run of what failed, and of what is open.

    Raises:
        RunError: its download has come to no end; and what `_go_on` raises.
    """
    check_arrived(objects, key)
    last, plan = latest_attempt(objects, key), how.plan_of(objects, key)
    with _unchanged(objects, key, last):
        coverage = coverage_of(plan, parts := all_parts(plan))
        for number, rows in enumerate(failed(objects, parts).values()):
            coverage.release(rows[coverage.owned(number, rows)])
    return _go_on(plan, coverage.open_ranges(), how, show=False, after=last)


@contextmanager
def _unchanged(objects: Objects, key: RunKey, last: Attempt | None) -> Generator[None]:
    """Around a look at the rows that are there; `last` is the newest attempt before it.

    Raises:
        RunDamaged: a file of them is gone.
        RunError: another process has brought them to their end meanwhile.
    """
    try:
        yield
    except FileNotFoundError as error:
        now = latest_attempt(objects, key)
        if now is not None and (last is None or (now.number, now.ended) != (last.number, last.ended)):
            raise RunError(f"another process works on the run {key.path}: look at it once more") from error
        raise RunDamaged(f"{error.filename or error} is gone: restore it, or delete the run") from error


def _go_on(
    plan: RunPlan, open_ranges: Sequence[tuple[int, int]], how: GoOn, *, show: bool, after: Attempt | None
) -> RunRef:
    """A reference to what goes on: with the engine that was asked for, or else the one that the run was allocated with.

    `after` is the newest attempt when it was looked for what is open.

    Raises:
        RunError: somebody works on it whom its engine cannot join.
        NotFoundError: its function is not to be found.
        VersionError: its models have changed since.
        SettingsError: there is no such engine, or it cannot be reached.
        CatalogError: the root was moved, and its catalog has not been made anew.
    """
    objects, experiment = plan.objects, find_experiment(plan, how.module)
    chosen = choose(how.engine or plan.engine, experiment, plan, workers=how.workers)
    going = chosen.engine.attach(plan)
    if going is None:
        try:
            check_free(objects, plan.key)
        except RunError:
            going = chosen.engine.attach(plan)  # another client has started it since we looked
            if going is None:
                raise
    if going is not None and objects.exists(plan.key.cancelled):
        going = _cancelled_again(chosen.engine, plan)
    if going is not None:
        return going
    _check_models(plan, experiment)
    if plan.tables:
        check_place(catalog_of(objects, plan.catalog), plan.key.experiment)
    code = chosen.engine.read_code(experiment)
    if open_ranges:  # else no rows are made
        _tell_of_code(plan, experiment, code)
    objects.delete([plan.key.cancelled])
    objects.sweep_staging()
    number = after.number if after is not None else 0
    return start(chosen, Launch(plan, experiment, open_ranges, code, workers=how.workers, show=show, after=number))


def _tell_of_code(plan: RunPlan, experiment: Experiment, code: Code) -> None:
    """Says so where what is open of a run is to be run by other code than what there is.

    Raises:
        RunError: it is a script that was loaded to go on with its run, and whose function reads what the script sets as it goes on.
    """
    last = latest_attempt(plan.objects, plan.key)
    before = recorded(plan.objects, plan.key, last.number) if last is not None else None
    if last is None or before is None or None in (before.code, code.sha256):
        return
    if before.code == code.sha256 or before.code == read_code(experiment).sha256:  # another engine counts other values
        return
    if set_on := values_of_loaded_script(experiment):
        raise RunError(
            f"{plan.key.path} was run with other values: {experiment.name} reads {', '.join(set_on)}, which {experiment.source} sets as it "
            'goes on, and of a script that is loaded the part below `if __name__ == "__main__":` does not run. Go on with it there, '
            "by `scythe.open_run(...).resume()`, or make it an input field"
        )
    tell(
        f"{plan.key.path} goes on with other code of {experiment.name} ({short(code.sha256)}, it was run with {short(before.code)} by now{difference(plan.objects, plan.key, last.number, code)}): "
        "rows of both will stand in it"
    )


def _cancelled_again(engine: Engine, plan: RunPlan) -> RunRef | None:
    """None once nothing goes on of a run that was cancelled: its engine may have been away when it was told so.

    Raises:
        RunError: something still does.
    """
    engine.cancel(plan)
    until = time.monotonic() + _CANCELLED_SECONDS
    while (going := engine.attach(plan)) is not None and plan.objects.exists(plan.key.cancelled):
        if time.monotonic() > until:
            raise RunError(
                f"the run {plan.key.path} was cancelled, and its engine still has tasks of it: resume it again in a minute"
            )
        time.sleep(_LOOK_SECONDS)
    return going


def joined(objects: Objects, key: RunKey) -> RunRef:
    """The reference to a run that is over, or that somebody works on; nothing is started.

    Raises:
        RunDamaged: a file of the run is damaged.
        SettingsError: its engine is not installed here, or cannot be reached.
    """
    if (finished := finished_result(objects, key)) is not None:
        return queued(objects, key, finished.attempt) or FinishedRef(finished)
    plan = RunPlan.load(objects, key)
    return engine_of(plan).attach(plan) or WatchedRef(plan)


def queued(objects: Objects, key: RunKey, ended: int) -> RunRef | None:
    """The reference to an attempt behind the one that a run ended with (0: none) that waits, or works, on a cluster.

    None where there is none, and where its cluster cannot be asked.
    """
    if not is_planned(objects, key, ended):
        return None
    with suppress(SettingsError, RunError):
        plan = RunPlan.load(objects, key)
        return engine_of(plan).attach(plan)
    return None


def _check_models(plan: RunPlan, experiment: Experiment) -> None:
    """Nothing where the models are those that the run was allocated with: rows of others cannot stand in one table with its rows.

    Raises:
        VersionError: they have changed since.
    """
    told = schemas_of_run(plan.objects, plan.key)
    if told is None:
        return  # of a run of before they were written there
    now = {"input": experiment.schemas.input.schema, "output": experiment.schemas.output.schema}
    changes = [
        replace(change, field=f"{side}.{change.field}")
        for side, schema in now.items()
        for change in compare(TableSchema.from_json(told[side]), schema).changes
    ]
    for side, schema in now.items():
        if not changes and not TableSchema.from_json(told[side]).arrow.equals(schema.arrow, check_metadata=False):
            changes.append(Change(side, "its fields stand in another order", Severity.BREAKING))
    if changes:
        raise VersionError(
            f"the models of {plan.key.experiment!r} have changed since the run {plan.key.path} was allocated:\n"
            f"{Difference(tuple(changes))}\n"
            "Undo the change, and resume the run; or allocate a run of a new version with the models as they are"
        )


__all__ = ["GoOn", "joined", "queued", "resumed", "retried"]

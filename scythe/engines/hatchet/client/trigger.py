"""Triggers a run on a cluster, once: the one place where a client of the engine starts something."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.engines.engine import Launch
from scythe.engines.hatchet.client.embedded import ensure_worker
from scythe.engines.hatchet.client.outlook import way_out
from scythe.engines.hatchet.client.ref import HatchetRef, WorkflowRef, cancel
from scythe.engines.hatchet.connection import check, connect, on_loop
from scythe.engines.hatchet.exact import Unsent, message_bytes, payload_of
from scythe.engines.hatchet.fleet import is_over, serves, unfinished_triggers, workers_for
from scythe.engines.hatchet.tasks import LeafInput, ScatterInput, declare, metadata, required_labels, task_names
from scythe.engines.options import HatchetOptions
from scythe.errors import AllocationError, RunError, SettingsError
from scythe.leaf.leaf import Leaf
from scythe.record.attempt_plan import (
    AttemptPlan,
    last_attempt_left,
    last_attempt_planned,
    load_trigger,
    store_attempt_plan,
    store_trigger,
)
from scythe.record.attempts import latest_attempt
from scythe.record.manifest import read_manifest, record_trigger
from scythe.record.plan import RunPlan
from scythe.record.provenance import record
from scythe.record.results import read_result
from scythe.settings import engine_settings, hatchet_settings
from scythe.terminal.console import tell
from scythe_catalog.schema import arrow_to_models


def check_cluster(experiment: Experiment, *, single: bool) -> None:
    """Nothing, where an engine answers and knows the experiment.

    Raises:
        SettingsError: it cannot be reached, refuses the token, or is too old.
        AllocationError: its workers do not have the experiment.
    """
    hatchet = connect()
    check(hatchet)
    if hatchet_settings().embedded and experiment.included is None:
        ensure_worker(experiment)
    for name in task_names(experiment, single=single):
        called = hatchet.config.apply_namespace(name)
        known = hatchet.workflows.list(workflow_name=called).rows or []
        workers = on_loop(workers_for(name, patient=bool(known))).result()
        if any(serves(worker, name) for worker in workers):
            continue
        others = sorted({a.split(":")[0] for w in workers for a in w.actions or [] if "scythe_" in a})
        start = f"start a worker that has it: {way_out(experiment.module, experiment.source)}"
        if not known or others:
            listed = f"; those that are connected have {', '.join(others)}" if others else ""
            raise AllocationError(f"no Hatchet worker has the task {called!r}{listed}: {start}")
        tell(f"Scythe: no worker for {name!r} is connected now; the run waits for one ({start})")


def attached(plan: RunPlan) -> HatchetRef | WorkflowRef | None:
    """The reference to what the engine already has of a run, None where it has nothing that goes on.

    A workflow is never started again: its result is its own, and there is nothing to go on with.
    """
    check(connect())
    manifest = read_manifest(plan.objects, plan.key)
    if not plan.tables and manifest.get("workflow_run_id"):
        known = manifest["workflow_run_id"]
        return WorkflowRef(plan, connect().runs.get_run_ref(known), known)
    going = on_loop(unfinished_triggers(plan.key, _triggered(plan))).result()
    last, result = latest_attempt(plan.objects, plan.key), read_result(plan.objects, plan.key)
    if last is not None and last.ended and result is not None and result.attempt >= last.number:
        going = [run for run in going if run != last.run]  # it is over: what the engine lists lags behind
    if not going:
        return None
    recorded = record_trigger(plan.objects, plan.key, going[0])
    attempt = last_attempt_planned(plan.objects, plan.key)
    return HatchetRef(plan, connect().runs.get_run_ref(going[0]), recorded, attempt)


def run_hatchet(work: Launch) -> HatchetRef | WorkflowRef:
    """Triggers the next attempt on a run.

    Raises:
        RunError: the engine refuses.
    """
    plan, experiment = work.plan, work.experiment
    code = _code(work)
    labels, names = required_labels(experiment.options), task_names(experiment, single=plan.single)
    attempt = AttemptPlan(
        _next_attempt(work), list(work.open_ranges), work.show, code.sha256, labels, names, plan.max_errors
    )
    store_attempt_plan(plan.objects, plan.key, attempt)
    record(plan.objects, plan.key, experiment, "hatchet", attempt.number, code, work.stored)
    pointer: dict[str, Any] = {"root": plan.root, "run": plan.key.path, "turn": attempt.number}
    if experiment.included is not None and experiment.included.is_workflow:
        workflow = connect().stubs.workflow(name=experiment.included.name, input_validator=dict)
        with Leaf(plan, experiment) as leaf:
            spec = arrow_to_models(leaf.inputs(range(1)), experiment.schemas.input)[0]
        try:
            payload = payload_of(spec, message_bytes())
        except Unsent as error:
            raise RunError(f"{plan.key.path}: {error}") from None
        ref = _trigger(workflow, payload, plan, attempt)
        record_trigger(plan.objects, plan.key, ref.workflow_run_id)
        return WorkflowRef(plan, ref, ref.workflow_run_id)
    tasks = declare(connect(), experiment)
    asked = LeafInput(**pointer, single=True) if plan.single else ScatterInput(**pointer)
    ref = _trigger(tasks.leaf if plan.single else tasks.scatter, asked, plan, attempt)
    store_trigger(plan.objects, plan.key, attempt.number, ref.workflow_run_id)
    return HatchetRef(plan, ref, record_trigger(plan.objects, plan.key, ref.workflow_run_id), attempt.number)


def _code(work: Launch) -> Code:
    """The code that workers must have, without a hash where any will do; what was typed into a notebook is no file that they could have."""
    any_code = work.options.any_code if isinstance(work.options, HatchetOptions) else None
    if work.experiment.source is None or (engine_settings().any_code if any_code is None else any_code):
        return Code(None)
    return work.code


def _next_attempt(work: Launch) -> int:
    """The number of the next attempt: new, unless somebody may just be about to begin the last one.

    Two triggers of one attempt run once: the second finds that the first has it. An attempt whose trigger is known
    to be over (cancelled, say, before its root began) is not used again.
    """
    plan = work.plan
    last = latest_attempt(plan.objects, plan.key)
    if last is not None and last.alive:
        return last.number
    taken, stored = last.number if last is not None else 0, last_attempt_planned(plan.objects, plan.key)
    if stored > taken:
        triggered = load_trigger(plan.objects, plan.key, stored)
        if triggered is None or not on_loop(is_over(triggered)).result():
            return stored
    return max(taken, stored, last_attempt_left(plan.objects, plan.key) if work.after is not None else 0) + 1


def _trigger(task: Any, payload: BaseModel | dict[str, Any], plan: RunPlan, attempt: AttemptPlan) -> Any:
    carried = metadata(plan.key.path, attempt.number, root=True)
    try:
        return task.run(payload, wait_for_result=False, additional_metadata=carried)
    except Exception as error:
        raise RunError(
            f"Hatchet does not take the run {plan.key.path}: {_said(error)}; it is stored: resume it later"
        ) from error


def cancel_run(plan: RunPlan) -> None:
    """Cancels all that the engine has of a run, which is marked as cancelled; raises SettingsError where it cannot be reached."""
    try:
        check(connect())
    except SettingsError as error:
        raise SettingsError(
            f"{plan.key.path} is marked as cancelled, so whoever works on it stops; what of it waits on the cluster could not be "
            f"cancelled: {error}"
        ) from error
    cancel(plan, list(_triggered(plan)))


def _triggered(plan: RunPlan) -> set[str]:
    """The runs of the engine that the run's folder names: its first one, and that of the newest attempt."""
    last = latest_attempt(plan.objects, plan.key)
    recorded = read_manifest(plan.objects, plan.key).get("workflow_run_id")
    return {run for run in (recorded, last.run if last is not None else None) if run}


def _said(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)

"""The gather job: judges what killed elements, has open what is open run again, and else gathers the run."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time

import numpy as np

from scythe.define.experiment import Experiment
from scythe.engines.slurm import commands
from scythe.engines.slurm.commands import BLAMELESS, LIVING
from scythe.engines.slurm.folder import Folder, Jobs
from scythe.engines.slurm.killed import Killer, condemned, killers
from scythe.engines.slurm.opened import death_of, log_tail, open_rows, state_of
from scythe.engines.slurm.submission import submit_round
from scythe.errors import RunError, WorkerCrashed
from scythe.gather.collect import Collector
from scythe.leaf.failures import Failure
from scythe.leaf.leaf import Leaf
from scythe.record.attempt_plan import AttemptPlan, load_failure, store_failure
from scythe.record.lease import Lease
from scythe.record.plan import RunPlan
from scythe.record.results import read_result
from scythe.terminal.console import tell

_TAIL_LINES = 5
#: Ends of jobs that say nothing of what they ran; where all elements of a round ended so, it is tried again so often.
_LOST, _LOST_ROUNDS = BLAMELESS - {"COMPLETED"}, 2


def gather(plan: RunPlan, attempt: AttemptPlan, experiment: Experiment, folder: Folder) -> None:
    """Ends an attempt, or submits another round of it.

    Raises:
        RunError: it cannot be ended; what is wrong is noted in the run's folder.
    """
    number = attempt.number
    shared = ("slurm", int(os.environ["SLURM_JOB_ID"]))
    with Lease(plan.objects, plan.key, "slurm", run=f"slurm {number}", number=number, shared_by=shared) as lease:
        lease.check()
        said = load_failure(plan.objects, plan.key)
        if said is not None:
            lease.is_last = True
            raise RunError(said)
        try:
            if _end(plan, attempt, experiment, folder, lease.began):
                lease.is_last = True
        except Exception as error:
            store_failure(plan.objects, plan.key, number, str(error))
            lease.is_last = True
            raise


def _end(plan: RunPlan, attempt: AttemptPlan, experiment: Experiment, folder: Folder, began: float) -> bool:
    """Whether the attempt is at its end: gathered; else another round of it is under way."""
    result = read_result(plan.objects, plan.key)
    if result is not None and result.attempt == attempt.number:  # this job was begun again, or another has done it
        Collector(plan, experiment, attempt.number, show=False).finish()
        return True
    rounds = folder.rounds()
    if rounds and _is_again(rounds[-1]) and _goes_on(rounds[-1].array):  # that array has a gather job behind it
        tell(f"Scythe: the job array {rounds[-1].array} works on {plan.key.path} still: another job gathers")
        return False
    living = _bury(folder)
    if living:  # another submission of this attempt: its answer never came
        submit_round(folder, plan, experiment, folder.options()[0], None, 0, behind=living)
        return False
    prefix = f"{attempt.number:06d}-gather-{len(rounds)}"
    collector = Collector(plan, experiment, attempt.number, prefix=prefix, show=False)
    collector.began = dt.datetime.fromtimestamp(began, dt.UTC)
    still_open = open_rows(plan, attempt)
    lost = _killers(folder, attempt, still_open, experiment.options.retries)
    with Leaf(plan, experiment) as leaf:
        for one in lost:
            failure = Failure.of(WorkerCrashed(one.told), len(one.ends))
            began, worker = one.began or time.time(), f"element {one.ends[-1].element}"
            collector.add(leaf.failed(one.row, failure, one.seconds, began, worker, one.printed))
    collector.flush(show=False)
    left = len(still_open) - len(lost)
    if not left:
        collector.finish()
        return True
    _check_progress(plan, folder, left, experiment.options.retries)
    options, asked = folder.options()
    tell(f"Scythe: {left:,} inputs of {plan.key.path} are open: they are submitted again")
    try:
        submit_round(folder, plan, experiment, options, asked, left)
    except RunError as error:
        raise RunError(
            f'{left:,} inputs are open, and Slurm takes no job from this node ({error}): go on with scythe resume "{plan.key.path}"'
        ) from error
    return False


def _is_again(latest: Jobs) -> bool:
    """Whether this job was begun again, or there is another gather job."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0" or latest.gather != os.environ["SLURM_JOB_ID"]


def _goes_on(array: str | None) -> bool:
    """Whether elements of an array wait or run, as far as Slurm answers."""
    with contextlib.suppress(RunError):
        return array is not None and any(job.state in LIVING - {"COMPLETING"} for job in commands.queue([array]))
    return False


def _bury(folder: Folder) -> set[str]:
    """Records of each element that did not end by itself how it died. The arrays of those that live: there should be none."""
    known, living = {one.element for one in folder.gone()}, set[str]()
    for beat in folder.beats():
        if beat.ended or beat.element in known:
            continue
        state = state_of(folder, beat)
        if state in LIVING:
            living.add(beat.array)
        else:
            folder.bury(death_of(beat, state))
    return living


def _killers(folder: Folder, attempt: AttemptPlan, still_open: np.ndarray, retries: int) -> list[Killer]:
    """The open inputs that have killed as many elements as they may."""
    gone = folder.gone()
    rows = condemned(gone, still_open.tolist(), retries)
    wanted = np.asarray(attempt.rows(range(attempt.n)), np.int64)
    places = np.flatnonzero(np.isin(wanted, [*rows])).tolist()
    holders = folder.holders(places)
    return killers(gone, rows, {int(wanted[place]): names for place, names in holders.items()})


def _check_progress(plan: RunPlan, folder: Folder, left: int, retries: int) -> None:
    """Nothing where another round may come to more than the last ones.

    Raises:
        RunError: it would not.
    """
    rounds = folder.rounds()
    same = 0
    for jobs in reversed(rounds):
        if jobs.open != left:
            break
        same += 1
    tried = {beat.array for beat in folder.beats()}
    nobody = bool(rounds) and rounds[-1].array not in tried
    if not nobody and same <= retries + 2:
        return
    if nobody and same <= _LOST_ROUNDS and commands.state(str(rounds[-1].array)) in _LOST:
        return  # before it could say so: in its setup, or while it loaded
    said = folder.problem()
    if said is None:
        lines = [line for line in log_tail(folder, 0).strip().splitlines() if line.strip()]
        said = "\n".join(lines[-_TAIL_LINES:]) or "they have printed nothing"
    what = "no element of the job array came up" if nobody else f"{same} rounds have come to nothing more"
    raise RunError(f"{left:,} inputs of {plan.key.path} are open, and {what}: {said}")


def note(plan: RunPlan, number: int, error: Exception) -> None:
    """Records in the run's folder why a job could not begin; where nobody did before."""
    with contextlib.suppress(OSError):
        if load_failure(plan.objects, plan.key) is None:
            store_failure(plan.objects, plan.key, number, str(error))


__all__ = ["gather", "note"]

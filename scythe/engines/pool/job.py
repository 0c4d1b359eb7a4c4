"""What a worker process needs to serve chunks of a run: the job that it is sent. Starts no process."""

from __future__ import annotations

from dataclasses import replace

from scythe.define.code import sources_of
from scythe.define.experiment import Experiment
from scythe.define.snapshot import Source
from scythe.engines.pool.child import Job
from scythe.engines.pool.travel import packed
from scythe.leaf.failures import lines_in_memory
from scythe.record.plan import RunPlan
from scythe_catalog.storage.reach import hand_over, renewed


def pool_job(
    plan: RunPlan,
    experiment: Experiment,
    parts: str | None = None,
    *,
    attempt: int = 0,
    sources: tuple[Source, ...] | None = None,
) -> Job:
    """What a worker process needs to serve chunks of a run; it goes to processes of this machine alone.

    `sources` are the project's modules as they are to be loaded: without, as their files are now.
    """
    limit = experiment.options.execution_seconds
    code = sources_of(experiment) if sources is None else sources
    reach, lines = hand_over(plan.root), lines_in_memory()
    return Job(plan.to_json(), packed(experiment), limit, parts, attempt, reach, lines, code)


def kept_up(job: Job, plan: RunPlan) -> Job:
    """The job, with new credentials where those that it holds have been replaced."""
    reach = renewed(plan.root, job.reach)
    return job if reach is job.reach else replace(job, reach=reach)

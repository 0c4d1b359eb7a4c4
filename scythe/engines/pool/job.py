"""What a worker process needs to serve chunks of a run: the job that it is sent. Starts no process."""

from __future__ import annotations

from dataclasses import replace

from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.engines.pool.child import Job
from scythe.engines.pool.travel import packed
from scythe.leaf.failures import lines_in_memory
from scythe.record.plan import RunPlan
from scythe_catalog.storage.reach import hand_over, renewed


def pool_job(
    plan: RunPlan,
    experiment: Experiment,
    code: Code,
    parts: str | None = None,
    *,
    attempt: int = 0,
) -> Job:
    """What a worker process needs to serve chunks of a run; it goes to processes of this machine alone, which load the project's modules as `code` has them."""
    limit = experiment.options.execution_seconds
    reach, lines = hand_over(plan.root), lines_in_memory()
    return Job(plan.to_json(), packed(experiment), limit, parts, attempt, reach, lines, code.modules)


def kept_up(job: Job, plan: RunPlan) -> Job:
    """The job, with new credentials where those that it holds have been replaced."""
    reach = renewed(plan.root, job.reach)
    return job if reach is job.reach else replace(job, reach=reach)

"""What the jobs run: `python -m scythe.engines.slurm element|gather ROOT RUN ATTEMPT SOURCE ARGV...`."""

from __future__ import annotations

import sys
from dataclasses import replace

from scythe.define.code import Code, read_code
from scythe.define.experiment import Experiment
from scythe.engines.slurm.element import Element
from scythe.engines.slurm.folder import Folder
from scythe.engines.slurm.gathering import gather, note
from scythe.engines.slurm.opened import open_rows
from scythe.errors import RunError, ScytheError
from scythe.record.attempt_plan import AttemptPlan, last_attempt_planned, load_attempt_plan
from scythe.record.layout import RunKey
from scythe.record.manifest import schema_hash
from scythe.record.plan import RunPlan
from scythe.record.provenance import difference
from scythe.source import find_experiment
from scythe.terminal.console import tell
from scythe_catalog.storage.objects import Objects


def main(what: str, root: str, run: str, number: int, source: str) -> int:
    """Runs one job; its exit code."""
    objects, key = Objects.at(root), RunKey(*run.split("/"))
    if objects.exists(key.tombstone):
        tell(f"Scythe: the run {run} was deleted")
        return 0
    plan = RunPlan.load(objects, key)
    if last_attempt_planned(objects, plan.key) > number:
        tell(f"Scythe: the run {run} was taken up by another process since")
        return 0
    attempt = load_attempt_plan(objects, plan.key, number)
    plan = replace(plan, max_errors=attempt.max_errors)
    folder = Folder(objects, plan.key, number)
    try:
        experiment = find_experiment(plan, source=source or None)
        code = read_code(experiment)
        if what == "element" or len(open_rows(plan, attempt)):  # to gather rows needs none of it
            _check(plan, attempt, experiment, code)
        if what == "element":
            Element(plan, attempt, experiment, code, folder).serve()
        else:
            gather(plan, attempt, experiment, folder)
    except ScytheError as error:
        tell(f"Scythe: {error}")
        if what == "gather":
            note(plan, number, error)
        else:
            folder.note_problem(str(error))
        return 1
    return 0


def _check(plan: RunPlan, attempt: AttemptPlan, experiment: Experiment, code: Code) -> None:
    """Nothing where the code is that with which the run was submitted.

    Raises:
        RunError: it has changed since.
    """
    if schema_hash(experiment) != plan.schema_sha256 or attempt.code not in (None, code.sha256):
        raise RunError(
            f"the code of {experiment.name!r} has changed since the run {plan.key.path} was submitted{difference(plan.objects, plan.key, attempt.number, code)}: put it back, or resume "
            "the run with the code that you have now; SCYTHE_ANY_CODE=true allows any"
        )


if __name__ == "__main__":
    _, what, root, run, number, source, *arguments = sys.argv
    sys.argv[:] = arguments  # those of the program that submitted it: its modules may read them
    sys.exit(main(what, root, run, int(number), source))

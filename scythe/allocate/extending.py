"""A run with more inputs: those of an earlier run, and those of others that are not among them. `ExperimentRun.extend` finds this room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.allocate.allocation import allocated
from scythe.allocate.arguments import checked_note, checked_reuse, checked_tags
from scythe.allocate.artifacts import look_at_files
from scythe.allocate.inputs import Inputs, joined_inputs, prepare_inputs
from scythe.allocate.store import Request
from scythe.define.experiment import Experiment
from scythe.engines.engine import RunRef
from scythe.engines.options import EngineOptions
from scythe.engines.start import choose
from scythe.errors import VersionError
from scythe.record.format import reading
from scythe.record.manifest import schema_hash
from scythe.record.plan import RunPlan
from scythe.reuse.identity import Specs
from scythe.reuse.known import specs_of
from scythe.reuse.matching import paired
from scythe.runs.run import ExperimentRun
from scythe.settings import engine_settings
from scythe.source import find_experiment


def extended(
    plan: RunPlan,
    specs: Any,
    *,
    engine: str | EngineOptions | None,
    workers: int | None,
    any_code: bool,
    reuse_errors: bool,
    note: str | None,
    tags: Sequence[str],
) -> tuple[ExperimentRun, RunRef]:
    """A new run with the inputs of this one, and those of `specs` that are not among them.

    Raises:
        VersionError: the models have changed since.
        InputError: inputs that do not fit.
        AllocationError: as `allocate`.
    """
    experiment = find_experiment(plan, None)
    if schema_hash(experiment) != plan.schema_sha256:
        raise VersionError(
            f"the models of {plan.key.experiment} have changed since {plan.key.version}: rows of other models are other rows. "
            "Allocate a run of a new version"
        )
    chosen = choose(engine, experiment, workers=workers)
    inputs = _together(plan, experiment, prepare_inputs(specs, experiment, overwrite_sort_index=True))
    chosen.check(experiment, inputs=inputs.table.num_rows, single=False, workers=workers)
    asked = Request(
        experiment, plan.key.experiment, inputs, chosen, engine_settings().catalog, plan.seed, plan.max_errors,
        note=checked_note(note), tags=checked_tags(tags), pack=plan.pack, copied_below=plan.objects.uri(plan.key.path) + "/",
    )  # fmt: skip
    reuse = checked_reuse(True, any_code=any_code, reuse_errors=reuse_errors)
    return allocated(asked, plan.objects, plan.key.version, workers=workers, reuse=reuse)


def _together(plan: RunPlan, experiment: Experiment, inputs: Inputs) -> Inputs:
    """The inputs of the run, and behind them the new ones."""
    files = look_at_files(inputs, copy_inputs=False)
    names = experiment.schemas.input.schema.names
    new = Specs.of(inputs.table, files.identities, names, (column.name for column in inputs.computed))
    known, _ = paired(new.identities(), specs_of(plan).identities(), new, specs_of(plan))
    is_new = np.ones(new.rows, bool)
    is_new[known] = False
    with reading(plan.objects, plan.key.specs, stays=True), plan.objects.reader(plan.key.specs) as stream:
        old = pq.read_table(stream)
    return joined_inputs(old, inputs.table.filter(pa.array(is_new)), experiment)


__all__ = ["extended"]

"""A run with more inputs: those of an earlier run, and those of others that are not among them. `ExperimentRun.extend` finds this room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.allocate.artifacts import look_at_files
from scythe.allocate.experiment import BaseExperiment
from scythe.allocate.inputs import prepare_inputs
from scythe.define.experiment import Experiment
from scythe.engines.engine import RunRef
from scythe.engines.options import EngineOptions
from scythe.record.plan import RunPlan
from scythe.reuse.identity import Specs
from scythe.reuse.known import specs_of
from scythe.reuse.matching import paired
from scythe.runs.run import ExperimentRun
from scythe.source import find_experiment
from scythe_catalog.schema import arrow_to_models


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
        InputError: inputs that do not fit.
        AllocationError: as `allocate`.
    """
    experiment = find_experiment(plan, None)
    return BaseExperiment(experiment, run_name=plan.key.experiment).allocate(
        _together(plan, experiment, specs), plan.key.version, engine=engine, workers=workers, reuse=True, any_code=any_code,
        reuse_errors=reuse_errors, note=note, tags=tags, seed=plan.seed, max_errors=plan.max_errors, pack=plan.pack,
    )  # fmt: skip


def _together(plan: RunPlan, experiment: Experiment, specs: Any) -> Any:
    """The inputs of the run, then the new ones: as a table, or as models where any carries values beyond its fields."""
    inputs = prepare_inputs(specs, experiment, overwrite_sort_index=True)
    files = look_at_files(inputs, copy_inputs=False)
    names = experiment.schemas.input.schema.names
    new = Specs.of(inputs.table, files.identities, names, (column.name for column in inputs.computed))
    known, _ = paired(new.identities(), specs_of(plan).identities(), new, specs_of(plan))
    is_new = np.ones(new.rows, bool)
    is_new[known] = False
    with plan.objects.reader(plan.key.specs) as stream:
        old = pq.read_table(stream)
    if plan.extra or inputs.extra:
        compiled = experiment.schemas.input
        return [
            model
            for table in (old, inputs.table.filter(pa.array(is_new)))
            for model in arrow_to_models(table, compiled)
        ]
    tables = [old.select(names), inputs.table.filter(pa.array(is_new)).select(names)]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables], promote_options="default")


__all__ = ["extended"]

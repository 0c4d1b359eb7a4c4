"""Stores a run whole: input files, specs, plan, the tables that take its rows, and the manifest last. Starts nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import pyarrow as pa
from pydantic_core import to_jsonable_python

from scythe.allocate.artifacts import LookedAt, look_at_files, store_artifacts
from scythe.allocate.inputs import Inputs
from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.define.renames import Renames
from scythe.engines.start import Chosen
from scythe.errors import ScytheError
from scythe.gather.publish import settle_all
from scythe.record.generations import Generations, catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import IO_SCHEMAS, dump_yaml, io_spec, make_manifest, schema_hash
from scythe.record.plan import MaxErrors, RunPlan, TablePlan
from scythe.record.provenance import Provenance, begin
from scythe.record.reserve import give_number, next_number
from scythe.reuse.answers import Answers
from scythe.reuse.owners import check_there
from scythe.scatter_gather import RecursionMap
from scythe.terminal.phase import Phase
from scythe_catalog.iceberg.datafile import DataFileWriter
from scythe_catalog.memo import cached_property
from scythe_catalog.schema import arrow_to_models
from scythe_catalog.storage.objects import Objects


@dataclass(frozen=True)
class Request:
    """What is asked for: an experiment, its inputs, and how they are to be run."""

    experiment: Experiment
    #: The folder of its runs.
    name: str
    inputs: Inputs
    engine: Chosen
    catalog: str | None
    seed: int
    max_errors: MaxErrors
    chunk: int | None = None
    shape: RecursionMap | None = None
    copy_inputs: bool = False
    overwrite_experiment_id: bool = True
    note: str | None = None
    tags: Sequence[str] = ()
    pack: Sequence[str] = ()
    key: str | None = None
    #: Former name -> name of fields, beside what the models tell.
    renames: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Input files whose address begins so are copied, wherever they lie.
    copied_below: str | None = None

    @cached_property
    def files(self) -> LookedAt:
        """The input files as they are now."""
        return look_at_files(self.inputs, copy_inputs=self.copy_inputs, below=self.copied_below)

    @cached_property
    def code(self) -> Code:
        """The code that the run is to be made by, read once."""
        return self.engine.engine.read_code(self.experiment)


def store_run(
    asked: Request,
    objects: Objects,
    key: RunKey,
    renames: Renames = Renames(),  # noqa: B008 - it is frozen
    answers: Answers | None = None,
) -> tuple[RunPlan, Provenance]:
    """Everything of a run but its results: input files, specs, plan, tables and, last, the manifest. Starts nothing.

    The version's `renames` are noted, and the catalog's columns get the names that they have since. Of the inputs that
    have `answers` the rows are there, too. Gives what it has recorded of itself beside the plan.
    """
    experiment, inputs = asked.experiment, asked.inputs
    engine, included = asked.engine.engine, experiment.included
    run_id = None if engine.names_runs else str(uuid.uuid4())
    looked_at = begin(experiment, engine.name, asked.code)
    table, artifacts = store_artifacts(inputs, asked.files, objects, key)
    if asked.overwrite_experiment_id:
        at = table.schema.get_field_index("experiment_id")
        table = table.set_column(at, table.schema.field(at), pa.repeat(pa.scalar(key.path), table.num_rows))
    metadata = {
        **(table.schema.metadata or {}),
        IO_SCHEMAS: json.dumps({**experiment.schemas.to_json(), **renames.to_json()}),
    }
    schema = table.schema.with_metadata(metadata)
    with Phase("storing the inputs"), DataFileWriter(objects, key.specs, schema, None) as writer:
        writer.write(table)
    objects.write(key.io_spec, io_spec(experiment))
    objects.write(key.input_artifacts, dump_yaml({"files": artifacts}))
    if inputs.single:
        spec = arrow_to_models(table, experiment.schemas.input)[0]
        plain = to_jsonable_python(spec.model_dump(), bytes_mode="base64", inf_nan_mode="strings", fallback=str)
        objects.write(key.workflow_spec, dump_yaml(plain, sort_keys=False))
    plan = RunPlan(
        root=objects.root,
        key=key,
        inputs=table.num_rows,
        workflow_run_id=run_id,
        engine=engine.name,
        chunk=asked.chunk if included is None else 1,
        module=experiment.module,
        qualname=experiment.target.__qualname__,
        source=experiment.source,
        computed=[c.to_json() for c in inputs.computed],
        extra=inputs.extra,
        catalog=asked.catalog,
        dense=inputs.dense,
        schema_sha256=schema_hash(experiment),
        single=inputs.single and included is None,
        factor=asked.shape.factor if asked.shape is not None else None,
        max_depth=asked.shape.max_depth if asked.shape is not None else None,
        seed=asked.seed,
        stream=answers.stream if answers is not None else 0,
        max_errors=asked.max_errors,
        pack=[*asked.pack],
    )
    with _prepared_tables(experiment, objects, plan, renames):
        brought = answers.brought(plan, table) if answers is not None else None
        plan = replace(plan, owners=brought.owners if brought is not None else [])
        objects.write(key.plan, plan.to_json())
        made_by, place = looked_at(), next_number(objects, key)
        objects.write(key.provenance(0), made_by.to_json())
        manifest = make_manifest(
            objects, key, experiment, inputs=table.num_rows, made_by=made_by, workflow_run_id=run_id, number=place,
            seed=asked.seed, note=asked.note, tags=asked.tags, sampled=inputs.sampled,
            reused=brought.reused if brought is not None else (), owners=brought.owners if brought is not None else (),
            key_given=asked.key,
        )  # fmt: skip
        objects.write(key.manifest, manifest)
        if brought is not None:
            check_there(objects, brought.owners, brought.seen)
        give_number(objects, key, place)
    return plan, made_by


@contextmanager
def _prepared_tables(experiment: Experiment, objects: Objects, plan: RunPlan, renames: Renames) -> Generator[None]:
    """The catalog's tables that take the run's rows, in its plan; left as they were where the block fails."""
    if experiment.included is not None and experiment.included.is_workflow:
        yield
        return
    catalog = catalog_of(objects, plan.catalog)
    settle_all(objects, catalog, plan.key.experiment)
    generations = Generations(catalog, plan.key.experiment, objects, renames)
    try:
        generations.rename(renames)
        for name, schema in plan.schemas(experiment).tables.items():
            table = generations.open(plan.key, name, schema)
            plan.tables[name] = TablePlan(table.iceberg.name()[-1], schema.to_json(), table.ids)
        yield
    except BaseException:
        with suppress(ScytheError, OSError):  # what broke the allocation says more than that it cannot be undone
            reserved = objects.keys(plan.key.reservation.rsplit("/", 2)[0])
            generations.undo(alone=reserved == [plan.key.reservation])
        raise

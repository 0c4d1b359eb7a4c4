"""Allocation: from specs to a run that is stored whole, and then started.

Order: validate everything, reserve version and folder, store files and specs, prepare the tables,
write the plan and, last, the manifest. Only then does anything run.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import pyarrow as pa
from pydantic_core import to_jsonable_python

from scythe.artifacts import store_artifacts
from scythe.define.experiment import Experiment
from scythe.define.schemas import difference
from scythe.engines.jobs import RunRef
from scythe.engines.start import check_engine, check_ready, start
from scythe.errors import AllocationError, NotFoundError, RunDamaged, ScytheError, StorageError, VersionError
from scythe.gather.publish import settle_all
from scythe.inputs import Inputs, prepare_inputs
from scythe.names import check_name
from scythe.record import find, layout
from scythe.record.format import dump, parse
from scythe.record.generations import Generations, catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import dump_yaml, io_spec, make_manifest, schema_hash
from scythe.record.plan import RunPlan, TablePlan
from scythe.record.provenance import begin
from scythe.record.reserve import give_number, next_number, reserve_folder, sweep, undo
from scythe.record.results import RunResult, finished_result
from scythe.record.versions import (
    STRATEGIES,
    SemVer,
    VersioningStrategy,
    allowed_between,
    check_allocatable,
    check_step,
    next_version,
    parse_folders,
)
from scythe.registry import experiment_of
from scythe.runs import ExperimentRun, load_run
from scythe.scatter_gather import RecursionMap
from scythe.settings import engine_settings, storage
from scythe.source import loading
from scythe_catalog.datafile import DataFileWriter
from scythe_catalog.objects import Objects, reason
from scythe_catalog.schema import Difference, arrow_to_models

_RESERVE_TRIES = 1000


class BaseExperiment:
    """An experiment that is ready to be allocated.

    Args:
        experiment: A registered function or class, or its name.
        runnable: The same, or a Hatchet runnable that was given to `ExperimentRegistry.Include`.
        run_name: Folder of its runs, in place of the experiment's name.
    """

    def __init__(self, experiment: Any = None, *, runnable: Any = None, run_name: str | None = None) -> None:
        if (experiment is None) == (runnable is None):
            raise AllocationError("give either experiment= or runnable=")
        self.experiment: Experiment = experiment_of(experiment if experiment is not None else runnable)
        self.name = check_name(run_name, "a run", AllocationError) if run_name is not None else self.experiment.name

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Another of the same experiment, `deep` or not: the function is the same one, never a copy.

        Args:
            update: `run_name`, to give the copy's runs a folder of their own.
        """
        given = {"run_name": self.name, **(update or {})}
        if unknown := given.keys() - {"run_name"}:
            raise AllocationError(f"model_copy(update=...) takes run_name alone, not {', '.join(sorted(unknown))}")
        return type(self)(self.experiment, run_name=given["run_name"])

    # --- what is there ------------------------------------------------------------------------------

    def list_versions(self) -> list[SemVer]:
        """All versions, lowest first."""
        return find.version_names(storage(), self.name)

    def latest_version(self) -> SemVer | None:
        """The highest version, None before the first run."""
        versions = self.list_versions()
        return versions[-1] if versions else None

    def list_runs(self, version: str | SemVer | None = None) -> list[ExperimentRun]:
        """The runs of a version (of all versions without one), oldest first."""
        objects = storage()
        wanted = [SemVer.parse(version)] if version is not None else self.list_versions()
        keys = [RunKey(self.name, str(v), f) for v in wanted for f in find.run_folders(objects, self.name, str(v))]
        return [load_run(objects, key) for key in keys if objects.exists(key.manifest)]

    def latest_run(self, version: str | SemVer | None = None) -> ExperimentRun | None:
        """The latest run of a version (of the latest version without one), None where there is none."""
        objects = storage()
        try:
            return load_run(objects, find.latest_run(objects, self.name, version))
        except NotFoundError:
            return None

    def latest_results(self) -> dict[str, str]:
        """Table name -> URI, of the latest finished run of the latest version that has one."""
        for version in reversed(self.list_versions()):
            found = self.latest_results_for_version(version)
            if found:
                return found
        return {}

    def latest_results_for_version(self, version: str | SemVer) -> dict[str, str]:
        """Table name -> URI, of the latest finished run of a version; empty where there is none."""
        objects, named = storage(), str(SemVer.parse(version))
        for folder in reversed(find.run_folders(objects, self.name, named)):
            result = finished_result(objects, RunKey(self.name, named, folder))
            if result is not None:
                return result.uris
        return {}

    def list_results_files(self, run: ExperimentRun | None = None) -> list[str]:
        """URIs of all output files of a run (of the latest without one)."""
        run = run or self.latest_run()
        if run is None:
            return []
        return [run.objects.uri(k) for k in run.objects.keys(f"{run.key.path}/results")]

    # --- allocation ---------------------------------------------------------------------------------

    def allocate(
        self,
        specs: Any,
        version: VersioningStrategy | str | SemVer = "bumpmajor",
        *,
        overwrite_sort_index: bool = True,
        overwrite_experiment_id: bool = True,
        recursion_map: RecursionMap | None = None,
        s3_client: Any = None,
        engine: str | None = None,
        chunk: int | None = None,
        workers: int | None = None,
        copy_inputs: bool = False,
        seed: int = 0,
    ) -> tuple[ExperimentRun, RunRef]:
        """Stores a run whole and starts it.

        Args:
            specs: Models of the experiment's input model, one model, or a Polars, pandas or Arrow table.
            version: `bumpmajor`, `bumpminor`, `bumppatch`, `keep`, `auto` (from what changed in the schema), or a SemVer.
            overwrite_sort_index: Number the specs 0 to n - 1, rather than keep their own `sort_index`.
            overwrite_experiment_id: Set `experiment_id` to `experiment/version/datetime`.
            recursion_map: Shape of the scatter tree, on a cluster.
            s3_client: A boto3 S3 client, to reach the root's bucket with from now on in this process (and its workers);
                where the root is a folder, the buckets of inputs.
            engine: `inline`, `local` (default) or `hatchet`; also `SCYTHE_ENGINE`.
            chunk: Inputs per task; chosen by their duration if not given.
            workers: Processes of the local engine; all cores if not given.
            copy_inputs: Copy s3 and http inputs into the run too, not local files alone.
            seed: What the random numbers of all inputs derive from: `input_spec.seed`, `random` and `np.random`.

        Returns:
            The run, and a reference to its result.

        Raises:
            InputError: inputs that do not fit; nothing was written.
            VersionError: a version that is malformed, or too small a step.
            AllocationError: the root cannot be written.
        """
        if loading.get():
            raise AllocationError(
                'this script is only being loaded for its experiment: put the allocation under `if __name__ == "__main__":`'
            )
        if chunk is not None and chunk < 1:
            raise AllocationError(f"chunk must be at least 1, got {chunk}")
        if not isinstance(seed, int) or isinstance(seed, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AllocationError(f"seed must be a whole number, got {seed!r}")
        settings = engine_settings()
        included = self.experiment.included
        engine = check_engine(engine or ("hatchet" if included is not None else settings.engine))
        if included is not None and engine != "hatchet":
            raise AllocationError(f"{included.name!r} is a task of Hatchet's: allocate it with engine='hatchet'")
        if workers is not None and workers < 1:
            raise AllocationError(f"workers must be at least 1, got {workers}")
        inputs = prepare_inputs(specs, self.experiment, overwrite_sort_index=overwrite_sort_index)
        if included is not None and included.is_workflow and not inputs.single:
            raise AllocationError(f"{included.name!r} is a workflow, which runs one input at a time: give one model")
        check_ready(engine, self.experiment, single=inputs.single)
        objects = storage()
        if s3_client is not None:
            _use_client(objects, s3_client)
        with _writable(objects), self._reserved(objects, version) as key:
            objects.sweep_staging()
            sweep(objects, key)
            plan = self._store(
                objects, key, inputs, engine=engine, chunk=chunk, shape=recursion_map, catalog=settings.catalog,
                copy_inputs=copy_inputs, overwrite_experiment_id=overwrite_experiment_id, seed=seed,
            )  # fmt: skip
        run = load_run(objects, key)
        ref = start(plan, self.experiment, [(0, plan.inputs)], engine=engine, workers=workers or settings.workers)
        run.workflow_run_id = ref.workflow_run_id
        return run, ref

    def _store(
        self,
        objects: Objects,
        key: RunKey,
        inputs: Inputs,
        *,
        engine: str,
        chunk: int | None,
        shape: RecursionMap | None,
        catalog: str | None,
        copy_inputs: bool,
        overwrite_experiment_id: bool,
        seed: int,
    ) -> RunPlan:
        looked_at = begin(self.experiment, engine)
        table, artifacts = store_artifacts(inputs, objects, key, copy_inputs=copy_inputs)
        if overwrite_experiment_id:
            at = table.schema.get_field_index("experiment_id")
            table = table.set_column(at, table.schema.field(at), pa.repeat(pa.scalar(key.path), table.num_rows))
        metadata = {**(table.schema.metadata or {}), _IO_SCHEMAS: json.dumps(self.experiment.schemas.to_json())}
        with DataFileWriter(objects, key.specs, table.schema.with_metadata(metadata), None) as writer:
            writer.write(table)
        objects.write(key.io_spec, io_spec(self.experiment))
        objects.write(key.input_artifacts, dump_yaml({"files": artifacts}))
        if inputs.single:
            spec = arrow_to_models(table, self.experiment.schemas.input)[0]
            plain = to_jsonable_python(spec.model_dump(), bytes_mode="base64", inf_nan_mode="strings", fallback=str)
            objects.write(key.workflow_spec, dump_yaml(plain, sort_keys=False))
        run_id = None if engine == "hatchet" else str(uuid.uuid4())
        plan = RunPlan(
            root=objects.root,
            key=key,
            inputs=table.num_rows,
            workflow_run_id=run_id,
            engine=engine,
            chunk=chunk if self.experiment.included is None else 1,
            module=self.experiment.module,
            qualname=self.experiment.target.__qualname__,
            source=self.experiment.source,
            computed=[c.to_json() for c in inputs.computed],
            extra=inputs.extra,
            catalog=catalog,
            dense=inputs.dense,
            schema_sha256=schema_hash(self.experiment),
            single=inputs.single and self.experiment.included is None,
            factor=shape.factor if shape is not None else None,
            max_depth=shape.max_depth if shape is not None else None,
            seed=seed,
        )
        with self._prepared_tables(objects, plan):
            objects.write(key.plan, plan.to_json())
            made_by, place = looked_at(), next_number(objects, key)
            objects.write(key.provenance(0), made_by.to_json())
            manifest = make_manifest(
                objects, key, self.experiment, inputs=table.num_rows, made_by=made_by, workflow_run_id=run_id,
                number=place, seed=seed,
            )  # fmt: skip
            objects.write(key.manifest, manifest.to_yaml())
            give_number(objects, key, place)
        return plan

    @contextmanager
    def _prepared_tables(self, objects: Objects, plan: RunPlan) -> Generator[None]:
        """The catalog's tables that take the run's rows, in its plan; left as they were where the block fails."""
        if self.experiment.included is not None and self.experiment.included.is_workflow:
            yield
            return
        catalog = catalog_of(objects, plan.catalog)
        settle_all(objects, catalog, plan.key.experiment)
        generations = Generations(catalog, plan.key.experiment, objects)
        try:
            for name, schema in plan.schemas(self.experiment).tables.items():
                table = generations.open(plan.key, name, schema)
                plan.tables[name] = TablePlan(table.iceberg.name()[-1], schema.to_json(), table.ids)
            yield
        except BaseException:
            with suppress(ScytheError, OSError):  # what broke the allocation says more than that it cannot be undone
                reserved = objects.keys(plan.key.reservation.rsplit("/", 2)[0])
                generations.undo(alone=reserved == [plan.key.reservation])
            raise

    # --- reservation --------------------------------------------------------------------------------

    @contextmanager
    def _reserved(self, objects: Objects, wanted: VersioningStrategy | str | SemVer) -> Generator[RunKey]:
        """A version and a run folder that nobody else gets; given back where the allocation fails."""
        version = self._reserve_version(objects, wanted)
        key = reserve_folder(objects, self.name, str(version))
        try:
            yield key
        except BaseException:
            with suppress(StorageError):  # what broke the allocation says more than that it cannot be undone
                undo(objects, key)
            raise

    def _reserve_version(self, objects: Objects, wanted: VersioningStrategy | str | SemVer) -> SemVer:
        record = dump(self.experiment.schemas.to_json())
        for _ in range(_RESERVE_TRIES):
            versions = self._known_versions(objects)
            version = self._choose(objects, versions, wanted)
            known = str(version) in map(str, versions)
            objects.make()
            if known or objects.create(layout.version_record(self.name, str(version)), record):
                return version
        raise AllocationError(f"no version of {self.name!r} could be reserved: other allocations were always faster")

    def _known_versions(self, objects: Objects) -> list[SemVer]:
        reserved = objects.files(layout.version_records(self.name))
        folders = objects.folders(self.name)
        return parse_folders([*(name.removesuffix(".json") for name in reserved), *folders])

    def _choose(self, objects: Objects, versions: list[SemVer], wanted: VersioningStrategy | str | SemVer) -> SemVer:
        if isinstance(wanted, str) and wanted in STRATEGIES:
            latest = versions[-1] if versions else None
            return next_version(wanted, latest, self._difference(objects, latest) if latest else None)
        try:
            version = SemVer.parse(wanted)
        except VersionError as error:
            raise VersionError(
                f"{wanted!r} is neither a semantic version nor one of {', '.join(STRATEGIES)}"
            ) from error
        if str(version) not in map(str, versions):
            check_allocatable(version)
        below = [v for v in versions if v <= version]
        if below:
            allowed = allowed_between(below[-1], version)
            check_step(str(version), allowed, below[-1], self._difference(objects, below[-1]))
        return version

    def _difference(self, objects: Objects, version: SemVer) -> Difference:
        """What changed in the schemas since a version."""
        record = layout.version_record(self.name, str(version))
        damage: RunDamaged | None = None
        recorded: dict[str, Any] | None = None
        try:
            recorded = parse(objects.read(record), objects.uri(record))
        except FileNotFoundError:
            pass
        except RunDamaged as error:
            damage = error
        recorded = recorded or schemas_of_version(objects, self.name, str(version))
        if recorded is None and damage is not None:
            raise AllocationError(
                f"what the schemas of {self.name} {version} were cannot be told: {damage}"
            ) from damage
        return difference(recorded, self.experiment.schemas) if recorded else Difference(())


_IO_SCHEMAS = "scythe.io"


def schemas_of_version(objects: Objects, experiment: str, version: str) -> dict[str, Any] | None:
    """Both schemas of a version, from a run's `specs.pq`: for a root that came without its catalog."""
    import pyarrow.parquet as pq

    for folder in find.run_folders(objects, experiment, version):
        try:
            with objects.reader(RunKey(experiment, version, folder).specs) as stream:
                metadata = pq.read_schema(stream).metadata or {}
        except (OSError, pa.ArrowException):  # gone or damaged: another run of the version tells the same
            continue
        if _IO_SCHEMAS.encode() in metadata:
            return json.loads(metadata[_IO_SCHEMAS.encode()])
    return None


def _use_client(objects: Objects, client: Any) -> None:
    from scythe_catalog.s3 import use_client

    try:
        use_client(objects.root, client)
    except TypeError as error:
        raise AllocationError(f"s3_client must be a client as boto3.client('s3') makes it; {error}") from error
    except StorageError as error:
        raise AllocationError(str(error)) from error


@contextmanager
def _writable(objects: Objects) -> Generator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except StorageError as error:
        told = str(error) if objects.is_bucket else f"the root {objects.root} cannot be written: {error}"
        raise AllocationError(told) from error
    except (OSError, BaseError) as error:
        raise AllocationError(f"the root {objects.root} cannot be written: {reason(error)}") from error


__all__ = ["BaseExperiment", "ExperimentRun", "RunRef", "RunResult", "SemVer", "VersioningStrategy"]

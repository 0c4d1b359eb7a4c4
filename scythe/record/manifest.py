"""The YAML files of a run, made and read: what users look at first, and behind it how the run came about. Starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml
from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import GenerateJsonSchema

from scythe.define.experiment import Experiment
from scythe.errors import RunDamaged
from scythe.record.find import run_folders
from scythe.record.format import FORMAT, check_format
from scythe.record.layout import RunKey
from scythe.record.provenance import Provenance
from scythe_catalog.redaction import redacted
from scythe_catalog.storage.objects import Objects

#: In the metadata of `specs.pq`: both schemas of the run.
IO_SCHEMAS = "scythe.io"


class Manifest(BaseModel):
    """`manifest.yml`."""

    experiment_id: str
    experiment_name: str
    input_artifacts: str
    io_spec: str
    specs_uri: str
    workflow_run_id: str | None
    inputs: int
    engine: str
    schema_sha256: str
    python: str
    packages: dict[str, str]
    git_commit: str | None
    host: str
    #: Its place among the runs of its version, from 1: the latest has the highest.
    number: int
    seed: int = 0
    #: What the one who allocated it says about it, and the words that it is found by.
    note: str | None = None
    tags: list[str] = []
    format: int = FORMAT

    def to_yaml(self) -> bytes:
        """The manifest as YAML, keys in the order of the specification."""
        return dump_yaml(self.model_dump(mode="json"), sort_keys=False)


def make_manifest(
    objects: Objects,
    key: RunKey,
    experiment: Experiment,
    *,
    inputs: int,
    made_by: Provenance,
    workflow_run_id: str | None,
    number: int,
    seed: int,
    note: str | None = None,
    tags: Sequence[str] = (),
) -> Manifest:
    """The manifest of a run that is about to start."""
    return Manifest(
        experiment_id=key.path,
        experiment_name=experiment.task_name,
        input_artifacts=objects.uri(key.input_artifacts),
        io_spec=objects.uri(key.io_spec),
        specs_uri=objects.uri(key.specs),
        workflow_run_id=workflow_run_id,
        inputs=inputs,
        engine=made_by.engine,
        schema_sha256=schema_hash(experiment),
        python=made_by.python,
        packages=dict(made_by.packages),
        git_commit=made_by.described,
        host=made_by.host,
        number=number,
        seed=seed,
        note=note,
        tags=list(tags),
    )


def read_manifest(objects: Objects, key: RunKey) -> Mapping[str, Any]:
    """The manifest of a run as it is stored.

    Raises:
        FileNotFoundError: there is none.
        RunDamaged: it is no manifest any more.
        FormatError: it was written by a later Scythe.
    """
    raw, where = objects.read(key.manifest), objects.uri(key.manifest)
    try:
        found = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise RunDamaged(f"{where} is no YAML ({what}): it was damaged after it was written") from error
    if not isinstance(found, dict) or "experiment_id" not in found:
        raise RunDamaged(
            f"{where} is {'empty' if not raw.strip() else 'no manifest'}: it was damaged after it was written"
        )
    return check_format(found, where)


def label_of(manifest: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The note and the tags of a run; of one of before there were any, none."""
    note, tags = manifest.get("note"), manifest.get("tags")
    return str(note) if note is not None else None, [str(tag) for tag in tags] if isinstance(tags, list) else []  # pyright: ignore[reportUnknownArgumentType]


def record_trigger(objects: Objects, key: RunKey, workflow_run_id: str) -> str:
    """The run's identifier: the recorded one, else this one, which is recorded now; the file is replaced whole."""
    manifest = dict(read_manifest(objects, key))
    if not manifest.get("workflow_run_id"):
        manifest["workflow_run_id"] = workflow_run_id
        objects.write(key.manifest, dump_yaml(manifest, sort_keys=False))
    return str(manifest["workflow_run_id"])


def dump_yaml(data: Any, *, sort_keys: bool = True) -> bytes:
    """YAML in block style, in UTF-8."""
    text = yaml.safe_dump(data, sort_keys=sort_keys, allow_unicode=True)
    if redacted(text) != text:
        text = yaml.safe_dump(_without_secrets(data), sort_keys=sort_keys, allow_unicode=True)
    return text.encode()


def _without_secrets(data: Any) -> Any:
    match data:
        case str():
            return redacted(data)
        case dict():
            return {key: _without_secrets(value) for key, value in data.items()}
        case list():
            return [_without_secrets(value) for value in data]
        case _:
            return data


def io_spec(experiment: Experiment) -> bytes:
    """`experiment_io_spec.yml`: the JSON Schema of inputs and outputs, docstrings and descriptions included."""
    model = create_model(
        "ExperimentIO",
        __doc__="The input and output schema for the experiment.",
        input=(experiment.input_model, Field(default=..., description="The input for the experiment.")),
        output=(experiment.output_model, Field(default=..., description="The output for the experiment.")),
    )
    return dump_yaml(model.model_json_schema(schema_generator=_QuietSchema))


class _QuietSchema(GenerateJsonSchema):
    """A default that JSON cannot hold is left out, without a warning at every allocation."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own declaration


def schema_hash(experiment: Experiment) -> str:
    """A hash of both schemas: equal where two code versions store the same columns."""
    import hashlib

    def bare(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(
            ({k: v for k, v in c.items() if k not in ("doc", "unit", "bounds")} for c in columns),
            key=lambda c: c["name"],
        )

    text = json.dumps({side: bare(columns) for side, columns in experiment.schemas.to_json().items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def schemas_of_version(objects: Objects, experiment: str, version: str) -> dict[str, Any] | None:
    """Both schemas of a version, from a run's `specs.pq`: for a root that came without its catalog."""
    import pyarrow.parquet as pq

    for folder in run_folders(objects, experiment, version):
        try:
            with objects.reader(RunKey(experiment, version, folder).specs) as stream:
                metadata = pq.read_schema(stream).metadata or {}
        except (OSError, pa.ArrowException):  # gone or damaged: another run of the version tells the same
            continue
        if IO_SCHEMAS.encode() in metadata:
            return json.loads(metadata[IO_SCHEMAS.encode()])
    return None

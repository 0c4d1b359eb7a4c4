"""The YAML files of a run, made and read: what users look at first, and behind it how the run came about. Starts nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import Field, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, core_schema

from scythe.define.experiment import Experiment
from scythe.define.renames import Renames
from scythe.errors import FormatError, RunDamaged
from scythe.record.find import run_keys
from scythe.record.format import FORMAT, FORMAT_KEY, check_format, load_yaml, parse, reading
from scythe.record.layout import RunKey, version_record, version_records
from scythe.record.provenance import Provenance
from scythe.record.versions import parse_folders
from scythe_catalog.iceberg.datafile import stored_schema
from scythe_catalog.redaction import redacted
from scythe_catalog.storage.objects import Objects

#: In the metadata of `specs.pq`: both schemas of the run.
IO_SCHEMAS = "scythe.io"


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
    sampled: Mapping[str, Any] | None = None,
    reused: Sequence[Mapping[str, Any]] = (),
    owners: Sequence[str] = (),
    key_given: str | None = None,
) -> bytes:
    """`manifest.yml` of a run that is about to start, its keys in the order of the specification.

    `number` is its place among the runs of its version, from 1: the latest has the highest. `reused` tells who ran
    the inputs whose rows it has from other runs, `owners` in which runs' folders output files lie
    that those name, `key_given` the caller's own key.
    """
    return dump_yaml(
        {
            "experiment_id": key.path,
            "experiment_name": experiment.task_name,
            "input_artifacts": objects.uri(key.input_artifacts),
            "io_spec": objects.uri(key.io_spec),
            "specs_uri": objects.uri(key.specs),
            "workflow_run_id": workflow_run_id,
            "inputs": inputs,
            "engine": made_by.engine,
            "schema_sha256": schema_hash(experiment),
            "python": made_by.python,
            "packages": dict(made_by.packages),
            "git_commit": made_by.described,
            "host": made_by.host,
            "number": number,
            "seed": seed,
            "note": note,
            "tags": list(tags),
            "sampled": dict(sampled) if sampled is not None else None,
            "reused": [dict(one) for one in reused],
            "owners": list(owners),
            "key": key_given,
            FORMAT_KEY: FORMAT,
        },
        sort_keys=False,
    )


def read_manifest(objects: Objects, key: RunKey) -> Mapping[str, Any]:
    """The manifest of a run as it is stored.

    Raises:
        FileNotFoundError: there is none.
        RunDamaged: it is no manifest any more.
        FormatError: it was written by a later Scythe.
    """
    raw, where = objects.read(key.manifest), objects.uri(key.manifest)
    found = load_yaml(raw, where)
    if not isinstance(found, dict) or "experiment_id" not in found:
        raise RunDamaged(
            f"{where} is {'empty' if not raw.strip() else 'no manifest'}: it was damaged after it was written"
        )
    return check_format(found, where)


def manifest_told(objects: Objects, key: RunKey) -> Mapping[str, Any]:
    """The manifest of a run, as `read_manifest` gives it; empty where it cannot be read: the run's status tells."""
    with contextlib.suppress(FileNotFoundError, RunDamaged, FormatError):
        return read_manifest(objects, key)
    return {}


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
    """YAML in block style, in UTF-8; by libyaml where PyYAML has it, for PyYAML's own writer loses U+0085."""

    def dumped(what: Any) -> str:
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        return yaml.dump(what, Dumper=dumper, sort_keys=sort_keys, allow_unicode=True)

    text = dumped(data)
    return (dumped(with_texts(data, redacted)) if redacted(text) != text else text).encode()


def with_texts(data: Any, changed: Callable[[str], str]) -> Any:
    """What a YAML file holds, with each text among its values changed."""
    match data:
        case str():
            return changed(data)
        case dict():
            return {key: with_texts(value, changed) for key, value in data.items()}  # pyright: ignore[reportUnknownVariableType]
        case list():
            return [with_texts(value, changed) for value in data]  # pyright: ignore[reportUnknownVariableType]
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
    """A default that JSON cannot hold is left out, without a warning at every allocation; of an Enum's members there are the names then."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own declaration

    def enum_schema(self, schema: core_schema.EnumSchema) -> dict[str, Any]:
        try:
            return super().enum_schema(schema)
        except PydanticSerializationError:
            return {
                "title": schema["cls"].__name__,
                "enum": [member.name for member in schema["members"]],
                "type": "string",
            }


def schema_hash(experiment: Experiment) -> str:
    """A hash of both schemas: equal where two code versions store the same columns."""
    import hashlib

    text = json.dumps(binding(experiment.schemas.to_json()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def binding(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """What of both schemas binds the runs of a version: neither what is said about columns, nor their order."""
    said = ("doc", "unit", "bounds")
    return {
        side: sorted(({k: v for k, v in c.items() if k not in said} for c in schemas[side]), key=lambda c: c["name"])
        for side in ("input", "output")
    }


def schemas_of_run(objects: Objects, key: RunKey) -> dict[str, Any] | None:
    """Both schemas of a run, from its `specs.pq`; None of one of before they were written there.

    Raises:
        RunDamaged: it is gone, or damaged.
    """
    with reading(objects, key.specs, stays=True):
        told = (stored_schema(objects, key.specs).metadata or {}).get(IO_SCHEMAS.encode())
    return json.loads(told) if told is not None else None


def schemas_of_version(objects: Objects, experiment: str, version: str) -> dict[str, Any] | None:
    """Both schemas of a version, from a run's `specs.pq`: for a root that came without its catalog."""
    for key in run_keys(objects, experiment, [version]):
        with contextlib.suppress(OSError, RunDamaged):  # gone or damaged: another run of it tells the same
            if (schemas := schemas_of_run(objects, key)) is not None:
                return schemas
    return None


def recorded_schemas(objects: Objects, experiment: str, version: str) -> dict[str, Any] | None:
    """Both schemas of a version, and what was renamed until then: by its record, else by a run; None where neither tells.

    Raises:
        RunDamaged: the record is damaged, and no run tells.
    """
    record = version_record(experiment, version)
    try:
        return parse(objects.read(record), objects.uri(record))
    except FileNotFoundError:
        return schemas_of_version(objects, experiment, version)
    except RunDamaged:
        if (told := schemas_of_version(objects, experiment, version)) is None:
            raise
        return told


def renames_until(objects: Objects, experiment: str, version: str) -> Renames:
    """What was renamed until a version."""
    return Renames.from_json(recorded_schemas(objects, experiment, version))


def renames_now(objects: Objects, experiment: str) -> Renames:
    """What was renamed until the latest version: files of the runs before have the former names."""
    recorded = (name.removesuffix(".json") for name in objects.files(version_records(experiment)))
    versions = parse_folders(recorded)
    return renames_until(objects, experiment, str(versions[-1])) if len(versions) > 1 else Renames()

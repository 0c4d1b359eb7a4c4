"""The records of a run and of an experiment: each says which format it is in, and is read only where that is understood.

A record is a JSON object of a few values (a plan, an attempt, a part's descriptor, a result), or the YAML of a manifest. Records of
Scythe before formats were written have none. What is long is a Parquet file beside them. Knows no record's meaning.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Generator, Mapping
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
import yaml
from pydantic import TypeAdapter, ValidationError

from scythe.errors import FormatError, RunDamaged
from scythe_catalog.storage.objects import Objects

#: The format that is written, and the newest that is understood. It grows where an older Scythe would read wrongly;
#: a key that it may pass over needs no new format.
FORMAT = 1
FORMAT_KEY = "format"

T = TypeVar("T")


def dump(record: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """The record as JSON, with its format in front."""
    return json.dumps({FORMAT_KEY: FORMAT, **record}, indent=indent).encode()


def parse(raw: bytes, where: str) -> dict[str, Any]:
    """The record that `dump` wrote; `where` names it in errors.

    Raises:
        RunDamaged: it is no JSON object.
        FormatError: it is in a format of a later Scythe.
    """
    try:
        record = json.loads(raw)
    except ValueError as error:
        what = "is empty" if not raw.strip() else f"is no JSON ({error})"
        raise RunDamaged(
            f"{where} {what}: it was damaged after it was written; restore it, or delete the run"
        ) from error
    if not isinstance(record, dict):
        raise RunDamaged(
            f"{where} holds no JSON object: it was damaged after it was written; restore it, or delete the run"
        )
    return check_format(record, where)


@contextlib.contextmanager
def reading(objects: Objects, key: str, *, stays: bool = False) -> Generator[None]:
    """Around whatever reads a Parquet file of a run.

    Raises:
        RunDamaged: Arrow cannot read it; or it is gone, and is one that `stays` as long as the run does.
        FileNotFoundError: another is gone; its `filename` is the file's address.
    """
    try:
        yield
    except FileNotFoundError as error:
        if not stays:
            raise FileNotFoundError(errno.ENOENT, "it is gone", objects.uri(key)) from error
        raise RunDamaged(f"{objects.uri(key)} is gone: restore it, or delete the run") from error
    except pa.ArrowException as error:
        told = str(error.__cause__ or error).splitlines()[0]  # what has named the file has the error below it
        raise RunDamaged(f"{objects.uri(key)} is damaged ({told}): restore it, or delete the run") from error


def load_yaml(raw: bytes, where: str) -> Any:
    """What a YAML file holds, read by libyaml where PyYAML has it: ten times as fast; `where` names it in errors.

    Raises:
        RunDamaged: it is none.
    """
    try:
        return yaml.load(raw, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise RunDamaged(f"{where} is no YAML ({what}): it was damaged after it was written") from error


def parse_as(made: type[T], raw: bytes, where: str) -> T:
    """The dataclass or model whose fields are in a record that `dump` wrote; keys of later versions are passed over.

    Raises:
        RunDamaged: it is no such record.
        FormatError: it is in a format of a later Scythe.
    """
    data = parse(raw, where)
    try:
        return _reading(made).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RunDamaged(f"{where} is incomplete ({what}): it was damaged after it was written") from error


@cache
def _reading(made: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(made)


def check_format(record: dict[str, Any], where: str) -> dict[str, Any]:
    """The same record, if it is in a format that this Scythe understands.

    Raises:
        FormatError: it is not.
    """
    found = record.get(FORMAT_KEY, 0)
    if not isinstance(found, int) or found > FORMAT:
        raise FormatError(
            f"{where} is in format {found!r}, this version of Scythe reads formats up to {FORMAT}: upgrade Scythe where you read it"
        )
    return record

"""Input files on their way into a run: once for each content, under distinct names, never overwritten."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa

from scythe.errors import FetchError, InputError
from scythe.fetch import fetch_all
from scythe.inputs import Inputs, rows_with
from scythe.layout import RunKey
from scythe.redaction import redacted
from scythe_catalog.objects import Objects


def store_artifacts(
    inputs: Inputs, objects: Objects, key: RunKey, *, copy_inputs: bool
) -> tuple[pa.Table, dict[str, list[str]]]:
    """Copies local input files into the run's `artifacts/` (with `copy_inputs` remote ones too).

    A remote file whose address holds a signature or a token is always copied: the address is stored nowhere. Gives the input rows with URIs in place of paths, and the URIs of each file field.

    Raises:
        InputError: a remote file cannot be fetched; nothing was copied.
    """
    table = inputs.table
    remote = _fetched(inputs, copy_inputs)
    listed: dict[str, list[str]] = {}
    copies: dict[str, Path] = {}
    for field, local in inputs.local_files.items():
        files = local | remote[field]
        keys = _keys(files, key, field)
        copies |= {target: files[text] for text, target in keys.items()}
        uris = {text: objects.uri(target) for text, target in keys.items()}
        at = table.schema.get_field_index(field)
        table = table.set_column(at, table.schema.field(at), _replaced(table.column(at), uris))
        listed[field] = sorted({*uris.values(), *(u for u in inputs.remote_files[field] if u not in uris)})
    objects.take_in((path, target) for target, path in copies.items())
    return table, listed


def _fetched(inputs: Inputs, everything: bool) -> dict[str, dict[str, Path]]:
    """For each file field, local copies of its remote files, or of those alone whose address holds a secret.

    All of them before anything is copied.
    """
    found: dict[str, dict[str, Path]] = {}
    for field, uris in inputs.remote_files.items():
        found[field] = {}
        for uri, path in fetch_all(uri for uri in uris if everything or redacted(uri) != uri).items():
            if isinstance(path, FetchError):
                rows = rows_with(inputs.table.column(field), uri)
                raise InputError(f"{field}: {path} ({rows})") from path
            found[field][uri] = path
    return found


def _keys(files: dict[str, Path], key: RunKey, field: str) -> dict[str, str]:
    """Text of a value -> key of its artifact: one key a content, a name that is taken gets its hash."""
    by_content: dict[str, str] = {}
    taken: set[str] = set()
    keys: dict[str, str] = {}
    for text in sorted(files):
        path = files[text]
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest not in by_content:
            name = _plain(path.name)
            if name in taken:
                name = f"{Path(name).stem}-{digest[:12]}{path.suffix}"
            taken.add(name)
            by_content[digest] = key.artifact(field, name)
        keys[text] = by_content[digest]
    return keys


def _plain(name: str) -> str:
    """A file's name without what buckets and other systems refuse in one."""
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in name)


def _replaced(column: pa.ChunkedArray, by: dict[str, str]) -> pa.ChunkedArray:
    encoded = column.combine_chunks().dictionary_encode()
    values = [by.get(v, v) for v in encoded.dictionary.to_pylist()]
    return pa.chunked_array([pa.array(values, pa.string()).take(encoded.indices)])

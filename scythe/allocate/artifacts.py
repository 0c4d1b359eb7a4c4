"""Input files on their way into a run: once for each name and content, never overwritten, with a record of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from scythe.allocate.inputs import Inputs, rows_with
from scythe.errors import FetchError, InputError
from scythe.leaf.input_files import InputFile, write_record
from scythe.record.layout import RunKey
from scythe.remote.fetch import fetch_all
from scythe.remote.identify import identify
from scythe.terminal.transfer import TransferProgress
from scythe_catalog.names import folded
from scythe_catalog.redaction import redacted
from scythe_catalog.storage.objects import Objects
from scythe_catalog.storage.waiting import each

#: What is over sooner shows no progress.
_QUIET_SECONDS = 0.7
#: File systems take 255; a hash and a suffix may follow.
_NAME_BYTES = 200


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
    before = _looked_at(
        path for field, local in inputs.local_files.items() for path in (local | remote[field]).values()
    )
    listed: dict[str, list[str]] = {}
    copies: dict[str, Path] = {}
    found: list[InputFile] = []
    digest_of = _digests(before)
    for field, local in inputs.local_files.items():
        files = local | remote[field]
        digests = {text: digest_of[path] for text, path in files.items()}
        keys = _keys(files, digests, key, field)
        copies |= {target: files[text] for text, target in keys.items()}
        uris = {text: objects.uri(target) for text, target in keys.items()}
        at = table.schema.get_field_index(field)
        table = table.set_column(at, table.schema.field(at), _replaced(table.column(at), uris))
        found += [
            InputFile(field, uris[text], path.name, before[path].size, digests[text], str(path.resolve()))
            for text, path in files.items()
        ]
        listed[field] = sorted({*uris.values(), *(u for u in inputs.remote_files[field] if u not in uris)})
    with _progress(f"storing {len(copies):,} input files", [before[path] for path in copies.values()]) as progress:
        objects.take_in(
            ((path, target) for target, path in copies.items()), lambda path: progress.came(before[path].size)
        )
    own = {
        path for files in inputs.local_files.values() for path in files.values()
    }  # the cache touches what it hands out
    changed = next((path for path, look in _looked_at(own).items() if look != before[path]), None)
    if changed is not None:
        raise InputError(
            f"the file {str(changed)!r} was changed while it was stored: allocate again when nobody writes to it"
        )
    if inputs.local_files:
        stay = [(field, uri) for field, all_ in inputs.remote_files.items() for uri in all_ if uri not in remote[field]]
        known = identify(uri for _, uri in stay)
        found += [InputFile(field, uri, size=known[uri].size, tag=known[uri].tag) for field, uri in stay]
        write_record(objects, key, found)
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


class _Look(NamedTuple):
    """What tells whether a file was changed."""

    size: int
    written: int


def _looked_at(paths: Iterable[Path]) -> dict[Path, _Look]:
    """Each file as it is now.

    Raises:
        InputError: one is gone, or is no longer to be seen.
    """
    found: dict[Path, _Look] = {}
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise _gone(path, error) from error
        found[path] = _Look(stat.st_size, stat.st_mtime_ns)
    return found


def _gone(path: Path, error: OSError) -> InputError:
    return InputError(
        f"the file {str(path)!r} was there a moment ago and cannot be read any more: {error.strerror or error}"
    )


def _digests(files: Mapping[Path, _Look]) -> dict[Path, str]:
    """The sha256 of each file, which is read once."""
    with _progress(f"reading {len(files):,} input files", files.values()) as progress:

        def digest(path: Path) -> str:
            try:
                with path.open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise _gone(path, error) from error
            progress.came(files[path].size)
            return found

        return dict(zip(files, each(digest, files), strict=True))


def _progress(title: str, looks: Iterable[_Look]) -> TransferProgress:
    progress = TransferProgress(title, quiet=_QUIET_SECONDS, transient=True)
    progress.expect(sum(look.size for look in looks))
    return progress


def _keys(files: dict[str, Path], digests: dict[str, str], key: RunKey, field: str) -> dict[str, str]:
    """Text of a value -> key of its artifact: one for each name and content; a name that is taken gets its hash."""
    known: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    keys: dict[str, str] = {}
    for text in sorted(files):
        name, digest = _plain(files[text].name), digests[text]
        if (name, digest) not in known:
            stored = name if folded(name) not in taken else f"{Path(name).stem}-{digest[:12]}{Path(name).suffix}"
            taken.add(folded(stored))
            known[name, digest] = key.artifact(field, stored)
        keys[text] = known[name, digest]
    return keys


def _plain(name: str) -> str:
    """A file's name, as far as every file system and URI takes it."""
    name = "".join(c if c.isprintable() and c != "\\" else "_" for c in name)
    path = Path(name)
    suffix = path.suffix if len(path.suffix.encode()) <= 24 else ""
    stem = path.name.removesuffix(suffix).encode()[:_NAME_BYTES].decode(errors="ignore")
    return stem + suffix


def _replaced(column: pa.ChunkedArray, by: dict[str, str]) -> pa.ChunkedArray:
    encoded = column.combine_chunks().dictionary_encode()
    values = [by.get(v, v) for v in encoded.dictionary.to_pylist()]
    return pa.chunked_array([pa.array(values, pa.string()).take(encoded.indices)])

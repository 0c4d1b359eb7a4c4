"""Input files on their way into a run: once for each name and content, never overwritten, with a record of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from scythe.allocate.inputs import Inputs, rows_with
from scythe.errors import FetchError, InputError
from scythe.leaf.input_files import InputFile, write_record
from scythe.record.layout import RunKey
from scythe.remote.fetch import fetch_all
from scythe.remote.identify import Identity, identify
from scythe.reuse.identity import file_identity
from scythe.terminal.transfer import TransferProgress
from scythe_catalog.names import folded
from scythe_catalog.redaction import redacted
from scythe_catalog.storage.objects import Objects
from scythe_catalog.storage.waiting import each

#: What is over sooner shows no progress.
_QUIET_SECONDS = 0.7
#: File systems take 255; a hash and a suffix may follow.
_NAME_BYTES = 200


@dataclass(frozen=True)
class LookedAt:
    """The input files of an allocation as they are now."""

    #: Those that are copied into the run: field -> text of a value -> path.
    copied: Mapping[str, Mapping[str, Path]]
    #: The others: field -> texts of values.
    staying: Mapping[str, Sequence[str]]
    #: What their servers say of those.
    known: Mapping[str, Identity]
    digests: Mapping[Path, str]
    looks: Mapping[Path, _Look]

    @property
    def identities(self) -> dict[str, dict[str, str | None]]:
        """What tells the content of each value of a file field, as `scythe.reuse.identity` has it."""
        return {
            field: {
                text: file_identity(self._file(field, text, files[text]), place.rsplit("/", 1)[-1])
                for text, place in stored_places(files, self.digests).items()
            }
            | {uri: file_identity(self._stays(field, uri), uri) for uri in self.staying[field]}
            for field, files in self.copied.items()
        }

    def _file(self, field: str, uri: str, path: Path) -> InputFile:
        return InputFile(field, uri, path.name, self.looks[path].size, self.digests[path], str(path.resolve()))

    def _stays(self, field: str, uri: str) -> InputFile:
        return InputFile(field, uri, size=self.known[uri].size, tag=self.known[uri].tag)

    def recorded(self, uris: Mapping[str, Mapping[str, str]]) -> list[InputFile]:
        """What the run keeps of them, once it has them at these URIs: field -> text -> URI."""
        copies = [
            self._file(f, uris[f][text], path) for f, files in self.copied.items() for text, path in files.items()
        ]
        return [*copies, *(self._stays(field, uri) for field, all_ in self.staying.items() for uri in all_)]


def look_at_files(inputs: Inputs, *, copy_inputs: bool, below: str | None = None) -> LookedAt:
    """Reads the local input files (with `copy_inputs` remote ones too), and asks the servers of the others; writes nothing.

    A remote file whose address holds a signature or a token is always copied: the address is stored nowhere. So are those
    `below` an address: of another run, say, which may be deleted.

    Raises:
        InputError: a remote file cannot be fetched, or a local one is gone.
    """
    remote = _fetched(inputs, copy_inputs, below)
    copied = {field: local | remote[field] for field, local in inputs.local_files.items()}
    looks = _looked_at(path for files in copied.values() for path in files.values())
    digests = _digests(looks)
    staying = {field: [uri for uri in uris if uri not in remote[field]] for field, uris in inputs.remote_files.items()}
    known = identify(uri for uris in staying.values() for uri in uris)
    return LookedAt(copied, staying, known, digests, looks)


def store_artifacts(
    inputs: Inputs, files: LookedAt, objects: Objects, key: RunKey
) -> tuple[pa.Table, dict[str, list[str]]]:
    """Copies input files into the run's `artifacts/`: the input rows with URIs in place of paths, and the URIs of each file field.

    Raises:
        InputError: a file was changed since it was looked at.
    """
    table, looks = inputs.table, files.looks
    uris: dict[str, dict[str, str]] = {}
    copies: dict[str, Path] = {}
    for field, copied in files.copied.items():
        keys = {text: key.artifact(field, name) for text, name in stored_places(copied, files.digests).items()}
        copies |= {target: copied[text] for text, target in keys.items()}
        uris[field] = {text: objects.uri(target) for text, target in keys.items()}
        at = table.schema.get_field_index(field)
        table = table.set_column(at, table.schema.field(at), _replaced(table.column(at), uris[field]))
    with _progress(f"storing {len(copies):,} input files", [looks[path] for path in copies.values()]) as progress:
        objects.take_in(
            ((path, target) for target, path in copies.items()), lambda path: progress.came(looks[path].size)
        )
    own = {
        path for local in inputs.local_files.values() for path in local.values()
    }  # the cache touches what it hands out
    changed = next((path for path, look in _looked_at(own).items() if look != looks[path]), None)
    if changed is not None:
        raise InputError(
            f"the file {str(changed)!r} was changed while it was stored: allocate again when nobody writes to it"
        )
    if inputs.local_files:
        write_record(objects, key, files.recorded(uris))
    return table, {field: sorted({*uris[field].values(), *files.staying[field]}) for field in uris}


def _fetched(inputs: Inputs, everything: bool, below: str | None) -> dict[str, dict[str, Path]]:
    """For each file field, local copies of its remote files, or of those alone that lie `below` an address, or whose address
    holds a secret.

    All of them before anything is copied.
    """
    found: dict[str, dict[str, Path]] = {}
    for field, uris in inputs.remote_files.items():
        found[field] = {}
        wanted = [u for u in uris if everything or redacted(u) != u or (below is not None and u.startswith(below))]
        for uri, path in fetch_all(wanted).items():
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


def stored_places(files: Mapping[str, Path], digests: Mapping[Path, str]) -> dict[str, str]:
    """Text of a value -> where its artifact lies: one for each name and content; where a name is taken, in a folder of its own.

    The function sees the name, which must not depend on what other inputs there are.
    """
    known: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    places: dict[str, str] = {}
    for text in sorted(files):
        name, digest = _plain(files[text].name), digests[files[text]]
        if (name, digest) not in known:
            of_its_own = f"{hashlib.sha256(f'{digest}/{name}'.encode()).hexdigest()[:12]}/{name}"
            known[name, digest] = name if folded(name) not in taken else of_its_own
            taken.add(folded(name))
        places[text] = known[name, digest]
    return places


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

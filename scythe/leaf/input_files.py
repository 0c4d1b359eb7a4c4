"""The input files of a run: what each was at allocation, and that functions leave them as they are.

A file that several inputs read is one file: of the run's artifacts, or of the shared cache. Each is looked at before
and after a function had it; one that was changed is brought back from its source, or refused from then on.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from scythe.errors import FetchError
from scythe.record.format import reading
from scythe.record.layout import RunKey
from scythe.record.plan import RunPlan
from scythe.remote.fetch import fetch
from scythe_catalog.compute import pc
from scythe_catalog.storage.objects import Objects

WAY_OUT = (
    'a file that is changed must be a copy: register the function with local_file_location="copied-to-tempdir", '
    "and each input has its own"
)


@dataclass(frozen=True)
class InputFile:
    """One input file at allocation; of one that stays where it is, what its server said of it."""

    field: str
    #: Its URI in the specs; in the record, an artifact's is relative to the run's folder.
    uri: str
    name: str | None = None
    size: int | None = None
    sha256: str | None = None
    #: The file that was copied into the run.
    source: str | None = None
    #: The server's tag of a file that stays where it is: its ETag, else the time of its last change.
    tag: str | None = None
    #: Of the copy, where the root is a folder.
    mtime_ns: int | None = None


_COLUMNS = pa.schema(
    [(f.name, pa.int64() if f.name in ("size", "mtime_ns") else pa.string()) for f in fields(InputFile)]
)


def write_record(objects: Objects, key: RunKey, files: Sequence[InputFile]) -> None:
    """Stores what the input files of a run are, once their copies are there."""
    own, folder = objects.uri(key.path) + "/", objects.folder

    def recorded(file: InputFile) -> dict[str, Any]:
        inner = file.uri.removeprefix(own)
        copy = folder / key.path / inner if folder is not None and inner != file.uri else None
        return vars(file) | {"uri": inner, "mtime_ns": copy.stat().st_mtime_ns if copy is not None else None}

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([recorded(file) for file in files], _COLUMNS), buffer)
    objects.write(key.artifact_record, buffer.getvalue())


def recorded_files(objects: Objects, key: RunKey) -> list[InputFile]:
    """What was recorded of the input files of a run, with their whole URIs; nothing of one that is older than the record."""
    try:
        raw = objects.read(key.artifact_record)
    except FileNotFoundError:
        return []
    own = objects.uri(key.path)
    with reading(objects, key.artifact_record):
        known = _told(pq.read_table(io.BytesIO(raw)))
    return [f if "://" in f.uri else replace(f, uri=f"{own}/{f.uri}") for f in known]


def _told(record: pa.Table) -> list[InputFile]:
    """The files of a record, as they stand there."""
    return [
        InputFile(**row) for row in record.select([n for n in record.column_names if n in _COLUMNS.names]).to_pylist()
    ]


def contents_of(objects: Objects, key: RunKey) -> dict[str, str]:
    """URI of an input file of a run -> its sha256, as far as that was recorded."""
    return {file.uri: file.sha256 for file in recorded_files(objects, key) if file.sha256}


class _State(NamedTuple):
    """What tells a file from the one that was there before."""

    size: int
    mtime_ns: int
    inode: int


class InputFiles:
    """The input files of a run, as this process last saw them."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._own = plan.objects.uri(plan.key.path) + "/"
        self._known: dict[Path, _State] = {}
        self._recorded: dict[str, InputFile] = {}
        self._table: pa.Table | None = None

    def prepare(self, uris: Iterable[str]) -> None:
        """Looks up what these were at allocation."""
        if self._plan.objects.folder is None:
            return  # artifacts of a bucket are fetched through the cache, and again from the bucket
        wanted = {u.removeprefix(self._own) for u in uris if u.startswith(self._own)} - set(self._recorded)
        if not wanted:
            return
        table = self._record()
        for file in _told(table.filter(pc.is_in(table["uri"], pa.array(list(wanted), pa.string())))):
            self._recorded[file.uri] = file

    def _record(self) -> pa.Table:
        if self._table is None:
            objects, where = self._plan.objects, self._plan.key.artifact_record
            try:
                with reading(objects, where):
                    self._table = pq.read_table(io.BytesIO(objects.read(where)))
            except FileNotFoundError:  # the run is older than the record
                self._table = _COLUMNS.empty_table()
        return self._table

    def place(self, uri: str) -> Path | None:
        """Where an artifact lies that can be brought back if it is gone; None of all else."""
        folder = self._plan.objects.folder
        known = uri.removeprefix(self._own) in self._recorded
        return folder / self._plan.objects.key(uri) if known and folder is not None else None

    def ready(self, files: Mapping[str, Path]) -> dict[str, Path]:
        """The files of an input, by URI, as they were at allocation or were fetched: brought back where they are not.

        Raises:
            FetchError: one was changed, and cannot be brought back.
        """
        return {uri: self._ready(uri, path) for uri, path in files.items()}

    def changed(self, files: Mapping[str, Path]) -> list[str]:
        """Those that are not what they were when `ready` gave them."""
        return [uri for uri, path in files.items() if _state(path) != self._known[path]]

    def _ready(self, uri: str, path: Path) -> Path:
        now, known = _state(path), self._known.get(path)
        if now is None or now != known:
            recorded = self._recorded.get(uri.removeprefix(self._own))
            if recorded is not None:
                _check(path, now, recorded, self._plan.objects, seen=known is not None)
            elif known is not None or now is None:
                path = self._fetched_again(uri, path)
            now = _state(path)
            if now is None:
                raise FetchError(f"the input file {path} is gone")
            self._known[path] = now
        return path

    def _fetched_again(self, uri: str, path: Path) -> Path:
        if uri.startswith("file://"):
            raise FetchError(
                f"the input file {path} was changed by a function, and the run has no record to bring it back by: {WAY_OUT}"
            )
        return fetch(uri, use_cache=False)


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _State(found.st_size, found.st_mtime_ns, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _check(path: Path, now: _State | None, recorded: InputFile, objects: Objects, *, seen: bool) -> None:
    """Nothing, where an artifact is what was recorded; else it is copied again from where it came."""
    if now is not None and now.size == recorded.size:
        if not seen and now.mtime_ns == recorded.mtime_ns:
            return
        if _sha256(path) == recorded.sha256:
            return
    source = Path(recorded.source or "")
    if _sha256(source) != recorded.sha256:
        raise FetchError(
            f"the input file {path} was changed by a function, and cannot be brought back: "
            f"{source} is not what it was at allocation. Allocate the run again; {WAY_OUT}"
        )
    staged = objects.staging_file("input")
    try:
        shutil.copyfile(source, staged)
        if recorded.mtime_ns is not None:
            os.utime(staged, ns=(recorded.mtime_ns, recorded.mtime_ns))
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(path)
    finally:
        objects.discard(staged)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None

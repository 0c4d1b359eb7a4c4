"""Bytes under a root URI, the same for a folder (`file://`) and a bucket (`s3://`).

One atomic operation, create-if-absent, is all that Scythe builds on: a hard link on a file system,
`If-None-Match: *` on S3. Writes are whole or absent, and stay when a machine goes down. Nothing is made by reading.
Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from scythe_catalog.errors import CatalogError
from scythe_catalog.storage import disk, staging

if TYPE_CHECKING:
    from obstore.store import ObjectStore

A = TypeVar("A")
T = TypeVar("T")

_PART_BYTES = 8 * 1024 * 1024
#: An S3 server copies objects up to this size in one request.
_COPY_BYTES = 5 * 1024**3
#: An object in a bucket has 10,000 parts at most.
_MAX_PARTS = 9_000
_AT_ONCE = 32
#: In which of an object's headers the call that made it left its name.
_MAKER = "scythe-maker"


@dataclass(frozen=True)
class Found:
    """An object as a listing shows it; its time is the store's, whatever the clock of this machine says."""

    key: str
    size: int
    modified: dt.datetime


@dataclass(frozen=True)
class Objects:
    """The objects below one root. `root` is a URI without a trailing slash; keys are relative to it."""

    root: str

    @classmethod
    def at(cls, root: str | Path) -> Objects:
        """The objects below a folder or below an `s3://bucket/prefix`."""
        text = str(root)
        if text.startswith("s3://"):
            return cls(text.rstrip("/"))
        return cls(path_uri(Path(text.removeprefix("file://"))))

    @property
    def store(self) -> ObjectStore:
        """The obstore store of a bucket, with credentials from boto3's session."""
        from scythe_catalog.storage.s3 import s3_store

        return s3_store(self.root)

    def make(self) -> None:
        """Makes the folder of a root that is not there yet; a bucket must be there.

        Raises:
            StorageError: it cannot be made.
        """
        if self.folder is not None:
            disk.make_root(self.folder)

    @property
    def is_bucket(self) -> bool:
        """Whether the root lies in a bucket."""
        return self.root.startswith("s3://")

    @property
    def folder(self) -> Path | None:
        """The root as a local folder, None for a bucket."""
        return Path(self.root.removeprefix("file://")) if self.root.startswith("file://") else None

    def uri(self, key: str) -> str:
        """The full URI of a key."""
        return f"{self.root}/{key}"

    def key(self, uri: str) -> str:
        """The key of a URI below the root; raises CatalogError for any other."""
        if not uri.startswith(self.root + "/"):
            raise CatalogError(f"{uri} does not lie below {self.root}")
        return uri[len(self.root) + 1 :]

    def read(self, key: str) -> bytes:
        """The whole object; raises FileNotFoundError."""
        path = self._path(key)
        if path is not None:
            with disk.spoken(path, "read"):
                return path.read_bytes()
        import obstore

        return self._tried(lambda: bytes(obstore.get(self.store, key).bytes()))

    def _path(self, key: str) -> Path | None:
        """Where an object lies on a disk, None for a bucket."""
        folder = self.folder
        return folder / key if folder is not None else None

    def read_dated(self, key: str) -> tuple[bytes, float]:
        """The whole object, and when it was written by the store's own clock [s since 1970]; raises FileNotFoundError."""
        path = self._path(key)
        if path is not None:
            return self.read(key), path.stat().st_mtime
        import obstore

        def attempt() -> tuple[bytes, float]:
            got = obstore.get(self.store, key)
            return bytes(got.bytes()), got.meta["last_modified"].timestamp()

        return self._tried(attempt)

    def read_all(self, keys: Iterable[str]) -> list[bytes]:
        """Many small objects, in parallel over a network."""
        return self._at_once(self.read, keys)

    def write(self, key: str, data: bytes) -> None:
        """Replaces the object atomically."""
        path = self._path(key)
        if path is not None:
            with disk.spoken(path, "written"), self._staged(key) as staged:
                disk.write_staged(staged, data)
                disk.show(staged, path)
            return
        import obstore

        self._tried(lambda: obstore.put(self.store, key, data, use_multipart=False))

    def create(self, key: str, data: bytes) -> bool:
        """Writes the object if there is none; False if there is one already.

        In a bucket the answer to a creation may be lost on its way and the request be sent again: then the object
        that is there already is our own. It is told from another's by a name that this call gives it.
        """
        path = self._path(key)
        if path is not None:
            with disk.spoken(path, "written"), self._staged(key) as staged:
                disk.write_staged(staged, data)
                return disk.show_new(staged, path)
        import obstore
        from obstore.exceptions import AlreadyExistsError

        name = uuid.uuid4().hex

        def attempt() -> bool:
            try:
                obstore.put(self.store, key, data, mode="create", use_multipart=False, attributes={_MAKER: name})
            except AlreadyExistsError:
                return self._maker(key) == name
            return True

        return self._tried(attempt)

    @contextlib.contextmanager
    def _staged(self, key: str) -> Generator[Path]:
        staged = self.staging_file(key.rsplit("/", 1)[-1])
        try:
            yield staged
        finally:
            staging.drop(staged)

    def _maker(self, key: str) -> object:
        import obstore

        try:
            found: dict[str, object] = dict(obstore.get(self.store, key, options={"head": True}).attributes)
        except FileNotFoundError:
            return None
        return found.get(_MAKER)

    def upload(self, path: Path, key: str) -> None:
        """Copies a local file, in parts where it is large; atomic like `write`."""
        if self.folder is not None:
            self.take_in([(path, key)])
            return
        import obstore

        size = path.stat().st_size
        if size <= _PART_BYTES:
            self.write(key, path.read_bytes())
            return
        part = max(_PART_BYTES, -(-size // _MAX_PARTS))

        def attempt() -> None:
            from scythe_catalog.storage.s3 import s3_store

            with path.open("rb") as source:
                obstore.put(s3_store(self.root, patient=True), key, source, chunk_size=part, max_concurrency=8)

        self._tried(attempt)

    def download(self, key: str, path: Path) -> None:
        """Copies an object into a local file, in parallel ranges where it is large; raises FileNotFoundError."""
        folder = self.folder
        if folder is not None:
            shutil.copyfile(folder / key, path)
            return
        from scythe_catalog.storage.ranged import Found

        Found(self.root, key).save(path)

    def size(self, key: str) -> int:
        """Bytes of an object; raises FileNotFoundError."""
        path = self._path(key)
        if path is not None:
            with disk.spoken(path, "read"):
                found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "this is no file", str(path))
            return found.st_size
        import obstore

        return self._tried(lambda: obstore.head(self.store, key)["size"])

    def exists(self, key: str) -> bool:
        """Whether there is an object of this key."""
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def keys(self, prefix: str) -> list[str]:
        """All keys below a folder, sorted."""
        return sorted(found.key for found in self.found(prefix))

    def found(self, prefix: str) -> list[Found]:
        """All objects below a folder, with what a listing tells of them."""
        folder = self.folder
        if folder is not None:
            with disk.spoken(folder / prefix, "read"):
                return [Found(p.relative_to(folder).as_posix(), *disk.facts(p)) for p in disk.walk(folder / prefix)]
        import obstore

        return self._tried(
            lambda: [
                Found(meta["path"], meta["size"], meta["last_modified"])
                for batch in obstore.list(self.store, prefix + "/")
                for meta in batch
            ]
        )

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders directly below a folder, sorted; empty where there is none."""
        return sorted(self._listing(prefix)[0])

    def files(self, prefix: str) -> list[str]:
        """Names of the objects directly below a folder, sorted; empty where there is none."""
        return sorted(self._listing(prefix)[1])

    def _listing(self, prefix: str) -> tuple[list[str], list[str]]:
        path = self._path(prefix)
        if path is not None:
            with disk.spoken(path, "read"):
                folders, files = disk.entries(path)
            return [name for name in folders if name != staging.STAGING], files
        import obstore

        listed = self._tried(lambda: obstore.list_with_delimiter(self.store, prefix + "/" if prefix else None))
        folders, keys = listed["common_prefixes"], [meta["path"] for meta in listed["objects"]]
        return [p.rstrip("/").rsplit("/", 1)[-1] for p in folders], [k.rsplit("/", 1)[-1] for k in keys]

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; those that are gone already do not matter.

        Raises:
            StorageError: one could not be deleted, naming it and the reason.
        """
        folder = self.folder
        if folder is not None:
            disk.delete(folder / key for key in keys)
            return
        import obstore

        for batch in _batches(list(keys), 1000):
            try:
                self._tried(lambda batch=batch: obstore.delete(self.store, batch))
            except FileNotFoundError:
                for key in batch:
                    with contextlib.suppress(FileNotFoundError):
                        self._tried(lambda key=key: obstore.delete(self.store, key))

    def delete_folder(self, prefix: str) -> None:
        """Deletes everything below a folder.

        Raises:
            StorageError: something could not be deleted, naming the first of it and the reason.
        """
        path = self._path(prefix)
        if path is not None:
            disk.delete_folder(path)
        else:
            self.delete(self.keys(prefix))

    def delete_empty_folders(self, prefix: str) -> None:
        """Removes the folders above a key that hold nothing any more; a bucket has none."""
        folder = self.folder
        if folder is None:
            return
        for parent in list(Path(prefix).parents)[:-1]:
            try:
                (folder / parent).rmdir()
            except OSError:
                return
        disk.leave_bare(folder)

    def reader(self, key: str) -> BinaryIO:
        """A seekable file to read from; raises FileNotFoundError."""
        if self.folder is not None:
            import pyarrow as pa

            # No file of Python's: Arrow's threads would still ask Python for it while the process ends, which aborts it.
            with disk.spoken(self.folder / key, "read"):
                return cast(BinaryIO, pa.OSFile(str(self.folder / key)))
        from scythe_catalog.storage.ranged import RangedFile

        return cast(BinaryIO, RangedFile.open(self.root, key))

    def staging_file(self, name: str) -> Path:
        """A local path to write a new object to, for `publish`: on the root's own disk, or private for a bucket."""
        folder = self.folder
        if folder is None:
            return staging.private(name)
        with disk.spoken(folder, "written"):
            return staging.below(folder, name)

    def discard(self, staged: Path) -> None:
        """Removes a staged file that will not be published; one that was does not matter."""
        staging.drop(staged)

    def sweep_staging(self) -> None:
        """Removes what processes that were killed an hour ago left behind, here and on this machine."""
        staging.sweep(self.folder)

    def publish(self, staged: Path, key: str) -> None:
        """Moves a staged file under its key: renamed on a disk, uploaded to a bucket; whole or absent."""
        self.publish_all([(staged, key)])

    def publish_all(self, files: Iterable[tuple[Path, str]]) -> None:
        """`publish` for many (staged path, key) pairs, which costs less than one by one."""
        folder = self.folder
        if folder is not None:
            with disk.spoken(folder, "written"):
                disk.show_all((staged, folder / key) for staged, key in files)
            return

        def upload(pair: tuple[Path, str]) -> None:
            try:
                self.upload(*pair)
            finally:
                staging.drop(pair[0])

        self._at_once(upload, files)

    def link(self, source: str, target: str) -> None:
        """Shows an object under a second key, in place of what is there; whole or absent, like `write`.

        A hard link on a disk (a copy where the file system has none), a copy by the server in a bucket.

        Raises:
            FileNotFoundError: there is no source.
        """
        folder = self.folder
        if folder is not None:
            with disk.spoken(folder / target, "written"):
                disk.link(folder / source, self.staging_file(target.rsplit("/", 1)[-1]), folder / target)
        elif self.size(source) <= _COPY_BYTES:
            import obstore

            self._tried(lambda: obstore.copy(self.store, source, target))
        else:
            with self._staged(target) as staged:
                self.download(source, staged)
                self.upload(staged, target)

    def take_in(self, files: Iterable[tuple[Path, str]]) -> None:
        """Copies many local files, (path, key) pairs, which stay where they are; each is whole or absent."""
        if self.is_bucket:
            self._at_once(lambda pair: self.upload(*pair), files)
            return
        staged: list[tuple[Path, str]] = []
        try:
            for path, key in files:
                staged.append((self.staging_file(path.name), key))
                shutil.copyfile(path, staged[-1][0])
            self.publish_all(staged)
        finally:
            for path, _ in staged:
                staging.drop(path)

    def _at_once(self, call: Callable[[A], T], arguments: Iterable[A]) -> list[T]:
        """All results in order; over a network many at a time."""
        given = list(arguments)
        if not self.is_bucket or len(given) < 2:
            return [call(one) for one in given]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(_AT_ONCE, len(given))) as pool:
            return list(pool.map(call, given))

    def _tried(self, call: Callable[[], T]) -> T:
        """What `call` gives; over a network with its retries and errors, see `scythe_catalog.storage.s3.attempted`."""
        if not self.is_bucket:
            return call()
        from scythe_catalog.storage.s3 import attempted

        return attempted(self.root, call)


def reason(error: BaseException) -> str:
    """What went wrong with bytes, in one line: obstore tells its inner state behind it."""
    return str(error).split("\n\nDebug source", maxsplit=1)[0]


def path_uri(path: Path) -> str:
    """The `file://` URI of a path, absolute; nothing is percent-encoded, as in Iceberg's own metadata."""
    return f"file://{os.path.abspath(path.expanduser())}"  # noqa: PTH100 - keeps symbolic links


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

"""Bytes under a root URI, the same for a folder (`file://`) and a bucket (`s3://`).

One atomic operation, create-if-absent, is all that Scythe builds on: a hard link on a file system,
`If-None-Match: *` on S3. Writes are whole or absent. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from scythe_catalog.errors import CatalogError, StorageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

A = TypeVar("A")
T = TypeVar("T")

_PART_BYTES = 8 * 1024 * 1024
#: An object in a bucket has 10,000 parts at most.
_MAX_PARTS = 9_000
#: An S3 server copies objects up to this size in one request.
_COPY_BYTES = 5 * 1024**3
_AT_ONCE = 32
#: What `link` answers where there are no hard links, or not between these two or as many.
_NO_LINK = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
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
        """The obstore store of the root, with credentials from boto3's session where it is a bucket."""
        if self.is_bucket:
            from scythe_catalog.s3 import s3_store

            return s3_store(self.root)
        return _folder_store(self.root)

    @property
    def _patient(self) -> ObjectStore:
        """The same, for requests whose failure is dear."""
        if self.is_bucket:
            from scythe_catalog.s3 import s3_store

            return s3_store(self.root, patient=True)
        return self.store

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
        import obstore

        return self._tried(lambda: bytes(obstore.get(self.store, key).bytes()))

    def read_dated(self, key: str) -> tuple[bytes, float]:
        """The whole object, and when it was written by the store's own clock [s since 1970]; raises FileNotFoundError."""
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
        import obstore

        self._tried(lambda: obstore.put(self.store, key, data, use_multipart=False))

    def create(self, key: str, data: bytes) -> bool:
        """Writes the object if there is none; False if there is one already.

        In a bucket the answer to a creation may be lost on its way and the request be sent again: then the object
        that is there already is our own. It is told from another's by a name that this call gives it.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        attributes = {_MAKER: uuid.uuid4().hex} if self.is_bucket else None

        def attempt() -> bool:
            try:
                obstore.put(self.store, key, data, mode="create", use_multipart=False, attributes=attributes)
            except AlreadyExistsError:
                return attributes is not None and self._maker(key) == attributes[_MAKER]
            return True

        return self._tried(attempt)

    def _maker(self, key: str) -> object:
        import obstore

        try:
            found: dict[str, object] = dict(obstore.get(self.store, key, options={"head": True}).attributes)
        except FileNotFoundError:
            return None
        return found.get(_MAKER)

    def upload(self, path: Path, key: str) -> None:
        """Copies a local file, in parts where it is large; atomic like `write`."""
        import obstore

        size = path.stat().st_size
        if size <= _PART_BYTES:
            self.write(key, path.read_bytes())
            return
        part = max(_PART_BYTES, -(-size // _MAX_PARTS))

        def attempt() -> None:
            with path.open("rb") as source:
                obstore.put(self._patient, key, source, chunk_size=part, max_concurrency=8)

        self._tried(attempt)

    def download(self, key: str, path: Path) -> None:
        """Copies an object into a local file, in parallel ranges where it is large; raises FileNotFoundError."""
        folder = self.folder
        if folder is not None:
            shutil.copyfile(folder / key, path)
            return
        from scythe_catalog.ranged import Found

        Found(self.root, key).save(path)

    def size(self, key: str) -> int:
        """Bytes of an object; raises FileNotFoundError."""
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
        return sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in self._listing(prefix)[0])

    def files(self, prefix: str) -> list[str]:
        """Names of the objects directly below a folder, sorted; empty where there is none."""
        return sorted(k.rsplit("/", 1)[-1] for k in self._listing(prefix)[1])

    def _listing(self, prefix: str) -> tuple[list[str], list[str]]:
        import obstore

        listed = self._tried(lambda: obstore.list_with_delimiter(self.store, prefix + "/" if prefix else None))
        return list(listed["common_prefixes"]), [meta["path"] for meta in listed["objects"]]

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; those that are gone already do not matter."""
        import obstore

        for batch in _batches(list(keys), 1000):
            try:
                self._tried(lambda batch=batch: obstore.delete(self.store, batch))
            except FileNotFoundError:
                for key in batch:
                    with contextlib.suppress(FileNotFoundError):
                        obstore.delete(self.store, key)

    def delete_folder(self, prefix: str) -> None:
        """Deletes everything below a folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder / prefix, ignore_errors=True)
        else:
            self.delete(self.keys(prefix))

    def delete_empty_folders(self, prefix: str) -> None:
        """Removes the folders above a key that hold nothing any more; a bucket has none."""
        folder = self.folder
        parents = Path(prefix).parents if folder is not None else ()
        for parent in list(parents)[:-1]:
            try:
                (cast(Path, folder) / parent).rmdir()
            except OSError:
                return

    def reader(self, key: str) -> BinaryIO:
        """A seekable file to read from; raises FileNotFoundError."""
        if self.folder is not None:
            return (self.folder / key).open("rb")
        from scythe_catalog.ranged import RangedFile

        return cast(BinaryIO, RangedFile.open(self.root, key))

    def staging_file(self, name: str) -> Path:
        """A local path to write a new object to, for `publish`; on the root's own disk where the root is a folder."""
        folder = self.folder
        unique = f"{uuid.uuid4().hex}-{name[-100:]}"
        if folder is None:
            return Path(tempfile.gettempdir()) / f"scythe-{unique}"
        (folder / STAGING).mkdir(parents=True, exist_ok=True)
        return folder / STAGING / unique

    def sweep_staging(self, older_than_seconds: float) -> None:
        """Removes what killed processes left behind in a local root's staging folder."""
        folder = self.folder
        if folder is None or not (folder / STAGING).is_dir():
            return
        limit = time.time() - older_than_seconds
        for path in (folder / STAGING).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()

    def publish(self, staged: Path, key: str) -> None:
        """Moves a staged file under its key: renamed on a disk, uploaded to a bucket; whole or absent."""
        folder = self.folder
        if folder is None:
            try:
                self.upload(staged, key)
            finally:
                staged.unlink()
        else:
            target = folder / key
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)

    def link(self, source: str, target: str) -> None:
        """Shows an object under a second key, in place of what is there; whole or absent, like `write`.

        A hard link on a disk (a copy where the file system has none), a copy by the server in a bucket.

        Raises:
            FileNotFoundError: there is no source.
        """
        folder = self.folder
        if folder is None:
            self._copy(source, target)
            return
        staged = self.staging_file(target.rsplit("/", 1)[-1])
        try:
            try:
                os.link(folder / source, staged)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                shutil.copyfile(folder / source, staged)
            self.publish(staged, target)
        finally:
            staged.unlink(missing_ok=True)  # renaming a link onto one of the same file does nothing, and leaves it

    def _copy(self, source: str, target: str) -> None:
        import obstore

        if self.size(source) <= _COPY_BYTES:
            self._tried(lambda: obstore.copy(self.store, source, target))
            return
        staged = self.staging_file(target.rsplit("/", 1)[-1])
        try:
            self.download(source, staged)
            self.upload(staged, target)
        finally:
            staged.unlink(missing_ok=True)

    def publish_all(self, files: Iterable[tuple[Path, str]]) -> None:
        """`publish` for many (staged path, key) pairs: in parallel where each costs a round trip."""
        self._at_once(lambda pair: self.publish(*pair), files)

    def take_in(self, files: Iterable[tuple[Path, str]]) -> None:
        """Copies many local files, (path, key) pairs, which stay where they are; each is whole or absent."""

        def copy(pair: tuple[Path, str]) -> None:
            path, key = pair
            if self.is_bucket:
                self.upload(path, key)
                return
            staged = self.staging_file(path.name)
            shutil.copyfile(path, staged)
            self.publish(staged, key)

        self._at_once(copy, files)

    def _at_once(self, call: Callable[[A], T], arguments: Iterable[A]) -> list[T]:
        """All results in order; over a network many at a time."""
        given = list(arguments)
        if not self.is_bucket or len(given) < 2:
            return [call(one) for one in given]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(_AT_ONCE, len(given))) as pool:
            return list(pool.map(call, given))

    def _tried(self, call: Callable[[], T]) -> T:
        """What `call` gives; over a network with its retries and errors, see `scythe_catalog.s3.attempted`."""
        if not self.is_bucket:
            return call()
        from scythe_catalog.s3 import attempted

        return attempted(self.root, call)


#: Folder below a local root where files lie until they are whole.
STAGING = ".staging"


def reason(error: BaseException) -> str:
    """What went wrong with bytes, in one line: obstore tells its inner state behind it."""
    return str(error).split("\n\nDebug source", maxsplit=1)[0]


def path_uri(path: Path) -> str:
    """The `file://` URI of a path, absolute; nothing is percent-encoded, as in Iceberg's own metadata."""
    return f"file://{os.path.abspath(path.expanduser())}"  # noqa: PTH100 - keeps symbolic links


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@lru_cache(maxsize=256)
def _folder_store(root: str) -> ObjectStore:
    from obstore.store import LocalStore

    folder = Path(root.removeprefix("file://"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the root {folder} cannot be written: {error.strerror or error}") from error
    return LocalStore(folder)

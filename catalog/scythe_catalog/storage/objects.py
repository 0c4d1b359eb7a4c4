"""Bytes under a root URI, the same for a folder and a bucket.

One atomic operation, create-if-absent, is all that Scythe builds on: a hard link on a file system,
`If-None-Match: *` on S3. Writes are whole or absent, and stay when a machine goes down. Nothing is made by reading.
Knows nothing of what the bytes mean; how each operation is done is told in `folder` and in `bucket`.
"""

from __future__ import annotations

import datetime as dt
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

from scythe_catalog.errors import CatalogError
from scythe_catalog.storage import staging
from scythe_catalog.storage.provider import known_schemes

A = TypeVar("A")
T = TypeVar("T")

#: So much of two files is held against one another at once [bytes].
_BLOCK = 8 * 1024 * 1024
_FOLDER, _BUCKET = "scythe_catalog.storage.folder", "scythe_catalog.storage.bucket"


@dataclass(frozen=True)
class Found:
    """An object as a listing shows it; its time is the store's, whatever the clock of this machine says."""

    key: str
    size: int
    modified: dt.datetime
    #: By what the store tells one content of it from another: an ETag, or on a disk the time of its last change.
    tag: str | None = None


@dataclass(frozen=True)
class Objects(ABC):
    """The objects below one root. `root` is a URI without a trailing slash; keys are relative to it."""

    root: str
    #: The root as a local folder, None for a bucket.
    folder: ClassVar[Path | None] = None

    @staticmethod
    def at(root: str | Path) -> Objects:
        """The objects below a folder, or below the address of a bucket (`s3://bucket/prefix`).

        Raises:
            CatalogError: no store is known for such an address.
        """
        text = str(root)
        scheme, separator, _ = text.partition("://")
        if not separator or scheme == "file":
            where = os.path.abspath(Path(text.removeprefix("file://")).expanduser())  # noqa: PTH100 - keeps symbolic links
            return import_module(_FOLDER).Folder(f"file://{where}")
        if scheme not in known_schemes():
            known = ", ".join(f"{name}://" for name in known_schemes())
            raise CatalogError(f"no store is known for {text}: use a folder, or an address that begins with {known}")
        return import_module(_BUCKET).Bucket(text.rstrip("/"))

    def make(self) -> None:  # noqa: B027 - a bucket must be there
        """Makes the folder of a root that is not there yet; a bucket must be there.

        Raises:
            StorageError: it cannot be made.
        """

    def uri(self, key: str) -> str:
        """The full URI of a key."""
        return f"{self.root}/{key}"

    def key(self, uri: str) -> str:
        """The key of a URI below the root; raises CatalogError for any other."""
        if not uri.startswith(self.root + "/"):
            raise CatalogError(f"{uri} does not lie below {self.root}")
        return uri[len(self.root) + 1 :]

    # --- reading ------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The whole object; raises FileNotFoundError."""

    @abstractmethod
    def read_dated(self, key: str) -> tuple[bytes, float]:
        """The whole object, and when it was written by the store's own clock [s since 1970]; raises FileNotFoundError."""

    def read_tagged(self, key: str) -> tuple[bytes, str | None]:
        """The whole object, and its tag if `replace` takes it; raises FileNotFoundError."""
        return self.read(key), None

    def read_all(self, keys: Iterable[str]) -> list[bytes]:
        """Many small objects, in parallel over a network."""
        return [self.read(key) for key in keys]

    def each(self, look: Callable[[A], T], at: Iterable[A]) -> list[T]:
        """What `look` gives for each of many things of which it reads a few small objects, in order; in parallel over a network."""
        return [look(one) for one in at]

    @abstractmethod
    def reader(self, key: str) -> BinaryIO:
        """A seekable file to read from; raises FileNotFoundError."""

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Copies an object into a local file, in parallel ranges where it is large; raises FileNotFoundError."""

    @abstractmethod
    def part(self, key: str, start: int, stop: int, tag: str | None) -> memoryview:
        """The bytes of an object from `start` until before `stop`, as long as it has still this tag.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: it is another one by now, or was cut short; the message names it.
        """

    @abstractmethod
    def described(self, keys: Iterable[str]) -> list[Found]:
        """What a listing would tell of these objects, asked one by one, in parallel over a network; of those that are there."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes of an object; raises FileNotFoundError."""

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

    @abstractmethod
    def found(self, prefix: str) -> list[Found]:
        """All objects below a folder, with what a listing tells of them."""

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders directly below a folder, sorted; empty where there is none."""
        return sorted(self._listing(prefix)[0])

    def files(self, prefix: str) -> list[str]:
        """Names of the objects directly below a folder, sorted; empty where there is none."""
        return sorted(self._listing(prefix)[1])

    def direct(self, prefix: str) -> list[Found]:
        """The objects directly below a folder, with what a listing tells of them."""
        return self.described(f"{prefix}/{name}" for name in self.files(prefix))

    @abstractmethod
    def _listing(self, prefix: str) -> tuple[list[str], list[str]]: ...

    @abstractmethod
    def polars_source(self, key: str) -> str:
        """What Polars' own reader opens an object by."""

    @property
    def polars_options(self) -> dict[str, Any] | None:
        """The storage options under which Polars' own reader reaches the root, None where it needs none."""
        return None

    # --- writing ------------------------------------------------------------------------------------

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Replaces the object atomically."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Writes the object if there is none; False if there is one already."""

    def replace(self, key: str, data: bytes, tag: str) -> str | None:
        """Writes the object if it is still the one of this tag, and gives its new tag.

        None where it is another by now, and where the store does not tell: then it may be as it was, or written.
        For stores that `heeds_tags` is true of; others write whatever is there.
        """
        return None

    def heeds_tags(self, key: str, data: bytes) -> bool:
        """Whether `replace` can be relied on. A bucket is asked once a process, by an object that holds just these bytes."""
        return False

    def upload(self, path: Path, key: str) -> None:
        """Copies a local file, in parts where it is large; atomic like `write`."""
        self.take_in([(path, key)])

    @abstractmethod
    def take_in(self, files: Iterable[tuple[Path, str]], came: Callable[[Path], None] | None = None) -> None:
        """Copies many local files at once, (path, key) pairs, which stay where they are; each is whole or absent.

        `came` hears of each that was copied, from any thread.
        """

    @abstractmethod
    def staging_file(self, name: str) -> Path:
        """A local path to write a new object to, for `publish`: on the root's own disk, or private for a bucket."""

    def discard(self, staged: Path) -> None:
        """Removes a staged file that will not be published; one that was does not matter."""
        staging.drop(staged)

    def sweep_staging(self) -> None:
        """Removes what processes that were killed an hour ago left behind, here and on this machine."""
        staging.sweep(self.folder)

    def publish(self, staged: Path, key: str) -> None:
        """Moves a staged file under its key: renamed on a disk, uploaded to a bucket; whole or absent."""
        self.publish_all([(staged, key)])

    @abstractmethod
    def publish_all(self, files: Iterable[tuple[Path, str]]) -> None:
        """`publish` for many (staged path, key) pairs, which costs less than one by one; where it fails, what is staged is removed."""

    @abstractmethod
    def publish_new(self, files: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
        """`publish_all` without taking a key from what has it: gives those that something has, which stay staged."""

    def holds(self, key: str, path: Path) -> bool:
        """Whether an object is there and holds what a local file holds."""
        try:
            size = self.size(key)
            if size != path.stat().st_size:
                return False
            with path.open("rb") as own:
                return all(
                    bytes(self.part(key, start, min(start + _BLOCK, size), None)) == own.read(_BLOCK)
                    for start in range(0, size, _BLOCK)
                )
        except FileNotFoundError:
            return False

    @abstractmethod
    def link(self, source: str, target: str) -> None:
        """Shows an object under a second key, in place of what is there; whole or absent, like `write`.

        A hard link on a disk (a copy where the file system has none), a copy by the server in a bucket.

        Raises:
            FileNotFoundError: there is no source.
        """

    # --- deleting -----------------------------------------------------------------------------------

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; those that are gone already do not matter.

        Raises:
            StorageError: one could not be deleted, naming it and the reason.
        """

    def delete_folder(self, prefix: str) -> None:
        """Deletes everything below a folder.

        Raises:
            StorageError: something could not be deleted, naming the first of it and the reason.
        """
        self.delete(self.keys(prefix))

    def delete_empty_folders(self, prefix: str) -> None:  # noqa: B027 - a bucket has none
        """Removes the folders above a key that hold nothing any more; a bucket has none."""


def reason(error: BaseException) -> str:
    """What went wrong with bytes, in one line: obstore tells its inner state behind it."""
    return str(error).split("\n\nDebug source", maxsplit=1)[0]

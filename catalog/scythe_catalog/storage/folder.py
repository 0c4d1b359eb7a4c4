"""A root that is a folder of a disk. Names in keys are names of files; whole or absent is a rename or a hard link."""

from __future__ import annotations

import contextlib
import errno
import shutil
import stat
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from scythe_catalog.storage import disk, staging
from scythe_catalog.storage.objects import Found, Objects
from scythe_catalog.storage.waiting import each


@dataclass(frozen=True)
class Folder(Objects):
    """The files below a folder; `root` is its `file://` URI, in which nothing is percent-encoded, as in Iceberg's metadata."""

    @property
    def folder(self) -> Path:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """The folder."""
        return Path(self.root.removeprefix("file://"))

    def make(self) -> None:
        disk.make_root(self.folder)

    def read(self, key: str) -> bytes:
        path = self.folder / key
        with disk.spoken(path, "read"):
            return path.read_bytes()

    def read_dated(self, key: str) -> tuple[bytes, float]:
        return self.read(key), (self.folder / key).stat().st_mtime

    def reader(self, key: str) -> BinaryIO:
        import pyarrow as pa

        # No file of Python's: Arrow's threads would still ask Python for it while the process ends, which aborts it.
        with disk.spoken(self.folder / key, "read"):
            return cast(BinaryIO, pa.OSFile(str(self.folder / key)))

    def download(self, key: str, path: Path) -> None:
        shutil.copyfile(self.folder / key, path)

    def part(self, key: str, start: int, stop: int, tag: str | None) -> memoryview:
        with disk.spoken(self.folder / key, "read"):
            return memoryview(disk.read_part(self.folder / key, start, stop, tag))

    def described(self, keys: Iterable[str]) -> list[Found]:
        root = self._prefix
        with disk.spoken(self.folder, "read"):
            return [Found(key, *facts) for key in keys if (facts := disk.facts(root + key)) is not None]

    def size(self, key: str) -> int:
        path = self.folder / key
        with disk.spoken(path, "read"):
            found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "this is no file", str(path))
        return found.st_size

    def found(self, prefix: str) -> list[Found]:
        above = len(self._prefix)
        return self.described(path[above:] for path in disk.walk(self.folder / prefix))

    @property
    def _prefix(self) -> str:
        """What keys are put behind to be paths."""
        return f"{str(self.folder).rstrip('/')}/"

    def _listing(self, prefix: str) -> tuple[list[str], list[str]]:
        path = self.folder / prefix
        with disk.spoken(path, "read"):
            folders, files = disk.entries(path)
        return [name for name in folders if name != staging.STAGING], files

    def polars_source(self, key: str) -> str:
        return str(self.folder / key)

    def write(self, key: str, data: bytes) -> None:
        path = self.folder / key
        with disk.spoken(path, "written"), self._staged(key) as staged:
            disk.write_staged(staged, data)
            disk.show(staged, path)

    def create(self, key: str, data: bytes) -> bool:
        path = self.folder / key
        with disk.spoken(path, "written"), self._staged(key) as staged:
            disk.write_staged(staged, data)
            return disk.show_new(staged, path)

    @contextlib.contextmanager
    def _staged(self, key: str) -> Generator[Path]:
        staged = self.staging_file(key.rsplit("/", 1)[-1])
        try:
            yield staged
        finally:
            staging.drop(staged)

    def take_in(self, files: Iterable[tuple[Path, str]], came: Callable[[Path], None] | None = None) -> None:
        staged: list[tuple[Path, str]] = []

        def copy(pair: tuple[Path, Path]) -> None:
            shutil.copyfile(*pair)
            if came is not None:
                came(pair[0])

        try:
            given = list(files)
            staged += [(self.staging_file(path.name), key) for path, key in given]
            each(copy, ((path, at) for (path, _), (at, _) in zip(given, staged, strict=True)))
            self.publish_all(staged)
        finally:
            for path, _ in staged:
                staging.drop(path)

    def staging_file(self, name: str) -> Path:
        with disk.spoken(self.folder, "written"):
            return staging.below(self.folder, name)

    def publish_all(self, files: Iterable[tuple[Path, str]]) -> None:
        prefix, given = self._prefix, list(files)
        try:
            with disk.spoken(self.folder, "written"):
                disk.show_all((staged, f"{prefix}{key}") for staged, key in given)
        except BaseException:
            for staged, _ in given:
                staging.drop(staged)
            raise

    def publish_new(self, files: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
        prefix = self._prefix
        with disk.spoken(self.folder, "written"):
            left = disk.show_all_new((staged, f"{prefix}{key}") for staged, key in files)
        return [(staged, target.removeprefix(prefix)) for staged, target in left]

    def link(self, source: str, target: str) -> None:
        with disk.spoken(self.folder / target, "written"):
            disk.link(self.folder / source, self.staging_file(target.rsplit("/", 1)[-1]), self.folder / target)

    def delete(self, keys: Iterable[str]) -> None:
        disk.delete(self.folder / key for key in keys)

    def delete_folder(self, prefix: str) -> None:
        disk.delete_folder(self.folder / prefix)

    def delete_empty_folders(self, prefix: str) -> None:
        for parent in list(Path(prefix).parents)[:-1]:
            try:
                (self.folder / parent).rmdir()
            except OSError:
                return
        disk.leave_bare(self.folder)

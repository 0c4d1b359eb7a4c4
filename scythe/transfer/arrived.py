"""What of a run has arrived in a root that it is downloaded to: which content of each file, and how large it lies there.

A line for each file, written once it has its name, so that a process that is killed knows the next time what it has. Beside it
the run's records as they were at their source (those that lie in the run's folder follow the root), and the files that are under way.
Knows no source, and copies nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import threading
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from scythe.errors import TransferError
from scythe.record.attempts import Attempt
from scythe.record.format import dump, parse_as
from scythe.record.layout import RunKey
from scythe_catalog.storage.objects import Objects

#: A file of a store: its key, its size [bytes], its tag.
OBJECTS = {"key": pl.String, "size": pl.Int64, "tag": pl.String}
#: A file in a shard: the key that it gets, that of the shard, where it lies there [bytes], and its checksum.
INSIDE = {"key": pl.String, "inside": pl.String, "offset": pl.Int64, "length": pl.Int64, "crc32c": pl.Int64}
#: Where the files lie in a shard that comes whole, and their checksums.
HELD = {"held": pl.List(pl.Struct(dict.fromkeys(("offset", "length", "crc32c"), pl.Int64)))}
_LINES = {**OBJECTS, "here": pl.Int64}


@dataclass(frozen=True)
class Ended:
    """How the last download of a run left it."""

    source: str
    #: False while what lies here is not all of one state of the run: no download has come to its end, or another one is at it.
    whole: bool = True
    #: The tables that are here; None while the run is not finished.
    tables: tuple[str, ...] | None = None
    #: False once files have come that the run does not show yet.
    settled: bool = True


class Arrivals:
    """The arrivals of one run; for one process at a time (`locked`)."""

    def __init__(self, local: Objects, key: RunKey) -> None:
        assert local.folder is not None
        self._local, self._key, self._root = local, key, local.folder
        self.folder = local.folder / key.arrivals
        self._lines = local.folder / key.arrived
        self._ended = local.folder / key.arrivals_ended
        self._writing = threading.Lock()

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Keeps other processes from downloading the same run to the same place.

        Raises:
            TransferError: one is at it.
        """
        from filelock import FileLock, Timeout  # it brings asyncio

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                self._cut()
                yield
        except Timeout:
            raise TransferError(
                f"another process downloads {self._key.path} to {self._root}: wait for it, or name another folder"
            ) from None

    def _cut(self) -> None:
        """Takes away a line that was cut short, with its process or by a full disk: the next one would go on with it."""
        with contextlib.suppress(FileNotFoundError), self._lines.open("r+b") as lines:
            lines.truncate(lines.read().rfind(b"\n") + 1)

    # --- what is there ------------------------------------------------------------------------------

    def known(self) -> pl.DataFrame:
        """The files that have arrived: key, size, tag, and the size under which each lies here since."""
        raw = self._lines.read_bytes() if self._lines.exists() else b""
        whole = raw[: raw.rfind(b"\n") + 1]  # a line that was cut short with its process is none
        if not whole:
            return pl.DataFrame(schema=_LINES)
        found = pl.read_csv(io.BytesIO(whole), separator="\t", has_header=False, quote_char=None, schema=_LINES)
        return found.unique("key", keep="last", maintain_order=True)

    def missing(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """Those of some files of the source (key, size, tag) that are not here with this size and tag."""
        known = wanted.join(self.known(), on=["key", "size", "tag"], nulls_equal=True)
        here = known.filter(known["here"] == self._sizes(known))
        return wanted.join(here, on="key", how="anti")

    def _sizes(self, files: pl.DataFrame) -> pl.Series:
        """The bytes of files as they lie here, null for those that do not."""
        return pl.Series("here", [self.size(key) for key in files["key"]], pl.Int64)

    def size(self, key: str) -> int | None:
        """The bytes of a file as it lies here; None where it does not."""
        try:
            return os.stat(self.place(key)).st_size  # noqa: PTH116 - of millions
        except (FileNotFoundError, NotADirectoryError):
            return None

    def place(self, key: str) -> Path:
        """Where a file is put: records are kept as they came, all else goes to its place in the run."""
        if self._is_record(key):
            return self.folder / "records" / key.removeprefix(f"{self._key.path}/")
        return self._root / key

    def _is_record(self, key: str) -> bool:
        inner = key.removeprefix(f"{self._key.path}/")
        return not inner.endswith(".pq") and not inner.startswith(("results/", "artifacts/"))

    def record(self, key: str) -> bytes | None:
        """A record as it came; None where it has not."""
        try:
            return self.place(key).read_bytes()
        except FileNotFoundError:
            return None

    def records(self) -> list[str]:
        """The keys of all records that have arrived and are there."""
        return [key for key in self.known()["key"] if self._is_record(key) and self.place(key).is_file()]

    def attempt(self, number: int) -> Attempt | None:
        """The record of an attempt as it came; None where it has not."""
        key = f"{self._key.attempts}/{number:06d}.json"
        raw = self.record(key)
        return None if raw is None else parse_as(Attempt, raw, str(self.place(key)))

    def ended(self) -> Ended | None:
        """How the last download left it; None where none has put anything into the run's folder."""
        try:
            return parse_as(Ended, self._ended.read_bytes(), str(self._ended))
        except (FileNotFoundError, NotADirectoryError):
            return None

    # --- what has arrived ---------------------------------------------------------------------------

    def under_way(self, key: str, size: int, tag: str | None) -> Path:
        """Where a content of a file lies until it is whole: the same place the next time, for this very content."""
        name = hashlib.sha256(f"{key}\t{size}\t{tag}".encode(errors="surrogatepass")).hexdigest()[:32]
        return self.folder / "under-way" / f"{name}.part"

    def take(self, part: Path, key: str, size: int, tag: str | None) -> None:
        """Gives a whole file its name, and notes it."""
        place = self.place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
        line = f"{key}\t{size}\t{tag or ''}\t{size}\n".encode()
        with self._writing, self._lines.open("ab") as lines:  # all of it, or an error
            lines.write(line)

    def end(self, ended: Ended) -> None:
        """Notes that all that was asked for is here, and how large it lies here now; nothing is under way any more."""
        known = self.known()
        staged = self._lines.with_suffix(".new")
        known.with_columns(self._sizes(known)).drop_nulls("here").write_csv(
            staged, separator="\t", include_header=False, quote_style="never"
        )
        staged.replace(self._lines)
        shutil.rmtree(self.folder / "under-way", ignore_errors=True)
        self.note(ended)

    def note(self, ended: Ended) -> None:
        """Records how the run is left."""
        staged = self._ended.with_suffix(".new")
        staged.write_bytes(dump(asdict(ended)))
        staged.replace(self._ended)


__all__ = ["INSIDE", "OBJECTS", "Arrivals", "Ended"]

"""The folder of fetched files, which all processes of a user share: whole files, one download each, bounded, private.

`<folder>/<address>/<content>/<name>` holds the files that are handed out, `<folder>/published/` objects of runs that never change (and
ranges of them), many to a folder. What is known of an address, locks, and what living processes were handed lie in `<folder>/.state`.
Removes the least recently used files first (of published ones those that came first), and never one that a process was handed that
still lives. Knows nothing of servers; writes nowhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from scythe.errors import FetchError

if TYPE_CHECKING:
    from filelock import FileLock

_STATE, _PUBLISHED = ".state", "published"
_SWEEP_SECONDS = 60.0
#: A full cache is emptied by this much more, so that not every download has to.
_EMPTIED = 0.9


def cache_folder() -> Path:
    """Where fetched files lie: `SCYTHE_CACHE_DIR`, or the user's cache folder."""
    named = os.environ.get("SCYTHE_CACHE_DIR")
    if named:
        return Path(named).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("scythe") / "files"


@dataclass(frozen=True)
class Tags:
    """By what a server tells one content of an address from another."""

    e_tag: str | None = None
    last_modified: str | None = None

    def name(self, file: Path) -> str:
        """A name for the content of a downloaded file."""
        if self.e_tag:
            return hashed(self.e_tag)[:16]
        if self.last_modified:
            return hashed(f"{self.last_modified}-{file.stat().st_size}")[:16]
        with file.open("rb") as stream:  # the server says nothing of it: equal bytes are equal content
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """A cached file, and what its server said of it when it was asked the last time."""

    content: str
    name: str
    size: int
    changed_ns: int
    e_tag: str | None
    last_modified: str | None
    #: When and by which machine's clock.
    asked: float
    host: str

    def asked_since(self, moment: float) -> bool:
        """Whether a process of this machine has asked the server since then, and not by a clock that was set back meanwhile."""
        return self.host == _host() and moment <= self.asked <= time.time()


class Address:
    """The place of one address in the cache. All but `locked` is for whoever has its lock."""

    def __init__(self, uri: str, name: str) -> None:
        self.folder = cache_folder() / hashed(uri)[:32]
        self._state = self.folder.parent / _STATE / "known" / f"{self.folder.name}.json"
        #: The file's own name is kept, for programs that look at it.
        self._name = "".join(c for c in unquote(name) if c.isprintable()).lstrip(".").encode()[:200].decode(
            errors="ignore"
        ).replace("/", "_") or "file"  # fmt: skip

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Generator[None]:
        """Keeps other threads, processes and (where its locks reach) machines from this address.

        Raises:
            TimeoutError: another had it all this time.
        """
        try:
            with _lock(self.folder.parent, self.folder.name, seconds):
                yield
        except _timeout():
            raise TimeoutError(f"another process has been fetching it for {seconds:.0f} s") from None

    def entry(self) -> Entry | None:
        """The newest content of this address, None where there is none, or not as it was written."""
        try:
            entry = Entry(**json.loads(self._state.read_bytes()))
            found = (self.folder / entry.content / entry.name).stat()
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None
        return entry if (found.st_size, found.st_mtime_ns) == (entry.size, entry.changed_ns) else None

    def partial(self) -> Path:
        """A new file to download into; nobody else can read it."""
        private_folder(self.folder)
        path = self.folder / f".{uuid.uuid4().hex}.part"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return path

    def keep(self, partial: Path, tags: Tags) -> Path:
        """Shows a downloaded file under its name, whole, and hands it to this process."""
        content = tags.name(partial)
        private_folder(self.folder / content)
        path = self.folder / content / self._name
        self._note(content)
        partial.replace(path)
        found = path.stat()
        self._remember(
            Entry(content, self._name, found.st_size, found.st_mtime_ns, tags.e_tag, tags.last_modified, time.time(), _host())
        )  # fmt: skip
        return path

    def confirm(self, entry: Entry) -> None:
        """Notes that the server was asked just now, and has nothing newer."""
        self._remember(replace(entry, asked=time.time(), host=_host()))

    def hand_out(self, entry: Entry) -> Path:
        """The file of an entry, which stays as long as this process does."""
        self._note(entry.content)
        os.utime(self.folder / entry.content)
        return self.folder / entry.content / entry.name

    def _note(self, content: str) -> None:
        handed = _handed(self.folder.parent, os.getpid())
        if not handed.path.exists():  # the folder was removed by hand
            _handed.cache_clear()
            handed = _handed(self.folder.parent, os.getpid())
        handed.add(f"{self.folder.name}/{content}")

    def _remember(self, entry: Entry) -> None:
        private_folder(self._state.parent)
        staged = self._state.with_name(f".{uuid.uuid4().hex}")
        _write_private(staged, json.dumps(asdict(entry)).encode())
        staged.replace(self._state)


# --- what living processes were handed --------------------------------------------------------------


class _Handed:
    """The contents that this process was handed; a lock that it holds to its end says that it lives."""

    def __init__(self, folder: Path) -> None:
        users = folder / _STATE / "users"
        private_folder(users)
        name = f"{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.path, self._known = users / f"{name}.marks", set[str]()
        self._alive = _file_lock(users / f"{name}.lock", thread_local=False)
        self._alive.acquire()
        _write_private(self.path, b"")

    def add(self, content: str) -> None:
        if content in self._known:
            return
        with self.path.open("ab", buffering=0) as handed:
            handed.write(f"{content}\n".encode())
        self._known.add(content)


@lru_cache(maxsize=8)
def _handed(folder: Path, pid: int) -> _Handed:
    return _Handed(folder)


class _InUse:
    """The contents that living processes were handed, read anew with each question but only what was added."""

    def __init__(self, folder: Path) -> None:
        self._users = folder / _STATE / "users"
        self._read: dict[Path, int] = {}
        self._contents: set[str] = set()
        for handed in self._files():
            lock = _file_lock(handed.with_suffix(".lock"))
            with contextlib.suppress(_timeout()), lock.acquire(blocking=False):  # nobody holds it: its process is dead
                handed.unlink(missing_ok=True)
            if not handed.exists():
                Path(lock.lock_file).unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        return self._users.glob("*.marks")

    def __contains__(self, content: str) -> bool:
        for handed in self._files():
            with contextlib.suppress(FileNotFoundError), handed.open("rb") as stream:
                stream.seek(self._read.get(handed, 0))
                added = stream.read()
                self._read[handed] = self._read.get(handed, 0) + len(added)
                self._contents.update(added.decode().splitlines())
        return content in self._contents


# --- its bound --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What the cache holds, or what was removed from it."""

    files: int
    bytes: int


def usage() -> Usage:
    """What the cache holds now."""
    contents = list(_contents(cache_folder()))
    return Usage(len(contents), sum(size for *_, size in contents))


def clear() -> Usage:
    """Removes every file that no living process was handed; what was removed."""
    return _remove(cache_folder(), -1)


def keep_bounded(limit: int) -> None:
    """Removes the least recently used files of a cache that has grown past its limit in bytes; looks once a minute."""
    folder = cache_folder()
    stamp = folder / _STATE / "swept"
    with contextlib.suppress(FileNotFoundError):
        if 0 <= time.time() - stamp.stat().st_mtime < _SWEEP_SECONDS:
            return
    with contextlib.suppress(_timeout(), OSError), _lock(folder, "sweep", 0):
        _write_private(stamp, b"")
        if sum(size for *_, size in _contents(folder)) > limit:
            _remove(folder, int(limit * _EMPTIED))


def _remove(folder: Path, wanted: int) -> Usage:
    """Removes the least recently used contents until no more than so many bytes are left."""
    contents = sorted(_contents(folder), key=lambda found: found[1])
    left, in_use = sum(size for *_, size in contents), _InUse(folder)
    files = removed = 0
    for path, _, size in contents:
        if left <= wanted:
            break
        with contextlib.suppress(_timeout()), _lock(folder, path.parent.name, 0):
            if str(path.relative_to(folder)) in in_use:
                continue
            _remove_one(path)
            left, files, removed = left - size, files + 1, removed + size
    return Usage(files, removed)


def _remove_one(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another content of the address is there
        path.parent.rmdir()
        (path.parent.parent / _STATE / "known" / f"{path.parent.name}.json").unlink(missing_ok=True)


def _contents(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """What lies below the addresses: path, when it was last used, bytes.

    A folder is a content; a file is an object of a run, of a killed download, or of an older cache.
    """
    for some in _entries(folder / _PUBLISHED):
        for file in _entries(Path(some.path)):
            with contextlib.suppress(FileNotFoundError):
                yield Path(file.path), file.stat().st_mtime, file.stat().st_size
    for address in _entries(folder):
        if re.fullmatch("[0-9a-f]{32}", address.name):
            for content in _entries(Path(address.path)):
                files = _entries(Path(content.path)) if content.is_dir() else [content]
                with contextlib.suppress(FileNotFoundError):
                    yield Path(content.path), content.stat().st_mtime, sum(file.stat().st_size for file in files)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


# --- files and locks --------------------------------------------------------------------------------


@contextlib.contextmanager
def _lock(folder: Path, name: str, seconds: float) -> Generator[None]:
    """One of 4,096 locks: files that are never many, so that none must ever be removed."""
    locks = folder / _STATE / "locks"
    private_folder(locks)
    with _file_lock(locks / f"{hashed(name)[:3]}.lock", timeout=seconds):
        yield


def _timeout() -> type[Exception]:
    """What a lock raises that another has for too long."""
    from filelock import Timeout

    return Timeout


def _file_lock(path: Path, **options: Any) -> FileLock:
    from filelock import FileLock  # it brings asyncio, and a process that fetches nothing needs neither

    return FileLock(path, mode=0o600, **options)


def private_folder(folder: Path) -> None:
    """Makes a folder that is its owner's alone, and those above it in the cache."""
    if folder.is_dir():
        return
    try:
        if folder == cache_folder():
            folder.parent.mkdir(parents=True, exist_ok=True)
        else:
            private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"the cache {cache_folder()} cannot be written: {error.strerror or error}: set SCYTHE_CACHE_DIR to a folder of yours"
        ) from error


def published_file(uri: str, content: str) -> Path:
    """Where an object that never changes lies, or a part of it that `content` names: to make a folder for each costs more than to fetch one."""
    address = hashed(uri)[:34]
    return cache_folder() / _PUBLISHED / address[:2] / f"{address[2:]}-{content}"


def _write_private(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _host() -> str:
    return socket.gethostname()

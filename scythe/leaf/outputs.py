"""Output files: the content of what a function named, published under the run's `results/`.

A file waits in the staging folder until its input's outputs are known to be good; then it appears
under its final name, whole, or within a shard. What lies in an input's own tempdir is moved there where nobody else can
reach it; all else is copied. Never deletes or changes a file anywhere else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import sys
import uuid
from collections import Counter
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from pydantic import AnyUrl
from pydantic.networks import _BaseUrl  # pyright: ignore[reportPrivateUsage]

from scythe.base import ExperimentOutputSpec
from scythe.errors import OutputError
from scythe.leaf.shards import Shards, blocks_of
from scythe.leaf.surroundings import umask
from scythe.record.plan import RunPlan
from scythe.remote.schemes import is_remote, listed

#: macOS has no leases.
_LEASE: int | None = getattr(fcntl, "F_SETLEASE", None)

#: A URI's scheme and what follows its slashes; pydantic and `Path` make one slash of two.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/+(.*)", re.DOTALL)
_SUFFIX_BYTES = 24
#: Of a file: that of whoever makes it.
_ANY_GROUP = -1
_KINDS = (
    (stat.S_ISDIR, "is a folder: pack it into one file"),
    (stat.S_ISFIFO, "is a pipe, not a file: write what comes out of it to a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
)


#: What a disk says that takes no more, or is gone: of the root, since the function has written the file that is copied.
_OF_DISKS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN))


class NotStored(OSError):
    """The root does not take an output file: no error of the input, and every other one would fail of it as well."""


class Place(NamedTuple):
    """Where a function was called: the folder of its own, if it has one, and the working folder that it left."""

    tempdir: str | None
    working: str | None
    #: The former with symbolic links followed.
    real: str | None = None


class OutputFiles:
    """The output files of one chunk of inputs."""

    def __init__(self, plan: RunPlan, names: tuple[str, ...]) -> None:
        self.names = names
        self._plan, self._objects = plan, plan.objects
        self._staged: dict[int, dict[str, str]] = {}
        self._shards = Shards(plan)
        self._first: str | None = None
        self._waited = 0

    def take(self, i: int, output: ExperimentOutputSpec, run_id: str, place: Place) -> ExperimentOutputSpec:
        """The output with URIs in place of paths; its files are what they were at this moment.

        Raises:
            OutputError: a value that names no file, or a URI that is neither of a file nor of a store that Scythe reads.
            NotStored: the root does not take the files.
        """
        self._drop(i)
        uris: dict[str, str] = {}
        staged = self._staged[i] = {}
        paths = {name: _file(name, value, place) for name, value in self._local(output)}
        named = Counter(path for path, _ in paths.values())
        for name, (path, own) in paths.items():
            suffix = _suffix(os.path.basename(path))  # noqa: PTH119
            try:
                if name in self._plan.pack:
                    uris[name] = self._shards.put(i, blocks_of(Path(path)), run_id + suffix)
                    if own and named[path] == 1:  # its folder goes next, and at once where it is empty
                        with suppress(OSError):
                            os.unlink(path)  # noqa: PTH108 - for each file
                    continue
                key = self._plan.key.output_file(name, run_id + suffix)
                waiting = self._waiting(suffix)
                staged[key], uris[name] = waiting, self._objects.uri(key)
                if not (own and named[path] == 1 and _moved(path, waiting)):
                    shutil.copyfile(path, waiting)
            except OSError as error:
                if error.errno in _OF_DISKS or error.filename not in (None, path, Path(path)):
                    raise NotStored(error.errno, error.strerror, self._first or error.filename) from error
                raise
        return output.model_copy(update=uris) if uris else output

    def flush(self, keep: Collection[int]) -> dict[str, str]:
        """Publishes the files of these inputs, many at a time, and drops the others.

        No file is put in place of another: who stood still, and was taken for dead, may go on behind one that has taken its inputs over.
        Gives the URIs of those that came to have a name of their own for that, by what `take` gave.
        """
        if not self._staged:
            self._drop_all()  # the shards of inputs whose files were all taken back
            return {}
        wanted = [(Path(path), key) for i in keep for key, path in self._staged.get(i, {}).items()]
        for i in set(self._staged) - set(keep):
            self._drop(i)
        try:
            self._objects.publish_all(self._shards.close())
            return self._apart(self._objects.publish_new(wanted))
        except BaseException:
            self._drop_all()
            raise
        finally:
            self._staged.clear()
            self._drop_first()

    @contextmanager
    def dropped_on_errors(self) -> Generator[None]:
        """Drops all files that are not published on an exception: they would take the room that there is for as long as this process lives."""
        try:
            yield
        except BaseException:
            self._drop_all()
            raise

    def _drop_all(self) -> None:
        self._shards.abandon()
        for i in set(self._staged):
            self._drop(i)
        self._drop_first()

    def _drop_first(self) -> None:
        if self._first is not None:
            self._objects.discard(Path(self._first))
        self._first = None

    def _apart(self, taken: list[tuple[Path, str]]) -> dict[str, str]:
        """Publishes files whose names something else has by others; the URIs of these, by those that they were to have."""
        others: dict[str, str] = {}
        same = self._objects.each(lambda pair: self._objects.holds(pair[1], pair[0]), taken)
        for (path, key), is_same in zip(taken, same, strict=True):
            if is_same:
                self._objects.discard(path)
                continue
            suffix = _suffix(path.name)
            others[key] = f"{key.removesuffix(suffix)}-{uuid.uuid4().hex[:8]}{suffix}"
        self._objects.publish_all([(path, others[key]) for path, key in taken if key in others])
        return {self._objects.uri(key): self._objects.uri(other) for key, other in others.items()}

    def _waiting(self, suffix: str) -> str:
        """Where a file waits: beside the first of the chunk, so that the staging folder is looked for once."""
        if self._first is None:
            self._first = str(self._objects.staging_file("output"))
        self._waited += 1
        return f"{self._first}-{self._waited}{suffix}"

    def forget(self, start: int) -> None:
        """Drops the files of the inputs from this one on."""
        for i in [i for i in self._staged if i >= start]:
            self._drop(i)

    def _local(self, output: ExperimentOutputSpec) -> list[tuple[str, str]]:
        """The values that may be files of this machine, by field."""
        values = [(name, getattr(output, name)) for name in self.names]
        kept = (AnyUrl, _BaseUrl)
        return [
            (name, str(value))
            for name, value in values
            if value is not None and not (isinstance(value, kept) and is_remote(str(value)))
        ]

    def _drop(self, i: int) -> None:
        self._shards.drop(i)
        for path in self._staged.pop(i, {}).values():
            self._objects.discard(Path(path))


def _file(name: str, value: str, place: Place) -> tuple[str, bool]:
    """The ordinary file that a value names, symbolic links followed; and whether it lies in the input's own folder."""
    if place.tempdir is not None and os.path.dirname(value) == place.tempdir:  # noqa: PTH120 - for each file
        with suppress(OSError, ValueError):  # the folder itself may be a link by now, to one of the user's
            if stat.S_ISREG(os.lstat(value).st_mode) and stat.S_ISDIR(os.lstat(place.tempdir).st_mode):
                return f"{place.real}/{os.path.basename(value)}", True  # noqa: PTH119
    path = _path(name, value, place.working)
    what = f"the output file {name}={value!r}"
    try:
        found = path.resolve(strict=True)
        mode = found.stat().st_mode
    except FileNotFoundError:
        link = f"is a symbolic link to {str(path.readlink())!r}, which" if path.is_symlink() else ""
        raise OutputError(f"{what} {link}{' ' * bool(link)}does not exist") from None
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise OutputError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(mode):
        raise OutputError(f"{what} {next((words for is_kind, words in _KINDS if is_kind(mode)), 'is no file')}")
    return str(found), place.real is not None and found.is_relative_to(place.real)


def _path(name: str, value: str, working: str | None) -> Path:
    path = Path(working or "", value)
    match = _URI.match(value)
    if match is None or os.path.lexists(path):
        return path
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        # Others percent-encode their file URIs, and may name this machine; Scythe and Iceberg do not.
        texts = [text for plain in (rest, rest.removeprefix("localhost/")) for text in (plain, unquote(plain))]
        paths = [Path(f"/{text}") for text in texts]
        return next((path for path in paths if os.path.lexists(path)), paths[0])
    if is_remote(f"{scheme}://{rest}"):
        raise OutputError(f"the output {name}={value!r} is a URI within a Path: give it as text")
    raise OutputError(
        f"the output {name}={value!r} is a {scheme}:// URI, which Scythe does not read: "
        f"give a local file, or a URI of {listed()}"
    )


@lru_cache(maxsize=256)  # one name for the files of all inputs, as a rule
def _suffix(name: str) -> str:
    """What programs know a file's type by, in characters that every file system and bucket takes."""
    path = Path(name)
    suffixes = path.suffixes[-2:]
    suffix = "".join(suffixes) if suffixes[:1] == [".tar"] else path.suffix
    safe = "".join(c for c in suffix if c.isascii() and (c.isalnum() or c in "._-+"))
    return safe if 1 < len(safe) <= _SUFFIX_BYTES else ""


def _moved(path: str, target: str) -> bool:
    """Moves a file that nobody else can reach, as an ordinary file of ours; False where it must be copied."""
    found = os.stat(path)  # noqa: PTH116 - for each file, as what follows
    if found.st_nlink != 1 or found.st_uid != os.geteuid() or _is_written(path):
        return False
    group = _group_of(os.path.dirname(target))  # noqa: PTH120
    try:
        if group is None:
            return False
        if group not in (found.st_gid, _ANY_GROUP):
            os.chown(path, -1, group)
        os.rename(path, target)  # noqa: PTH104
    except OSError:  # another disk, or a group that this user is not in
        return False
    mask = umask()
    if stat.S_IMODE(found.st_mode) != 0o666 & ~mask:
        os.chmod(target, 0o666 & ~mask)  # noqa: PTH101
    os.utime(target)
    return True


@lru_cache(maxsize=256)
def _group_of(folder: str) -> int | None:
    """The group that a new file in a folder gets; None where it gets an access list of its own, as of what is copied alone."""
    with suppress(OSError, AttributeError):  # there is none; or not on this system
        os.getxattr(folder, "system.posix_acl_default")
        return None
    found = os.stat(folder)  # noqa: PTH116
    return found.st_gid if found.st_mode & stat.S_ISGID or sys.platform != "linux" else _ANY_GROUP


def _is_written(path: str) -> bool:
    """Whether someone has a file open for writing, as far as the system tells: a lease is not given then."""
    if _LEASE is None:
        return True
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.fcntl(handle, _LEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, _LEASE, fcntl.F_UNLCK)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False

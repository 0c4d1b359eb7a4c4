"""Files of a local root: they appear whole, one caller alone creates one, and they are there after the power has failed.

A file is written elsewhere on the same disk, flushed, then renamed or linked to its name, and its folder is flushed too.
Knows paths alone, and nothing of keys.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import errno
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from scythe_catalog.errors import StorageError

#: What `link` answers where there are no hard links, or not between these two or as many.
NO_LINK = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
#: What flushing a folder answers on file systems that have no such thing.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
#: What a disk answers to those who may not.
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_IGNORE_ALL = b"*\n"
#: Threads that flush, each its share: a disk takes many files about as fast as a few, and each hand-over costs more than a flush.
_AT_ONCE, _FEW = 16, 4
#: So many times a folder is made anew that another process takes away while it is empty.
_TRIES = 20


@contextlib.contextmanager
def spoken(path: Path, what: str) -> Generator[None]:
    """Errors of a disk in a sentence; what is below a file, or is a folder, is no object that is there."""
    try:
        yield
    except (NotADirectoryError, IsADirectoryError) as error:
        if what == "read":
            raise FileNotFoundError(errno.ENOENT, error.strerror, error.filename) from error
        raise StorageError(f"{path} cannot be written: {error.filename} is in its way") from error
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        where = error.filename or path
        raise StorageError(
            f"{where} cannot be {what}: {error.strerror} (whose is it, and who may write there?)"
        ) from error


def make_root(root: Path) -> None:
    """Makes the folder of a root; one that is new, or new again, keeps its files out of the Git repository around it.

    Raises:
        StorageError: it cannot be made.
    """
    ignore = root / ".gitignore"
    if root.is_dir() and (ignore.exists() or not _is_bare(root)):
        return
    try:
        make_folder(root.parent)
        if not root.is_dir():
            root.mkdir()
        ignore.write_bytes(_IGNORE_ALL)
    except FileExistsError:
        if not root.is_dir():
            raise StorageError(f"the root {root} cannot be written: it is no folder") from None
    except OSError as error:
        raise StorageError(f"the root {root} cannot be written: {error.strerror or error}") from error


def _is_bare(root: Path) -> bool:
    """Whether a root is Scythe's and holds nothing but what is reserved: all that was stored in it is deleted."""
    names = {path.name for path in root.iterdir()}
    return any(name.startswith("_") for name in names) and all(name.startswith(("_", ".")) for name in names)


def leave_bare(root: Path) -> None:
    """Takes back what `make_root` wrote beside the folder, where nothing is left that it was for."""
    ignore = root / ".gitignore"
    with contextlib.suppress(OSError):
        if _is_bare(root) and ignore.read_bytes() == _IGNORE_ALL:
            ignore.unlink()


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, to stay."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        _flush_folder(folder.parent)


def write_staged(staged: Path, data: bytes) -> None:
    """Writes a file that is flushed."""
    with staged.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def show(staged: Path, target: Path) -> None:
    """Gives a flushed file its name, in place of what has it."""
    _placed(staged, target, os.replace)
    _flush_folder(target.parent)


def show_all(pairs: Iterable[tuple[Path, str]]) -> None:
    """`show` for many files that are not flushed yet: all are before the first gets its name, many at a time."""
    _show_each(list(pairs), os.replace)


def show_all_new(pairs: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """`show_all`, but those whose names something has stay where they are: these.

    Raises:
        StorageError: this file system has no way to do this.
    """
    return _show_each(list(pairs), _link_new)


def _show_each(given: list[tuple[Path, str]], how: Callable[[Path, Path | str], None]) -> list[tuple[Path, str]]:
    if len(given) < _FEW:
        _flush_each(given)
    else:
        with ThreadPoolExecutor(min(_AT_ONCE, len(given))) as pool:
            list(pool.map(_flush_each, (given[i::_AT_ONCE] for i in range(_AT_ONCE))))
    folders = [Path(folder) for folder in {os.path.dirname(target) for _, target in given}]  # noqa: PTH120 - of many
    left: list[tuple[Path, str]] = []
    for staged, target in given:
        try:
            _placed(staged, target, how)
        except FileExistsError:
            left.append((staged, target))
        else:
            if how is _link_new:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(staged)  # noqa: PTH108 - of many
    for folder in folders:
        _flush_folder(folder)
    return left


def show_new(staged: Path, target: Path) -> bool:
    """Gives a flushed file its name if nothing has it; False if something has.

    Raises:
        StorageError: this file system has no way to do this.
    """
    try:
        _placed(staged, target, _link_new)
    except FileExistsError:
        return False
    finally:
        staged.unlink(missing_ok=True)
    _flush_folder(target.parent)
    return True


def link(source: Path, staged: Path, target: Path) -> None:
    """Shows a file under a second name, in place of what has it: a hard link, or a copy where there are none."""
    try:
        try:
            os.link(source, staged)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            shutil.copyfile(source, staged)
            _flush(staged)
        show(staged, target)
    finally:
        staged.unlink(missing_ok=True)  # renaming a link onto one of the same file does nothing, and leaves it


def delete(paths: Iterable[Path]) -> None:
    """Removes files; those that are gone do not matter.

    Raises:
        StorageError: one is still there, naming it and the reason.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            continue
        except OSError as error:
            raise _stays(path, error) from error


def delete_folder(folder: Path) -> None:
    """Removes a folder with all that is in it.

    Raises:
        StorageError: something is still there, naming the first such path and the reason.
    """
    failed: list[tuple[Path, OSError]] = []

    def keep(path: str, error: BaseException) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            failed.append((Path(path), error))

    if folder.is_symlink():  # somebody moved it to another disk
        delete_folder(folder.resolve())
        delete([folder])
        return
    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=lambda _, path, error: keep(path, error))
    else:
        shutil.rmtree(folder, onerror=lambda _, path, info: keep(path, info[1]))
    if failed:
        raise _stays(*failed[0]) from failed[0][1]


def walk(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder, through links to folders too."""
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        for name in list(folders):
            path = os.path.join(where, name)  # noqa: PTH118 - of millions
            if os.path.islink(path):  # noqa: PTH114
                real = os.path.realpath(path)
                if real in seen or Path(where).resolve().is_relative_to(real):
                    folders.remove(name)
                seen.add(real)
        yield from (f"{where.rstrip('/')}/{name}" for name in names if not _is_partial(name))


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files directly below a folder; none where there is no such folder.

    Raises:
        StorageError: it is a file.
    """
    try:
        with os.scandir(folder) as found:
            listed = [(entry.name, entry.is_dir()) for entry in found if not _is_partial(entry.name)]
    except FileNotFoundError:
        return [], []
    except NotADirectoryError as error:
        raise StorageError(f"{folder} cannot be read: it is no folder") from error
    return [name for name, is_folder in listed if is_folder], [name for name, is_folder in listed if not is_folder]


def facts(path: Path | str) -> tuple[int, dt.datetime, str] | None:
    """A file's bytes, when it was written by the disk's own clock, and what tells its content from another one.

    None where there is no such file (any more).
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - of millions
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, dt.datetime.fromtimestamp(found.st_mtime, dt.UTC), str(found.st_mtime_ns)


def read_part(path: Path, start: int, stop: int, tag: str | None) -> bytes:
    """The bytes of a file from `start` until before `stop`.

    Raises:
        StorageError: it was changed since it had this tag, or is shorter.
    """
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), stop - start, start)
        while 0 < len(data) < stop - start and (
            more := os.pread(file.fileno(), stop - start - len(data), start + len(data))
        ):
            data += more  # a system gives no more than about 2 GB at once
        if tag is not None and str(os.fstat(file.fileno()).st_mtime_ns) != tag:
            raise StorageError(f"{path} was changed while it was read")
    if len(data) != stop - start:
        raise StorageError(f"{path}: got {len(data)} of the {stop - start} bytes from {start} on")
    return data


def _placed(staged: Path, target: Path | str, how: Callable[[Path, Path | str], None]) -> None:
    """Moves a file to its name in a folder, which is made where it is not there: another process may delete it while it is empty."""
    for left in range(_TRIES, -1, -1):
        try:
            return _moved(staged, target, how)
        except FileNotFoundError:
            if not left or not os.path.lexists(staged):
                raise
        with contextlib.suppress(FileNotFoundError):
            make_folder(Path(target).parent)
        if left < _TRIES - 1:
            time.sleep(0.001)
    return None


def _moved(staged: Path, target: Path | str, how: Callable[[Path, Path | str], None]) -> None:
    """Moves a file to its name; from another disk (a folder of the root may be a link to one) by way of a neighbour."""
    try:
        how(staged, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = Path(target).with_name(f".{uuid.uuid4().hex}.part")
        try:
            shutil.copyfile(staged, near)
            _flush(near)
            how(near, target)
            staged.unlink()
        finally:
            near.unlink(missing_ok=True)


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def _link_new(staged: Path, target: Path | str) -> None:
    try:
        os.link(staged, target)
    except OSError as error:
        if error.errno not in NO_LINK or error.errno == errno.EXDEV:
            raise
        _rename_new(staged, target)


def _rename_new(staged: Path, target: Path | str) -> None:
    """Renames a file unless the new name is taken, on file systems that have no hard links."""
    found = _exclusive_rename()
    if found is not None:
        call, arguments = found
        if call(*arguments(os.fsencode(staged), os.fsencode(target))) == 0:
            return
        code = ctypes.get_errno()
        if code in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(code, os.strerror(code), str(target))
        if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code), str(target))
    raise StorageError(
        f"the file system of {Path(target).parent} has neither hard links nor renames that keep what is there, and Scythe "
        "needs one of the two: choose another root (SCYTHE_STORAGE_ROOT), on a disk of this machine or in a bucket"
    )


@lru_cache(maxsize=1)
def _exclusive_rename() -> tuple[Any, Callable[[bytes, bytes], tuple[Any, ...]]] | None:
    """`renameat2(RENAME_NOREPLACE)` of Linux, `renamex_np(RENAME_EXCL)` of macOS."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        here = -100  # AT_FDCWD
        return library.renameat2, lambda old, new: (here, old, here, new, 1)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return library.renamex_np, lambda old, new: (old, new, 4)
    return None


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _flush_each(pairs: Iterable[tuple[Path, str]]) -> None:
    for staged, _ in pairs:
        _flush(staged)


def _flush_folder(folder: Path) -> None:
    try:
        _flush(folder)
    except FileNotFoundError:  # what was put into it was deleted since, and then the folder
        return
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


def _stays(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be deleted: {error.strerror or error}")

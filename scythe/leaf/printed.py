"""What an input prints and logs in a worker process: kept by input, and passed on to where the user sent it.

The standard output and error of such a process are files of its own, at the level of descriptors, so that what external
programs print is there, too. They are emptied after each input; what a process that died has left is read by its parent.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path

from scythe.define.bookkeeping import LogRow
from scythe_catalog.redaction import redacted

#: Kept of each stream of an input: so many bytes of its beginning, and of its end.
KEPT_BYTES = 64 * 1024
_BLOCK = 1024 * 1024
_STREAMS = ("stdout", "stderr", "log")
#: How far standard output and error were passed on.
_PASSED = struct.Struct("qq")


class Printed:
    """The standard streams of this process from now on; `path` is what the names of their files begin with."""

    def __init__(self, path: str) -> None:
        self._files = [os.open(f"{path}-{name}", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) for name in _STREAMS]
        self._onto = [os.dup(1), os.dup(2)]
        with Path(f"{path}-passed").open("w+b") as file:
            file.write(bytes(_PASSED.size))
            file.flush()
            self._passed = mmap.mmap(file.fileno(), _PASSED.size)
        self._lock = threading.Lock()
        self._flush_libraries = _flush_of_libraries()
        #: What is printed may have to be dropped: it is not passed on before it is taken.
        self.held = False
        _flush()
        for handle, file in zip((1, 2), self._files, strict=False):
            os.dup2(file, handle)

    def log(self, line: str) -> None:
        """Keeps a line that the input that runs has logged; it has gone its way already."""
        os.write(self._files[2], f"{line}\n".encode("utf-8", "replace"))

    def __bool__(self) -> bool:
        """Whether anything was printed or logged since it was taken last."""
        _flush()
        self._flush_libraries(None)
        return any(os.lseek(file, 0, os.SEEK_END) for file in self._files)

    def take(self) -> LogRow | None:
        """What was printed and logged since the last call, which is passed on; None where that is nothing."""
        if not self:
            return None
        with self._lock:
            self._pass_on()
            row = LogRow(None, *map(_kept, self._files))
            self._empty()
        return row

    def drop(self) -> None:
        """Forgets what was printed since the last call: the inputs run again."""
        with self._lock:
            self._empty()

    def _empty(self) -> None:
        _PASSED.pack_into(self._passed, 0, 0, 0)
        for file in self._files:
            os.ftruncate(file, 0)

    def pass_on(self) -> None:
        """Passes on what was printed until now, of an input that still runs."""
        with self._lock:
            if not self.held:
                self._pass_on()

    def _pass_on(self) -> None:
        passed = _PASSED.unpack_from(self._passed)
        reached = [_copy(f, at, onto) for f, at, onto in zip(self._files, passed, self._onto, strict=False)]
        _PASSED.pack_into(self._passed, 0, *reached)


def remains(path: str, output: int | None) -> LogRow | None:
    """What a process that is dead has left in its files, passed on to `output` (to this process's own streams); removes them."""
    if not Path(f"{path}-passed").exists():
        return None
    passed = _PASSED.unpack(Path(f"{path}-passed").read_bytes()[: _PASSED.size])
    texts: list[str | None] = []
    for i, name in enumerate(_STREAMS):
        file = os.open(f"{path}-{name}", os.O_RDONLY)
        try:
            if i < len(passed):
                _copy(file, passed[i], i + 1 if output is None else output)
            texts.append(_kept(file))
        finally:
            os.close(file)
        Path(f"{path}-{name}").unlink()
    Path(f"{path}-passed").unlink()
    return LogRow(None, *texts) if any(texts) else None


def _kept(file: int) -> str | None:
    """The beginning and the end of a file as text, without secrets; None where it is empty."""
    size = os.fstat(file).st_size
    if not size:
        return None
    if size <= 2 * KEPT_BYTES:
        return redacted(_text(os.pread(file, size, 0)))
    left_out = f"\n… {size - 2 * KEPT_BYTES:,} bytes are left out …\n"
    return redacted(
        _text(os.pread(file, KEPT_BYTES, 0)) + left_out + _text(os.pread(file, KEPT_BYTES, size - KEPT_BYTES))
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "�")


def _copy(file: int, start: int, onto: int) -> int:
    """Copies a file from a position on to where the user sent it, if that is still there; the position reached."""
    while block := os.pread(file, _BLOCK, start):
        start += len(block)
        with suppress(OSError):  # a closed pipe, say: what is printed does not stop a run
            while block:
                block = block[os.write(onto, block) :]
    return start


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # the function may have closed it, or put its own there
            stream.flush()


def _flush_of_libraries():
    """C's `fflush`: libraries print through buffers of their own."""
    fflush = ctypes.CDLL(None).fflush
    fflush.argtypes = [ctypes.c_void_p]
    return fflush

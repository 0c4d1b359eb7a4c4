"""What an input prints and logs in a worker process: kept by input, and passed on to where the user sent it.

The standard output and error of such a process are files of its own, at the level of descriptors, so that what external
programs print is there, too. They are emptied after each input; what a process that died has left is read by its parent.
"""

from __future__ import annotations

import codecs
import ctypes
import mmap
import os
import select
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from scythe.define.bookkeeping import LogRow
from scythe_catalog.redaction import redacted

#: Kept of each stream of an input: so many bytes of its beginning, and of its end.
KEPT_BYTES = 64 * 1024
#: So near to a cut a line may begin or end, and is not cut then: a secret in it would not be known by its half.
_LINE_BYTES = 4096
_BLOCK = 1024 * 1024
#: Of Linux's `fallocate`: free a range, leave the size as it is.
_PUNCH_HOLE = 0x02 | 0x01
_STREAMS = ("stdout", "stderr", "log")
#: How far standard output and error were passed on, and whether they are held.
_PASSED = struct.Struct("qqq")


class Remains(NamedTuple):
    """What a process that is dead has left: what it printed, and whether nobody knows which of its inputs did."""

    row: LogRow | None = None
    mixed: bool = False


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
        self._libraries = ctypes.CDLL(None)
        self._libraries.fflush.argtypes = [ctypes.c_void_p]
        self._held = False
        self._streams: list[Any] = [sys.stdout, sys.stderr]
        self._flush()
        self._bring_back()

    def log(self, line: str) -> None:
        """Keeps a line that the input that runs has logged; it has gone its way already."""
        os.write(self._files[2], f"{line}\n".encode("utf-8", "replace"))

    @property
    def held(self) -> bool:
        """Whether what is printed may have to be dropped, or is of several inputs: it is not passed on before it is taken."""
        return self._held

    @held.setter
    def held(self, held: bool) -> None:
        self._held = held
        with self._lock:
            self._note(*_PASSED.unpack_from(self._passed)[:2])

    def begin(self) -> None:
        """Lets the streams be what they are now, as the user's modules have set them up, before each input."""
        self._streams = [getattr(sys, name, None) for name in _STREAMS[:2]]

    def __bool__(self) -> bool:
        """Whether anything was printed or logged since it was taken last, or the streams are not what they were."""
        return self._is_there() or not self._are_in_place()

    def take(self) -> LogRow | None:
        """What was printed and logged since the last call, which is passed on; None where that is nothing."""
        if not self._is_there():
            self._bring_back()
            return None
        with self._lock:
            self._pass_on()
            texts = [_kept(file) for file in self._files]
            self._empty()
        return LogRow(None, *texts)

    def _is_there(self) -> bool:
        self._flush()
        return any(os.lseek(file, 0, os.SEEK_END) for file in self._files)

    def drop(self) -> None:
        """Forgets what was printed since the last call: the inputs run again."""
        with self._lock:
            self._empty()

    def _empty(self) -> None:
        self._note(0, 0)
        for file in self._files:
            os.ftruncate(file, 0)
        self._bring_back()

    def pass_on(self) -> None:
        """Passes on what was printed until now, of an input that still runs."""
        with self._lock:
            if not self._held:
                self._pass_on()

    def _pass_on(self) -> None:
        passed = _PASSED.unpack_from(self._passed)[:2]
        reached = [_copy(f, at, onto) for f, at, onto in zip(self._files, passed, self._onto, strict=False)]
        self._note(*reached)
        for file, before, now in zip(self._files, passed, reached, strict=False):
            self._give_room_back(file, max(before - _BLOCK, _BLOCK), now - _BLOCK)

    def _note(self, *passed: int) -> None:
        _PASSED.pack_into(self._passed, 0, *passed, self._held)

    def _give_room_back(self, file: int, start: int, stop: int) -> None:
        """Frees the disk of what is passed on and not kept, where the system can (Linux does): output may be endless."""
        if stop > start and hasattr(self._libraries, "fallocate64"):
            self._libraries.fallocate64(file, _PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(stop - start))

    # --- the streams --------------------------------------------------------------------------------

    def _are_in_place(self) -> bool:
        """Whether both streams are what they were; an input may have closed one, or put its own there."""
        try:
            return all(
                getattr(sys, name) is stream and not stream.closed and os.path.sameopenfile(handle, file)
                for handle, name, stream, file in zip((1, 2), _STREAMS, self._streams, self._files, strict=False)
            )
        except (OSError, ValueError, AttributeError):
            return False

    def _bring_back(self) -> None:
        for i, file in enumerate(self._files[:2]):
            os.dup2(file, i + 1)
            if not _is_open(self._streams[i]):
                self._streams[i] = open(i + 1, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = self._streams

    def _flush(self) -> None:
        """What Python and C hold in buffers: libraries have theirs."""
        for name, own in zip(_STREAMS, self._streams, strict=False):
            stream = getattr(sys, name, None)
            with suppress(Exception):  # the function may have closed it, or put its own there
                own.flush()
            if stream is not own:
                with suppress(Exception):
                    stream.flush()  # pyright: ignore[reportOptionalMemberAccess]
        self._libraries.fflush(None)


def remains(path: str, output: int | None, *, again: bool = False) -> Remains:
    """What a process that is dead has left in its files, passed on to `output` (to this process's own streams); removes them.

    Where its inputs run `again`, what was held is dropped: several of them may have printed it.
    """
    noted = Path(f"{path}-passed")
    raw = noted.read_bytes() if noted.exists() else b""
    if len(raw) < _PASSED.size:  # it died before it had begun
        return Remains()
    *passed, held = _PASSED.unpack_from(raw)
    drop = bool(held and again)
    texts: list[str | None] = []
    for i, name in enumerate(_STREAMS):
        file = os.open(f"{path}-{name}", os.O_RDONLY)
        try:
            if i < len(passed) and not drop:
                _copy(file, passed[i], i + 1 if output is None else output)
            texts.append(_kept(file))
        finally:
            os.close(file)
        Path(f"{path}-{name}").unlink()
    noted.unlink()
    if drop or not any(texts):
        return Remains(None, any(texts))
    return Remains(LogRow(None, *texts))


def so_far(path: str, *, alone: bool) -> LogRow | None:
    """What the input that a process runs has printed until now; None where that is nothing, or may be of others, too: it is not `alone`."""
    with suppress(OSError):  # it has just ended
        *_, held = _PASSED.unpack(Path(f"{path}-passed").read_bytes())
        texts: list[str | None] = []
        for name in _STREAMS if alone or not held else ():
            with Path(f"{path}-{name}").open("rb") as file:
                texts.append(_kept(file.fileno()))
        return LogRow(None, *texts) if any(texts) else None
    return None


def _kept(file: int) -> str | None:
    """The beginning and the end of a file as text, without secrets; None where it is empty."""
    size = os.fstat(file).st_size
    if not size:
        return None
    if size <= 2 * KEPT_BYTES:
        return redacted(_text(os.pread(file, size, 0)))
    first, last = (
        _up_to_a_line(os.pread(file, KEPT_BYTES, 0)),
        _from_a_line(os.pread(file, KEPT_BYTES, size - KEPT_BYTES)),
    )
    left_out = f"\n… {size - len(first) - len(last):,} bytes are left out …\n"
    return redacted(_text(first)) + left_out + redacted(_text(last))


def _up_to_a_line(raw: bytes) -> bytes:
    """Without the line, the word or the character that it ends within, as far as that is short."""
    near = len(raw) - _LINE_BYTES
    if (at := max(raw.rfind(b"\n", near), raw.rfind(b" ", near) if b"\n" not in raw[near:] else -1)) >= 0:
        return raw[: at + 1]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(raw)
    return raw[: len(raw) - len(decoder.getstate()[0])]


def _from_a_line(raw: bytes) -> bytes:
    """Without the line, the word or the character that it begins within, as far as that is short."""
    for end in (b"\n", b" "):
        if (at := raw.find(end, 0, _LINE_BYTES)) >= 0:
            return raw[at + 1 :]
    return raw[next((i for i, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), 0) :]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "�")


def _copy(file: int, start: int, onto: int) -> int:
    """Copies a file from a position on to where the user sent it, if that is still there; the position reached."""
    while block := os.pread(file, _BLOCK, start):
        start += len(block)
        with suppress(OSError):  # a closed pipe, say: what is printed does not stop a run
            while block:
                try:
                    block = block[os.write(onto, block) :]
                except BlockingIOError:  # a pipe that does not wait by itself, and is full
                    full = select.poll()
                    full.register(onto, select.POLLOUT)
                    full.poll()
    return start


def _is_open(stream: Any) -> bool:
    try:
        return not stream.closed
    except (ValueError, AttributeError):  # its buffer was given to another
        return False

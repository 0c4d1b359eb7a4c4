"""Who works on a run: each process that starts or resumes it leaves a mark with a heartbeat.

Marks are numbered and created if absent, so two processes never take the same turn. A mark whose
process is gone, or whose heartbeat is old, is dead; the run can then be resumed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, Self

from scythe.errors import RunError
from scythe.layout import RunKey
from scythe_catalog.objects import Objects

_LOOK_SECONDS = 1.0
_BEAT_SECONDS = 5.0
_DEAD_SECONDS = 45.0


@dataclass(frozen=True)
class Attempt:
    """The mark of one process."""

    number: int
    engine: str
    host: str
    pid: int
    beat: float
    ended: bool = False

    @property
    def alive(self) -> bool:
        """Whether its process still works on the run, as far as can be seen from here."""
        if self.ended or time.time() - self.beat > _DEAD_SECONDS:
            return False
        return self.host != socket.gethostname() or _exists(self.pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def attempts(objects: Objects, key: RunKey) -> list[Attempt]:
    """All marks on a run, oldest first."""
    names = sorted(objects.files(key.attempts))
    return [_parse(raw) for raw in objects.read_all(f"{key.attempts}/{n}" for n in names)]


def latest_attempt(objects: Objects, key: RunKey) -> Attempt | None:
    """The newest mark on a run."""
    names = sorted(objects.files(key.attempts))
    return _parse(objects.read(f"{key.attempts}/{names[-1]}")) if names else None


def _parse(raw: bytes) -> Attempt:
    data: dict[str, Any] = json.loads(raw)
    return Attempt(**data)


def check_free(objects: Objects, key: RunKey) -> None:
    """Nothing where nobody works on a run.

    Raises:
        RunError: somebody does.
    """
    last = latest_attempt(objects, key)
    if last is not None and last.alive:
        raise RunError(
            f"the run {key.path} is being worked on by process {last.pid} on {last.host} ({last.engine}): "
            "wait for it, or cancel the run"
        )


class Turn:
    """This process's turn to work on a run: taken on entry, kept alive by a thread, ended on exit."""

    def __init__(self, objects: Objects, key: RunKey, engine: str) -> None:
        self._objects, self._key, self._engine = objects, key, engine
        self._over = threading.Event()
        self.cancelled = threading.Event()
        self.number = 0
        self._take()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="scythe-heartbeat")
        self._thread.start()

    def _take(self) -> None:
        check_free(self._objects, self._key)
        last = latest_attempt(self._objects, self._key)
        self.number = last.number + 1 if last is not None else 1
        if not self._objects.create(self._mark_key, self._mark()):
            raise RunError(f"the run {self._key.path} has just been taken up by another process: wait for it")

    @property
    def _mark_key(self) -> str:
        return f"{self._key.attempts}/{self.number:06d}.json"

    def _mark(self, ended: bool = False) -> bytes:
        mark = Attempt(self.number, self._engine, socket.gethostname(), os.getpid(), time.time(), ended)
        return json.dumps(asdict(mark)).encode()

    def _beat(self) -> None:
        beaten = time.monotonic()
        while not self._over.wait(_LOOK_SECONDS):
            if self._objects.exists(self._key.cancelled):
                self.cancelled.set()
            if time.monotonic() - beaten > _BEAT_SECONDS:
                self._objects.write(self._mark_key, self._mark())
                beaten = time.monotonic()

    def end(self) -> None:
        """Gives the turn back."""
        self._over.set()
        self._thread.join()
        self._objects.write(self._mark_key, self._mark(ended=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

"""A pool of worker processes that outlives crashes and kills what runs too long.

Why our own: a limit of time must hold for each input, not for the chunk that was handed over; when a
process dies, the one input that killed it must be known; and the user's main script must not be
imported again. Its position, which both sides see (which input, since when), gives all three.
Knows chunks and processes; decides nothing about retries or results.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import pickle
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Self

from scythe.define.bookkeeping import LogRow
from scythe.engines.pool import logs
from scythe.engines.pool.child import ENDED, POSITION, Job
from scythe.engines.pool.cores import thread_limits
from scythe.engines.pool.fork_server import Process, fork_server, keep
from scythe.engines.pool.leftovers import PoolFolder, sweep_dead
from scythe.engines.pool.processes import beyond_standard, fill_standard_handles, import_path, working_folder
from scythe.errors import RunError, StorageError, StorageRefused
from scythe.leaf.printed import Remains, remains, so_far
from scythe.record.plan import Positions

_MAX_FALSE_STARTS = 3
#: So often, for each process, the one that they are forked from may be killed at no cost to an input: one of them may do it.
_MAX_ORPHANS = 3


@dataclass(frozen=True, eq=False)
class Chunk:
    """The inputs that one call of the leaf serves, by their rows in `specs.pq`.

    `attempts` counts the earlier tries of a single input; of several it is 0.
    """

    rows: Positions
    attempts: int = 0

    @property
    def size(self) -> int:
        return len(self.rows)

    def halves(self) -> list[Chunk]:
        """Its inputs in two chunks; of a single input in one."""
        middle = self.size // 2
        return [Chunk(rows, self.attempts) for rows in (self.rows[:middle], self.rows[middle:]) if len(rows)]


@dataclass(frozen=True)
class Done:
    """A chunk came back."""

    chunk: Chunk
    result: Any
    seconds: float


@dataclass(frozen=True)
class Died:
    """The process of a chunk died, while running its `at`-th input (None: while running none)."""

    chunk: Chunk
    at: int | None
    tries: int
    timed_out: bool
    exit_code: int | None
    seconds: float
    began: float
    worker: str
    #: What it printed that no input before has.
    printed: LogRow | None = None
    #: Something was printed, by it or by inputs before it: each has to run alone for it to be known.
    mixed: bool = False


@dataclass(frozen=True)
class Renewed:
    """The process of a chunk has made room for a fresh one: what it has done of it, and what the fresh one goes on with."""

    chunk: Chunk
    done: int
    result: Any
    again: list[Chunk]
    seconds: float


@dataclass(frozen=True)
class Broken:
    """A chunk cannot be run, for a reason outside the user's function."""

    chunk: Chunk
    error: RunError | StorageError


@dataclass(frozen=True)
class Logged:
    """A log record of the process that runs a chunk (None: of one that runs none)."""

    chunk: Chunk | None
    record: logging.LogRecord


Event = Done | Died | Renewed | Broken | Logged


@dataclass
class _Worker:
    process: Process
    link: connection.Connection[Any, Any]
    shared: mmap.mmap
    #: What the names of its files begin with.
    path: str

    @property
    def tempdir(self) -> str:
        """Where its temporary folders lie; removed when it dies."""
        return f"{self.path}-tmp"

    chunks: deque[tuple[Job, Chunk]] = field(default_factory=deque[tuple[Job, Chunk]])
    #: How many chunks have come back from its process.
    back: int = 0
    #: The job that its process knows.
    job: Job | None = None
    ready: bool = False
    timed_out: bool = False
    #: It was killed; what it said before may still be on its way.
    killed: bool = False

    def position(self) -> tuple[int | None, int, float]:
        """The input that runs, which try of its process it is, and for how long it has run in seconds."""
        i, tries, since, _, _ = POSITION.unpack_from(self.shared, 0)
        return (i, tries, time.monotonic() - since) if i >= 0 else (None, 1, 0.0)

    def passed(self) -> int:
        """How many inputs lie behind it, of those chunks that are not back yet."""
        i, _, _, last, number = POSITION.unpack_from(self.shared, 0)
        on_their_way = [chunk.size for _, chunk in self.chunks][: max(0, number - self.back)]
        *whole, under_way = on_their_way or [0]
        return sum(whole) + min(last + (i == ENDED), under_way)

    def taken_back(self) -> tuple[Job, Chunk]:
        """Its first chunk, which has come back."""
        self.back += 1
        return self.chunks.popleft()


class Pool:
    """`size` processes, each of which serves chunks of one job after another."""

    def __init__(self, size: int, output: int | None = None) -> None:
        """What the processes print goes to `output`, else where this process's own output goes."""
        fill_standard_handles()
        self.size = size
        self._output = output
        sweep_dead()
        self._folder = PoolFolder()
        self._started = self._false_starts = self._orphans = 0
        environment = {**os.environ, **thread_limits(size, os.environ)}
        self._setup = {"cwd": working_folder(), "path": import_path(), "environment": environment}
        self._server = fork_server(environment)
        self._workers: list[_Worker] = []
        try:
            for _ in range(size):
                self._workers.append(self._start())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _Worker:
        path = f"{self._folder.path}/{self._started}"
        os.mkdir(f"{path}-tmp")  # noqa: PTH102 - its name is text for the process that gets it
        self._started += 1
        with open(path, "w+b") as file:  # noqa: PTH123 - a file descriptor is what mmap takes
            file.write(POSITION.pack(-1, 0, 0.0, 0, 0))
            file.flush()
            position = mmap.mmap(file.fileno(), POSITION.size)
        ours, theirs = (beyond_standard(end.detach()) for end in socket.socketpair())
        try:
            process = self._server.start(theirs, self._output)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        link: connection.Connection[Any, Any] = connection.Connection(ours)
        worker = _Worker(process, link, position, path)
        own = {"position": path, "tempdir": self._folder.short(worker.tempdir), "log_levels": logs.levels()}
        _send(worker, {**self._setup, **own})
        return worker

    def prepare(self, job: Job) -> None:
        """Lets all processes load a job before its first chunk."""
        for worker in self._workers:
            _introduce(worker, job)

    def hungry(self, depth: int) -> int:
        """How many chunks the workers take before each has `depth` of them."""
        return sum(max(0, depth - len(w.chunks)) for w in self._workers if not w.killed)

    def submit(self, work: Chunk, job: Job) -> None:
        """Gives a chunk to the worker that has the fewest."""
        _give(min(self._workers, key=lambda w: (w.killed, len(w.chunks), w.job is not job)), work, job)

    def kill(self, chunks: Container[Chunk]) -> None:
        """Kills the processes that run one of these chunks; the chunks are reported as dead."""
        for worker in self._workers:
            if worker.chunks and worker.chunks[0][1] in chunks:
                _kill(worker)

    def running(self) -> int:
        """How many inputs lie behind the positions of chunks that are not back yet."""
        return sum(worker.passed() for worker in self._workers)

    def at_work(self) -> dict[int, float]:
        """The inputs that run now, by their rows in `specs.pq`, and for how long they have [s]."""
        return {row: seconds for row, (_, seconds) in self._at_work().items()}

    def _at_work(self) -> dict[int, tuple[_Worker, float]]:
        now = ((w, w.chunks[0][1].rows, *w.position()) for w in self._workers if w.chunks)
        return {int(rows[at]): (w, seconds) for w, rows, at, _, seconds in now if at is not None and at < len(rows)}

    def printed(self, row: int) -> LogRow | None:
        """What an input that runs has printed until now; None where that is nothing, or not known."""
        return so_far(w.path, alone=w.chunks[0][1].size == 1) if (w := self._at_work().get(row, (None,))[0]) else None

    def poll(self, timeout: float, wake: Any = None) -> list[Event]:
        """Waits until something happened, or `wake` can be read, at most `timeout` seconds.

        Raises:
            RunError: processes cannot be started.
        """
        self._folder.beat()
        limits = [job.time_limit for w in self._workers for job, _ in w.chunks if job.time_limit is not None]
        if limits:
            timeout = min(timeout, max(0.02, min(limits) / 10))
        events: list[Event] = []
        by_link = {w.link: w for w in self._workers}
        for link in connection.wait([*by_link, *([wake] if wake is not None else [])], timeout):
            if link not in by_link:
                continue
            worker = by_link[link]  # pyright: ignore[reportArgumentType]
            try:
                kind, content = pickle.loads(worker.link.recv_bytes())
            except (EOFError, OSError):
                events += self._bury(worker)
            else:
                events += self._heard(worker, kind, content)
        self._kill_late()
        return events

    def _heard(self, worker: _Worker, kind: str, content: Any) -> list[Event]:
        match kind:
            case "ready":
                worker.ready, self._false_starts = True, 0
            case "done":
                result, seconds = content
                return [Done(worker.taken_back()[1], result, seconds)]
            case "spent":
                return [self._renew(worker, *content)]
            case "log":
                return [Logged(worker.chunks[0][1] if worker.chunks else None, logs.rebuilt(content))]
            case "broken" if worker.chunks:
                error = RunError(f"a worker process failed outside the experiment's function:\n{content}")
                return [Broken(worker.taken_back()[1], error)]
            case "storage" | "refused":
                error = StorageError(content) if kind == "storage" else StorageRefused(content)
                return [Broken(worker.taken_back()[1], error)]
            case _:
                raise RunError(f"a worker process cannot start:\n{content}")
        return []

    def _kill_late(self) -> None:
        for worker in self._workers:
            limit = worker.chunks[0][0].time_limit if worker.chunks else None
            if limit is None:
                continue
            at, _, seconds = worker.position()
            if at is not None and seconds > limit:
                worker.timed_out = True
                _kill(worker)

    def _bury(self, worker: _Worker) -> list[Event]:
        """Replaces a dead worker; its first chunk is reported, the others are handed out again."""
        at, tries, seconds = worker.position()
        name = f"{socket.gethostname()}:{worker.process.pid}"
        _kill(worker)
        if worker.process.wait() is None and worker.chunks and self._orphans < _MAX_ORPHANS * self.size:
            # The process that it was forked from was killed: its inputs have no part in that.
            self._orphans += 1
            job, work = worker.chunks[0]
            again = Chunk(work.rows, work.attempts)
            worker.chunks[0] = (job, again)
            self._replace(worker, again=True)
            return [Renewed(work, 0, None, [again], 0.0)]
        first = worker.chunks.popleft()[1] if worker.chunks else None
        code, left = self._replace(worker, again=first is not None and first.size > 1)
        if first is None:
            return []
        if at is not None and at >= first.size:
            at = None
        return [Died(first, at, tries, worker.timed_out, code, seconds, time.time() - seconds, name, *left)]

    def _renew(self, worker: _Worker, at: int | None, tries: int, result: Any, seconds: float) -> Renewed:
        """Replaces a worker that can do no more; the fresh one goes on with its chunk, from input `at` on.

        Without `at` it could not even send what it had done: the chunk is run again in two halves, to need less.
        """
        job, work = worker.chunks.popleft()
        if at is None:
            again = work.halves()
        else:
            again = [Chunk(work.rows[at : at + 1], work.attempts + tries), Chunk(work.rows[at + 1 :])]
        again = [chunk for chunk in again if chunk.size]
        worker.chunks.extendleft((job, chunk) for chunk in reversed(again))
        self._replace(worker, again=True)
        return Renewed(work, at or 0, result, again, seconds)

    def _replace(self, worker: _Worker, *, again: bool) -> tuple[int | None, Remains]:
        """Starts a fresh process in a worker's place, which goes on with its chunks; the old one's exit code and last words."""
        _kill(worker)
        shutil.rmtree(worker.tempdir, ignore_errors=True)
        place = self._workers.index(worker)
        del self._workers[place]  # whatever keeps a fresh one from being started: this one has ended
        code, left = self._ended(worker, again=again)
        if not worker.ready:
            self._false_starts += 1
            if self._false_starts > _MAX_FALSE_STARTS * self.size:
                raise RunError(f"worker processes die before they are ready (exit code {code}): see their output above")
        fresh = self._start()
        self._workers.insert(place, fresh)
        for job, work in worker.chunks:
            _give(fresh, work, job)
        return code, left

    def close(self) -> None:
        """Kills all workers and what they started."""
        with contextlib.ExitStack() as last:  # each, whatever becomes of the others; the last one named is done first
            last.callback(self._folder.remove)
            last.callback(self._server.close if self._false_starts or self._orphans else lambda: keep(self._server))
            for worker in self._workers:
                last.callback(self._ended, worker)
            for worker in self._workers:
                _kill(worker)

    def _ended(self, worker: _Worker, *, again: bool = False) -> tuple[int | None, Remains]:
        """Waits for a killed process, and lets go of all that was held for it; its exit code and last words."""
        code = worker.process.wait()
        worker.link.close()
        worker.shared.close()  # else for as long as anything knows the worker: the traceback of what ended the run, say
        return code, remains(worker.path, self._output, again=again)


def _give(worker: _Worker, work: Chunk, job: Job) -> None:
    _introduce(worker, job)
    worker.chunks.append((job, work))
    _send(worker, (work.rows, work.attempts))


def _introduce(worker: _Worker, job: Job) -> None:
    if worker.job is not job:
        worker.job = job
        _send(worker, job)


def _send(worker: _Worker, message: Any) -> None:
    with contextlib.suppress(OSError):  # a process that is dead already is found by `poll`
        worker.link.send_bytes(pickle.dumps(message))


def _kill(worker: _Worker) -> None:
    """Kills a process and its group, once: when it has been waited for, its number may be another's."""
    if worker.killed:
        return
    worker.killed = True
    if (pid := worker.process.pid) is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just been forked, and has no group of its own yet
            os.kill(pid, signal.SIGKILL)

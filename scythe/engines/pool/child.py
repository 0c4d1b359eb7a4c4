"""A worker process of the pool: receives chunks, runs the leaf on them, sends back rows.

Started by `scythe.engines.pool.pool` as its own program and its own process group, so that a limit of
time can kill it with all that it started. It never imports the user's main script again, and ends
when its parent does.
"""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import os
import pickle
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from scythe.define.sources.snapshot import Source, load_as_they_were
from scythe.engines.pool import logs
from scythe.errors import StorageRefused
from scythe.leaf.failures import remember_lines
from scythe.leaf.renewal import Life, Spent, is_exhaustion
from scythe.leaf.surroundings import notice
from scythe.settings import leave_to_parent
from scythe.terminal.console import tell

if TYPE_CHECKING:
    from scythe.leaf.printed import Printed

#: The input that runs (below 0: none), which try, and when it began (time.monotonic); which one of its chunk has begun last,
#: and the how many-th chunk of the process it is, from 1.
POSITION = struct.Struct("qqdqq")
_PARENT_CHECK_SECONDS = 0.5
#: In place of an input: none runs yet of the chunk that begins; the last one that ran has ended.
_BEGINS, ENDED = -2, -1
_PASS_ON_SECONDS = 0.25
#: What other processes end at; one that serves a run carries on, as long as its parent wants it.
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Job:
    """A run as worker processes know it: its plan, its function, the limit of one input in seconds.

    With `parts`, the name of parts that they write, they send back what a Hatchet task returns; else rows, and the
    files of an `attempt` that they have written large dataframes to.
    """

    plan: bytes
    experiment: bytes
    time_limit: float | None
    parts: str | None = None
    attempt: int = 0
    #: How the bucket is reached; it holds secrets, and travels through the pool's pipe alone.
    reach: Any = field(default=None, repr=False)
    #: Lines of code that no file holds, for tracebacks.
    lines: dict[str, list[str]] = field(default_factory=dict[str, list[str]], repr=False)
    #: The modules of the project, so that all processes of the run load the same, whatever becomes of the files.
    sources: tuple[Source, ...] = field(default=(), repr=False)


def main(fd: int, parent: int) -> None:
    """Serves the parent at the other end of a socket until it hangs up."""
    with contextlib.suppress(ValueError):
        # A terminal, or a service manager, tells all processes of a worker to end; it is the worker that ends this one. A handler,
        # unlike "ignore", is not inherited by the programs that the user's function starts.
        for number in _ENDINGS:
            signal.signal(number, _carry_on)
    _Forks().follow()
    notice()
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    connection = Connection(fd)
    # A child that the user's function forks has no part in this: what it sent or closed would be its parent's.
    os.register_at_fork(after_in_child=connection.close)
    try:
        setup: dict[str, Any] = pickle.loads(connection.recv_bytes())
        _print_at_once()
        _take_environment(setup["environment"])
        sys.path[:] = setup["path"]
        leave_to_parent()
        tempfile.tempdir = os.environ["TMPDIR"] = setup["tempdir"]
        with contextlib.suppress(OSError):  # the folder is gone: then it is the one that was inherited
            os.chdir(setup["cwd"])
        import scythe.leaf.leaf  # noqa: F401  # pyright: ignore[reportUnusedImport] - while nobody waits for it

        _forward_logs(connection, setup["log_levels"])
        tell = _teller(Path(setup["position"]))
        printed = _printed(setup["position"])
        _send(connection, "ready", None)
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:  # noqa: BLE001 - whatever keeps the worker from starting is told to the user
        _send(connection, "broken", _told(error))
        return
    _serve(connection, tell, printed)


def _take_environment(environment: dict[str, str]) -> None:
    """The process that this one was forked from may have been started before some of it was set."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})


def _print_at_once() -> None:
    """What is printed is written line by line: a process that is killed has no end at which it could be."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


class _Forks(threading.local):
    """What the user's function forks: its signals are its own. `Process.terminate()` ends it, as `Pool` ends its processes.

    One that is sent before it has any handler of its own waits until then.
    """

    _mask: set[int]

    def follow(self) -> None:
        """Looks after all forks of this process from now on."""
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    def _before(self) -> None:
        self._mask = {*signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)}

    def _after(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _in_child(self) -> None:
        own = [number for number in _ENDINGS if signal.getsignal(number) is _carry_on]
        for number in own:
            signal.signal(number, signal.SIG_DFL)
        self._after()
        if signal.SIGINT in own:  # not before: what is raised here, nobody hears
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _carry_on(signum: int, frame: object) -> None:
    return


def _printed(path: str) -> Printed:
    """What is printed from now on, passed on now and then while an input runs."""
    from scythe.base import ExperimentInputSpec
    from scythe.leaf.printed import Printed

    printed = Printed(path)
    ExperimentInputSpec.log_keeper = printed.log
    _handled(logs.Keep(printed.log))
    threading.Thread(target=_pass_on, args=(printed,), daemon=True).start()
    return printed


def _pass_on(printed: Printed) -> None:
    while True:
        time.sleep(_PASS_ON_SECONDS)
        printed.pass_on()


def _serve(connection: Connection, tell: Callable[[int, int], None], printed: Printed) -> None:
    run: Callable[..., Any] = _nothing
    life = Life()
    while True:
        try:
            message = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        if isinstance(message, Job):
            run = _runner(message, tell, life, printed)
            printed.begin()
            _freeze()
            continue
        rows, attempts = message
        tell(_BEGINS, 0)
        printed.take()  # what was printed until now is no input's
        began, ran_before = time.perf_counter(), life.ran
        try:
            result = run(rows, attempts)
            message = ("done", (result, time.perf_counter() - began))
        except Spent as spent:
            message = ("spent", (spent.at, spent.tries, spent.result, time.perf_counter() - began))
        except BaseException as error:  # noqa: BLE001 - errors of the user's function are rows; this is one of ours
            fresh_may_help = is_exhaustion(error) and (ran_before or len(rows) > 1)
            message = ("spent", (None, 0, None, 0.0)) if fresh_may_help else _failed(error)
        finally:
            tell(ENDED, 0)
        try:
            _send(connection, *message)
        except OSError:
            return


def _failed(error: BaseException) -> tuple[str, str]:
    """What keeps a chunk from being run, beside the user's function."""
    if isinstance(error, StorageRefused):
        return "refused", str(error)
    if isinstance(error, OSError):
        return "storage", f"{type(error).__name__}: {error}" if type(error) is OSError else str(error)
    return "broken", _told(error)


def _send(connection: Connection, kind: str, content: Any) -> None:
    with _SENDING:
        connection.send_bytes(pickle.dumps((kind, content), pickle.HIGHEST_PROTOCOL))


_SENDING = threading.Lock()


@cache
def _freeze() -> None:
    """What has been loaded by the first job stays: the garbage collector need not look at it again."""
    import gc

    gc.collect()
    gc.freeze()


def _nothing(rows: Any, attempts: int) -> Any:
    raise RuntimeError("a chunk came before its job")


@lru_cache(maxsize=16)
def _bound(experiment: bytes) -> tuple[Any, Callable[..., Any]]:
    """An experiment and what to call: of a class one instance a process, for it may hold connections and locks."""
    loaded = pickle.loads(experiment)
    return loaded, loaded.bind()


#: What `__main__` has of the script of the job at hand.
_GIVEN_TO_MAIN: set[str] = set()


def _find_in_main(*used: Any) -> None:
    """Gives this process's `__main__` what these have of a script of the user's: processes that a function starts are sent that by its name."""
    main = sys.modules["__main__"]
    members = (member for one in used if isinstance(one, type) for member in vars(one).values())
    functions = (one for one in (*used, *members) if isinstance(one, FunctionType))
    named = {one.__qualname__: one for one in used if isinstance(one, type | FunctionType)}
    for name in _GIVEN_TO_MAIN:
        delattr(main, name)
    _GIVEN_TO_MAIN.clear()
    for name, value in [*named.items(), *(item for one in functions for item in one.__globals__.items())]:
        is_of_main = isinstance(value, type | FunctionType) and (value.__module__, value.__qualname__) == (
            "__main__",
            name,
        )
        if is_of_main and (name in _GIVEN_TO_MAIN or not hasattr(main, name)):
            setattr(main, name, value)
            _GIVEN_TO_MAIN.add(name)


def _runner(job: Job, tell: Callable[[int, int], None], life: Life, printed: Printed) -> Callable[..., Any]:
    """What runs chunks of a job; a job that cannot be loaded is told with the first of them."""
    from scythe.gather.parts import write_apart
    from scythe.gather.payload import Payloads
    from scythe.leaf.leaf import Leaf
    from scythe.leaf.rows import ChunkResult
    from scythe.record.plan import RunPlan
    from scythe_catalog.storage.reach import take_over

    remember_lines(job.lines)
    load_as_they_were(job.sources)
    try:
        experiment, call = _bound(job.experiment)
        _find_in_main(experiment.target, experiment.input_model, experiment.output_model)
        leaf = Leaf(RunPlan.from_json(job.plan), experiment, call)
        take_over(leaf.plan.root, job.reach)
        payloads = Payloads(leaf.plan, job.parts) if job.parts is not None else None

        def packed(result: ChunkResult) -> Any:
            if payloads is not None:
                return payloads.encode(result)
            return write_apart(leaf.plan, f"{job.attempt:06d}-{uuid.uuid4().hex}", result)

    except BaseException as error:  # noqa: BLE001 - told to the user, as an error outside of the function
        failed = error

        def refuse(rows: Any, attempts: int) -> Any:
            raise failed

        return refuse

    def run(rows: Any, attempts: int) -> Any:
        try:
            result = leaf.run(rows, attempts_before=attempts, tell=tell, life=life, printed=printed)
        except Spent as spent:
            if spent.result is not None:
                spent.result = packed(spent.result)
            raise
        return packed(result)

    return run


def _told(error: BaseException) -> str:
    """An exception as text; one whose own code fails is named by its class."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - `__str__` may do anything: leave the process, say
        where = "".join(traceback.format_tb(error.__traceback__))
        return f"{where}{type(error).__qualname__}: its message cannot be shown"


def _teller(path: Path) -> Callable[[int, int], None]:
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), POSITION.size)
    pack, clock, forked = POSITION.pack_into, time.monotonic, False
    running = memoryview(shared).cast("q")
    number = 0

    def leave() -> None:
        nonlocal forked
        forked = True

    def tell(i: int, attempt: int) -> None:
        nonlocal number
        if forked:
            _end_of_fork()
        if i >= 0:
            pack(shared, 0, i, attempt, clock(), i, number)
        elif i == _BEGINS:
            number += 1
            pack(shared, 0, i, 0, clock(), 0, number)
        else:
            running[0] = i

    os.register_at_fork(after_in_child=leave)
    return tell


def _end_of_fork() -> None:
    """Ends a process that the user's function has forked, and that has come back from it like its parent."""
    error, code = sys.exc_info()[1], 0
    try:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            code = 1
            tell(_told(error))
        sys.stdout.flush()
    finally:
        os._exit(code & 0xFF)


def _forward_logs(connection: Connection, levels: dict[str, int]) -> None:
    """Sends log records of Scythe and of the user's code to the parent's logging."""
    _handled(logs.Forward(lambda record: _send(connection, "log", record)))
    logs.take_levels(levels)


def _handled(handler: logging.Handler) -> None:
    """Has a handler hear of the records of this process, and of no fork of it."""
    logging.getLogger().addHandler(handler)
    os.register_at_fork(after_in_child=lambda: logging.getLogger().removeHandler(handler))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os.killpg(0, signal.SIGKILL)

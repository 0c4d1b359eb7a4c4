"""A worker process of the pool: receives ranges, runs the leaf on them, sends back rows.

Started by `scythe.engines.pool` as its own program and its own process group, so that a limit of
time can kill it with all that it started. It never imports the user's main script again, and ends
when its parent does.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import pickle
import signal
import struct
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MARK = struct.Struct("qqd")  # the input that is running (-1: none), which try, and when it began (time.monotonic)
_PARENT_CHECK_SECONDS = 0.5


def main(fd: int, parent: int) -> None:
    """Serves the parent at the other end of a socket until it hangs up."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    connection = Connection(fd)
    try:
        setup: dict[str, Any] = pickle.loads(connection.recv_bytes())
        tempfile.tempdir = os.environ["TMPDIR"] = setup["tempdir"]
        leaf = _leaf(setup)
        _forward_logs(connection, setup["log_levels"])
        mark = _marker(Path(setup["marker"]))
        _send(connection, "ready", None)
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:  # noqa: BLE001 - whatever keeps the worker from starting is told to the user
        _send(connection, "broken", "".join(traceback.format_exception(error)))
        return
    _serve(connection, leaf, mark)


def _serve(connection: Connection, leaf: Any, mark: Callable[[int, int], None]) -> None:
    import gc

    gc.freeze()
    while True:
        try:
            start, stop, attempts = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        began = time.perf_counter()
        try:
            result = leaf.run(start, stop, attempts_before=attempts, mark=mark)
            message = ("done", (result, time.perf_counter() - began))
        except BaseException as error:  # noqa: BLE001 - errors of the user's function are rows; this is one of ours
            message = ("broken", "".join(traceback.format_exception(error)))
        finally:
            mark(-1, 0)
        try:
            _send(connection, *message)
        except OSError:
            return


def _send(connection: Connection, kind: str, content: Any) -> None:
    with _SENDING:
        connection.send_bytes(pickle.dumps((kind, content), pickle.HIGHEST_PROTOCOL))


_SENDING = threading.Lock()


def _leaf(setup: dict[str, Any]) -> Any:
    from scythe.leaf import Leaf
    from scythe.plan import RunPlan

    os.chdir(setup["cwd"])
    experiment = pickle.loads(setup["experiment"])
    return Leaf(RunPlan.from_json(setup["plan"]), experiment)


def _marker(path: Path) -> Callable[[int, int], None]:
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), MARK.size)
    pack, clock = MARK.pack_into, time.monotonic

    def mark(i: int, attempt: int) -> None:
        pack(shared, 0, i, attempt, clock())

    return mark


def _forward_logs(connection: Connection, levels: dict[str, int]) -> None:
    """Sends log records of Scythe and of the user's code to the parent's logging."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.msg, record.args = record.getMessage(), None
            if record.exc_info:
                record.exc_text, record.exc_info = logging.Formatter().formatException(record.exc_info), None
            with contextlib.suppress(OSError):
                _send(connection, "log", record)

    logging.getLogger().addHandler(Forward())
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os.killpg(0, signal.SIGKILL)

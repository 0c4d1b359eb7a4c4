"""The engine of one machine: a thread of this process drives a pool of worker processes.

Crashes and time-outs cost the one input that caused them, after its retries. Ctrl-C keeps what is
finished. A script that ends without waiting finishes its run first.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport] - its own exit hook must be registered before ours, so that ours runs first
import math
import os
import sys
import threading
import time

from scythe.define.experiment import Experiment
from scythe.engines.card import run_html
from scythe.engines.driving import Driver
from scythe.engines.ended import done, stop_when_ended
from scythe.engines.engine import Engine, Launch
from scythe.engines.options import LocalOptions
from scythe.engines.pool.chunks import ChunkQueue
from scythe.engines.pool.cores import cpus
from scythe.engines.pool.exits import leave_with
from scythe.engines.pool.pool import Pool
from scythe.engines.pool.travel import check_travels
from scythe.errors import RunError
from scythe.gather.collect import Collector
from scythe.leaf.leaf import Leaf
from scythe.record.attempts import ask_to_cancel
from scythe.record.lease import Lease
from scythe.record.provenance import record
from scythe.record.results import RunResult
from scythe.settings import engine_settings
from scythe.terminal.console import tell
from scythe.terminal.progress import Progress
from scythe_catalog.iceberg.catalog import start_threads

_POLL_SECONDS = 0.1
#: These Pythons start no thread once the script has ended, when a run may still go on (mended in 3.12.2).
_NO_LATE_THREADS = ((3, 12, 0), (3, 12, 1))
_INTERRUPTED = 130


class LocalJob:
    """One run on this machine's processes, driven by a thread; also the reference that `allocate` gives back."""

    hatchet = None

    def __repr__(self) -> str:
        return f"<reference to {self.plan.key.path}: result() waits for it>"

    def __init__(self, launch: Launch, workers: int | None) -> None:
        self.plan, self._launch = launch.plan, launch
        self._lease = Lease(self.plan.objects, self.plan.key, LocalEngine.name, taken=self._record, after=launch.after)
        self._open = sum(b - a for a, b in launch.open_ranges)
        self._workers = min(workers or cpus(), max(1, self._open))
        self._progress: Progress | None = None
        self._stop = threading.Event()
        self._over = threading.Event()
        self._result: RunResult | None = None
        self._error: BaseException | None = None
        self._owner = os.getpid()
        # Held, not inherited: `Thread` has private names of its own, others in each Python, that ours would hide.
        self._thread = threading.Thread(target=self._run, name=f"scythe-run-{self.plan.key.path}", daemon=True)

    def start(self) -> None:
        """Begins; a run that cannot begin is given back."""
        if sys.version_info[:3] in _NO_LATE_THREADS:
            start_threads()
        _RUNNING.add(self)
        try:
            if self._open:  # here, for a notebook shows it below the cell of the thread that makes it
                title = f"{self.plan.key.experiment} {self.plan.key.version}"
                self._progress = Progress(title, self._open, quiet=self._launch.quiet)
            stop_when_ended(self)
            self._thread.start()
        except BaseException:
            _RUNNING.discard(self)
            done(self)
            self._lease.end()
            raise

    @property
    def workflow_run_id(self) -> str | None:
        return self.plan.workflow_run_id

    def _record(self, attempt: int) -> None:
        work = self._launch
        record(self.plan.objects, self.plan.key, work.experiment, LocalEngine.name, attempt, work.code, work.stored)

    # --- the reference ------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> RunResult:
        try:
            if not self._wait(timeout):
                raise TimeoutError(f"the run {self.plan.key.path} is not finished after {timeout:g} seconds")
        except KeyboardInterrupt:
            self.interrupt()
            # The place where it was waited says nothing, and hides what was said.
            raise KeyboardInterrupt from None
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    async def aio_result(self) -> RunResult:
        self._check_owner()
        while not self._over.is_set():
            await asyncio.sleep(0.02)
            self._draw()
        return self.result()

    def _repr_html_(self) -> str:
        return run_html(self.plan.objects, self.plan.key)

    def join(self, timeout: float | None = None) -> None:
        """Waits until the run is over, or for `timeout` seconds; raises nothing of what it came to."""
        if self._wait(timeout):
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Whether the run is being worked on."""
        return self._thread.is_alive() and not self._over.is_set()

    def cancel(self) -> None:
        self._check_owner()
        if self._over.is_set():
            return
        ask_to_cancel(self.plan.objects, self.plan.key)
        self._lease.cancelled.set()
        self._stop.set()
        self._wait()

    def interrupt(self) -> None:
        """Stops at once, keeps what is finished, and says how to go on."""
        self._stop.set()
        self._wait()
        path = self.plan.key.path
        tell(f'\nScythe: {path} is stopped, finished inputs are kept; go on with: scythe resume "{path}"')

    def _wait(self, timeout: float | None = None) -> bool:
        """Whether the run is over, at once or within `timeout` seconds.

        It waits in slices: with Polars imported, Ctrl-C does not end a wait that has no end of its own.
        """
        self._check_owner()
        until = math.inf if timeout is None else time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            over = self._over.wait(min(left, _POLL_SECONDS))
            self._draw()
            if over:
                return True
        return self._over.is_set()

    def _draw(self) -> None:
        if self._progress is not None:
            self._progress.draw()

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise RunError(
                f"the run {self.plan.key.path} goes on in process {self._owner}, which forked this one: wait for it there, "
                "or look at it with scythe.open_run"
            )

    # --- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._error = error
        finally:
            self._lease.end(self._error)
            _RUNNING.discard(self)
            done(self)
            self._over.set()

    def _work(self) -> RunResult:
        collector = Collector(self.plan, self._launch.experiment, self._lease.number, show=self._launch.show)
        try:
            if self._progress is not None:
                self._drive(collector, self._progress)
        except BaseException as error:
            collector.keep(error)
            raise
        result = collector.finish()
        if result.errors and self._progress is not None:  # some are known at the end alone: dataframes that do not fit
            self._progress.say(result.errors_told)
        return result

    def _drive(self, collector: Collector, progress: Progress) -> None:
        plan, experiment = self.plan, self._launch.experiment
        chunks = ChunkQueue(self._launch.open_ranges, self._workers, plan.chunk)
        with Leaf(plan, experiment) as leaf, progress, Pool(self._workers, progress.output) as pool:
            driver = Driver(plan, experiment, self._launch.code, collector, pool, chunks, leaf)
            while driver.is_busy:
                self._lease.check()
                if self._stop.is_set():
                    raise RunError(f"the run {plan.key.path} was interrupted; what was finished is kept: resume it")
                driver.step(_POLL_SECONDS)
                for news in collector.news:
                    progress.say(news.text)
                collector.news.clear()
                if collector.is_due:
                    collector.flush()
                progress.update(collector.rows + collector.errors + pool.running(), collector.errors)


_RUNNING: set[LocalJob] = set()


class LocalEngine(Engine):
    """Worker processes of this machine, driven by a thread of this process."""

    name = "local"
    options = LocalOptions

    def sends_scripts(self) -> bool:
        return True

    def check_ready(self, experiment: Experiment, *, single: bool) -> None:
        check_travels(experiment)

    def start(self, work: Launch) -> LocalJob:
        asked = work.options.workers if isinstance(work.options, LocalOptions) else None
        job = LocalJob(work, work.workers or asked or engine_settings().workers)
        job.start()
        return job


def _finish_before_exit() -> None:
    """A script that ends without waiting finishes its runs; one that ends by Ctrl-C stops them.

    The script's exit code tells of it: 130 after Ctrl-C, 1 where a run could not be finished.
    """
    code = 0
    for job in list(_RUNNING):
        if code == _INTERRUPTED or getattr(sys, "last_type", None) is KeyboardInterrupt:
            job.interrupt()
            continue
        try:
            job.result()
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except Exception as error:  # noqa: BLE001 - nobody is left to catch it
            tell(f"Scythe: {job.plan.key.path}: {error}")
            code = 1
    if code:
        leave_with(code)


def _forget_parents_runs() -> None:
    """A forked process has none of its parent's runs: the threads that drive them are not in it."""
    _RUNNING.clear()


# An ordinary `atexit` hook would come too late: PyIceberg's threads are refused by then.
os.register_at_fork(after_in_child=_forget_parents_runs)
threading._register_atexit(_finish_before_exit)  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["LocalEngine", "LocalJob"]

"""Collects the rows of ranges as they come back: flushed to parts, shown to readers, gathered at the end."""

from __future__ import annotations

import contextlib
import datetime as dt
import time

from obstore.exceptions import BaseError

from scythe.chunk import ChunkResult
from scythe.errors import RunError
from scythe.gather import Gather
from scythe.parts import Part, Rows, write_part
from scythe.plan import RunPlan
from scythe.registry import Experiment
from scythe.results import RunResult
from scythe.tables import catalog_of
from scythe_catalog.objects import reason

_FIRST_FLUSH_SECONDS = 10.0
_FLUSH_SHARE = 0.02
_MAX_HELD_BYTES = 64 * 1024 * 1024


class Collector:
    """The rows of one process's turn on a run."""

    def __init__(self, plan: RunPlan, experiment: Experiment, attempt: int, *, show: bool = True) -> None:
        self.plan, self.experiment, self.attempt = plan, experiment, attempt
        self.began = dt.datetime.now(dt.UTC)
        self.rows = self.errors = 0
        self._held = Rows()
        self._parts = 0
        #: A run whose inputs are run again is shown as it was until its new end: no input in two tables.
        self._shown = show and not plan.objects.exists(plan.key.result)
        self._next_flush = time.monotonic() + _FIRST_FLUSH_SECONDS

    def add(self, result: ChunkResult) -> None:
        """Takes over the rows of a range, and flushes what has been held long enough."""
        self._held.add(result)
        self.rows += result.rows
        self.errors += result.errors
        if time.monotonic() > self._next_flush or self._held.bytes > _MAX_HELD_BYTES:
            self.flush()

    def flush(self, *, show: bool = True) -> None:
        """Makes what is held survive this process, and with `show` visible to readers of the catalog."""
        if not self._held:
            return
        started = time.monotonic()
        self._parts += 1
        part = write_part(self.plan, f"{self.attempt:06d}-{self._parts:06d}", self._held)
        self._held.clear()
        if show and self._shown:
            self._show(part)
        took = time.monotonic() - started
        self._next_flush = time.monotonic() + max(_FIRST_FLUSH_SECONDS, took / _FLUSH_SHARE)

    def _show(self, part: Part) -> None:
        catalog = catalog_of(self.plan.objects, self.plan.catalog)
        for file in part.files:
            planned = self.plan.tables.get(file.table)
            if planned is not None:
                table = catalog.table(self.plan.key.experiment, planned.catalog_table)
                table.append([file.data_file], self.plan.key.partition, key=f"{self.plan.key.path}/{part.name}")

    def finish(self) -> RunResult:
        """Gathers the run; what is held goes straight into the final files.

        Raises:
            RunError: the gathering failed (a full disk, say); finished rows are kept as far as they can be.
        """
        try:
            return Gather(self.plan, self.experiment, self._held).finish(self.attempt, self.began)
        except BaseException as error:
            with contextlib.suppress(OSError, BaseError):  # where the disk is full, what is held is run again later
                self.flush(show=False)
            if isinstance(error, OSError | BaseError):
                where = self.plan.objects.uri(self.plan.key.path)
                raise RunError(
                    f"the run {where} cannot be gathered: {reason(error)}; what is committed stays readable. "
                    "Make room, or mend the folder, and resume the run"
                ) from error
            raise

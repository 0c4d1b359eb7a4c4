"""One input: its files, its folder, the call of the function, and again after an exception.

Hands what the function returned to whoever keeps it. Makes no table, and knows no processes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from scythe.base import ExperimentInputSpec
from scythe.errors import FetchError
from scythe.failures import Failure
from scythe.fetch import fetch_all
from scythe.levels import running_on
from scythe.plan import RunPlan
from scythe.registry import Experiment
from scythe.schemas import ExperimentSchemas
from scythe_catalog.schema import iterate_models

#: Told the number of the input within its range and the try that is about to run; -1 after it.
Mark = Callable[[int, int], None]

#: Takes over what the function returned for an input: its number, spec, output, and the folder that it had.
Take = Callable[[int, ExperimentInputSpec, Any, Path | None], None]


@dataclass(frozen=True)
class Work:
    """What is to be run: one experiment, in one run, by one worker."""

    plan: RunPlan
    experiment: Experiment
    schemas: ExperimentSchemas
    call: Callable[..., Any]
    worker: str


@dataclass(frozen=True)
class Tried:
    """What the tries of one input came to: how many in all, seconds, when they began, and why the last one failed."""

    attempts: int
    seconds: float
    began: float
    failure: Failure | None
    raised: BaseException | None = None


class Calls:
    """The calls of a function on a range of inputs, one after the other."""

    def __init__(self, work: Work, rows: pa.Table, take: Take) -> None:
        self.work, self.rows, self.take = work, rows, take
        #: Of the input that is running: its file references as they were given, and why one cannot be had.
        self.given: dict[str, str | None] = {}
        self.unfetched: FetchError | None = None
        #: Which try of it this is, among those of this process.
        self.tries = 1

    def specs(self) -> Iterator[ExperimentInputSpec]:
        """The inputs as models, one at a time, with local copies of their files."""
        work = self.work
        specs: Iterator[ExperimentInputSpec] = iterate_models(self.rows, work.schemas.input)
        names = work.schemas.file_inputs
        if not (names and work.experiment.options.auto_fetch_files):
            yield from specs
            return
        columns = [self.rows.column(name).to_pylist() for name in names]
        fetched = fetch_all(uri for column in columns for uri in column if uri is not None)
        for spec, *values in zip(specs, *columns, strict=True):
            self.given = dict(zip(names, values, strict=True))
            self.unfetched = None
            for name, uri in self.given.items():
                found = fetched[uri] if uri is not None else None
                if isinstance(found, FetchError):
                    self.unfetched = FetchError(f"{name}: {found}")
                else:
                    vars(spec)[name] = found
            yield spec

    def run(self, i: int, spec: ExperimentInputSpec, mark: Mark | None, before: int) -> Tried:
        """Tries one input, and again after an exception, as often as its experiment says."""
        tries = max(1, self.work.experiment.options.retries + 1 - before)
        began, clock = time.time(), time.perf_counter
        started, attempt, failure = clock(), 0, None
        for attempt in range(1, tries + 1):
            self.tries = attempt
            try:
                self.once(i, spec, mark)
            except BaseException as error:  # noqa: BLE001 - whatever the function raises (SystemExit too) becomes a row
                if attempt == tries:
                    failure = Failure.of(error, before + attempt)
            else:
                break
        return Tried(before + attempt, clock() - started, began, failure)

    def attempt(self, i: int, spec: ExperimentInputSpec, mark: Mark | None, before: int) -> Tried:
        """Tries one input once, in the caller's own process; Ctrl-C passes."""
        began, started = time.time(), time.perf_counter()
        failure: Failure | None = None
        raised: BaseException | None = None
        try:
            self.once(i, spec, mark)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the caller of `allocate` as it is
            failure, raised = Failure.of(error, before + 1), error
        return Tried(before + 1, time.perf_counter() - started, began, failure, raised)

    def once(self, i: int, spec: ExperimentInputSpec, mark: Mark | None) -> None:
        """Calls the function and takes over what it returned."""
        experiment = self.work.experiment
        if self.unfetched is not None:
            raise self.unfetched
        token = running_on.set((spec, self.given)) if self.given else None
        folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            if experiment.wants_tempdir:
                folder = tempfile.TemporaryDirectory(prefix="scythe-", ignore_cleanup_errors=True)
                tempdir = Path(folder.name)
                if experiment.options.local_file_location == "copied-to-tempdir" and self.given:
                    spec = self.copied(spec, tempdir)
                output = self.timed(mark, i, spec, tempdir=tempdir)
            else:
                output = self.timed(mark, i, spec)
            self.take(i, spec, output, Path(folder.name) if folder else None)
        finally:
            if folder is not None:
                folder.cleanup()
            if token is not None:
                running_on.reset(token)

    def timed(self, mark: Mark | None, i: int, spec: ExperimentInputSpec, **more: Any) -> Any:
        """Calls the function between two marks, so that its time can be limited from outside."""
        if mark is None:
            return self.work.call(spec, **more)
        mark(i, self.tries)
        try:
            return self.work.call(spec, **more)
        finally:
            mark(-1, 0)

    def copied(self, spec: ExperimentInputSpec, tempdir: Path) -> ExperimentInputSpec:
        """The spec with its files copied into the input's own folder."""
        import shutil

        spec = spec.model_copy()
        for name in self.work.schemas.file_inputs:
            source = vars(spec)[name]
            if isinstance(source, Path):
                folder = tempdir / "inputs" / name
                folder.mkdir(parents=True)
                vars(spec)[name] = Path(shutil.copy(source, folder))
        running_on.set((spec, running_on.get()[1]))  # pyright: ignore[reportOptionalSubscript]
        return spec

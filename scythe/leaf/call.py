"""One input: its files, its folder, the call of the function, and again after an exception.

Hands what the function returned to whoever keeps it. Makes no table, and knows no processes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa

from scythe.base import ExperimentInputSpec, running_on
from scythe.define.bookkeeping import LogRow
from scythe.define.experiment import Experiment
from scythe.define.schemas import ExperimentSchemas
from scythe.errors import FetchError, InputFileChanged
from scythe.leaf.failures import Failure, is_final
from scythe.leaf.folders import Folders
from scythe.leaf.input_files import WAY_OUT, InputFiles
from scythe.leaf.outputs import NotStored, Place
from scythe.leaf.printed import Printed
from scythe.leaf.renewal import Life
from scythe.leaf.surroundings import GROUP, QUICK_SECONDS, Surroundings, working_folder
from scythe.record.plan import RunPlan
from scythe.remote.fetch import Fetched
from scythe.seeds import seed_of
from scythe_catalog.schema import iterate_models

#: Told the number of the input within its chunk and the try that is about to run; -1 after it.
Tell = Callable[[int, int], None]

#: What is done with the stored input right before the function is called: its number, and the spec.
Before = Callable[[int, ExperimentInputSpec], None]

#: Takes over what the function returned for an input: its number, spec, output, and where it was called.
Take = Callable[[int, ExperimentInputSpec, Any, Place], None]

_NOTHING = object()
_NO_PLACE = Place(None, None)
_clock = time.perf_counter


@dataclass(frozen=True)
class Work:
    """What is to be run: one experiment, in one run, by one worker."""

    plan: RunPlan
    experiment: Experiment
    schemas: ExperimentSchemas
    call: Callable[..., Any]
    worker: str
    fetched: Fetched = field(default_factory=Fetched)


class Tried(NamedTuple):
    """What the tries of one input came to: how many in all, seconds, when they began, and why the last one failed, what was printed."""

    attempts: int
    seconds: float
    began: float
    failure: Failure | None
    raised: BaseException | None = None
    printed: LogRow | None = None


#: Keeps what the tries of an input came to.
Keep = Callable[[int, Tried], None]


class Calls:
    """The calls of a function on a chunk of inputs, one after the other."""

    def __init__(
        self,
        work: Work,
        rows: pa.Table,
        take: Take,
        around: Surroundings,
        before: Before | None = None,
        life: Life | None = None,
        files: InputFiles | None = None,
        printed: Printed | None = None,
    ) -> None:
        """With the `life` of a worker process, `run_all` raises Spent where a fresh process has to go on."""
        self.files = files or InputFiles(work.plan)
        self.work, self.rows, self.take, self.around = work, rows, take, around
        self.before, self.life, self.printed = before, life, printed
        self._sort_index = rows.column("sort_index")
        #: Of the input that is running: its file references as they were given, and why one cannot be had.
        self.given: dict[str, str | None] = {}
        self.unfetched: FetchError | None = None
        #: Which try of it this is, among those of this process.
        self.tries = 1
        self._fetched: dict[str, Path | FetchError] = {}
        #: Where relative paths of output files begin: in the working folder that the function left.
        self._working: str | None = None
        self._relative = bool(work.schemas.file_outputs)
        self._names = work.schemas.file_inputs if work.experiment.options.auto_fetch_files else ()
        self._folders = Folders()
        #: Its inputs have neither files nor a folder of their own: nothing is to be done around a call.
        self._bare = not self._names and not work.experiment.wants_tempdir

    def specs(self, start: int = 0) -> Iterator[ExperimentInputSpec]:
        """The inputs from this one on as models, one at a time, with local copies of their files."""
        rows = self.rows.slice(start)
        specs: Iterator[ExperimentInputSpec] = iterate_models(rows, self.work.schemas.input)
        if not self._names:
            yield from specs
            return
        columns = [rows.column(name).to_pylist() for name in self._names]
        self._fetched |= self.work.fetched.all(uri for column in columns for uri in column if uri is not None)
        self.files.prepare(self._fetched)
        self._fetched |= {uri: path for uri in self._fetched if (path := self.files.place(uri)) is not None}
        for spec, *values in zip(specs, *columns, strict=True):
            self.given = dict(zip(self._names, values, strict=True))
            self.unfetched = None
            yield self._with_files(spec)

    def run_all(self, tell: Tell | None, before: int, keep: Keep, forget: Callable[[int], None]) -> None:
        """Runs the inputs one after the other; those of a group that has to run again are forgotten first."""
        start, total, around = 0, self.rows.num_rows, self.around
        specs = self.specs()
        while start < total:
            stop = min(start + GROUP, total)
            try:
                stop = self._group(start, stop, specs, tell, before, keep)
                disturbed = self._disturbed()
            except BaseException:
                disturbed = self._disturbed()  # by a handler that an input left, say: it may raise anywhere
                if not disturbed:
                    raise
            if disturbed:
                around.distrust()
                if self.printed is not None:
                    self.printed.drop()
                forget(start)
                specs = self.specs(start)
            else:
                start = stop

    def _disturbed(self) -> bool:
        """Whether inputs that are looked at together left something behind, so that each has to run alone."""
        return self.around.trusted and (self.around.changed() or bool(self.printed))

    def _group(
        self, start: int, stop: int, specs: Iterator[ExperimentInputSpec], tell: Tell | None, before: int, keep: Keep
    ) -> int:
        """Runs inputs up to the first that fails or is not quick; gives the one behind it."""
        life, most = self.life, self.work.experiment.options.max_inputs_per_process
        printed = None if self.around.trusted else self.printed
        if self.printed is not None:
            self.printed.held = self.around.trusted
        for i in range(start, stop):
            if life is not None:
                if most is not None:
                    life.give_way(i, most)
                life.ran += 1
            tried = self.run(i, next(specs), tell, before)
            if printed is not None and (row := printed.take()) is not None:
                tried = tried._replace(printed=row)
                self.around.distrust()
            keep(i, tried)
            if tried.failure is not None or tried.seconds > 10 * QUICK_SECONDS:
                return i + 1
        return stop

    def stored(self, i: int) -> ExperimentInputSpec:
        """An input as it was stored, whatever a function has made of the model that it was given."""
        spec: ExperimentInputSpec = next(iterate_models(self.rows.slice(i, 1), self.work.schemas.input))
        return self._with_files(spec)

    def _with_files(self, spec: ExperimentInputSpec) -> ExperimentInputSpec:
        for name, uri in self.given.items():
            found = self._fetched[uri] if uri is not None else None
            if isinstance(found, FetchError):
                self.unfetched = FetchError(f"{name}: {found}")
            else:
                vars(spec)[name] = found
        return spec

    def run(self, i: int, spec: ExperimentInputSpec, tell: Tell | None, before: int) -> Tried:
        """Tries one input, and again after an exception, as often as its experiment says."""
        began, started = time.time(), _clock()
        failure, self.tries = None, 1
        while True:
            try:
                self.once(i, spec, tell)
                if self.life is not None:
                    self.life.worked = True
                break
            except NotStored:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the function raises (SystemExit too) becomes a row
                if self.life is not None:
                    self.life.failed(i, self.tries - 1, error)
                tries = self.work.experiment.options.retries + 1 - before
                if self.tries >= tries or is_final(error, self.work.experiment.output_model):
                    failure = self._told(i, error, before, tell)
                    break
            self.tries += 1
            spec = self.stored(i)
        return Tried(before + self.tries, _clock() - started, began, failure)

    def attempt(self, i: int, spec: ExperimentInputSpec, tell: Tell | None, before: int) -> Tried:
        """Tries one input once, in the caller's own process; Ctrl-C passes."""
        began, started = time.time(), _clock()
        failure: Failure | None = None
        raised: BaseException | None = None
        try:
            self.once(i, spec, tell)
        except (KeyboardInterrupt, NotStored):
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the caller of `allocate` as it is
            failure, raised = self._told(i, error, before, tell), error
        return Tried(before + 1, _clock() - started, began, failure, raised)

    def _told(self, i: int, error: BaseException, before: int, tell: Tell | None) -> Failure:
        """The failure that an exception is, within the limit of time: its texts are made by the user's code."""
        if tell is None:
            return Failure.of(error, before + self.tries)
        tell(i, self.tries)
        try:
            return Failure.of(error, before + self.tries)
        finally:
            tell(-1, 0)

    def once(self, i: int, spec: ExperimentInputSpec, tell: Tell | None) -> None:
        """Calls the function and takes over what it returned."""
        if self._bare:
            output = (self.timed if self.around.trusted else self.called)(tell, i, spec, {})
            self.take(i, spec, output, Place(None, self._working) if self._relative else _NO_PLACE)
            return
        experiment = self.work.experiment
        if self.unfetched is not None:
            raise self.unfetched
        token = running_on.set((spec, self.given)) if self.given else None
        folder: str | None = None
        try:
            local = self._ready(spec) if self.given else None
            more: dict[str, Any] = {}
            if experiment.wants_tempdir:
                folder = self._folders.new(again=self.around.trusted)
                more["tempdir"] = tempdir = Path(folder)
                if experiment.options.local_file_location == "copied-to-tempdir" and self.given:
                    spec, local = self.copied(spec, tempdir), None
            if local:
                output = self._with_whole_files(local, lambda: self.called(tell, i, spec, more))
            else:
                output = self.called(tell, i, spec, more)
            real = self._folders.real if folder else None
            self.take(i, spec, output, Place(folder, self._working, real))
        finally:
            if folder is not None:
                self._folders.leave(folder, again=self.around.trusted)
            if token is not None:
                running_on.reset(token)

    def close(self) -> None:
        """Removes what is left of the folders of inputs."""
        self._folders.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self, spec: ExperimentInputSpec) -> dict[str, Path]:
        """The local files of an input by URI, each as it was at allocation."""
        found = {uri: path for uri in self.given.values() if uri and isinstance(path := self._fetched[uri], Path)}
        ready = self.files.ready(found)
        if ready != found:  # fetched again
            self._fetched |= ready
            self._with_files(spec)
        return ready

    def _with_whole_files(self, local: Mapping[str, Path], call: Callable[[], Any]) -> Any:
        """Calls, and looks whether the files that the function had are what they were; they are, afterwards.

        Raises:
            InputFileChanged: one is not.
        """
        try:
            output = call()
        except BaseException as error:
            problem = self._changed(local)
            if problem is not None:
                with suppress(Exception):  # an exception of a class of the user's own may take no notes
                    error.add_note(str(problem))
            raise
        problem = self._changed(local)
        if problem is not None:
            raise problem
        return output

    def _changed(self, local: Mapping[str, Path]) -> InputFileChanged | None:
        changed = self.files.changed(local)
        if not changed:
            return None
        named = ", ".join(f"{name} ({local[uri]})" for name, uri in self.given.items() if uri in changed)
        try:
            self.files.ready({uri: local[uri] for uri in changed})
            after = "it was brought back"
        except FetchError as error:
            after = str(error)
        return InputFileChanged(
            f"the input file {named} was changed while this input ran, by it or by another one: {WAY_OUT}. {after}"
        )

    def called(self, tell: Tell | None, i: int, spec: ExperimentInputSpec, more: dict[str, Any]) -> Any:
        """Calls the function, and brings the process back to what it was, unless its inputs are trusted."""
        if self.around.trusted:
            return self.timed(tell, i, spec, more)
        self.around.before(lambda: seed_of(self.work.plan.draws_from, self._sort_index[i].as_py()))
        output: Any = _NOTHING
        began = _clock()
        try:
            output = self.timed(tell, i, spec, more)
        except BaseException as error:
            # What is raised after the function has returned is raised by a signal's handler that it has left.
            if output is _NOTHING or isinstance(error, KeyboardInterrupt):
                raise
        finally:
            if self._relative:
                self._working = working_folder()
            self.around.after(_clock() - began)
        return output

    def timed(self, tell: Tell | None, i: int, spec: ExperimentInputSpec, more: dict[str, Any]) -> Any:
        """Calls the function between two tellings, so that its time can be limited from outside."""
        if tell is None:
            if self.before is not None:
                self.before(i, spec)
            process = os.getpid()
            try:
                return self.work.call(spec, **more)
            finally:
                if os.getpid() != process:  # what a function forks has no part in the run
                    os._exit(0)
        tell(i, self.tries)
        try:
            if self.before is not None:
                self.before(i, spec)
            return self.work.call(spec, **more)
        finally:
            tell(-1, 0)

    def copied(self, spec: ExperimentInputSpec, tempdir: Path) -> ExperimentInputSpec:
        """The spec with its files copied into the input's own folder."""
        spec = spec.model_copy()
        for name in self.work.schemas.file_inputs:
            source = vars(spec)[name]
            if isinstance(source, Path):
                folder = tempdir / "inputs" / name
                folder.mkdir(parents=True)
                vars(spec)[name] = Path(shutil.copyfile(source, folder / source.name))
        running_on.set((spec, running_on.get()[1]))  # pyright: ignore[reportOptionalSubscript]
        return spec

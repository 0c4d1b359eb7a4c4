"""What an engine is to the rest of Scythe, and what it hands back: a reference to a run that goes on. Runs nothing itself."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from scythe.define.code import Code, read_code
from scythe.define.experiment import Experiment
from scythe.engines.options import EngineOptions
from scythe.errors import NotFoundError
from scythe.record.plan import RunPlan
from scythe.record.provenance import Provenance
from scythe.record.results import RunResult, result_html


class RunRef(Protocol):
    """A reference to a started run, the same for all engines: what `allocate` and `resume` give beside or for the run.

    Examples:
        >>> from scythe import BaseExperiment
        >>> specs = pl.DataFrame({"r_value": [2.0, 4.0]})
        >>> run, ref = BaseExperiment(simulate_energy).allocate(specs, version="bumpminor")
        >>> ref.result().rows
        2
    """

    @property
    def workflow_run_id(self) -> str | None:
        """The run's identifier, as in its manifest.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.resume().workflow_run_id == run.workflow_run_id
            True
        """
        ...

    @property
    def hatchet(self) -> Any:
        """The SDK's own reference to a run that goes on on Hatchet, None elsewhere.

        Examples:
            >>> scythe.open_run("simulate_energy").resume().hatchet is None
            True
        """
        ...

    def result(self, timeout: float | None = None) -> RunResult:
        """Waits for the run, and gives its result.

        Args:
            timeout: Wait at most so long [s]; None for as long as it takes.

        Returns:
            Counts, seconds, and the URIs of the tables; of a workflow of Hatchet's own what that returns.

        Raises:
            RunError: the run could not be finished; failed inputs alone do not raise.
            RunCancelled: it was cancelled.
            OSError: the root cannot be reached or written: a full disk, say.
            TimeoutError: it is not finished yet; it goes on.

        Examples:
            >>> ref = scythe.open_run("simulate_energy").resume()
            >>> ref.result(timeout=60).errors
            0
        """
        ...

    async def aio_result(self) -> RunResult:
        """The same as `result`, without blocking the event loop.

        Raises:
            RunError: the run could not be finished; failed inputs alone do not raise.
            RunCancelled: it was cancelled.
            OSError: the root cannot be reached or written: a full disk, say.

        Examples:
            >>> import asyncio
            >>> ref = scythe.open_run("simulate_energy").resume()
            >>> asyncio.run(ref.aio_result()).rows
            3
        """
        ...

    def cancel(self) -> None:
        """Stops the run; what is finished stays, and `resume` goes on with it. A run that is over is left as it is.

        Raises:
            RunError: it goes on in the process that this one was forked from: cancel it there.
            StorageError: the root cannot be reached.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.resume().cancel()
            >>> run.status
            'finished'
        """
        ...


class FinishedRef:
    """The reference to a run that is over."""

    hatchet = None

    def __repr__(self) -> str:
        return f"<reference to {self._result.experiment_id}, which is over>"

    def __init__(self, result: RunResult) -> None:
        self._result = result

    @property
    def workflow_run_id(self) -> str | None:
        return self._result.workflow_run_id

    def result(self, timeout: float | None = None) -> RunResult:
        return self._result

    async def aio_result(self) -> RunResult:
        await asyncio.sleep(0)
        return self._result

    def cancel(self) -> None:
        return

    def _repr_html_(self) -> str:
        return result_html(self._result)

    def join(self, timeout: float | None = None) -> None:
        """Returns at once, as of a thread that has ended."""

    def is_alive(self) -> bool:
        """False: the run is over."""
        return False


@dataclass(frozen=True)
class Launch:
    """What an engine is given to do.

    Attributes:
        plan: The run.
        experiment: Its function.
        open_ranges: The open rows of `specs.pq`, as half-open ranges.
        code: Its code, as it was read when this was asked for: what is recorded of the attempt, and what its processes load.
        stored: What its allocation has just recorded of itself; None where a run goes on that was stored before.
        options: As its class `options` says; None where nobody gave any.
        workers: How many processes, as `allocate(workers=...)` was told.
        show: Whether finished rows are shown to readers while the run goes on.
        quiet: Whether nothing is told of how it goes: no bar, no errors, no summary.
        after: The number of the newest attempt when the open rows were looked for (0: there was none): what one since then
            has done is not known here. None where nobody else can have worked on the run.
    """

    plan: RunPlan
    experiment: Experiment
    open_ranges: Sequence[tuple[int, int]]
    code: Code
    stored: Provenance | None = None
    options: EngineOptions | None = None
    workers: int | None = None
    show: bool = True
    quiet: bool = False
    after: int | None = None


class Engine(ABC):
    """What runs the inputs of a run. It is told what is open, and answers with a reference.

    A package of your own can bring one: a class that inherits from this, needs no arguments, and is named in the
    entry points of the group `scythe.engines`. `scythe.engines.inline` is the shortest model.
    """

    #: What `allocate(engine=...)` calls it.
    name: ClassVar[str]
    #: The model of its options, None where it has none.
    options: ClassVar[type[EngineOptions] | None] = None
    #: Whether it gives runs identifiers of its own; else each gets one at allocation.
    names_runs: ClassVar[bool] = False
    #: Which code it runs: what this process has loaded, the files as processes of its own load them, or what workers elsewhere have.
    runs_code: ClassVar[Literal["loaded", "files", "theirs"]] = "files"

    def sends_scripts(self) -> bool:
        """Whether functions of a script go to its processes with the values that the script has set by then; else they load it, too."""
        return False

    def read_code(self, experiment: Experiment) -> Code:
        """The code that it would run now."""
        return read_code(experiment, here=self.runs_code == "loaded", sent=self.sends_scripts())

    def check_ready(self, experiment: Experiment, *, single: bool) -> None:  # noqa: B027 - most are always ready
        """Nothing, where a run of this experiment can be taken now; asked before anything is written.

        Args:
            experiment: The one that is about to be allocated.
            single: Whether it is allocated on one model, rather than a table of them.

        Raises:
            SettingsError: it cannot be reached.
            AllocationError: it cannot run this experiment.
        """

    def check_options(  # noqa: B027 - most take any
        self, options: EngineOptions | None, *, inputs: int, workers: int | None
    ) -> None:
        """Nothing, where a run can be started with these options now; asked before anything is written.

        Args:
            options: What the engine is told of the run.
            inputs: How many inputs it has at most.
            workers: How many parts of the engine are to serve it, as `allocate` was told.

        Raises:
            SettingsError: it cannot; with the reason.
        """

    def last_options(self, plan: RunPlan) -> EngineOptions | None:
        """The options with which a run was last started, which hold until others are given; None where it keeps none."""
        return None

    @abstractmethod
    def start(self, work: Launch) -> RunRef:
        """Starts, or runs, what is open of a run.

        Raises:
            RunError: another process works on the run.
        """

    def attach(self, plan: RunPlan) -> RunRef | None:
        """The reference to a run that goes on without this process, None where there is none."""
        return None

    def cancel(self, plan: RunPlan) -> None:  # noqa: B027 - most look at the mark
        """Stops a run that does not look for the request in its folder, which has been written by now."""

    def outlook(self, plan: RunPlan) -> str | None:
        """Why nothing of a run goes on, in a sentence; None where nothing is known to be wrong."""
        return None

    def printed(self, plan: RunPlan, part: str) -> str:
        """What a part of its own work on a run has printed: an element of a job array, say.

        Raises:
            NotFoundError: there is no such part.
        """
        raise NotFoundError(
            f"the engine {self.name!r} has no elements, such as {part!r}: what each input has printed is told by its sort_index alone"
        )

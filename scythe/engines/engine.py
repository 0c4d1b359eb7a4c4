"""What an engine hands back: a reference to a run that goes on, with its result. Runs nothing."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from scythe.record.results import RunResult


class RunRef(Protocol):
    """A reference to a started run, the same for all engines."""

    @property
    def workflow_run_id(self) -> str | None:
        """The run's identifier, as in its manifest."""
        ...

    @property
    def hatchet(self) -> Any:
        """The SDK's own reference on Hatchet, None elsewhere."""
        ...

    def result(self, timeout: float | None = None) -> RunResult:
        """Waits for the run, at most `timeout` seconds.

        Raises:
            RunError: the run could not be finished; failed inputs alone do not raise.
            TimeoutError: it is not finished yet.
        """
        ...

    async def aio_result(self) -> RunResult:
        """The same, without blocking the event loop."""
        ...

    def cancel(self) -> None:
        """Stops the run; what is finished stays."""
        ...


class FinishedRef:
    """The reference to a run that is over."""

    hatchet = None

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

    def join(self, timeout: float | None = None) -> None:
        """Returns at once, as of a thread that has ended."""

    def is_alive(self) -> bool:
        """False: the run is over."""
        return False

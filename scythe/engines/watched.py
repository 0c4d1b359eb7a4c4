"""The reference to a run that another process works on: it looks into the run's folder until that has come to an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from scythe.errors import RunCancelled, RunError
from scythe.gather.status import look_at
from scythe.record.attempts import ask_to_cancel
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, read_result

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
#: For how long a run may be stored without anybody's working on it until nobody is expected to any more [s].
_PATIENCE = 60.0


class WatchedRef:
    """A run that goes on elsewhere; nothing of it is done here."""

    hatchet = None

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan

    @property
    def workflow_run_id(self) -> str | None:
        return self._plan.workflow_run_id

    def result(self, timeout: float | None = None) -> RunResult:
        for pause, found in self._looks(timeout):
            if found is not None:
                return found
            time.sleep(pause)
        raise AssertionError

    async def aio_result(self) -> RunResult:
        for pause, found in self._looks(None):
            if found is not None:
                return found
            await asyncio.sleep(pause)
        raise AssertionError

    def cancel(self) -> None:
        ask_to_cancel(self._plan.objects, self._plan.key)

    def _looks(self, timeout: float | None) -> Iterator[tuple[float, RunResult | None]]:
        """How long to wait until the next look, and what this one has found."""
        objects, key = self._plan.objects, self._plan.key
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            status = look_at(objects, key).status
            if status == "cancelled":
                raise RunCancelled(f"the run {key.path} was cancelled: resume goes on with it")
            waited = time.monotonic() - began
            found = read_result(objects, key) if status == "finished" else None
            if status not in ("running", "finished") and (status != "allocated" or waited > _PATIENCE):
                raise RunError(f"the run {key.path} is {status}: the process that worked on it has ended. Resume it")
            if found is None and timeout is not None and waited > timeout:
                raise TimeoutError(f"the run {key.path} is not finished after {timeout:g} s; it goes on")
            yield pause, found
            pause = min(2 * pause, _LONGEST_PAUSE)


__all__ = ["WatchedRef"]

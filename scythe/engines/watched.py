"""The reference to a run that another process works on: it looks into the run's folder until that has come to an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from scythe.engines.engine import RunRef
from scythe.errors import RunCancelled, RunError
from scythe.gather.status import Look, look_at
from scythe.record.attempts import INTERRUPTED, ask_to_cancel, latest_attempt
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, read_result

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
#: For how long a run may be stored without anybody's working on it until nobody is expected to any more [s].
_PATIENCE = 60.0


class WatchedRef:
    """A run that goes on elsewhere; nothing of it is done here, unless the process there dies, and `take_up` is given.

    `take_up` starts here what is open of it, or gives another reference of this kind where somebody else has.
    """

    hatchet = None

    def __init__(self, plan: RunPlan, take_up: Callable[[], RunRef] | None = None) -> None:
        self._plan, self._take_up = plan, take_up
        #: What goes on here, since the process elsewhere has died.
        self._heir: RunRef | None = None

    @property
    def workflow_run_id(self) -> str | None:
        return self._heir.workflow_run_id if self._heir is not None else self._plan.workflow_run_id

    def result(self, timeout: float | None = None) -> RunResult:
        until = time.monotonic() + timeout if timeout is not None else None
        if self._heir is None:
            try:
                for pause, found in self._looks(timeout):
                    if found is not None:
                        return found
                    time.sleep(pause)
            except _DesertedError:
                if self._take_up is None:
                    raise
                self._heir = self._take_up()
        assert self._heir is not None
        return self._heir.result(max(0.0, until - time.monotonic()) if until is not None else None)

    async def aio_result(self) -> RunResult:
        if self._heir is None:
            try:
                for pause, found in self._looks(None):
                    if found is not None:
                        return found
                    await asyncio.sleep(pause)
            except _DesertedError:
                if self._take_up is None:
                    raise
                self._heir = await asyncio.to_thread(self._take_up)
        assert self._heir is not None
        return await self._heir.aio_result()

    def cancel(self) -> None:
        if self._heir is not None:
            self._heir.cancel()
        else:
            ask_to_cancel(self._plan.objects, self._plan.key)

    def _looks(self, timeout: float | None) -> Iterator[tuple[float, RunResult | None]]:
        """How long to wait until the next look, and what this one has found."""
        objects, key = self._plan.objects, self._plan.key
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            look = look_at(objects, key)
            status = look.status
            if status == "cancelled":
                raise RunCancelled(f"the run {key.path} was cancelled: resume goes on with it")
            waited = time.monotonic() - began
            found = read_result(objects, key) if status == "finished" else None
            may_begin = status == "allocated" and look.problem is None and waited <= _PATIENCE
            if status not in ("running", "finished") and not may_begin:
                raise self._stopped(look)
            if found is None and timeout is not None and waited > timeout:
                raise TimeoutError(f"the run {key.path} is not finished after {timeout:g} s; it goes on")
            yield pause, found
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _stopped(self, look: Look) -> RunError:
        """Why nobody works on the run any more."""
        told = f"the run {self._plan.key.path} is {look.status}"
        if look.status not in ("incomplete", "allocated"):
            return RunError(f"{told}: {look.problem}" if look.problem else told)
        if look.problem is not None:
            return RunError(f'{told}: {look.problem}. Go on with: scythe resume "{self._plan.key.path}"')
        last = latest_attempt(self._plan.objects, self._plan.key)
        if last is not None and last.ended and last.reason not in ("", INTERRUPTED):
            return RunError(f"{told}: who worked on it has stopped ({last.reason}). Resume it")
        if last is None:
            return _DesertedError(f"{told}: nobody has begun to work on it. Resume it")
        return _DesertedError(f"{told}: the process that worked on it has ended. Resume it")


class _DesertedError(RunError):
    """Who worked on a run is gone, or was interrupted: nothing says that another would not come further."""


__all__ = ["WatchedRef"]

"""The reference to a run on a cluster: waits for it by the engine's stream, and shows how far it is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from typing import Any

from obstore.exceptions import BaseError

from scythe.engines.card import run_html
from scythe.engines.hatchet.client.outlook import Watch
from scythe.engines.hatchet.connection import connect, on_loop
from scythe.engines.hatchet.errors import is_of_the_network, told
from scythe.engines.hatchet.fleet import cancel_all, cancel_runs, why_nothing
from scythe.engines.waiting import waiting
from scythe.errors import RunCancelled, RunError, ScytheError, TooManyErrors
from scythe.gather.error_limit import stopped
from scythe.gather.publish import is_unpublished, settle
from scythe.record.attempts import ask_to_cancel, latest_attempt
from scythe.record.generations import catalog_of
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, read_result

_LOOK_SECONDS = 2.0
#: Who has published a result gives the run back within so long, unless he was killed.
_LEAVE_SECONDS = 10.0
#: The engine may know more of a run that was cancelled.
_ANSWER_SECONDS = 5.0
#: A root looks for the request every second, and ends; one that is dead, or that the engine has not told, is not waited for.
_CANCEL_SECONDS = 2.0
_CANCEL_LOOK_SECONDS = 0.1


class _Ref:
    """What has been triggered; `hatchet` is the SDK's own reference to its root."""

    def __init__(self, plan: RunPlan, hatchet: Any, run_id: str) -> None:
        self.plan, self.hatchet, self._run_id = plan, hatchet, run_id

    @property
    def workflow_run_id(self) -> str | None:
        return self._run_id

    def cancel(self) -> None:
        ask_to_cancel(self.plan.objects, self.plan.key)
        cancel(self.plan, [self.hatchet.workflow_run_id])

    def _repr_html_(self) -> str:
        return run_html(self.plan.objects, self.plan.key)


class HatchetRef(_Ref):
    """A started run."""

    def __init__(self, plan: RunPlan, hatchet: Any, run_id: str, attempt: int) -> None:
        super().__init__(plan, hatchet, run_id)
        self._attempt = attempt
        self._awaited: concurrent.futures.Future[RunResult] | None = None

    def result(self, timeout: float | None = None) -> RunResult:
        until = None if timeout is None else time.monotonic() + timeout
        answer, watch = self._waiting(), Watch(self.plan)
        with waiting(self.plan) as shown:
            while True:
                left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, until - time.monotonic())
                try:
                    return shown.over(answer.result(max(0.0, left)))
                except concurrent.futures.TimeoutError:
                    if answer.done():
                        raise
                    if until is not None and time.monotonic() >= until:
                        raise TimeoutError(
                            f"the run {self.plan.key.path} is not finished after {timeout:g} seconds; it goes on"
                        ) from None
                shown.look(watch.look)

    async def aio_result(self) -> RunResult:
        return await asyncio.shield(asyncio.wrap_future(self._waiting()))  # it is waited for elsewhere, too

    def cancel(self) -> None:
        if self._look()[0] is None:  # else it is over
            super().cancel()

    def _waiting(self) -> concurrent.futures.Future[RunResult]:
        if self._awaited is None:
            self._awaited = on_loop(self._wait())
        return self._awaited

    async def _wait(self) -> RunResult:
        """The result as soon as the engine tells that the run is over, or the run's folder does: whoever is first."""
        answer, seen = asyncio.ensure_future(self._answer()), asyncio.ensure_future(self._seen())
        try:
            await asyncio.wait({answer, seen}, return_when=asyncio.FIRST_COMPLETED)
            result = await (answer if answer.done() else seen)
        finally:
            answer.cancel()
            seen.cancel()
        await asyncio.to_thread(self._settle)
        return result

    def _settle(self) -> None:
        """Publishes the result where its root was killed before it could; another root may do so later as well."""
        plan = self.plan
        with contextlib.suppress(OSError, BaseError, ScytheError):  # the result is there all the same
            if is_unpublished(plan.objects, plan.key):
                settle(plan.objects, catalog_of(plan.objects, plan.catalog), plan.key)

    async def _seen(self) -> RunResult:
        """The result, once it lies in the run's folder and nobody works on the run: an engine may never tell.

        Raises:
            RunCancelled: it was cancelled, and is worked on no more.
        """
        since: float | None = None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(OSError, BaseError):  # a look that failed is made up for by the next
                result, left, cancelled = await asyncio.to_thread(self._look)
                if result is None and not (cancelled and left):
                    continue
                since = since or time.monotonic()
                if result is not None and (left or time.monotonic() - since > _LEAVE_SECONDS):
                    return result
                if result is None and time.monotonic() - since > _ANSWER_SECONDS:
                    raise _cancelled(self.plan)

    def _look(self) -> tuple[RunResult | None, bool, bool]:
        """The result of this attempt, whether nobody works on it any more, and whether it was cancelled."""
        plan = self.plan
        last, result = latest_attempt(plan.objects, plan.key), read_result(plan.objects, plan.key)
        left = last is None or last.ended
        if result is not None and result.attempt >= self._attempt:
            return result, left, False
        return None, left, plan.objects.exists(plan.key.cancelled)

    async def _left(self) -> tuple[RunResult | None, bool]:
        """The result, and whether the run was cancelled, once nobody works on it: it can be resumed then. A root that is dead is not waited for."""
        until = time.monotonic() + _ANSWER_SECONDS
        while True:
            result, left, cancelled = await asyncio.to_thread(self._look)
            if left or time.monotonic() > until:
                return result, cancelled
            await asyncio.sleep(_CANCEL_LOOK_SECONDS)

    async def _answer(self) -> RunResult:
        plan, path = self.plan, self.plan.key.path
        try:
            output = await _output_of(self.hatchet)
            if output.get("superseded"):  # the run was triggered once more than needed: another root has it
                await _output_of(connect().runs.get_run_ref(output["superseded"]))
            taken_over = "superseded" in output and not output["superseded"]
        except Exception as error:
            result, cancelled = await self._left()
            if result is not None:  # the run's folder knows better
                return result
            if cancelled:
                raise _cancelled(plan) from None
            if told(error).startswith(stopped(path)):  # of a task's exception no more than the message comes back
                raise TooManyErrors(told(error)) from None
            raise RunError(f"the run {path} could not be finished: {told(error)}") from error
        result = await asyncio.to_thread(read_result, plan.objects, plan.key)
        if result is None and taken_over:
            raise RunError(f"another engine has taken over the run {path}: look at its status, and resume it")
        if result is None:
            raise RunError(
                f"the run {path} is finished, but its result is not in {plan.root}: do the workers have the same storage?"
            )
        return result


def _cancelled(plan: RunPlan) -> RunCancelled:
    return RunCancelled(f"the run {plan.key.path} was cancelled; what was finished is kept")


async def _output_of(hatchet: Any) -> dict[str, Any]:
    """What a run of one task returned; asked for again where the stream fails over which the engine tells.

    Raises:
        RunError: it came to nothing: it was cancelled, no worker took it in time, or the engine gave it up.
    """
    from hatchet_sdk.workflow_run import WorkflowRunRef

    while True:
        try:
            output = await hatchet.aio_result()
        except Exception as error:
            if not is_of_the_network(error):
                raise
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        if isinstance(hatchet, WorkflowRunRef):  # by the name of the task
            output = next(iter(output.values()), {})
        if not output:
            raise RunError(str(await why_nothing(hatchet.workflow_run_id)))
        return output


class WorkflowRef(_Ref):
    """A started workflow of Hatchet's own; its result is what it returns: task name -> output."""

    def result(self, timeout: float | None = None) -> Any:
        try:
            return on_loop(self._wait()).result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"the run {self.plan.key.path} is not finished after {timeout:g} seconds") from None

    async def aio_result(self) -> Any:
        return await asyncio.wrap_future(on_loop(self._wait()))

    async def _wait(self) -> Any:
        try:
            return await self.hatchet.aio_result()
        except Exception as error:
            raise RunError(f"the workflow of {self.plan.key.path} failed: {told(error)}") from error


def cancel(plan: RunPlan, roots: list[str]) -> None:
    """Cancels the roots of a run, then all that they have triggered, and waits until nobody works on it."""

    async def both() -> None:
        await cancel_runs(roots)
        await cancel_all(plan.key)

    on_loop(both()).result()
    until = time.monotonic() + _CANCEL_SECONDS
    while (last := latest_attempt(plan.objects, plan.key)) and last.alive and time.monotonic() < until:
        time.sleep(_CANCEL_LOOK_SECONDS)

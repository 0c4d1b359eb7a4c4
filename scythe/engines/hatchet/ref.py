"""The reference to a run on a cluster: waits for it by the engine's stream, and shows how far it is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import time
from typing import Any

from obstore.exceptions import BaseError

from scythe.attempts import latest_attempt
from scythe.console import tell
from scythe.engines.hatchet.client import connect, on_loop
from scythe.engines.hatchet.errors import told
from scythe.engines.hatchet.fleet import cancel_all, cancel_runs
from scythe.errors import RunCancelled, RunError
from scythe.plan import RunPlan
from scythe.progress import Progress
from scythe.results import RunResult, read_result
from scythe.turns import last_turn, load_turn

_LOOK_SECONDS = 2.0
#: A root has about a second to end by itself before the SDK ends it; a dead one is not waited for.
_CANCEL_SECONDS = 10.0
_CANCEL_LOOK_SECONDS = 0.1


class HatchetRef:
    """A started run; `hatchet` is the SDK's own reference to its root."""

    def __init__(self, plan: RunPlan, hatchet: Any, run_id: str) -> None:
        self.plan, self.hatchet, self._run_id = plan, hatchet, run_id
        self._awaited: concurrent.futures.Future[RunResult] | None = None

    @property
    def workflow_run_id(self) -> str | None:
        return self._run_id

    def result(self, timeout: float | None = None) -> RunResult:
        until = None if timeout is None else time.monotonic() + timeout
        waiting, path = self._waiting(), self.plan.key.path
        with Progress(f"{self.plan.key.experiment} {self.plan.key.version}", self.plan.inputs) as progress:
            while True:
                left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, until - time.monotonic())
                try:
                    result = waiting.result(max(0.0, left))
                except concurrent.futures.TimeoutError:
                    if waiting.done():
                        raise
                    if until is not None and time.monotonic() >= until:
                        raise TimeoutError(f"the run {path} is not finished after {timeout:g} seconds") from None
                except KeyboardInterrupt:
                    tell(
                        f'\nScythe: {path} goes on on the cluster; wait for it again with: scythe resume "{path}", '
                        f'stop it with: scythe cancel "{path}"'
                    )
                    raise
                else:
                    progress.update(result.inputs, result.errors)
                    return result
                progress.update(*self._progress())

    async def aio_result(self) -> RunResult:
        return await asyncio.shield(asyncio.wrap_future(self._waiting()))  # it is waited for elsewhere, too

    def cancel(self) -> None:
        self.plan.objects.write(self.plan.key.cancelled, b"{}")
        cancel(self.plan, [self.hatchet.workflow_run_id])

    def _waiting(self) -> concurrent.futures.Future[RunResult]:
        if self._awaited is None:
            self._awaited = on_loop(self._wait())
        return self._awaited

    async def _wait(self) -> RunResult:
        plan, path = self.plan, self.plan.key.path
        try:
            output = await _output_of(self.hatchet)
            if output.get("superseded"):  # the run was triggered once more than needed: another root has it
                await _output_of(connect().runs.get_run_ref(output["superseded"]))
            taken_over = "superseded" in output and not output["superseded"]
        except Exception as error:
            if await asyncio.to_thread(plan.objects.exists, plan.key.cancelled):
                raise RunCancelled(f"the run {path} was cancelled; what was finished is kept") from None
            raise RunError(f"the run {path} could not be finished: {told(error)}") from error
        result = await asyncio.to_thread(read_result, plan.objects, plan.key)
        if result is None and taken_over:
            raise RunError(f"another engine has taken over the run {path}: look at its status, and resume it")
        if result is None:
            raise RunError(
                f"the run {path} is finished, but its result is not in {plan.root}: do the workers have the same storage?"
            )
        return result

    def _progress(self) -> tuple[int, int]:
        """Inputs that have come to an end, and those of them that failed."""
        plan, objects, folder = self.plan, self.plan.objects, self.plan.key.progress
        try:
            turn = load_turn(objects, plan.key, last_turn(objects, plan.key))
            names = objects.files(folder)
            told = [json.loads(raw) for raw in objects.read_all(f"{folder}/{name}" for name in names)]
        except (OSError, BaseError):
            return 0, 0
        now = [t for name, t in zip(names, told, strict=True) if name.startswith(f"{turn.number:06d}-")]
        # A turn on what failed runs those inputs again; any other leaves the errors of the turns before.
        failed = sum(t["errors"] for t in (told if turn.show else now))
        return plan.inputs - turn.n + sum(t["rows"] + t["errors"] for t in now), failed


async def _output_of(hatchet: Any) -> dict[str, Any]:
    """What a run of one task returned.

    Raises:
        RunError: nothing: this is how the engine tells of a run that was cancelled, or that no worker took in time.
    """
    from hatchet_sdk.workflow_run import WorkflowRunRef

    output = await hatchet.aio_result()
    if isinstance(hatchet, WorkflowRunRef):  # by the name of the task
        output = next(iter(output.values()), {})
    if not output:
        raise RunError("it was cancelled, or waited too long for a worker")
    return output


class WorkflowRef:
    """A started workflow of Hatchet's own; its result is what it returns: task name -> output."""

    def __init__(self, plan: RunPlan, hatchet: Any) -> None:
        self.plan, self.hatchet = plan, hatchet

    @property
    def workflow_run_id(self) -> str | None:
        return self.hatchet.workflow_run_id

    def result(self, timeout: float | None = None) -> Any:
        try:
            return on_loop(self._wait()).result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"the run {self.plan.key.path} is not finished after {timeout:g} seconds") from None

    async def aio_result(self) -> Any:
        return await asyncio.wrap_future(on_loop(self._wait()))

    def cancel(self) -> None:
        self.plan.objects.write(self.plan.key.cancelled, b"{}")
        cancel(self.plan, [self.hatchet.workflow_run_id])

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

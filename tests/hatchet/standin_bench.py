"""An engine under test, and what a client of the SDK does with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hatchet_sdk import ClientConfig, ClientTLSConfig, FailedTaskRunExceptionGroup, Hatchet
from hatchet_sdk.clients.rest.models.v1_task_summary import V1TaskSummary
from pydantic import BaseModel

from tests.cluster import REAL

PREFIX = f"t{uuid.uuid4().hex[:6]}_"
PATIENCE = 90.0
SCHEDULER_LOOKS_AFTER_SECONDS = 6.0
SINCE = datetime.now(UTC) - timedelta(minutes=5)


class Input(BaseModel):
    """The input of every task of the worker."""

    name: str = ""
    gate: str = ""
    n: int = 0
    size: int = 0
    failures: int = 0
    label: str = ""
    cancel: bool = False


Answer = TypeVar("Answer")


def until(answer: Callable[[], Answer]) -> Answer:
    """Ask again until the answer is true; the answer."""
    limit = time.monotonic() + PATIENCE
    while not (given := answer()):
        assert time.monotonic() < limit, "the awaited did not happen"
        time.sleep(0.05)
    return given


def client(env: dict[str, str], **changes: str) -> Hatchet:
    """A client of its own; what it opens belongs to one event loop."""
    strategy: Any = env.get("HATCHET_CLIENT_TLS_STRATEGY", "tls")
    token = changes.get("token", env["HATCHET_CLIENT_TOKEN"])
    return Hatchet(config=ClientConfig(token=token, tls_config=ClientTLSConfig(strategy=strategy)))


@dataclass
class Bench:
    """An engine, the folder that the workers leave notes in, and what a client does with them."""

    env: dict[str, str]
    folder: Path
    hatchet: Hatchet = field(init=False)

    def __post_init__(self) -> None:
        self.hatchet = client(self.env)

    def trigger(self, task: str, given: Input, **options: Any) -> str:
        """Start a run of a task; its id."""
        stub = self.hatchet.stubs.task(name=PREFIX + task, input_validator=Input)
        return stub.run(given, wait_for_result=False, **options).workflow_run_id

    def results(self, *ids: str) -> list[dict[str, Any]]:
        """What a subscriber hears of these runs, all waited for at once."""

        async def wait() -> list[dict[str, Any]]:
            runs = client(self.env).runs
            waiting = asyncio.gather(*(runs.get_run_ref(known).aio_result() for known in ids))
            return await asyncio.wait_for(waiting, PATIENCE)

        return asyncio.run(wait())

    def output(self, task: str, given: Input, **options: Any) -> dict[str, Any]:
        """Start a run and wait for the output of its task."""
        return self.results(self.trigger(task, given, **options))[0][PREFIX + task]

    def error(self, run_id: str) -> str:
        with pytest.raises(FailedTaskRunExceptionGroup) as failed:
            self.results(run_id)
        return str(failed.value.exceptions[0])

    def status(self, run_id: str) -> str:
        return self.hatchet.runs.get_status(run_id).value

    def runs(self, **options: Any) -> list[V1TaskSummary]:
        return self.hatchet.runs.list(since=SINCE, **options).rows

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    def notes(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def worker_row(self, name: str) -> Any:
        rows = self.hatchet.workers.list().rows or []
        return next((row for row in rows if row.name == PREFIX + name), None)

    def worker_status(self, name: str) -> str | None:
        row = self.worker_row(name)
        return row.status.value if row is not None and row.status is not None else None

    @contextlib.contextmanager
    def paused(self, *names: str) -> Generator[None]:
        """No new tasks for these workers. A real engine goes on placing on them until it looks again."""
        ids = [self.worker_row(name).metadata.id for name in names]
        for known in ids:
            self.hatchet.workers.pause(known)
        if REAL:
            time.sleep(SCHEDULER_LOOKS_AFTER_SECONDS)
        try:
            yield
        finally:
            for known in ids:
                self.hatchet.workers.unpause(known)

    @contextlib.contextmanager
    def worker(self, role: str, name: str) -> Generator[subprocess.Popen[bytes]]:
        """A worker in a process group of its own, active; killed at the end."""
        script = Path(__file__).with_name("standin_worker.py")
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, script, role],
                env=os.environ
                | self.env
                | {"TEST_PREFIX": PREFIX, "TEST_FOLDER": str(self.folder), "TEST_WORKER": name},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

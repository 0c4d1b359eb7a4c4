"""The REST face of the engine: the calls that the SDK's `runs`, `workers`, `workflows` and `logs` clients make."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiohttp import web

from .engine import HEARTBEAT_SECONDS, Engine, UnknownWorker, payload_of
from .model import TENANT, Run, Status, TaskRun, Worker, Workflow, now
from .tokens import bearer

Json = dict[str, Any]
NO_ID = str(UUID(int=0))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@web.middleware
async def authentication(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if not bearer(request.headers.get("Authorization")):
        return web.json_response(_error("Please provide valid credentials"), status=403)
    return await handler(request)


def application(engine: Engine) -> web.Application:
    """The application to serve on the address of the token's `server_url`."""
    api = Api(engine)
    app = web.Application(middlewares=[authentication])
    tenant = "/api/v1/stable/tenants/{tenant}"
    app.router.add_get(f"{tenant}/workflow-runs", api.list_runs)
    app.router.add_get(f"{tenant}/workflow-runs/external-ids", api.list_run_ids)
    app.router.add_get("/api/v1/stable/workflow-runs/{run}", api.get_run)
    app.router.add_get("/api/v1/stable/workflow-runs/{run}/status", api.get_run_status)
    app.router.add_get("/api/v1/stable/tasks/{task}", api.get_task)
    app.router.add_get("/api/v1/stable/tasks/{task}/logs", api.list_logs)
    app.router.add_post(f"{tenant}/tasks/cancel", api.cancel)
    app.router.add_get("/api/v1/tenants/{tenant}/worker", api.list_workers)
    app.router.add_get("/api/v1/workers/{worker}", api.get_worker)
    app.router.add_patch("/api/v1/workers/{worker}", api.update_worker)
    app.router.add_get("/api/v1/tenants/{tenant}/workflows", api.list_workflows)
    app.router.add_post("/standin/faults", api.befall)
    return app


@dataclass(frozen=True)
class Filter:
    """Which runs are meant. Several metadata pairs are alternatives: one of them is enough, as in the engine."""

    since: datetime = EPOCH
    until: datetime | None = None
    statuses: frozenset[str] = frozenset()
    workflow_ids: frozenset[str] = frozenset()
    metadata: frozenset[tuple[str, str]] = frozenset()
    parent_task_id: str | None = None
    worker_id: str | None = None

    def __call__(self, run: Run) -> bool:
        pairs = {(key, value if isinstance(value, str) else json.dumps(value)) for key, value in run.metadata.items()}
        held_by = {task.worker.id for task in run.tasks.values() if task.worker is not None}
        return (
            self.since <= run.created_at <= (self.until or now())
            and (not self.statuses or run.status in self.statuses)
            and (not self.workflow_ids or run.workflow.id in self.workflow_ids)
            and (not self.metadata or not self.metadata.isdisjoint(pairs))
            and self.parent_task_id in (None, run.parent_task_id)
            and (self.worker_id is None or self.worker_id in held_by)
        )


class Api:
    """The handlers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def befall(self, request: web.Request) -> web.Response:
        """No call of the engine's: a test has something happen to it."""
        given, engine = await request.json(), self._engine
        engine.lost_answers = given.get("lost_answers", engine.lost_answers)
        engine.lost_handovers = given.get("lost_handovers", engine.lost_handovers)
        engine.refuse(given.get("refuse_seconds", 0.0))
        engine.let_pass(given.get("let_pass_seconds", 0.0))
        return web.json_response({"lost_answers": engine.lost_answers, "lost_handovers": engine.lost_handovers})

    async def list_runs(self, request: web.Request) -> web.Response:
        runs = self._select(_filter_of_query(request))
        limit, offset = int(request.query.get("limit", 50)), int(request.query.get("offset", 0))
        payloads = request.query.get("include_payloads", "false").lower() == "true"
        if request.query.get("only_tasks", "false").lower() == "true":
            rows = [
                _task_row(task, payloads) | {"workflowName": run.workflow.name}
                for run in runs
                for task in run.tasks.values()
            ]
        else:
            rows = [_run_row(run, payloads) for run in runs]
        return web.json_response(_page(rows[offset : offset + limit], len(rows), limit, offset))

    async def list_run_ids(self, request: web.Request) -> web.Response:
        found = [run.id for run in self._select(_filter_of_query(request))]
        return web.json_response(found or None)  # an empty list is null there

    async def get_run(self, request: web.Request) -> web.Response:
        run = self._engine.runs.get(request.match_info["run"])
        if run is None:
            return web.json_response(_error("run not found"), status=404)
        tasks = list(run.tasks.values())
        details: Json = {
            "run": _run_of(run),
            "tasks": [_task_row(task, payloads=True) for task in reversed(tasks)],
            # The engine lists the events of a DAG only.
            "taskEvents": [event for task in tasks if len(tasks) > 1 for event in _events_of(task)],
            "shape": [
                {
                    "taskExternalId": task.id,
                    "stepId": task.spec.id,
                    "childrenStepIds": [other.spec.id for other in tasks if task.spec.name in other.spec.parents],
                    "taskName": task.spec.name,
                }
                for task in tasks
            ],
        }
        return web.json_response(details)

    async def get_run_status(self, request: web.Request) -> web.Response:
        run = self._engine.runs.get(request.match_info["run"])
        if run is None:
            return web.json_response(_error("run not found"), status=404)
        return web.json_response(_run_of(run)["status"])

    async def get_task(self, request: web.Request) -> web.Response:
        task = self._engine.tasks.get(request.match_info["task"])
        if task is None:
            return web.json_response(_error("task not found"), status=404)
        return web.json_response(_task_row(task, payloads=True))

    async def list_logs(self, request: web.Request) -> web.Response:
        task = self._engine.tasks.get(request.match_info["task"])
        if task is None:
            return web.json_response(_error("task not found"), status=404)
        limit = int(request.query.get("limit", 1000))
        rows = [
            {
                "createdAt": line.created_at.isoformat(),
                "message": line.message,
                "metadata": json.loads(line.metadata),
                "retryCount": line.retry_count,
                "attempt": line.retry_count + 1,
                "level": line.level,
                "taskExternalId": task.id,
                "taskDisplayName": _display_name(task.spec.name, task.created_at),
            }
            for line in task.logs
        ]
        return web.json_response(_page(rows[:limit], len(rows), limit, 0))

    async def cancel(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids, wanted = body.get("externalIds") or [], body.get("filter")
        if ids and wanted:
            return web.json_response(_error("cannot provide both external ids and filter"), status=400)
        if wanted:
            ids = [run.id for run in self._select(_filter_of_body(wanted))]
        self._engine.cancel(ids)
        return web.json_response({"ids": ids})

    async def list_workers(self, request: web.Request) -> web.Response:
        day_ago = now() - timedelta(days=1)
        seen = [worker for worker in self._engine.workers.values() if (worker.heartbeat_at or EPOCH) > day_ago]
        rows = [self._worker_row(worker) for worker in reversed(seen)]
        return web.json_response(_page(rows, len(rows), max(len(rows), 1), 0))

    async def get_worker(self, request: web.Request) -> web.Response:
        try:
            worker = self._engine.worker(request.match_info["worker"])
        except UnknownWorker:
            return web.json_response(_error("worker not found"), status=404)
        return web.json_response(self._worker_row(worker))

    async def update_worker(self, request: web.Request) -> web.Response:
        paused = (await request.json()).get("isPaused")
        try:
            worker = self._engine.worker(request.match_info["worker"])
        except UnknownWorker:
            return web.json_response(_error("worker not found"), status=404)
        if paused is not None:
            self._engine.pause(worker.id, paused)
        return web.json_response(self._worker_row(worker))

    async def list_workflows(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "").lower()
        newest_first = sorted(self._engine.workflows.values(), key=lambda known: known.created_at, reverse=True)
        rows = [_workflow_row(known) for known in newest_first if name in known.name.lower()]
        limit, offset = int(request.query.get("limit", 50)), int(request.query.get("offset", 0))
        return web.json_response(_page(rows[offset : offset + limit], len(rows), limit, offset))

    def _select(self, wanted: Filter) -> list[Run]:
        """The runs that are meant, newest first."""
        return [run for run in reversed(self._engine.runs.values()) if wanted(run)]

    def _worker_row(self, worker: Worker) -> Json:
        beat = worker.heartbeat_at
        # The engine says INACTIVE one second after a heartbeat has failed to come.
        silent = worker.mailbox is None or beat is None or now() - beat > timedelta(seconds=HEARTBEAT_SECONDS + 1)
        row: Json = {
            "metadata": _meta(worker.id, worker.created_at),
            "name": worker.name,
            "type": "SELFHOSTED",
            "status": "INACTIVE" if silent else "PAUSED" if worker.paused else "ACTIVE",
            "dispatcherId": NO_ID,
            "actions": sorted(worker.actions),
            "slotConfig": {
                slot: {"limit": limit, "available": max(worker.free(slot), 0)} for slot, limit in worker.slots.items()
            },
            "labels": [
                {"metadata": _meta(NO_ID, worker.created_at), "key": key, "value": str(value)}
                for key, value in worker.labels.items()
            ],
            "runtimeInfo": {**worker.runtime, "language": "PYTHON", "runtimeExtra": ""},
        }
        return row | ({"lastHeartbeatAt": beat.isoformat()} if beat else {})


def _filter_of_query(request: web.Request) -> Filter:
    query = request.query
    return Filter(
        _time(query["since"]),
        _time(query["until"]) if "until" in query else None,
        frozenset(query.getall("statuses", [])),
        frozenset(query.getall("workflow_ids", [])),
        frozenset(_pairs(query.getall("additional_metadata", []))),
        query.get("parent_task_external_id"),
        query.get("worker_id"),
    )


def _filter_of_body(body: Json) -> Filter:
    return Filter(
        _time(body["since"]),
        _time(body["until"]) if body.get("until") else None,
        frozenset(body.get("statuses") or ("QUEUED", "RUNNING")),
        frozenset(body.get("workflowIds") or ()),
        frozenset(_pairs(body.get("additionalMetadata") or ())),
    )


def _pairs(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        key, colon, value = text.partition(":")
        if colon:
            yield key, value


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace(" ", "+"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _error(message: str) -> Json:
    return {"errors": [{"description": message}]}


def _meta(known_by: str, created_at: datetime) -> Json:
    return {"id": known_by, "createdAt": created_at.isoformat(), "updatedAt": created_at.isoformat()}


def _page(rows: Sequence[Json], total: int, limit: int, offset: int) -> Json:
    current = offset // limit + 1
    pages = -(-total // limit)
    return {"rows": rows, "pagination": {"current_page": current, "next_page": current + 1, "num_pages": pages}}


def _display_name(name: str, created_at: datetime) -> str:
    return f"{name}-{int(created_at.timestamp() * 1000)}"


def _timing(started: datetime | None, finished: datetime | None) -> Json:
    times: Json = {}
    if started is not None:
        times["startedAt"] = started.isoformat()
    if finished is not None:
        times["finishedAt"] = finished.isoformat()
    if started is not None and finished is not None:
        times["duration"] = int((finished - started).total_seconds() * 1000)
    return times


def _task_row(task: TaskRun, payloads: bool) -> Json:
    run = task.run
    row: Json = {
        "metadata": _meta(task.id, task.created_at),
        "createdAt": task.created_at.isoformat(),
        "displayName": _display_name(task.spec.name, task.created_at),
        "status": _status_of(task),
        "type": "TASK",
        "input": payload_of(task) if payloads else {},
        "output": json.loads(task.output or "{}") if payloads else {},
        "additionalMetadata": run.metadata,
        "errorMessage": task.error_shown,
        "tenantId": TENANT,
        "workflowId": run.workflow.id,
        "workflowVersionId": run.workflow.version_id,
        "workflowRunExternalId": run.id,
        "taskId": task.number,
        "taskExternalId": task.id,
        "taskInsertedAt": task.created_at.isoformat(),
        "stepId": task.spec.id,
        "actionId": task.spec.action,
        "retryCount": task.retry_count,
        "attempt": task.retry_count + 1,
        "numSpawnedChildren": 0,
        "isDurable": task.spec.durable,
        "isEvicted": task.evicted,
    }
    return row | _parent(run) | _timing(task.started_at, task.finished_at)


def _run_row(run: Run, payloads: bool) -> Json:
    """A row of the list of runs; the engine calls each of them a DAG and knows no action for them."""
    tasks = list(run.tasks.values())
    row: Json = (
        _task_row(tasks[0], payloads)
        | _run_of(run)
        | {
            "type": "DAG",
            "actionId": "",
            "taskExternalId": run.id,
            "workflowName": run.workflow.name,
        }
    )
    if not payloads:
        row |= {"input": {}, "output": {}}
    if len(tasks) > 1:
        row["children"] = [_task_row(task, payloads) for task in tasks]
    del row["isDurable"]
    return row


def _run_of(run: Run) -> Json:
    tasks = list(run.tasks.values())
    started = min((task.started_at for task in tasks if task.started_at), default=None)
    finished = max((task.finished_at for task in tasks if task.finished_at), default=None)
    record: Json = {
        "metadata": _meta(run.id, run.created_at),
        "status": _status_of(tasks[0]) if len(tasks) == 1 else run.status.value,
        "tenantId": TENANT,
        "additionalMetadata": run.metadata,
        "displayName": _display_name(run.workflow.name, run.created_at),
        "workflowId": run.workflow.id,
        "workflowVersionId": run.workflow.version_id,
        "input": payload_of(tasks[0]),
        "output": json.loads(tasks[-1].output or "{}"),
        "errorMessage": next((task.error_shown for task in tasks if task.status is Status.FAILED), ""),
        "createdAt": run.created_at.isoformat(),
    }
    return record | _parent(run) | _timing(started, finished if run.status.final else None)


def _status_of(task: TaskRun) -> str:
    """The lists call a task FAILED that waited too long for a worker; to a subscriber it was CANCELLED."""
    return Status.FAILED.value if task.waited_too_long else task.status.value


def _parent(run: Run) -> Json:
    return {"parentTaskExternalId": run.parent_task_id} if run.parent_task_id else {}


def _events_of(task: TaskRun) -> Iterator[Json]:
    for number, event in enumerate(task.events):
        yield {
            "id": number,
            "taskId": task.id,
            "timestamp": event.at.isoformat(),
            "eventType": event.kind,
            "message": event.message,
            "errorMessage": event.error,
            "retryCount": event.retry_count,
            "attempt": event.retry_count + 1,
            "taskDisplayName": _display_name(task.spec.name, task.created_at),
        } | ({"workerId": event.worker_id} if event.worker_id else {})


def _workflow_row(workflow: Workflow) -> Json:
    return {
        "metadata": _meta(workflow.id, workflow.created_at),
        "name": workflow.name,
        "description": "",
        "isPaused": False,
        "tenantId": "",
    }

"""The gRPC face of the engine: protocol messages in and out, no rules of its own but the message limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from hatchet_sdk.contracts import dispatcher_pb2 as dispatch
from hatchet_sdk.contracts import dispatcher_pb2_grpc as dispatch_grpc
from hatchet_sdk.contracts import events_pb2 as events
from hatchet_sdk.contracts import events_pb2_grpc as events_grpc
from hatchet_sdk.contracts import workflows_pb2 as workflows_v0
from hatchet_sdk.contracts import workflows_pb2_grpc as workflows_v0_grpc
from hatchet_sdk.contracts.v1 import workflows_pb2 as workflows
from hatchet_sdk.contracts.v1 import workflows_pb2_grpc as workflows_grpc
from hatchet_sdk.contracts.v1.shared import trigger_pb2

from .engine import BulkCut, Engine, UnknownTask, UnknownWorker, UnknownWorkflow
from .model import (
    MESSAGE_LIMIT,
    TENANT,
    Cancel,
    DesiredLabel,
    LogLine,
    Run,
    Start,
    Status,
    TaskSpec,
    Trigger,
    Worker,
    Workflow,
    now,
    seconds_of,
)
from .tokens import bearer

Context = grpc.aio.ServicerContext[Any, Any]


class Authentication(grpc.aio.ServerInterceptor):
    """Refuses calls without a valid token, and all calls while the engine refuses, in the words of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        header = dict(handler_call_details.invocation_metadata or ()).get("authorization")
        # A worker that is refused opens its stream anew, and is lost here at once: the engine waits for 30 s.
        refuses = self._engine.refuses and not handler_call_details.method.endswith("/Heartbeat")
        if handler is None or (bearer(str(header)) and not refuses):
            return handler

        async def refuse(_: object, context: Context) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid auth token")

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                refuse, handler.request_deserializer, handler.response_serializer
            )
        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(refuse, handler.request_deserializer, handler.response_serializer)


class StatusOfErrors(grpc.aio.ServerInterceptor):
    """Answers the engine's own exceptions with the status that the real engine gives."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler

        async def answer(request: Message, context: Context) -> Any:
            try:
                return await handler.unary_unary(request, context)
            except (UnknownWorkflow, UnknownTask, ValueError) as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except BulkCut as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except UnknownWorker as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"worker not found: {error}")

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


class Dispatcher(dispatch_grpc.DispatcherServicer):  # pyright: ignore[reportAttributeAccessIssue, reportUntypedBaseClass]
    """Workers: their registration, their streams, their reports; and the streams of run results."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self._version = version

    async def GetVersion(self, request: Message, context: Context) -> Message:
        return dispatch.GetVersionResponse(version=self._version)

    async def Register(self, request: Any, context: Context) -> Message:
        # The engine gives each worker 100 default slots unless it asks for another number.
        slots = {"default": request.slots if request.HasField("slots") else 100, **request.slot_config}
        info = request.runtime_info
        worker = Worker(
            request.worker_name,
            frozenset(request.actions),
            slots,
            _labels_of(request.labels),
            {"sdkVersion": info.sdk_version, "languageVersion": info.language_version, "os": info.os},
        )
        self._engine.register(worker)
        return dispatch.WorkerRegisterResponse(tenant_id=TENANT, worker_id=worker.id, worker_name=worker.name)

    async def UpsertWorkerLabels(self, request: Any, context: Context) -> Message:
        self._engine.worker(request.worker_id).labels.update(_labels_of(request.labels))
        self._engine.place()
        return dispatch.UpsertWorkerLabelsResponse(tenant_id=TENANT, worker_id=request.worker_id)

    async def ListenV2(self, request: Any, context: Context) -> AsyncIterator[Message]:
        mailbox: asyncio.Queue[Start | Cancel] = asyncio.Queue()
        self._engine.listen(request.worker_id, mailbox)
        try:
            while True:
                action = _action_of(await mailbox.get())
                # The engine sends a larger one and the SDK cannot receive it: the task hangs until its time limit.
                if action.ByteSize() <= MESSAGE_LIMIT:
                    yield action
        finally:
            self._engine.hang_up(request.worker_id, mailbox)

    Listen = ListenV2

    async def Heartbeat(self, request: Any, context: Context) -> Message:
        if not self._engine.heartbeat(request.worker_id):
            reason = f"Heartbeat rejected: worker stream is not active: {request.worker_id}"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason)
        return dispatch.HeartbeatResponse()

    async def Unsubscribe(self, request: Any, context: Context) -> Message:
        self._engine.lose(self._engine.worker(request.worker_id))
        return dispatch.WorkerUnsubscribeResponse(tenant_id=TENANT, worker_id=request.worker_id)

    async def SendStepActionEvent(self, request: Any, context: Context) -> Message:
        task_id = request.task_run_external_id
        retry_count = request.retry_count if request.HasField("retry_count") else self._engine.task(task_id).retry_count
        if request.event_type == dispatch.STEP_EVENT_TYPE_STARTED:
            self._engine.started(task_id, retry_count)
        elif request.event_type == dispatch.STEP_EVENT_TYPE_COMPLETED:
            self._engine.completed(task_id, retry_count, request.event_payload)
        elif request.event_type == dispatch.STEP_EVENT_TYPE_FAILED:
            self._engine.failed(task_id, retry_count, request.event_payload, final=request.should_not_retry)
        elif request.event_type == dispatch.STEP_EVENT_TYPE_CANCELLED:
            self._engine.cancel([task_id])
        return dispatch.ActionEventResponse(tenant_id=TENANT, worker_id=request.worker_id)

    async def ReleaseSlot(self, request: Any, context: Context) -> Message:
        self._engine.release_slot(request.task_run_external_id)
        return dispatch.ReleaseSlotResponse()

    async def RefreshTimeout(self, request: Any, context: Context) -> Message:
        if not self._engine.extend(request.task_run_external_id, seconds_of(request.increment_timeout_by)):
            reason = f"task run not found: {request.task_run_external_id}"
            await context.abort(grpc.StatusCode.NOT_FOUND, reason)
        return dispatch.RefreshTimeoutResponse()

    async def RestoreEvictedTask(self, request: Any, context: Context) -> Message:
        requeued = self._engine.restore(self._engine.task(request.task_run_external_id))
        return dispatch.RestoreEvictedTaskResponse(requeued=requeued)

    async def SubscribeToWorkflowRuns(
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Message]:
        ended: asyncio.Queue[Run | None] = asyncio.Queue()

        async def subscribe() -> None:
            async for request in request_iterator:
                self._engine.watch(request.workflow_run_id, ended.put_nowait)
            ended.put_nowait(None)

        reading = asyncio.create_task(subscribe())
        try:
            while (run := await ended.get()) is not None:
                yield _end_of(run)
        finally:
            reading.cancel()


class Admin(workflows_grpc.AdminServiceServicer):
    """Registration of workflows, and the details of a run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def PutWorkflow(self, request: Any, context: Context) -> Message:
        tasks = tuple(_task_spec_of(task) for task in request.tasks)
        old = self._engine.workflows.get(request.name)
        workflow = Workflow(request.name, tasks, request.default_priority or 1)
        if old is not None:
            workflow = Workflow(request.name, tasks, workflow.priority, old.id, created_at=old.created_at)
        self._engine.workflows[workflow.name] = workflow
        return workflows.CreateWorkflowVersionResponse(id=workflow.version_id, workflow_id=workflow.id)

    async def GetRunDetails(self, request: Any, context: Context) -> Message:
        run = self._engine.runs.get(request.external_id)
        if run is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "workflow run not found")
        tasks = {
            name: workflows.TaskRunDetail(
                external_id=task.id,
                readable_id=name,
                status=task.status.value,
                error=task.error or None,
                output=task.output.encode() if task.output else None,
                is_evicted=task.evicted,
            )
            for name, task in run.tasks.items()
        }
        return workflows.GetRunDetailsResponse(
            input=run.input.encode(),
            status=run.status.value,
            task_runs=tasks,
            done=run.status.final,
            additional_metadata=json.dumps(run.metadata).encode(),
            is_evicted=any(task.evicted for task in run.tasks.values()),
        )


class Triggers(workflows_v0_grpc.WorkflowServiceServicer):
    """Starting runs, one or many."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def TriggerWorkflow(self, request: Any, context: Context) -> Message:
        (run_id,) = self._engine.trigger([trigger_of(request)])
        return workflows_v0.TriggerWorkflowResponse(workflow_run_id=run_id)

    async def BulkTriggerWorkflow(self, request: Any, context: Context) -> Message:
        ids = self._engine.trigger([trigger_of(trigger) for trigger in request.workflows])
        return workflows_v0.BulkTriggerWorkflowResponse(workflow_run_ids=ids)


class Events(events_grpc.EventsServiceServicer):
    """Log lines. Events that trigger workflows are not kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def PutLog(self, request: Any, context: Context) -> Message:
        task = self._engine.task(request.task_run_external_id)
        retry_count = request.task_retry_count if request.HasField("task_retry_count") else task.retry_count
        level = request.level if request.HasField("level") else "INFO"
        task.logs.append(LogLine(request.message, level, request.metadata or "{}", retry_count, now()))
        return events.PutLogResponse()

    async def PutStreamEvent(self, request: Any, context: Context) -> Message:
        return events.PutStreamEventResponse()


def trigger_of(request: trigger_pb2.TriggerWorkflowRequest) -> Trigger:
    """A trigger as the engine knows it; ValueError for what the real engine refuses."""
    if request.HasField("priority") and not 1 <= request.priority <= 3:
        raise ValueError(f"Invalid request: priority must be between 1 and 3, got {request.priority}")
    return Trigger(
        request.name,
        request.input or "{}",
        json.loads(request.additional_metadata or "{}"),
        request.parent_task_run_external_id or None,
        request.child_index if request.HasField("child_index") else None,
        request.child_key if request.HasField("child_key") else None,
        request.priority if request.HasField("priority") else None,
        _desired_labels_of(request.desired_worker_labels),
    )


def _labels_of(labels: Any) -> dict[str, str | int]:
    return {key: label.int_value if label.HasField("int_value") else label.str_value for key, label in labels.items()}


def _desired_labels_of(labels: Any) -> tuple[DesiredLabel, ...]:
    return tuple(
        DesiredLabel(
            key,
            label.int_value if label.HasField("int_value") else label.str_value,
            trigger_pb2.WorkerLabelComparator.Name(label.comparator),
            label.required,
            label.weight if label.HasField("weight") else 100,
        )
        for key, label in sorted(labels.items())
    )


def _task_spec_of(task: Any) -> TaskSpec:
    return TaskSpec(
        task.readable_id,
        task.action,
        task.timeout or "60s",
        task.schedule_timeout or "5m",
        task.retries,
        task.backoff_factor if task.HasField("backoff_factor") else None,
        task.backoff_max_seconds if task.HasField("backoff_max_seconds") else None,
        _desired_labels_of(task.worker_labels),
        tuple(sorted(task.slot_requests.items())) or (("durable" if task.is_durable else "default", 1),),
        task.is_durable,
        tuple(task.parents),
    )


def _action_of(message: Start | Cancel) -> Message:
    task, run = message.task, message.task.run
    starts = isinstance(message, Start)
    return dispatch.AssignedAction(
        tenant_id=TENANT,
        workflow_run_id=run.id,
        job_id=task.spec.id,
        job_name=task.spec.name,
        job_run_id=task.id,
        task_id=task.spec.id,
        task_run_external_id=task.id,
        action_id=task.spec.action,
        action_type=dispatch.START_STEP_RUN if starts else dispatch.CANCEL_STEP_RUN,
        action_payload=json.dumps(message.payload, ensure_ascii=False) if isinstance(message, Start) else "",
        task_name=task.spec.name,
        retry_count=message.retry_count,
        additional_metadata=json.dumps(run.metadata),
        child_workflow_index=run.child_index,
        child_workflow_key=run.child_key,
        parent_workflow_run_id=run.parent_task_id,
        priority=run.priority,
        workflow_id=run.workflow.id,
        workflow_version_id=run.workflow.version_id,
        durable_task_invocation_count=message.invocation,
    )


def _end_of(run: Run) -> Message:
    """The end of a run for its subscribers: an empty error for a cancelled task, no results when they are large.

    The engine measures outputs and errors, not the message (`cleanResults`).
    """
    results = [
        dispatch.StepRunResult(
            task_run_external_id=task.id,
            task_name=name,
            job_run_id=task.id,
            output=task.output or "" if task.status is Status.COMPLETED else None,
            error=None if task.status is Status.COMPLETED else task.error,
        )
        for name, task in run.tasks.items()
    ]
    size = sum(len(result.output.encode()) + len(result.error.encode()) for result in results)
    return dispatch.WorkflowRunEvent(workflow_run_id=run.id, results=results if size < MESSAGE_LIMIT else [])

"""The stream of durable tasks (`V1Dispatcher.DurableTask`): protocol messages in and out, no rules of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message
from hatchet_sdk.contracts.v1 import dispatcher_pb2 as durable
from hatchet_sdk.contracts.v1 import dispatcher_pb2_grpc as durable_grpc

from .durable import Sleep
from .durable_log import BRANCH, Completed, DurableSession, Entry, NonDeterminism, StaleInvocation
from .engine import Engine, UnknownTask
from .grpc_services import Context, trigger_of
from .model import MESSAGE_LIMIT, seconds_of

LOG = logging.getLogger(__name__)
Outgoing = durable.DurableTaskResponse | Completed


class DurableDispatcher(durable_grpc.V1DispatcherServicer):
    """One stream for each worker with durable tasks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def DurableTask(self, request_iterator: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        outgoing: asyncio.Queue[Outgoing | None] = asyncio.Queue()
        session = DurableSession(outgoing)

        async def read() -> None:
            async for request in request_iterator:
                self._answer(request, session)
            outgoing.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (item := await outgoing.get()) is not None:
                message = _completed(item) if isinstance(item, Completed) else item
                if message.ByteSize() <= MESSAGE_LIMIT:
                    yield message
        finally:
            reading.cancel()
            self._engine.durable.close(session)

    def _answer(self, request: Any, session: DurableSession) -> None:
        kind = request.WhichOneof("message")
        body = getattr(request, kind)
        answer = getattr(self, f"_{kind}")
        try:
            answer(body, session)
        except (UnknownTask, ValueError) as refused:
            LOG.warning("durable request refused, without an answer as in the engine: %s", refused)
        except StaleInvocation as stale:
            session.mailbox.put_nowait(_server_evict(body, f"server has {stale.current}"))
        except NonDeterminism as error:
            ref = _ref(body.durable_task_external_id, body.invocation_count, error.node)
            wrong = durable.DurableTaskErrorResponse(
                ref=ref,
                error_type=durable.DURABLE_TASK_ERROR_TYPE_NONDETERMINISM,
                error_message=f"non-determinism error in task {ref.durable_task_external_id}: {error}",
            )
            session.mailbox.put_nowait(durable.DurableTaskResponse(error=wrong))

    def _register_worker(self, body: Any, session: DurableSession) -> None:
        registered = durable.DurableTaskResponseRegisterWorker(worker_id=body.worker_id)
        session.mailbox.put_nowait(durable.DurableTaskResponse(register_worker=registered))

    def _trigger_runs(self, body: Any, session: DurableSession) -> None:
        task_id, tasks = body.durable_task_external_id, self._engine.durable
        tasks.speak_for(task_id, session)
        spawned = tasks.spawn(task_id, body.invocation_count, [trigger_of(opts) for opts in body.trigger_opts])
        ack = durable.DurableTaskEventTriggerRunsAckResponse(
            durable_task_external_id=task_id,
            invocation_count=body.invocation_count,
            run_entries=[
                durable.DurableTaskRunAckEntry(node_id=entry.node, branch_id=BRANCH, workflow_run_external_id=run_id)
                for entry, run_id in spawned
            ],
        )
        session.mailbox.put_nowait(durable.DurableTaskResponse(trigger_runs_ack=ack))
        tasks.deliver_satisfied(task_id, [entry for entry, _ in spawned])
        self._engine.place()

    def _memo(self, body: Any, session: DurableSession) -> None:
        task_id, tasks = body.durable_task_external_id, self._engine.durable
        tasks.speak_for(task_id, session)
        entry, existed = tasks.memo(task_id, body.invocation_count, body.key, body.payload)
        ack = durable.DurableTaskEventMemoAckResponse(
            ref=_ref(task_id, body.invocation_count, entry.node),
            memo_already_existed=existed,
            memo_result_payload=entry.payload or None,
        )
        session.mailbox.put_nowait(durable.DurableTaskResponse(memo_ack=ack))
        tasks.deliver_satisfied(task_id, [entry])

    def _complete_memo(self, body: Any, session: DurableSession) -> None:
        self._engine.durable.complete_memo(body.ref.durable_task_external_id, body.ref.node_id, body.payload)

    def _wait_for(self, body: Any, session: DurableSession) -> None:
        task_id, tasks = body.durable_task_external_id, self._engine.durable
        tasks.speak_for(task_id, session)
        conditions = body.wait_for_conditions
        sleeps = [
            Sleep(c.base.or_group_id, c.base.readable_data_key, c.sleep_for, seconds_of(c.sleep_for))
            for c in conditions.sleep_conditions
        ]
        groups = {s.group for s in sleeps} | {c.base.or_group_id for c in conditions.user_event_conditions}
        entry = tasks.wait_for(task_id, body.invocation_count, sleeps, groups)
        ack = durable.DurableTaskEventWaitForAckResponse(ref=_ref(task_id, body.invocation_count, entry.node))
        session.mailbox.put_nowait(durable.DurableTaskResponse(wait_for_ack=ack))
        tasks.deliver_satisfied(task_id, [entry])

    def _evict_invocation(self, body: Any, session: DurableSession) -> None:
        self._engine.durable.evict(body.durable_task_external_id)
        ack = durable.DurableTaskEvictionAckResponse(
            invocation_count=body.invocation_count, durable_task_external_id=body.durable_task_external_id
        )
        session.mailbox.put_nowait(durable.DurableTaskResponse(eviction_ack=ack))

    def _worker_status(self, body: Any, session: DurableSession) -> None:
        waiting = [(w.durable_task_external_id, w.invocation_count, w.node_id) for w in body.waiting_entries]
        stale = self._engine.durable.report_waiting(session, waiting)
        for entry in body.waiting_entries:
            current = stale.pop(entry.durable_task_external_id, None)
            if current is not None:
                session.mailbox.put_nowait(_server_evict(entry, f"stale invocation: server has {current}"))


def _ref(task_id: str, invocation: int, node: int) -> durable.DurableEventLogEntryRef:
    return durable.DurableEventLogEntryRef(
        durable_task_external_id=task_id, invocation_count=invocation, branch_id=BRANCH, node_id=node
    )


def _completed(done: Completed) -> durable.DurableTaskResponse:
    entry: Entry = done.entry
    response = durable.DurableTaskEventLogEntryCompletedResponse(
        ref=_ref(done.task_id, done.invocation, entry.node),
        payload=entry.payload if entry.error is None else b"",
        is_failure=entry.error is not None,
        error_message=entry.error,
    )
    return durable.DurableTaskResponse(entry_completed=response)


def _server_evict(body: Any, reason: str) -> durable.DurableTaskResponse:
    notice = durable.DurableTaskServerEvictNotice(
        durable_task_external_id=body.durable_task_external_id,
        invocation_count=body.invocation_count,
        reason=reason,
    )
    return durable.DurableTaskResponse(server_evict=notice)

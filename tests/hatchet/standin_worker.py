"""The worker of the stand-in's tests: `python standin_worker.py leaf|fan|both`; plain tasks of the SDK, no Scythe."""

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from hatchet_sdk import Context, DesiredWorkerLabel, DurableContext, EvictionPolicy, Hatchet
from pydantic import BaseModel

PREFIX, FOLDER = os.environ["TEST_PREFIX"], Path(os.environ["TEST_FOLDER"])
hatchet = Hatchet()
long = {"execution_timeout": timedelta(minutes=5), "schedule_timeout": timedelta(minutes=5)}


class Input(BaseModel):
    name: str = ""
    gate: str = ""
    n: int = 0
    size: int = 0
    failures: int = 0
    label: str = ""
    cancel: bool = False


def note(name, **values):
    with (FOLDER / name).open("a") as notes:
        notes.write(json.dumps(values) + "\n")


async def pass_gate(gate):
    while gate and not (FOLDER / gate).exists():
        await asyncio.sleep(0.02)


@hatchet.task(name=PREFIX + "leaf", input_validator=Input, **long)
async def leaf(given: Input, ctx: Context) -> dict:
    note(f"{given.name}.started", retry=ctx.retry_count, worker=os.environ["TEST_WORKER"])
    ctx.log(f"hello from {given.name}")
    if given.label:
        await ctx.aio_upsert_worker_labels({"colour": given.label})
    if given.cancel:
        await ctx.aio_cancel()
    try:
        await pass_gate(given.gate or ("never" if given.cancel else ""))
    except asyncio.CancelledError:
        note(f"{given.name}.cancelled", retry=ctx.retry_count)
        raise
    return {"double": 2 * given.n, "text": "x" * given.size, "retry": ctx.retry_count, "key": ctx.child_key}


@hatchet.task(name=PREFIX + "flaky", input_validator=Input, retries=1, backoff_factor=1.0, **long)
async def flaky(given: Input, ctx: Context) -> dict:
    note(f"{given.name}.started", at=asyncio.get_running_loop().time())
    if ctx.retry_count < given.failures:
        raise ValueError(f"failure {ctx.attempt_number} of {given.name}")
    return {"attempts": ctx.attempt_number}


@hatchet.task(name=PREFIX + "brief", input_validator=Input, execution_timeout=timedelta(seconds=2))
async def brief(given: Input, ctx: Context) -> dict:
    try:
        await pass_gate(given.gate)
    except asyncio.CancelledError:
        note(f"{given.name}.cancelled")
        raise
    return {"text": "x" * given.size}


@hatchet.task(
    name=PREFIX + "coloured",
    input_validator=Input,
    desired_worker_labels=[DesiredWorkerLabel(key="colour", value="red", required=True)],
    schedule_timeout=timedelta(minutes=1),
)
async def coloured(given: Input, ctx: Context) -> dict:
    return {"worker": os.environ["TEST_WORKER"]}


@hatchet.task(
    name=PREFIX + "homeless",
    input_validator=Input,
    desired_worker_labels=[DesiredWorkerLabel(key="colour", value="none", required=True)],
    schedule_timeout=timedelta(seconds=1),
)
async def homeless(given: Input, ctx: Context) -> dict:
    return {}


@hatchet.task(name=PREFIX + "parent", input_validator=Input, retries=1, **long)
async def parent(given: Input, ctx: Context) -> dict:
    item = leaf.create_bulk_run_item(Input(name=f"{given.name}-child", n=given.n), child_key="only")
    (ref,) = await leaf.aio_run_many([item], wait_for_result=False)
    note(f"{given.name}.children", ids=[ref.workflow_run_id])
    if ctx.retry_count < given.failures:
        raise ValueError("after the spawn")
    return await ref.aio_result()


chain = hatchet.workflow(name=PREFIX + "chain", input_validator=Input)


@chain.task(**long)
async def first(given: Input, ctx: Context) -> dict:
    if given.failures:
        raise ValueError("first of the chain")
    return {"n": given.n, "text": "x" * given.size}


@chain.task(parents=[first], **long)
async def second(given: Input, ctx: Context) -> dict:
    return {"n": ctx.task_output(first)["n"] + 1, "text": ctx.task_output(first)["text"]}


async def gather(given, ctx, note_as):
    items = [
        leaf.create_bulk_run_item(Input(name=f"{given.name}-{k}", n=k, gate=given.gate), child_key=f"key-{k}")
        for k in range(given.n)
    ]
    refs = await leaf.aio_run_many(items, wait_for_result=False)
    note(note_as, ids=[ref.workflow_run_id for ref in refs], worker=os.environ["TEST_WORKER"])
    return await asyncio.gather(*(ref.aio_result() for ref in refs))


@hatchet.durable_task(name=PREFIX + "fan", input_validator=Input, retries=1, **long)
async def fan(given: Input, ctx: DurableContext) -> dict:
    results = await gather(given, ctx, f"{given.name}.children")
    if ctx.retry_count < given.failures:
        raise ValueError("after the gather")
    return {
        "doubles": [r["double"] for r in results],
        "keys": [r["key"] for r in results],
        "retries": [r["retry"] for r in results],
        "retry": ctx.retry_count,
        "invocation": ctx.invocation_count,
    }


@hatchet.durable_task(
    name=PREFIX + "patient",
    input_validator=Input,
    eviction_policy=EvictionPolicy(ttl=timedelta(milliseconds=500)),
    **long,
)
async def patient(given: Input, ctx: DurableContext) -> dict:
    note(f"{given.name}.times", now=str(await ctx.aio_now()))
    child = await leaf.aio_run(Input(name=f"{given.name}-child", n=21, gate=given.gate), child_key="only")
    await ctx.aio_sleep_for(timedelta(milliseconds=100))
    return {"double": child["double"], "invocation": ctx.invocation_count, "retry": ctx.retry_count}


@hatchet.durable_task(name=PREFIX + "anxious", input_validator=Input, **long)
async def anxious(given: Input, ctx: DurableContext) -> dict:
    try:
        await leaf.aio_run(Input(name=given.name, gate=given.gate), child_key="only")
    except Exception as error:
        return {"error": str(error)}
    return {}


ROLES = {
    "leaf": {
        "slots": 4,
        "labels": {"zone": "a", "size": 3},
        "workflows": [leaf, flaky, brief, coloured, homeless, parent, chain],
    },
    "fan": {"durable_slots": 2, "workflows": [fan, patient, anxious]},
    "both": {"slots": 2, "durable_slots": 1, "workflows": [leaf, fan]},
}

if __name__ == "__main__":
    hatchet.worker(PREFIX + os.environ["TEST_WORKER"], **ROLES[sys.argv[1]]).start()

"""The process of a stand-in: opens both ports, prints how to reach them, and ends with its parent."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import grpc.aio
from aiohttp import web
from hatchet_sdk.contracts import dispatcher_pb2_grpc, events_pb2_grpc, workflows_pb2_grpc
from hatchet_sdk.contracts.v1 import dispatcher_pb2_grpc as durable_pb2_grpc
from hatchet_sdk.contracts.v1 import workflows_pb2_grpc as admin_pb2_grpc

from .engine import MAX_INTERNAL_RETRIES, Engine
from .grpc_durable import DurableDispatcher
from .grpc_services import Admin, Authentication, Dispatcher, Events, StatusOfErrors, Triggers
from .model import MESSAGE_LIMIT
from .rest_api import application
from .tokens import mint

HOST = "127.0.0.1"
DEFAULT_VERSION = "v0.112.0"
DEFAULT_WORKER_LOSS_SECONDS = 8.0


async def serve(options: argparse.Namespace) -> None:
    """Serve until stdin is closed."""
    loop = asyncio.get_running_loop()
    worker_loss_seconds: float = options.worker_loss_seconds
    engine = Engine(
        loop.call_later,
        worker_loss_seconds,
        verify_names=options.verify_names,
        cut_bulks=options.cut_bulks,
        moves=options.moves,
    )

    server = grpc.aio.server(
        interceptors=(Authentication(engine), StatusOfErrors()),
        options=[
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_time_ms", int(worker_loss_seconds * 1000 / 3)),
            ("grpc.keepalive_timeout_ms", int(worker_loss_seconds * 1000 * 2 / 3)),
        ],
    )
    # The SDK's type stub forgets this one.
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(Dispatcher(engine, options.version), server)  # pyright: ignore[reportAttributeAccessIssue]
    durable_pb2_grpc.add_V1DispatcherServicer_to_server(DurableDispatcher(engine), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(engine), server)
    workflows_pb2_grpc.add_WorkflowServiceServicer_to_server(Triggers(engine), server)
    events_pb2_grpc.add_EventsServiceServicer_to_server(Events(engine), server)
    grpc_port = server.add_insecure_port(f"{HOST}:0")
    await server.start()

    runner = web.AppRunner(application(engine), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    rest_port = runner.addresses[0][1]

    environment = {
        "HATCHET_CLIENT_TOKEN": mint(f"http://{HOST}:{rest_port}", f"{HOST}:{grpc_port}"),
        "HATCHET_CLIENT_TLS_STRATEGY": "none",
    }
    sys.stdout.write(json.dumps(environment) + "\n")
    sys.stdout.flush()

    await loop.run_in_executor(None, sys.stdin.read)
    await server.stop(grace=0)
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default=DEFAULT_VERSION, help="the engine version to claim")
    parser.add_argument(
        "--worker-loss-seconds",
        type=float,
        default=DEFAULT_WORKER_LOSS_SECONDS,
        help="how long a worker may be silent while its stream is open",
    )
    parser.add_argument(
        "--verify-names",
        action="store_true",
        help="refuse a trigger of an unknown workflow, as an engine under load or in several processes does",
    )
    parser.add_argument(
        "--cut-bulks",
        type=int,
        default=0,
        help="so many bulks of children end between the keys and the runs, as where the parent is killed meanwhile",
    )
    parser.add_argument(
        "--moves",
        type=int,
        default=MAX_INTERNAL_RETRIES,
        help="how often a task is given to another worker, where the one that had it was lost",
    )
    asyncio.run(serve(parser.parse_args()))

"""A server of a test's own, in a thread of its own: each connection is a task, and all end with the block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.contextmanager
def listening(accept: Accept, loop: asyncio.AbstractEventLoop | None = None) -> Generator[int]:
    """Serves connections on a port of this machine, which it gives."""
    loop = loop or asyncio.new_event_loop()
    started, ports = threading.Event(), list[int]()
    tasks: set[asyncio.Task[None]] = set()

    async def serve() -> None:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(accept(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        listener = await asyncio.start_server(accepted, "127.0.0.1", 0)
        ports.append(listener.sockets[0].getsockname()[1])
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    main = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_until_complete, args=(main,), daemon=True)
    thread.start()
    started.wait()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(main.cancel)
        thread.join()
        loop.close()

"""A network between clients and a server that can be cut, or stand still, whatever protocol goes over it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field


@dataclass
class TcpProxy:
    """Where the proxy is, and what it does from now on; each of its verbs may be called from any thread."""

    loop: asyncio.AbstractEventLoop
    port: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _cut: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """All connections break, and new ones are closed at once."""
        self._cut = True
        self.loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in list(self._writers)])

    def stall(self) -> None:
        """Connections stay, and nothing goes over them."""
        self.loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        """Everything goes through again."""
        self._cut = False
        self.loop.call_soon_threadsafe(self._open.set)

    async def _accept(self, server: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", server)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(64 * 1024):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.contextmanager
def tcp_proxy(server: int) -> Generator[TcpProxy]:
    """A proxy in front of a port of this machine, in a thread of its own."""
    loop = asyncio.new_event_loop()
    proxy = TcpProxy(loop)
    proxy._open.set()
    started = threading.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def serve() -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(proxy._accept(server, reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        listener = await asyncio.start_server(accept, "127.0.0.1", 0)
        proxy.port = listener.sockets[0].getsockname()[1]
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
        yield proxy
    finally:
        loop.call_soon_threadsafe(main.cancel)
        thread.join()
        loop.close()

"""A network between clients and a server that can be cut, or stand still, whatever protocol goes over it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from dataclasses import dataclass, field

from tests.listener import listening


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
    with listening(lambda reader, writer: proxy._accept(server, reader, writer), loop) as proxy.port:
        yield proxy

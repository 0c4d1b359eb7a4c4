"""A network that fails, between a client and an HTTP server: by chance (seeded), or as a test's rule says."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from tests.listener import listening

#: A request's method and target -> what befalls it; None is nothing.
Rule = Callable[[str, str], str | None]

FAULTS = ("500", "503", "cut before", "lost answer", "cut body", "trickle", "delay")


@dataclass
class FaultProxy:
    """Where the proxy is, what it does to requests from now on, and what it has seen."""

    rule: Rule
    port: int = 0
    seen: list[tuple[str, str, dict[str, str], str | None]] = field(
        default_factory=list[tuple[str, str, dict[str, str], str | None]]
    )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def suffered(self) -> set[str]:
        """The faults that there have been."""
        return {fault for *_, fault in self.seen if fault is not None}

    def heal(self) -> None:
        """From now on the network works."""
        self.rule = lambda method, target: None


def by_chance(seed: int, share: float) -> Rule:
    """A fault for this share of requests, each sort as likely as any other."""
    chance = random.Random(seed)
    return lambda method, target: chance.choice(FAULTS) if chance.random() < share else None


def outages(seed: int, healthy: int, dead: int) -> Rule:
    """All is well for about this many requests, then about that many lose their way there or back; and so on."""
    chance = random.Random(seed)

    def weather() -> Iterator[str | None]:
        while True:
            yield from [None] * chance.randint(1, 2 * healthy)
            yield from [chance.choice(("cut before", "lost answer")) for _ in range(chance.randint(1, 2 * dead))]

    coming = weather()
    return lambda method, target: next(coming)


def once(fault: str, method: str, ending: str) -> Rule:
    """One fault, for the first request of this method whose target has this in it."""
    left = [fault]
    return lambda m, target: left.pop() if left and m == method and ending in target else None


@contextlib.contextmanager
def fault_proxy(server: int, rule: Rule) -> Generator[FaultProxy]:
    """A proxy in front of a port of this machine, in a thread of its own."""
    proxy = FaultProxy(rule)
    with listening(lambda reader, writer: _converse(proxy, server, reader, writer)) as proxy.port:
        yield proxy


async def _converse(proxy: FaultProxy, server: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves one connection, request after request, until one is cut."""
    try:
        while await _exchange(proxy, server, reader, writer):
            pass
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.transport.abort()


async def _exchange(proxy: FaultProxy, server: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, headers = _parsed(head)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    fault = proxy.rule(method, target)
    proxy.seen.append((method, target, headers, fault))
    if fault == "cut before":
        return False
    if fault in ("500", "503"):
        writer.write(f"HTTP/1.1 {fault} Out of order\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        return True
    if fault == "delay":
        await asyncio.sleep(0.2)
    answer = await _forward(server, head, body)
    if fault == "lost answer":
        return False
    if fault == "cut body":
        writer.write(answer[: (answer.index(b"\r\n\r\n") + len(answer)) // 2])
        await writer.drain()
        return False
    if fault == "trickle":
        step = max(1, len(answer) // 10)
        for start in range(0, len(answer), step):
            writer.write(answer[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.01)
    else:
        writer.write(answer)
        await writer.drain()
    return False  # the server was told to close after its answer, and so are we


async def _forward(server: int, head: bytes, body: bytes) -> bytes:
    """The whole answer to a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server)
    try:
        writer.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()


def _parsed(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return method, target, {name.strip().lower(): value.strip() for name, value in pairs}

"""The event log that a durable task is replayed from, as in the engine's `pkg/repository/durable_events.go`.

Each thing that a durable task asks for (children, a memo, a wait) is a numbered node. A task that is invoked
again starts again at node 1: a request that matches the node of that number gets the old answer, another one is
an error of non-determinism. A child that is recognised by its spawn key is answered from its old node, wherever
that is. Branches (`BranchDurableTask`) are not kept. No I/O here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from .model import Mailbox

BRANCH = 1


class NonDeterminism(Exception):
    """A replayed task asked for something else than in its first invocation."""

    def __init__(self, node: int) -> None:
        super().__init__(f"node {node} of the log is another request")
        self.node = node


class StaleInvocation(Exception):
    """A worker spoke for an invocation that has been superseded."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the current invocation is {current}")
        self.current = current


@dataclass(eq=False)
class Entry:
    node: int
    kind: str
    key: bytes
    child_id: str | None = None
    satisfied: bool = False
    order: int | None = None
    payload: bytes = b""
    error: str | None = None
    """Set when the child failed or was cancelled."""


@dataclass(frozen=True)
class ChildRequest:
    """A child to spawn: its key of determinism, its id, and whether its spawn key was known already."""

    key: bytes
    child_id: str
    known: bool
    check_known: bool
    """Whether a known child must match its old request; true for children known by index only."""


@dataclass(frozen=True)
class Completed:
    """Put into a durable session: what was asked for at this node is here."""

    task_id: str
    invocation: int
    entry: Entry


def child_key_of(workflow: str, input_json: str) -> bytes:
    return hashlib.sha256(f"RUN{input_json}{workflow}".encode()).digest()


@dataclass(eq=False)
class DurableLog:
    """The log of one durable task run over all of its invocations."""

    invocation: int = 0
    latest_node: int = 0
    latest_order: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)

    def begin_invocation(self) -> int:
        self.invocation += 1
        self.latest_node = 0
        return self.invocation

    def check(self, invocation: int) -> None:
        """Raise StaleInvocation unless the worker speaks for the current invocation."""
        if invocation != self.invocation:
            raise StaleInvocation(self.invocation)

    def ask(self, kind: str, key: bytes) -> tuple[Entry, bool]:
        """The entry of a memo or a wait, and whether it was there before."""
        node = self.latest_node + 1
        entry = self._at(node, key)
        existed = entry is not None
        if entry is None:
            entry = self.entries[node] = Entry(node, kind, key)
        self.latest_node = node
        return entry, existed

    def spawn(self, requests: Sequence[ChildRequest]) -> tuple[list[Entry], list[Entry]]:
        """The entries of these children in the order of their nodes, and those of them that are new."""
        by_child = {entry.child_id: entry for entry in self.entries.values() if entry.child_id}
        answers: list[Entry] = []
        fresh: list[Entry] = []
        node = self.latest_node
        for request in requests:
            old = by_child.get(request.child_id) if request.known else None
            if old is not None:
                if request.check_known and old.key != request.key:
                    raise NonDeterminism(old.node)
                answers.append(old)
                continue
            node += 1
            entry = self._at(node, request.key)
            if entry is None:
                entry = Entry(node, "RUN", request.key, request.child_id)
                by_child[request.child_id] = entry
                fresh.append(entry)
            answers.append(entry)
        self.entries.update((entry.node, entry) for entry in fresh)
        answers.sort(key=lambda entry: entry.node)
        self.latest_node = max([self.latest_node, *(entry.node for entry in answers)])
        return answers, fresh

    def satisfy(self, node: int, payload: bytes, error: str | None = None, *, ordered: bool = True) -> Entry | None:
        """Fill in an answer, once. Memos are not ordered: their answer is the worker's own."""
        entry = self.entries[node]
        if entry.satisfied:
            return None
        entry.satisfied, entry.payload, entry.error = True, payload, error
        if ordered:
            self.latest_order += 1
            entry.order = self.latest_order
        return entry

    def _at(self, node: int, key: bytes) -> Entry | None:
        entry = self.entries.get(node)
        if entry is not None and entry.key != key:
            raise NonDeterminism(node)
        return entry


class DurableSession:
    """An open durable stream of one worker; hands out completions in the order in which they were satisfied."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self._sent: dict[tuple[str, int], int] = {}
        self._held: dict[tuple[str, int], dict[int, Completed]] = {}

    def deliver(self, task_id: str, invocation: int, entry: Entry) -> None:
        done = Completed(task_id, invocation, entry)
        stream = (task_id, invocation)
        if entry.order is None or entry.order <= self._sent.get(stream, 0):
            self.mailbox.put_nowait(done)
            return
        held = self._held.setdefault(stream, {})
        held[entry.order] = done
        while (following := self._sent.get(stream, 0) + 1) in held:
            self.mailbox.put_nowait(held.pop(following))
            self._sent[stream] = following

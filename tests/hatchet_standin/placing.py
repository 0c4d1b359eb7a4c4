"""Which worker gets which waiting task: slots, labels, priority, first come first served. Never talks to anyone."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from .model import DesiredLabel, Status, TaskRun, Worker

RETRY_PRIORITY = 4
"""The engine lets retried tasks pass the fresh ones, whose priority is 1 to 3."""

QueueKey = tuple[str, tuple[tuple[str, int], ...], frozenset[DesiredLabel]]


def wishes_of(task: TaskRun) -> frozenset[DesiredLabel]:
    """The labels wanted for a task: those of its trigger if there are any, else those of its definition."""
    return frozenset(task.run.labels or task.spec.labels)


def rank(worker: Worker, wishes: Iterable[DesiredLabel]) -> int | None:
    """The weight of the wishes that a worker meets; None when it fails a required one."""
    total = 0
    for wish in wishes:
        value = worker.labels.get(wish.key)
        if value is not None and wish.met_by(value):
            total += wish.weight
        elif wish.required:
            return None
    return total


class Waiting:
    """Queued task runs, in queues whose members differ in nothing that matters to placing."""

    def __init__(self) -> None:
        self._queues: dict[QueueKey, list[tuple[int, int, int, TaskRun]]] = {}
        self._arrivals = 0

    def add(self, task: TaskRun) -> None:
        key = (task.spec.action, task.spec.slots, wishes_of(task))
        priority = RETRY_PRIORITY if task.retry_count else task.run.priority
        self._arrivals += 1
        heapq.heappush(self._queues.setdefault(key, []), (-priority, self._arrivals, task.retry_count, task))

    def place(self, workers: Iterable[Worker]) -> Iterator[tuple[TaskRun, Worker]]:
        """Yield placements while there are any; the caller takes the slot before it asks for the next."""
        ready = [worker for worker in workers if worker.ready]
        for key in list(self._queues):
            queue = self._queues[key]
            while queue:
                _, _, retry_count, task = queue[0]
                if task.status is not Status.QUEUED or task.retry_count != retry_count:
                    heapq.heappop(queue)
                    continue
                worker = self._choose(key, ready)
                if worker is None:
                    break
                heapq.heappop(queue)
                yield task, worker
            if not queue:
                del self._queues[key]

    @staticmethod
    def _choose(key: QueueKey, workers: Iterable[Worker]) -> Worker | None:
        action, slots, wishes = key
        best: tuple[int, int] | None = None
        chosen = None
        for worker in workers:
            if action not in worker.actions or any(worker.free(slot) < units for slot, units in slots):
                continue
            weight = rank(worker, wishes)
            if weight is None:
                continue
            merit = (weight, sum(worker.free(slot) for slot, _ in slots))
            if best is None or merit > best:
                best, chosen = merit, worker
        return chosen

"""The shape of a scatter/gather tree: which node takes which inputs, and how large the chunks of its leaves are. Pure.

Inputs are counted 0 to n - 1 in the order in which they are to be run; node k of f takes every f-th of
its parent's inputs, beginning with the k-th (a grid-stride spread, so that neighbours that take alike
long are spread over all nodes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

#: A leaf should last this long: much longer than a round trip, much shorter than a run.
LEAF_SECONDS = 2.0
#: How many slots one leaf a second may keep busy before the engine is what limits a run.
_SLOTS_PER_LEAF_SECOND = 25
_MAX_CHUNK = 16 * 1024
_MAX_LEAVES_PER_NODE = 2000
_MAX_FACTOR = 64
#: The last chunks of a node are smaller, but not smaller than this part of a full one.
_SMALLEST_SHARE = 8


class RecursionMap(BaseModel):
    """How a run is spread over a tree of scatter nodes.

    Attributes:
        factor: Children of a node; a node with at most `factor` inputs has leaves instead.
        max_depth: Levels of nodes below the root; the nodes of the last have leaves. 0: the root has them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: int = Field(ge=1)
    max_depth: int = Field(default=10, ge=0)


@dataclass(frozen=True)
class Node:
    """One node of the tree: it takes the inputs `offset, offset + step, ...` below `n`."""

    n: int
    offset: int = 0
    step: int = 1
    #: Which child of which child of the root it is; empty for the root.
    path: tuple[int, ...] = ()

    @property
    def inputs(self) -> range:
        """The inputs of the node."""
        return range(self.offset, self.n, self.step)

    def is_base(self, shape: RecursionMap) -> bool:
        """Whether the node has leaves, rather than further nodes."""
        return len(self.inputs) <= shape.factor or len(self.path) >= shape.max_depth

    def child(self, k: int, factor: int) -> Node:
        """The k-th child of the node."""
        return Node(self.n, self.offset + k * self.step, self.step * factor, (*self.path, k))

    def children(self, shape: RecursionMap) -> list[Node]:
        """The nodes below; none where the node has leaves."""
        if self.is_base(shape):
            return []
        return [self.child(k, shape.factor) for k in range(shape.factor)]

    @classmethod
    def at(cls, n: int, path: Sequence[int], factor: int) -> Node:
        """The node of a path from the root."""
        node = cls(n)
        for k in path:
            node = node.child(k, factor)
        return node


@dataclass(frozen=True)
class Shape:
    """What was decided for one attempt on a run, before its nodes and leaves were triggered.

    Attributes:
        probes: How many of the first inputs were run alone, to measure.
        chunk: Inputs of a leaf.
        smallest: Inputs of the smallest leaf; equal to `chunk` where the caller has chosen it.
        slots: How many functions run at once, for which the sizes of the last leaves are chosen.
    """

    factor: int
    max_depth: int
    probes: int
    chunk: int
    smallest: int
    slots: int

    @property
    def tree(self) -> RecursionMap:
        """The tree of nodes."""
        return RecursionMap(factor=self.factor, max_depth=self.max_depth)

    def root(self, n: int) -> Node:
        """The root of the tree: it takes all inputs but the probes, counted from the first that is no probe."""
        return Node(n - self.probes)

    def waiting(self, n: int) -> int:
        """How many nodes wait for other nodes, at most: so many slots they hold until the end."""
        nodes, largest = 0, self.root(n)
        while not largest.is_base(self.tree):
            nodes += self.factor ** len(largest.path)
            largest = largest.child(0, self.factor)
        return nodes

    def flat(self) -> Shape:
        """The same leaves below the root alone."""
        return replace(self, max_depth=0)

    def leaves(self, node: Node) -> Iterator[range]:
        """The inputs of each leaf of a node without children, probes counted in.

        Towards the end the chunks get smaller, so that all slots finish together.
        """
        inputs, at = node.inputs, 0
        bases = min(len(range(node.n)), self.factor ** len(node.path)) or 1
        slots = max(1, round(self.slots / bases))
        while at < len(inputs):
            fair = -(-(len(inputs) - at) // (2 * slots))
            size = max(1, self.smallest, min(self.chunk, fair)) if self.smallest < self.chunk else self.chunk
            taken = inputs[at : at + size]
            yield range(taken.start + self.probes, taken[-1] + 1 + self.probes, taken.step)
            at += size


def choose(
    n: int, probes: int, seconds: float | None, slots: int, tree: RecursionMap | None, chunk: int | None
) -> Shape:
    """The shape for `n` inputs, of which `probes` were run already, at `seconds` an input (None: longer than it was waited for).

    Leaves last `LEAF_SECONDS`, or longer where many slots would ask for more leaves a second than an
    engine hands out. What the caller has chosen stays.
    """
    smallest = chunk
    if chunk is None:
        target = max(LEAF_SECONDS, slots / _SLOTS_PER_LEAF_SECOND)
        chunk = 1 if seconds is None else max(1, min(_MAX_CHUNK, math.floor(target / max(seconds, 1e-9))))
        smallest = max(1, chunk // _SMALLEST_SHARE)
    assert smallest is not None
    if tree is None:
        nodes = -(-(n - probes) // (chunk * _MAX_LEAVES_PER_NODE))
        tree = RecursionMap(factor=min(max(nodes, 1), _MAX_FACTOR), max_depth=1 if nodes > 1 else 0)
    return Shape(tree.factor, tree.max_depth, probes, chunk, smallest, slots)


__all__ = ["LEAF_SECONDS", "Node", "RecursionMap", "Shape", "choose"]

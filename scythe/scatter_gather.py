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

LEAF_SECONDS = 2.0
"""A leaf should last this long [s]: much longer than a round trip, much shorter than a run."""
#: How many slots one leaf a second may keep busy before the engine is what limits a run.
_SLOTS_PER_LEAF_SECOND = 25
_MAX_CHUNK = 16 * 1024
_MAX_LEAVES_PER_NODE = 2000
_MAX_FACTOR = 64
#: The last chunks of a node are smaller, but not smaller than this part of a full one.
_SMALLEST_SHARE = 8
#: A node costs an engine about as much as a leaf: one that would have fewer leaves is none.
_LEAST_LEAVES = 10


class RecursionMap(BaseModel):
    """How a run is spread over a tree of scatter nodes, on a cluster: `allocate(recursion_map=...)`.

    Attributes:
        factor: Children of a node, 1 or more; a node with at most `factor` inputs has leaves instead.
        max_depth: Levels of nodes below the root, 10 by default; the nodes of the last have leaves. 0: the root has them.

    A node has leaves of its own, too, where the nodes below it would have less than ten full chunks each: a node costs an
    engine as much as a leaf.

    Raises:
        pydantic.ValidationError: `factor` is below 1, `max_depth` below 0, or there is another name.

    Examples:
        >>> from scythe.scatter_gather import RecursionMap
        >>> RecursionMap(factor=4, max_depth=1)
        RecursionMap(factor=4, max_depth=1)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: int = Field(ge=1)
    max_depth: int = Field(default=10, ge=0)


@dataclass(frozen=True)
class Node:
    """One node of the tree: it takes the inputs `offset, offset + step, ...` below `n`.

    Attributes:
        n: How many inputs there are, counted from the first that is no probe.
        offset: Its first input.
        step: From each of its inputs to the next.
        path: Which child of which child of the root it is; empty for the root.

    Examples:
        >>> from scythe.scatter_gather import Node
        >>> list(Node(n=10, offset=1, step=4).inputs)
        [1, 5, 9]
    """

    n: int
    offset: int = 0
    step: int = 1
    #: Which child of which child of the root it is; empty for the root.
    path: tuple[int, ...] = ()

    @property
    def inputs(self) -> range:
        """The inputs of the node, as a range.

        Examples:
            >>> from scythe.scatter_gather import Node
            >>> list(Node(n=10, offset=1, step=4).inputs)
            [1, 5, 9]
        """
        return range(self.offset, self.n, self.step)

    def is_base(self, shape: RecursionMap) -> bool:
        """Whether the node has leaves, rather than further nodes.

        Args:
            shape: The tree that it is a node of.

        Examples:
            >>> from scythe.scatter_gather import Node, RecursionMap
            >>> Node(n=10).is_base(RecursionMap(factor=4))
            False
        """
        return len(self.inputs) <= shape.factor or len(self.path) >= shape.max_depth

    def child(self, k: int, factor: int) -> Node:
        """The k-th child of the node.

        Args:
            k: Which one, from 0 to `factor` - 1.
            factor: Children of a node.

        Examples:
            >>> from scythe.scatter_gather import Node
            >>> list(Node(n=10).child(1, factor=4).inputs)
            [1, 5, 9]
        """
        return Node(self.n, self.offset + k * self.step, self.step * factor, (*self.path, k))

    def children(self, shape: RecursionMap) -> list[Node]:
        """The nodes below; none where the node has leaves.

        Args:
            shape: The tree that it is a node of.

        Examples:
            >>> from scythe.scatter_gather import Node, RecursionMap
            >>> [len(node.inputs) for node in Node(n=10).children(RecursionMap(factor=4))]
            [3, 3, 2, 2]
        """
        if self.is_base(shape):
            return []
        return [self.child(k, shape.factor) for k in range(shape.factor)]

    @classmethod
    def at(cls, n: int, path: Sequence[int], factor: int) -> Node:
        """The node of a path from the root.

        Args:
            n: How many inputs there are.
            path: Which child of which child of the root.
            factor: Children of a node.

        Examples:
            >>> from scythe.scatter_gather import Node
            >>> Node.at(10, [1], factor=4).offset
            1
        """
        node = cls(n)
        for k in path:
            node = node.child(k, factor)
        return node


@dataclass(frozen=True)
class Shape:
    """What was decided for one attempt on a run, before its nodes and leaves were triggered.

    Attributes:
        factor: Children of a node.
        max_depth: Levels of nodes below the root.
        probes: How many of the first inputs were run alone, to measure.
        chunk: Inputs of a leaf.
        smallest: Inputs of the smallest leaf; equal to `chunk` where the caller has chosen it.
        slots: How many functions run at once, for which the sizes of the last leaves are chosen.

    Examples:
        >>> from scythe.scatter_gather import Shape
        >>> shape = Shape(factor=2, max_depth=0, probes=0, chunk=4, smallest=4, slots=2)
        >>> list(shape.leaves(shape.root(10)))
        [range(0, 4), range(4, 8), range(8, 10)]
    """

    factor: int
    max_depth: int
    probes: int
    chunk: int
    smallest: int
    slots: int

    @property
    def tree(self) -> RecursionMap:
        """The tree of nodes.

        Examples:
            >>> from scythe.scatter_gather import Shape
            >>> Shape(factor=2, max_depth=1, probes=0, chunk=4, smallest=4, slots=2).tree
            RecursionMap(factor=2, max_depth=1)
        """
        return RecursionMap(factor=self.factor, max_depth=self.max_depth)

    def root(self, n: int) -> Node:
        """The root of the tree: it takes all inputs but the probes, counted from the first that is no probe.

        Args:
            n: How many inputs there are, probes counted in.

        Examples:
            >>> from scythe.scatter_gather import Shape
            >>> Shape(factor=2, max_depth=1, probes=2, chunk=4, smallest=4, slots=2).root(10).inputs
            range(0, 8)
        """
        return Node(n - self.probes)

    def waiting(self, n: int) -> int:
        """How many nodes wait for other nodes, at most: so many slots they hold until the end.

        Args:
            n: How many inputs there are, probes counted in.

        Examples:
            >>> from scythe.scatter_gather import Shape
            >>> Shape(factor=2, max_depth=2, probes=0, chunk=4, smallest=4, slots=2).waiting(200)
            3
        """
        nodes, largest = 0, self.root(n)
        while below := self.children(largest):
            nodes += self.factor ** len(largest.path)
            largest = below[0]
        return nodes

    def children(self, node: Node) -> list[Node]:
        """The nodes below a node; none where it has leaves, or where they would have less than ten full chunks each.

        Args:
            node: A node of this shape.

        Examples:
            >>> from scythe.scatter_gather import Shape
            >>> shape = Shape(factor=2, max_depth=3, probes=0, chunk=5, smallest=5, slots=2)
            >>> [len(node.inputs) for node in shape.children(shape.root(100))], shape.children(shape.root(99))
            ([50, 50], [])
        """
        enough = len(node.inputs) >= self.factor * self.chunk * _LEAST_LEAVES
        return node.children(self.tree) if enough else []

    def flat(self) -> Shape:
        """The same leaves below the root alone.

        Examples:
            >>> from scythe.scatter_gather import Shape
            >>> Shape(factor=2, max_depth=2, probes=0, chunk=4, smallest=4, slots=2).flat().max_depth
            0
        """
        return replace(self, max_depth=0)

    def leaves(self, node: Node) -> Iterator[range]:
        """The inputs of each leaf of a node without children, probes counted in.

        Towards the end the chunks get smaller, so that all slots finish together.

        Args:
            node: A node of this shape that has leaves.

        Examples:
            >>> from scythe.scatter_gather import Shape
            >>> shape = Shape(factor=2, max_depth=0, probes=0, chunk=4, smallest=1, slots=1)
            >>> [len(leaf) for leaf in shape.leaves(shape.root(10))]
            [4, 3, 2, 1]
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
    """The shape of a turn on a run, of which the first inputs were run already, to measure.

    Leaves last `LEAF_SECONDS`, or longer where many slots would ask for more leaves a second than an
    engine hands out. What the caller has chosen stays.

    Args:
        n: How many inputs there are, probes counted in.
        probes: How many of them were run already.
        seconds: What an input takes [s]; None where that is longer than it was waited for.
        slots: How many functions run at once.
        tree: The tree that the caller has chosen, if any.
        chunk: Inputs of a leaf that the caller has chosen, if any.

    Examples:
        >>> from scythe.scatter_gather import choose
        >>> choose(1000, 10, seconds=0.1, slots=8, tree=None, chunk=None).chunk
        20
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

"""The pure parts between functions and files: merging sorted rows, who covers which input, how inputs are handed out."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scythe.engines.pool.chunks import ChunkQueue
from scythe.engines.pool.pool import Chunk
from scythe.gather.coverage import Coverage
from scythe.gather.merge import Source, merged, pieces, rebatched, sorted_rows, without
from scythe_catalog.iceberg.datafile import StoredFile


def table(rows: list[tuple[int, int]]) -> pa.Table:
    """Rows of (sort_index, number within the input)."""
    keys, numbers = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({"sort_index": pa.array(keys, pa.int64()), "number": pa.array(numbers, pa.int64())})


def rows_of(tables: Iterator[pa.Table]) -> list[tuple[int, int]]:
    return [
        row for t in tables for row in zip(*(t.column(c).to_pylist() for c in ("sort_index", "number")), strict=True)
    ]


@st.composite
def split_rows(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[Source]]:
    """Rows of whole inputs, and the same rows dealt to sources, each of which comes in batches of any size."""
    sizes = draw(st.lists(st.integers(0, 5), max_size=40))
    sources = draw(st.integers(1, 6))
    dealt: list[list[tuple[int, int]]] = [[] for _ in range(sources)]
    every: list[tuple[int, int]] = []
    for key, size in enumerate(sizes):
        rows = [(key, n) for n in range(size)]
        dealt[draw(st.integers(0, sources - 1))] += rows
        every += rows
    return every, [batched_source(rows, draw) for rows in dealt if rows]


def batched_source(rows: list[tuple[int, int]], draw: st.DrawFn) -> Source:
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    pieces = [table(rows[a:b]) for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    return Source(rows[0][0], rows[-1][0], lambda: iter(pieces))


@given(split_rows())
def test_any_split_of_sorted_rows_comes_back_whole_and_in_order(
    split: tuple[list[tuple[int, int]], list[Source]],
) -> None:
    every, sources = split

    assert rows_of(merged(sources)) == every


@given(split_rows(), st.data())
def test_the_order_of_the_sources_does_not_matter(
    split: tuple[list[tuple[int, int]], list[Source]], data: st.DataObject
) -> None:
    every, sources = split

    assert rows_of(merged(data.draw(st.permutations(sources)))) == every


@given(split_rows())
def test_sources_can_be_merged_again(split: tuple[list[tuple[int, int]], list[Source]]) -> None:
    _, sources = split

    assert rows_of(merged(sources)) == rows_of(merged(sources))


@given(split_rows(), st.integers(1, 20), st.data())
def test_files_are_taken_whole_where_nothing_else_lies_between_their_rows(
    split: tuple[list[tuple[int, int]], list[Source]], rows: int, data: st.DataObject
) -> None:
    every, sources = split
    held = {str(i): rows_of(source.batches()) for i, source in enumerate(sources)}
    filed = data.draw(st.lists(st.booleans(), min_size=len(sources), max_size=len(sources)))
    stored = [
        replace(source, stored=StoredFile(str(i), len(held[str(i)]), {})) if as_file else source
        for i, (source, as_file) in enumerate(zip(sources, filed, strict=True))
    ]

    found = list(pieces(stored, rows))

    whole = [piece for piece in found if isinstance(piece, StoredFile)]
    assert [row for p in found for row in (held[p.key] if isinstance(p, StoredFile) else rows_of(iter([p])))] == every
    for i, source in enumerate(sources):
        alone = all(o is source or o.last < source.first or o.first > source.last for o in sources)
        assert (str(i) in {piece.key for piece in whole}) == (filed[i] and alone and 4 * len(held[str(i)]) >= rows)


@given(split_rows(), st.integers(1, 20))
def test_rebatching_keeps_every_row_and_fills_each_batch_but_the_last(
    split: tuple[list[tuple[int, int]], list[Source]], rows: int
) -> None:
    every, sources = split

    batches = list(rebatched(merged(sources), rows))

    assert rows_of(iter(batches)) == every
    assert all(b.num_rows >= rows for b in batches[:-1])
    assert all(b.num_rows for b in batches)


@given(split_rows(), st.sets(st.integers(0, 40)))
def test_dropped_inputs_are_gone_and_no_others(
    split: tuple[list[tuple[int, int]], list[Source]], dropped: set[int]
) -> None:
    every, sources = split

    kept = rows_of(without(merged(sources), np.array(sorted(dropped), np.int64)))

    assert kept == [row for row in every if row[0] not in dropped]


@given(st.lists(st.integers(0, 9)))
def test_rows_of_one_input_keep_their_order_when_a_table_is_sorted(keys: list[int]) -> None:
    rows = [(key, n) for n, key in enumerate(keys)]

    assert rows_of(iter([sorted_rows(table(rows))])) == sorted(rows, key=lambda row: row[0])


def test_a_table_without_rows_adds_nothing() -> None:
    full = [Source.of(table([(1, 0)])), Source.of(table([])), Source.of(table([(0, 0)]))]

    assert rows_of(merged(full)) == [(0, 0), (1, 0)]


def test_a_table_in_memory_is_sorted_on_its_way_to_a_source() -> None:
    source = Source.of(table([(4, 0), (2, 1)]))
    assert (source.first, source.last) == (2, 4)


def test_no_sources_merge_to_nothing() -> None:
    assert list(merged([])) == []


def test_only_sources_that_overlap_the_window_are_open() -> None:
    opened: list[int] = []

    def source(at: int) -> Source:
        def batches() -> Iterator[pa.Table]:
            opened.append(at)
            yield table([(at, 0)])

        return Source(at, at, batches)

    stream = merged([source(at) for at in range(5)])
    next(stream)

    assert opened == [0]


# --- coverage ---------------------------------------------------------------------------------------

Claims = list[tuple[str, list[int]]]


@st.composite
def claims(draw: st.DrawFn) -> tuple[list[int], Claims]:
    """Sort indexes of a run, and a history of covering and releasing some of them."""
    keys = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    some = st.lists(st.sampled_from(keys), unique=True)
    return keys, draw(st.lists(st.tuples(st.sampled_from(["cover", "release"]), some), max_size=8))


@given(claims())
def test_the_last_part_that_covers_an_input_owns_it(history: tuple[list[int], Claims]) -> None:
    keys, steps = history
    coverage, owner = Coverage(len(keys), np.array(keys)), {}
    for part, (what, some) in enumerate(steps):
        if what == "cover":
            coverage.cover(part, np.array(some, np.int64))
            owner |= dict.fromkeys(some, part)
        else:
            coverage.release(np.array(some, np.int64))
            owner = {key: p for key, p in owner.items() if key not in some}

    assert coverage.done == len(owner)
    for part, (what, some) in enumerate(steps):
        if what == "cover":
            mask = coverage.owned(part, np.array(some, np.int64))
            assert mask.tolist() == [owner.get(key) == part for key in some]
            assert coverage.lost(part, np.array(some, np.int64)).tolist() == sorted(
                k for k in some if owner.get(k) != part
            )
    positions = [i for a, b in coverage.open_ranges() for i in range(a, b)]
    assert positions == [i for i, key in enumerate(keys) if key not in owner]


def test_coverage_says_whether_any_input_was_covered_twice() -> None:
    coverage = Coverage(5)

    coverage.cover(0, np.array([0, 1]))
    coverage.cover(1, np.array([2, 3]))
    assert not coverage.overlaps

    coverage.cover(2, np.array([3, 4]))
    assert coverage.overlaps
    assert coverage.open_ranges() == []


def test_open_inputs_are_given_as_ranges() -> None:
    coverage = Coverage(10)
    assert coverage.open_ranges() == [(0, 10)]

    coverage.cover(0, np.array([0, 4, 5, 9]))

    assert coverage.open_ranges() == [(1, 4), (6, 9)]
    assert coverage.done == 4


# --- chunks -----------------------------------------------------------------------------------------


@st.composite
def open_ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    edges = sorted(draw(st.sets(st.integers(0, 3000), max_size=12)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(open_ranges(), st.integers(1, 8), st.none() | st.integers(1, 500), st.data())
def test_every_input_is_handed_out_and_comes_back_exactly_once_whatever_is_given_back(
    ranges: list[tuple[int, int]], workers: int, fixed: int | None, data: st.DataObject
) -> None:
    chunks = ChunkQueue(ranges, workers, fixed)
    wanted = [i for a, b in ranges for i in range(a, b)]
    assert chunks.remaining == len(wanted)
    done: list[int] = []
    troubles = 0
    while (work := chunks.next()) is not None:
        assert work.size >= 1
        assert fixed is None or work.size <= fixed
        if troubles < 5 and data.draw(st.booleans()):
            troubles += (
                1  # the process died: what came before is done, the one that killed it and the rest are given back
            )
            at = data.draw(st.integers(0, work.size - 1))
            done += work.rows[:at]
            chunks.give_back(Chunk(work.rows[at : at + 1], work.attempts + 1), Chunk(work.rows[at + 1 :]))
        else:
            done += work.rows
            chunks.measured(work.size, data.draw(st.sampled_from([0.0, 1e-6, 0.01, 3.0])))

    assert sorted(done) == wanted
    assert chunks.remaining == 0
    assert chunks.next() is None


def test_the_first_chunk_is_one_input_so_that_it_measures() -> None:
    first = ChunkQueue([(0, 1000)], 2).next()

    assert first is not None
    assert first.rows == range(1)


def test_what_is_given_back_is_run_before_all_others_and_keeps_its_attempts() -> None:
    chunks = ChunkQueue([(0, 100)], 2, fixed=10)
    chunks.next()

    chunks.give_back(Chunk(range(3, 4), attempts=1), Chunk(range(4, 10)))

    handed_out = [chunks.next() for _ in range(3)]
    assert [(w.rows, w.attempts) for w in handed_out if w] == [(range(3, 4), 1), (range(4, 10), 0), (range(10, 20), 0)]


def test_chunks_of_slow_inputs_stay_single_and_those_of_fast_ones_grow() -> None:
    slow, fast = ChunkQueue([(0, 100_000)], 2), ChunkQueue([(0, 100_000)], 2)
    for chunks, seconds in ((slow, 60.0), (fast, 1e-6)):
        for _ in range(4):
            work = chunks.next()
            assert work is not None
            chunks.measured(work.size, seconds * work.size)

    assert slow.size() == 1
    assert fast.size() > 1000


def test_the_last_chunks_are_small_enough_for_all_workers_to_end_together() -> None:
    chunks = ChunkQueue([(0, 1000)], 4)
    sizes: list[int] = []
    while (work := chunks.next()) is not None:
        sizes.append(work.size)
        chunks.measured(work.size, work.size * 1e-6)

    assert sizes[-1] == 1
    assert max(sizes) <= 1000 / 8 + 1


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_holds_a_second_chunk_only_where_chunks_are_short(workers: int) -> None:
    chunks = ChunkQueue([(0, 10_000)], workers)
    assert chunks.depth == 1

    chunks.measured(1, 1e-5)
    assert chunks.depth == 2

    chunks.measured(1, 100.0)
    assert chunks.depth == 1

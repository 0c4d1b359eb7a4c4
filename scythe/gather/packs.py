"""The shards that a run's output files lie in: small ones are joined, and `packs` tells where each file is.

Reads and writes shards, and columns of addresses. Knows no parts; records nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from scythe.define.bookkeeping import PackRow
from scythe.define.schemas import PACKS
from scythe.leaf.rows import side_by_side
from scythe.leaf.shards import MOST_BYTES, new_shard
from scythe.record.plan import RunPlan
from scythe.remote.packed import PREFIX, taken_apart

#: Shards below this are joined with their neighbours: each is a request of its own to whoever reads the run.
_SMALL_BYTES = 8 * 1024 * 1024
#: What the addresses tell of the columns of `packs`.
_TOLD = pa.schema([PACKS[name].arrow for name in PackRow._fields])
_BLOCK = 4 * 1024 * 1024
_SHARD = rf"^{PREFIX.replace('+', '[+]')}(.+)\?offset="


@dataclass(frozen=True)
class Moves:
    """Where the files of shards lie now: address of a shard -> that of the one it was joined to, and from where on."""

    to: Mapping[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])

    def applied(self, rows: pa.Table, columns: Iterable[str]) -> pa.Table:
        """The rows, with the addresses of these columns as they are now."""
        if not self.to:
            return rows
        moves = pl.DataFrame(
            [(old, new, base) for old, (new, base) in self.to.items()],
            {"shard": pl.String, "_to": pl.String, "_base": pl.Int64},
            orient="row",
        )
        for name in columns:
            at = rows.schema.get_field_index(name)
            uris = pl.Series("_uri", rows.column(at))
            moved = (
                taken_apart(uris)
                .select("shard", "offset")
                .with_columns(_uri=uris, _rest=uris.str.extract(r"(&length=[^?]*)$"))
                .join(moves, on="shard", how="left", maintain_order="left")
                .select(
                    pl.when(pl.col("_to").is_not_null())
                    .then(pl.format(PREFIX + "{}?offset={}{}", "_to", pl.col("offset") + pl.col("_base"), "_rest"))
                    .otherwise("_uri")
                )
            )
            column = moved.to_series().to_arrow().cast(rows.schema.field(at).type)
            rows = rows.set_column(at, rows.schema.field(at), column)
        return rows


def shards_in(tables: Iterable[pa.Table], columns: Sequence[str]) -> list[str]:
    """The addresses of the shards that these columns name, in the order of their names."""
    found = set[str]()
    for rows in tables:
        for name in columns:
            found.update(pl.Series(rows.column(name)).cast(pl.String).str.extract(_SHARD).drop_nulls().unique())
    return sorted(found)


def join_small(plan: RunPlan, shards: Sequence[str]) -> Moves:
    """Makes fewer, larger shards of small ones, neighbours together; the old ones stay where they are."""
    objects = plan.objects
    sizes = {objects.uri(found.key): found.size for found in objects.found(plan.key.shard("").rstrip("/"))}
    moves: dict[str, tuple[str, int]] = {}
    for group in _groups([(uri, sizes[uri]) for uri in shards if sizes.get(uri, MOST_BYTES) < _SMALL_BYTES]):
        key, base = new_shard(plan, group[0].rsplit("/", 1)[-1].rpartition("-")[0]), 0
        staged = objects.staging_file("shard.bin")
        try:
            with staged.open("wb") as out:
                for uri in group:
                    with objects.reader(objects.key(uri)) as source:
                        shutil.copyfileobj(source, out, _BLOCK)
                    moves[uri] = (objects.uri(key), base)
                    base += sizes[uri]
            objects.publish(staged, key)
        finally:
            objects.discard(staged)
    return Moves(moves)


def _groups(shards: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Neighbours that come to the size of a shard together, two at least."""
    group, total = list[str](), 0
    for uri, size in shards:
        if group and total + size > MOST_BYTES:
            if len(group) > 1:
                yield group
            group, total = [], 0
        group.append(uri)
        total += size
    if len(group) > 1:
        yield group


def packs_of(tables: Iterable[pa.Table], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of `packs` that follow from the addresses of rows, in their order."""
    for rows in tables:
        found = [
            taken_apart(pl.Series(rows.column(name))).with_row_index("_row").with_columns(pl.lit(name).alias("field"))
            for name in columns
        ]
        packs = pl.concat(found).drop_nulls("shard").sort("_row", maintain_order=True)
        if packs.height:
            told = packs.select(_TOLD.names).to_arrow().cast(_TOLD)
            yield side_by_side(PACKS, told, rows.take(packs["_row"].to_arrow()))


__all__ = ["Moves", "join_small", "packs_of", "shards_in"]

"""Makes what a run's files say of places below the root true again, after the root was copied or moved.

A reference is known by its form, `<old root>/<experiment>/<version>/<datetime>/...`, so that doing it twice, or after an
interruption, changes nothing more. One whose file did not come along keeps its address, where the file still is. Files of
other places are left alone, and so is the catalog.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.record.format import load_yaml, reading
from scythe.record.layout import FOLDERS, RunKey
from scythe.record.manifest import dump_yaml, with_texts
from scythe.record.plan import RunPlan
from scythe.record.results import read_result
from scythe.remote.packed import PREFIX, taken_apart
from scythe_catalog.compute import pc
from scythe_catalog.iceberg.datafile import (
    ROW_GROUP_ROWS,
    DataFileWriter,
    FieldIds,
    pandas_index,
    stored_field_ids,
    stored_schema,
)
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects

_RUN = rf"/[^/]+/{FOLDERS}/"


@dataclass(frozen=True)
class _Move:
    """From where to where a root was moved."""

    old: str
    objects: Objects
    key: RunKey
    #: The files that have come along, as far as they were looked for.
    here: set[str]
    #: Of a run and a field of it, which output files lie in shards here, as far as that was looked for.
    packed: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict[tuple[str, str], dict[str, str]])

    @property
    def pattern(self) -> str:
        """What a reference to a file of any run below the old root begins with; one to a file in a shard says so before."""
        return f"^({re.escape(PREFIX)})?" + re.escape(self.old) + _RUN

    def text(self, value: str) -> str:
        """A reference, below the new root if it was one below the old and its file is there."""
        return self.column(pa.chunked_array([[value]]))[0].as_py() if re.match(self.pattern, value) else value

    def column(self, values: pa.ChunkedArray, field: str | None = None) -> pa.ChunkedArray:
        """The same for a column of references; of an output field, a file in a shard may have come along by itself."""
        inside = pc.match_substring_regex(values, self.pattern)
        packed = pc.starts_with(values, PREFIX)
        plain = pc.if_else(packed, pc.utf8_slice_codeunits(values, len(PREFIX)), values)
        followed = pc.binary_join_element_wise(self.objects.root, pc.utf8_slice_codeunits(plain, len(self.old)), "")
        file = pc.if_else(packed, pc.replace_substring_regex(followed, r"\?[^?]*$", ""), followed)
        named = pc.unique(pc.filter(file, inside))
        self._look(named.to_pylist())
        there = named.filter(pa.array([uri in self.here for uri in named.to_pylist()], pa.bool_()))
        followed = pc.if_else(packed, pc.binary_join_element_wise(PREFIX, followed, ""), followed)
        followed = pc.if_else(pc.and_(inside, pc.is_in(file, there)), followed, values)
        followed = self._taken_in(followed, pc.and_(pc.and_not(inside, packed), pc.equal(followed, values)))
        followed = self._in_shards(followed, pc.and_(pc.and_not(inside, packed), pc.equal(followed, values)))
        left = pc.and_(pc.and_(inside, packed), pc.equal(followed, values))
        if field is None or not pc.any(left).as_py():
            return followed
        name = pc.replace_substring(pc.replace_substring_regex(values, r"^.*&name=", ""), "%2B", "+")
        alone = pc.binary_join_element_wise(self.objects.uri(self.key.output_file(field, "")), name, "")
        came = pa.array([uri in self.here for uri in alone.to_pylist()], pa.bool_())
        return pc.if_else(pc.and_(left, came), alone, followed)

    def _taken_in(self, values: pa.ChunkedArray, left: pa.ChunkedArray) -> pa.ChunkedArray:
        """The references; those among `left` to files of other runs that have come along into this one's folder, to them there."""
        if not pc.any(left).as_py():
            return values
        own = pc.replace_substring_regex(values, self.pattern, f"{self.objects.uri(self.key.path)}/")
        came = pa.array([uri in self.here for uri in own.to_pylist()], pa.bool_())
        return pc.if_else(pc.and_(left, came), own, values)

    def _in_shards(self, values: pa.ChunkedArray, left: pa.ChunkedArray) -> pa.ChunkedArray:
        """The references; those among `left` to output files that here lie in shards of their run, to them there."""
        if not pc.any(left).as_py():
            return values
        uris = pl.Series(values).cast(pl.String)
        form = rf"^{re.escape(self.old)}/(?P<run>[^/]+/{FOLDERS})/results/(?P<field>[^/]+)/[^/]+$"
        places: dict[str, str] = {}
        for run, output in (
            uris.filter(pl.Series(left)).str.extract_groups(form).struct.unnest().drop_nulls().unique().iter_rows()
        ):
            if (run, output) not in self.packed:  # once for all batches of all tables
                self.packed[run, output] = _packed(self.objects, RunKey(*run.split("/")), output)
            below = f"{self.old}/{run}/results/{output}/"
            places |= {f"{below}{name}": uri for name, uri in self.packed[run, output].items()}
        return pa.chunked_array([uris.replace(places).to_arrow().cast(values.type)]) if places else values

    def _look(self, uris: Iterable[str]) -> None:
        """Looks for files of other runs: those of the run itself were listed."""
        others = [self.objects.key(uri) for uri in uris if uri not in self.here]
        self.here.update(self.objects.uri(found.key) for found in self.objects.described(others))


def _packed(objects: Objects, key: RunKey, field: str) -> dict[str, str]:
    """Name of an output file of a run -> its address, of those that lie in shards."""
    result = read_result(objects, key)
    refs = result.tables.get("result_file_refs") if result is not None else None
    if refs is None or field not in refs.columns:
        return {}
    with reading(objects, refs.key), objects.reader(refs.key) as stream:
        there = pl.Series(pq.read_table(stream, columns=[field]).column(field)).drop_nulls()
    names = taken_apart(there)["name"]
    return {name: uri for name, uri in zip(names, there, strict=True) if name is not None}


def follow(objects: Objects, key: RunKey, files: Iterable[str]) -> None:
    """Makes the references of a run true where it lies now: in its YAML files, its inputs and these Parquet files.

    Those whose file is not there stay as they are.
    """
    plan = RunPlan.from_json(objects.read(key.plan), objects.uri(key.plan))
    moves, files = _moves(objects, key, plan), [*files]
    for move in moves:
        for name in (key.manifest, key.input_artifacts, key.workflow_spec):
            _follow_yaml(objects, name, move)
        for name in (key.specs, *files):
            _follow_parquet(objects, name, move)
    done = replace(RunPlan.load(objects, key), roots=[move.old for move in moves])  # files may come along later
    if done != plan:
        objects.write(key.plan, done.to_json())  # last: it says that all of this is done


def came_later(objects: Objects, key: RunKey, files: Iterable[str]) -> bool:
    """Whether files have come along to which references in these Parquet files do not lead yet, though their root was followed before."""
    plan = RunPlan.from_json(objects.read(key.plan), objects.uri(key.plan))
    if plan.root != objects.root or not plan.roots:
        return False
    moves = _moves(objects, key, plan)
    return any(
        (names := _references(stored_schema(objects, name))) and _any_follows(objects, name, names, move)
        for name in files
        for move in moves
    )


def _moves(objects: Objects, key: RunKey, plan: RunPlan) -> list[_Move]:
    roots = [root for root in dict.fromkeys((*plan.roots, plan.root)) if root != objects.root]
    here = {objects.uri(found.key) for found in objects.found(key.path)} if roots else set[str]()
    return [_Move(root, objects, key, here) for root in roots]


def _references(schema: pa.Schema) -> list[str]:
    return [c.name for c in TableSchema.from_arrow(schema) if c.kind.is_file]


def _follow_yaml(objects: Objects, key: str, move: _Move) -> None:
    try:
        content = load_yaml(objects.read(key), objects.uri(key))
    except FileNotFoundError:
        return
    followed = with_texts(content, move.text)
    if followed != content:
        objects.write(key, dump_yaml(followed, sort_keys=False))


def _follow_parquet(objects: Objects, key: str, move: _Move) -> None:
    stored = stored_schema(objects, key)
    names = _references(stored)
    if names and _any_follows(objects, key, names, move):
        rewrite(objects, key, key, stored, stored_field_ids(stored), columns=dict.fromkeys(names, move))


def _any_follows(objects: Objects, key: str, names: list[str], move: _Move) -> bool:
    with reading(objects, key), objects.reader(key) as stream:
        table = pq.read_table(stream, columns=names)
    return any(not move.column(column, name).equals(column) for name, column in zip(names, table.columns, strict=True))


def rewrite(
    objects: Objects,
    source: str,
    target: str,
    schema: pa.Schema,
    ids: FieldIds,
    *,
    columns: dict[str, _Move] | None = None,
) -> None:
    """Writes a Parquet file once more: with other field ids, or with file references below another root."""
    index = pandas_index(schema)
    with reading(objects, source), objects.reader(source) as stream:
        batches = pq.ParquetFile(stream).iter_batches(ROW_GROUP_ROWS)
        with DataFileWriter(objects, target, schema, ids, index=index) as writer:
            for batch in batches:
                table = pa.Table.from_batches([batch])
                for name, move in (columns or {}).items():
                    at = table.schema.get_field_index(name)
                    table = table.set_column(at, table.schema.field(at), move.column(table.column(at), name))
                writer.write(table)

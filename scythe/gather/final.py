"""The gather: all rows of a run, in order, written into files of its own names, one a table.

What the run came to changes in one step, when the result that names them is recorded. Everything here can be repeated.
Reads parts; never runs a function, never commits to the catalog itself.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from scythe.define.bookkeeping import ErrorRow, table_of
from scythe.define.experiment import Experiment
from scythe.define.schemas import LOGS, PACKS, ExperimentSchemas, index_of
from scythe.errors import CatalogError, OutputError, RunError, TableNotFound
from scythe.gather.coverage import Coverage
from scythe.gather.dataframe_rule import check_dataframe, record_dataframe
from scythe.gather.dataframes.reconcile import Dataframe, Fragment
from scythe.gather.error_kinds import ErrorKinds
from scythe.gather.merge import KEY, Source, changed, keys_of, merged, pieces, rebatched, without
from scythe.gather.packs import Moves, join_small, packs_of, shards_in
from scythe.gather.parts import (
    REUSED,
    Part,
    PartFile,
    completed,
    inputs_of,
    key_range,
    number_of,
    sort_indexes,
    source_of,
    stored_parts,
)
from scythe.gather.publish import Gathered, publish, record, settle
from scythe.leaf.rows import Failure, side_by_side
from scythe.names import file_names
from scythe.record.attempts import attempts, check_newest
from scythe.record.format import reading
from scythe.record.generations import Generations, catalog_of
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, TableResult, read_result
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import ROW_GROUP_ROWS, DataFile, DataFileWriter, StoredFile, stored_schema
from scythe_catalog.iceberg.tables import Table
from scythe_catalog.schema import TableSchema
from scythe_catalog.schema.kinds import known_part


@dataclass(frozen=True)
class _Fragment:
    """Rows of one table from one part."""

    part: int
    table: str
    schema: pa.Schema
    source: Source


@dataclass(frozen=True)
class _Written:
    """One table of the run: where it stands in the catalog, its file, and its columns."""

    table: Table
    file: DataFile
    columns: tuple[str, ...]
    untold: bool = False


class Gather:
    """The rows of one run, from its parts."""

    def __init__(self, plan: RunPlan, experiment: Experiment) -> None:
        self.plan, self._experiment = plan, experiment
        self.schemas: ExperimentSchemas = plan.schemas(experiment)
        self.objects = plan.objects
        self._before = read_result(plan.objects, plan.key)
        self.parts = _parts_behind(plan, self._before)
        self.fragments = list(self._stored_fragments())
        self.coverage = coverage_of(plan, self.parts)
        self._gather = ""
        self._stems: dict[str, str] = {}
        self._kinds = ErrorKinds()
        self._moves = Moves()

    def _stored_fragments(self) -> Iterator[_Fragment]:
        for number, part in enumerate(self.parts):
            for file in part.files:
                source = source_of(self.objects, file)
                with reading(self.objects, file.key):
                    schema = stored_schema(self.objects, file.key)
                own = _OWN[file.table] if _is_own(file.table, schema) else self.schemas.tables.get(file.table)
                if own is not None and file.table in ("tasks", "errors", "logs"):
                    attempt = number_of(part.name) if part.name != _EARLIER_END else 0
                    source = completed(source, own, attempt or None)  # what is reused tells its own
                if part.name == REUSED:
                    source = self._rooted(source)
                yield _Fragment(number, file.table, schema, source)

    def _rooted(self, source: Source) -> Source:
        """Reused rows, which were there before an engine gave the run its identifier."""
        stored = RunPlan.load(self.objects, self.plan.key).workflow_run_id
        if stored is not None or not self._experiment.options.inject_workflow_run_id:
            return source
        told = pa.scalar(self.plan.workflow_run_id, pa.string())

        def with_root(table: pa.Table) -> pa.Table:
            at = table.schema.get_field_index("root_workflow_run_id")
            return table.set_column(at, table.schema.field(at), pa.repeat(told, table.num_rows)) if at >= 0 else table

        return changed(source, with_root)

    def finish(self, attempt: int, began: dt.datetime) -> RunResult:
        """Writes the run's files, and makes them what the run came to in one step; catalog and `final/` follow.

        Until that step the run is what it was before; from then on it is what it is now, wherever this process dies.

        Raises:
            RunError: an input is neither a row nor an error, or a dataframe breaks with its version's schema.
            Superseded: a later process has taken up the run.
        """
        missing = self.coverage.open_ranges()
        if missing:
            count = sum(b - a for a, b in missing)
            raise RunError(f"{count:,} inputs of {self.plan.key.path} are not done: resume the run")
        self._gather = f"{attempt:06d}-{uuid.uuid4().hex[:8]}"
        self._moves = join_small(self.plan, self._new_shards())
        written = self._write_tables()
        result = self._result(written, attempt, began)
        gathered = Gathered({name: w.file for name, w in written.items()}, self._left(result))
        check_newest(self.objects, self.plan.key, attempt)
        now = read_result(self.objects, self.plan.key)
        if now is not None and now.gather != (self._before.gather if self._before is not None else None):
            return self._overtaken(now, attempt, began)
        record(self.objects, self.plan.key, result, gathered)
        pending = [self.plan.key.unpublished(self._gather)]
        publish(self.objects, self._catalog, self.plan.key, result, gathered, pending)
        self.objects.delete([self.objects.key(shard) for shard in self._moves.to])
        return result

    def _overtaken(self, now: RunResult, attempt: int, began: dt.datetime) -> RunResult:
        """What the run came to where another process has recorded a result since this gather began: two of one attempt, say."""
        if now.attempt < attempt:
            return Gather(self.plan, self._experiment).finish(attempt, began)
        settle(self.objects, self._catalog, self.plan.key)
        return now

    def _left(self, result: RunResult) -> tuple[str, ...]:
        """The catalog's tables that held something of the run until now, and do not any more."""
        held = {planned.catalog_table for planned in self.plan.tables.values()}
        if self._before is not None:
            held |= {table.catalog_table for table in self._before.tables.values()}
            held |= set(Gathered.of(self.objects, self._before, self.plan.key).left)  # it may not have come to that
        return tuple(sorted(held - {table.catalog_table for table in result.tables.values()}))

    def _write_tables(self) -> dict[str, _Written]:
        frames = self._dataframes()
        misfits = {
            i: f"dataframe {name!r} does not fit the others of this run: {reason}"
            for name, frame in frames.items()
            for i, reason in frame.misfits.items()
        }
        dropped = np.array(sorted(misfits), np.int64)
        typed = {name: frame.typed(self.schemas.levels) for name, frame in frames.items()}
        news = {n: check_dataframe(self.objects, self.plan, n, schema) for n, schema in typed.items()}
        self._stems = file_names({*self.schemas.tables, *_OWN, *frames})
        generations = Generations(self._catalog, self.plan.key.experiment, self.objects)
        written: dict[str, _Written] = {}
        for name, schema in self.schemas.tables.items():
            extra = self._misfit_errors(misfits) if name == "errors" else None
            kept = np.empty(0, np.int64) if name in ("errors", "tasks") else dropped
            table = self._planned(generations, name, schema)
            index = index_of(name, self.schemas)
            rows = self._rows(name, kept, extra) if name != "scalars" else self._whole(kept)
            file = self._publish(name, schema.arrow, table, index, self._counted(rows) if name == "errors" else rows)
            written[name] = _Written(table, file, schema.names)
        for name, rows in self._own_rows(dropped):
            if name not in frames:
                table, schema = generations.open(self.plan.key, name, _OWN[name]), _OWN[name]
                file = self._publish(name, schema.arrow, table, index_of(name, self.schemas), rows)
                written[name] = _Written(table, file, schema.names)
        for name, frame in frames.items():
            table = generations.open(self.plan.key, name, typed[name])
            rows = pieces(frame.sources(dropped, typed[name].arrow), ROW_GROUP_ROWS)
            file = self._publish(name, typed[name].arrow, table, frame.index, rows)
            untold = any(known_part(column.kind) != column.kind for column in typed[name])
            written[name] = _Written(table, file, typed[name].names, untold)
        for name, columns in news.items():
            if columns is not None:
                record_dataframe(self.objects, self.plan.key, name, columns)
        return written

    def _planned(self, generations: Generations, name: str, schema: TableSchema) -> Table:
        """The catalog's table that the run was allocated for, or another where that is gone."""
        try:
            table = self._catalog.table(self.plan.key.experiment, self.plan.tables[name].catalog_table)
            if set(schema.names) <= set(table.schema.names) and table.can_hold(schema):
                return table.widened(schema)
        except TableNotFound:
            pass  # it was dropped since
        return generations.open(self.plan.key, name, schema)

    @property
    def _catalog(self) -> Catalog:
        return catalog_of(self.objects, self.plan.catalog)

    # --- rows ---------------------------------------------------------------------------------------

    def _whole(self, dropped: np.ndarray) -> Iterator[pa.Table | StoredFile]:
        """The rows of `scalars`: whole files as they are, where they are all that there is of their range."""
        schema = self.schemas.tables["scalars"].arrow
        mine = [f for f in self.fragments if f.table == "scalars"]
        if len(dropped) or not all(f.schema.equals(schema, check_metadata=False) for f in mine):
            return self._rows("scalars", dropped, None)
        return pieces(map(self._owned, mine), ROW_GROUP_ROWS)

    def _rows(self, name: str, dropped: np.ndarray, extra: pa.Table | None) -> Iterator[pa.Table]:
        sources = [self._owned(fragment) for fragment in self.fragments if fragment.table == name]
        if extra is not None:
            sources.append(Source.of(extra))
        rows = rebatched(without(merged(sources), dropped), ROW_GROUP_ROWS)
        if name == "result_file_refs":
            return (self._moves.applied(table, self.schemas.file_outputs) for table in rows)
        return rows

    def _own_rows(self, dropped: np.ndarray) -> Iterator[tuple[str, Iterator[pa.Table]]]:
        """The rows of those tables of Scythe's own that are there only where they have any."""
        there = {f.table for f in self.fragments if _is_own(f.table, f.schema)}
        if "logs" in there:
            yield "logs", self._rows("logs", np.empty(0, np.int64), None)
        if "packs" in there or self.plan.pack:
            yield "packs", packs_of(self._rows("result_file_refs", dropped, None), self.schemas.file_outputs)

    def _new_shards(self) -> list[str]:
        """The shards that no result has named yet."""
        if not self.plan.pack:
            return []
        new = [f for f in self.fragments if f.table == "result_file_refs" and self.parts[f.part].name != _EARLIER_END]
        return shards_in((rows for f in new for rows in f.source.batches()), self.plan.pack)

    def _counted(self, errors: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The same rows, counted by their kind on their way."""
        for table in errors:
            self._kinds.add(table)
            yield table

    def _owned(self, fragment: _Fragment) -> Source:
        """The rows of a fragment that no later part has superseded."""
        if not self.coverage.overlaps:
            return fragment.source

        def own(table: pa.Table) -> pa.Table:
            keys = table.column(KEY).to_numpy()
            return next(without([table], self.coverage.lost(fragment.part, np.unique(keys))))

        return changed(fragment.source, own)

    def _seconds_before(self, attempt: int) -> float:
        """For how long earlier attempts had worked on the run, as far as that was recorded."""
        return sum(earlier.worked for earlier in attempts(self.objects, self.plan.key) if earlier.number < attempt)

    # --- dataframes of users ------------------------------------------------------------------------

    def _dataframes(self) -> dict[str, Dataframe]:
        """What each dataframe comes to over all inputs."""
        by_name: dict[str, list[Fragment]] = defaultdict(list)
        for fragment in self.fragments:
            if fragment.table not in self.schemas.tables and not _is_own(fragment.table, fragment.schema):
                by_name[fragment.table].append((fragment.schema, self._owned(fragment)))
        return {name: Dataframe.of(fragments, self.schemas.levels) for name, fragments in sorted(by_name.items())}

    def _misfit_errors(self, misfits: dict[int, str]) -> pa.Table | None:
        if not misfits:
            return None
        order = np.array(sorted(misfits), np.int64)
        inputs = [b.filter(pa.array(np.isin(b.column(KEY).to_numpy(), order))) for b in merged(
            [self._owned(p) for p in self.fragments if p.table == "scalars"])]  # fmt: skip
        rows = pa.concat_tables(inputs)
        failures = [Failure.of(OutputError(misfits[int(i)]), 1) for i in rows.column(KEY).to_numpy()]
        errors = table_of(ErrorRow, [ErrorRow(f.kind, f.message, f.traceback, f.attempts) for f in failures])
        return side_by_side(self.schemas.tables["errors"], rows, errors)

    # --- files --------------------------------------------------------------------------------------

    def _publish(
        self,
        name: str,
        schema: pa.Schema,
        table: Table,
        index: list[str] | tuple[str, ...],
        rows: Iterator[pa.Table | StoredFile],
    ) -> DataFile:
        """Writes the rows of a table into a file of this gather's own name."""
        key = self.plan.key.gathered(self._gather, self._stems[name])
        with DataFileWriter(self.objects, key, schema, table.ids, index=index) as writer:
            for piece in rows:
                if isinstance(piece, StoredFile):
                    writer.copy(piece)
                else:
                    writer.write(piece)
        return writer.describe(table.iceberg.schema())

    def _result(self, written: dict[str, _Written], attempt: int, began: dt.datetime) -> RunResult:
        now, key = dt.datetime.now(dt.UTC), self.plan.key
        result = RunResult(
            experiment_id=key.path,
            workflow_run_id=self.plan.workflow_run_id,
            uris={name: w.file.uri for name, w in written.items()},
            inputs=self.plan.inputs,
            rows=written["scalars"].file.rows,
            errors=written["errors"].file.rows,
            seconds=(now - began).total_seconds() + self._seconds_before(attempt),
            finished=now,
            attempt=attempt,
            tables={
                name: TableResult(
                    uri=w.file.uri,
                    key=key.gathered(self._gather, self._stems[name]),
                    catalog_table=w.table.iceberg.name()[-1],
                    columns=list(w.columns),
                    rows=w.file.rows,
                    bytes=w.file.bytes,
                    untold=w.untold,
                )
                for name, w in written.items()
            },
            gather=self._gather,
            error_kinds=self._kinds.all(),
            owners=self.plan.owners,
        )
        if result.rows + result.errors != self.plan.inputs:
            raise CatalogError(
                f"{key.path}: {result.rows:,} rows and {result.errors:,} errors for {self.plan.inputs:,} inputs"
            )
        return result


#: Tables of Scythe's own that are there only where they have rows.
_OWN = {"logs": LOGS, "packs": PACKS}


def _is_own(table: str, schema: pa.Schema) -> bool:
    """Whether it is one of these: in older runs a dataframe may have its name."""
    return table in _OWN and {*_OWN[table].names} <= {*schema.names}


#: The name of the part that stands for what the run came to before.
_EARLIER_END = "final"


def all_parts(plan: RunPlan) -> list[Part]:
    """The parts of a run, oldest first; the final files of an earlier end of the run count as the first."""
    return _parts_behind(plan, read_result(plan.objects, plan.key))


def _parts_behind(plan: RunPlan, result: RunResult | None) -> list[Part]:
    parts = stored_parts(plan, after=result.attempt if result is not None else -1)
    if result is None:
        return parts
    if result.left_out:
        raise RunError(
            f"{plan.key.path} was downloaded without {', '.join(result.left_out)}, which a new end would lose: download it "
            "again, with tables='all', or do this where it came from"
        )
    files = [
        PartFile(
            name, table.key, *key_range(plan.objects, table.key), DataFile(table.uri, table.rows, table.bytes).to_json()
        )
        for name, table in result.tables.items()
    ]
    return [Part(_EARLIER_END, result.rows, result.errors, tuple(files)), *parts]


def coverage_of(plan: RunPlan, parts: list[Part]) -> Coverage:
    """Which inputs the parts cover."""
    coverage = Coverage(plan.inputs, sort_indexes(plan))
    for number, part in enumerate(parts):
        for file in part.files:
            if file.table == "tasks" and file.last >= file.first:
                coverage.cover(number, keys_of(source_of(plan.objects, file)))
    return coverage


def whole_parts(plan: RunPlan, parts: list[Part]) -> list[Part]:
    """Those parts of which no later one has superseded an input: together they show each input once."""
    coverage = coverage_of(plan, parts)
    if not coverage.overlaps:
        return parts
    return [p for number, p in enumerate(parts) if not len(coverage.lost(number, inputs_of(plan, p)))]

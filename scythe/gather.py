"""The gather: all rows of a run, in order, into `final/<table>.pq`, and into the catalog as those very files.

Everything here can be repeated: the files are the same, and a run's partition is replaced, never
added to. Reads parts; never runs a function.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.chunk import Failure, side_by_side
from scythe.coverage import Coverage
from scythe.errors import CatalogError, OutputError, RunError
from scythe.generations import check_dataframe, open_generation
from scythe.merge import KEY, Source, keys_of, merged, rebatched, without
from scythe.parts import Part, PartFile, Rows, schema_of, source_of, stored_parts
from scythe.plan import RunPlan
from scythe.reconcile import Dataframe, Piece
from scythe.registry import Experiment
from scythe.results import RunResult, TableResult, read_result
from scythe.schemas import ERROR_COLUMNS, ExperimentSchemas, index_of
from scythe.tables import catalog_of
from scythe_catalog.datafile import ROW_GROUP_ROWS, DataFile, DataFileWriter
from scythe_catalog.tables import Catalog, Table


@dataclass(frozen=True)
class _Piece:
    """Rows of one table from one part."""

    part: int
    table: str
    schema: pa.Schema
    source: Source


class Gather:
    """The rows of one run, from its parts on disk and from what is still in memory."""

    def __init__(self, plan: RunPlan, experiment: Experiment, held: Rows | None = None) -> None:
        self.plan = plan
        self.schemas: ExperimentSchemas = plan.schemas(experiment)
        self.objects = plan.objects
        self.parts = all_parts(plan)
        self.pieces = [*self._stored_pieces(), *self._held_pieces(held)]
        self.coverage = coverage_of(plan, self.parts)
        for piece in self.pieces:
            if piece.part == len(self.parts) and piece.table == "tasks":
                self.coverage.cover(piece.part, keys_of(piece.source))

    def _stored_pieces(self) -> Iterator[_Piece]:
        for number, part in enumerate(self.parts):
            for file in part.files:
                yield _Piece(number, file.table, schema_of(self.objects, file), source_of(self.objects, file))

    def _held_pieces(self, held: Rows | None) -> Iterator[_Piece]:
        for name, table in held.tables() if held is not None else ():
            yield _Piece(len(self.parts), name, table.schema, Source.of(table))

    def finish(self, attempt: int, began: dt.datetime) -> RunResult:
        """Writes the final files, makes them the run's partition of every table, and records the result.

        Raises:
            RunError: an input is neither a row nor an error, or a dataframe breaks with its version's schema.
        """
        missing = self.coverage.open_ranges()
        if missing:
            count = sum(b - a for a, b in missing)
            raise RunError(f"{count:,} inputs of {self.plan.key.path} are not done: resume the run")
        frames = self._dataframes()
        misfits = {
            i: f"dataframe {name!r} does not fit the others of this run: {reason}"
            for name, frame in frames.items()
            for i, reason in frame.misfits.items()
        }
        dropped = np.array(sorted(misfits), np.int64)
        published: dict[str, tuple[Table, DataFile, list[str]]] = {}
        for name, schema in self.schemas.tables.items():
            extra = self._misfit_errors(misfits) if name == "errors" else None
            kept = np.empty(0, np.int64) if name in ("errors", "tasks") else dropped
            table = self._catalog.table(self.plan.key.experiment, self.plan.tables[name].catalog_table)
            index = index_of(name, self.schemas)
            file = self._publish(name, schema.arrow, table, index, self._rows(name, kept, extra))
            published[name] = (table, file, list(schema.names))
        for name, frame in frames.items():
            typed = frame.typed(self.schemas.levels)
            check_dataframe(self.objects, self.plan.key, name, typed)
            table = open_generation(self._catalog, self.plan.key, name, typed)
            rows = rebatched(frame.rows(dropped), ROW_GROUP_ROWS)
            file = self._publish(name, typed.arrow, table, frame.index, rows)
            published[name] = (table, file, list(typed.names))
        return self._record(published, attempt, began)

    @property
    def _catalog(self) -> Catalog:
        return catalog_of(self.objects, self.plan.catalog)

    # --- rows ---------------------------------------------------------------------------------------

    def _rows(self, name: str, dropped: np.ndarray, extra: pa.Table | None) -> Iterator[pa.Table]:
        sources = [self._owned(piece) for piece in self.pieces if piece.table == name]
        if extra is not None:
            sources.append(Source.of(extra))
        return rebatched(without(merged(sources), dropped), ROW_GROUP_ROWS)

    def _owned(self, piece: _Piece) -> Source:
        """The rows of a piece that no later part has superseded."""
        if not self.coverage.overlaps:
            return piece.source
        coverage, source = self.coverage, piece.source

        def batches() -> Iterator[pa.Table]:
            for table in source.batches():
                keys = table.column(KEY).to_numpy()
                yield from without([table], coverage.lost(piece.part, np.unique(keys)))

        return Source(source.first, source.last, batches)

    # --- dataframes of users ------------------------------------------------------------------------

    def _dataframes(self) -> dict[str, Dataframe]:
        """What each dataframe comes to over all inputs."""
        by_name: dict[str, list[Piece]] = defaultdict(list)
        for piece in self.pieces:
            if piece.table not in self.schemas.tables:
                by_name[piece.table].append((piece.schema, self._owned(piece)))
        return {name: Dataframe.of(pieces, self.schemas.levels) for name, pieces in sorted(by_name.items())}

    def _misfit_errors(self, misfits: dict[int, str]) -> pa.Table | None:
        if not misfits:
            return None
        order = np.array(sorted(misfits), np.int64)
        inputs = [b.filter(pa.array(np.isin(b.column(KEY).to_numpy(), order))) for b in merged(
            [self._owned(p) for p in self.pieces if p.table == "scalars"])]  # fmt: skip
        rows = pa.concat_tables(inputs)
        failures = [Failure.of(OutputError(misfits[int(i)]), 1) for i in rows.column(KEY).to_numpy()]
        columns = [pa.array([getattr(f, a) for f in failures]) for a in ("kind", "message", "traceback", "attempts")]
        errors = pa.table(columns, names=[c.name for c in ERROR_COLUMNS])
        return side_by_side(self.schemas.tables["errors"], rows, errors)

    # --- files --------------------------------------------------------------------------------------

    def _publish(
        self, name: str, schema: pa.Schema, table: Table, index: list[str] | tuple[str, ...], rows: Iterator[pa.Table]
    ) -> DataFile:
        """Writes `final/<name>.pq` and makes it all that the table holds of this run.

        Where readers may be using an earlier file of that name, they are led aside to a copy first:
        a file in the catalog never changes under a reader.
        """
        key, partition, prefix = self.plan.key.final(name), self.plan.key.partition, f"{self.plan.key.path}/"
        in_use = self.objects.exists(key) and self.objects.uri(key) in table.files(partition)
        target = f"{self.plan.key.parts}/aside/{name}.pq" if in_use else key
        with DataFileWriter(self.objects, target, schema, table.ids, index=index) as writer:
            for batch in rows:
                writer.write(batch)
        file = writer.describe(table.iceberg.schema())
        table = table.replace([file] if file.rows else [], partition, forget=prefix)
        if in_use:
            staged = self.objects.staging_file(f"{name}.pq")
            self.objects.download(target, staged)
            self.objects.publish(staged, key)
            file = DataFile(self.objects.uri(key), file.rows, file.bytes, file.statistics)
            table.replace([file] if file.rows else [], partition, forget=prefix)
        return file

    def _record(
        self, published: dict[str, tuple[Table, DataFile, list[str]]], attempt: int, began: dt.datetime
    ) -> RunResult:
        now = dt.datetime.now(dt.UTC)
        result = RunResult(
            experiment_id=self.plan.key.path,
            workflow_run_id=self.plan.workflow_run_id,
            uris={name: file.uri for name, (_, file, _) in published.items()},
            inputs=self.plan.inputs,
            rows=published["scalars"][1].rows,
            errors=published["errors"][1].rows,
            seconds=(now - began).total_seconds(),
            finished=now,
            attempt=attempt,
            tables={
                name: TableResult(
                    uri=file.uri,
                    key=self.plan.key.final(name),
                    catalog_table=table.iceberg.name()[-1],
                    columns=columns,
                    rows=file.rows,
                    bytes=file.bytes,
                )
                for name, (table, file, columns) in published.items()
            },
        )
        if result.rows + result.errors != self.plan.inputs:
            raise CatalogError(
                f"{self.plan.key.path}: {result.rows:,} rows and {result.errors:,} errors for {self.plan.inputs:,} inputs"
            )
        self.objects.write(self.plan.key.result, result.model_dump_json(indent=1).encode())
        self.objects.delete_folder(self.plan.key.parts)
        return result


def all_parts(plan: RunPlan) -> list[Part]:
    """The parts of a run, oldest first; the final files of an earlier end of the run count as the first."""
    result = read_result(plan.objects, plan.key)
    parts = stored_parts(plan)
    if result is None:
        return parts
    files = [
        PartFile(name, table.key, *_key_range(plan, table.key), DataFile(table.uri, table.rows, table.bytes).to_json())
        for name, table in result.tables.items()
    ]
    return [Part("final", result.rows, result.errors, tuple(files)), *parts]


def coverage_of(plan: RunPlan, parts: list[Part]) -> Coverage:
    """Which inputs the parts cover."""
    coverage = Coverage(plan.inputs, sort_indexes(plan))
    for number, part in enumerate(parts):
        for file in part.files:
            if file.table == "tasks" and file.last >= file.first:
                coverage.cover(number, keys_of(source_of(plan.objects, file)))
    return coverage


def sort_indexes(plan: RunPlan) -> np.ndarray | None:
    """The run's sort indexes, None where they are simply 0 to n - 1."""
    if plan.dense:
        return None
    with plan.objects.reader(plan.key.specs) as stream:
        return pq.read_table(stream, columns=[KEY]).column(KEY).to_numpy()


def _key_range(plan: RunPlan, key: str) -> tuple[int, int]:
    with plan.objects.reader(key) as stream:
        metadata = pq.read_metadata(stream)
    at = metadata.schema.to_arrow_schema().get_field_index(KEY)
    found = [metadata.row_group(g).column(at).statistics for g in range(metadata.num_row_groups)]
    found = [s for s in found if s is not None and s.has_min_max]
    return (min(s.min for s in found), max(s.max for s in found)) if found else (0, -1)

"""Brings the rows of known inputs into a new run, as its first part: outputs as they are, inputs and identifiers of the new run.

Walks no rows in Python; holds a batch of each table at a time. Output files stay where they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from scythe.define.experiment import Experiment
from scythe.errors import RunDamaged, RunError
from scythe.gather.dataframes.reconcile import index_columns
from scythe.gather.merge import KEY
from scythe.gather.parts import REUSED, Part, PartFile, Rows, source_of, write_files
from scythe.leaf.dataframes import INDEX_KEY
from scythe.leaf.rows import ChunkResult, run_ids, side_by_side
from scythe.names import ID_LEVELS
from scythe.record.plan import RunPlan
from scythe.reuse.known import KnownRun
from scythe.reuse.matching import Matches
from scythe_catalog.iceberg.datafile import stored_schema

_HELD_BYTES = 64 * 1024 * 1024
_TRIES = 3


def copy_rows(matches: Matches, plan: RunPlan, experiment: Experiment, specs: pa.Table) -> Part | None:
    """Writes the rows that answer inputs of a new run as a part of it; None where there are none.

    Raises:
        RunDamaged: a table of a known run is damaged.
        RunError: a known run was deleted meanwhile.

    Args:
        matches: Which rows.
        plan: The new run, with its tables.
        experiment: Its function.
        specs: Its inputs, as `specs.pq` has them.
    """
    if not len(matches.asked):
        return None
    files: list[PartFile] = []
    for i, mine in matches.of_each_run():
        files += _copied(_Copy(matches.runs[i], matches.kept(mine), plan, experiment, specs, f"{REUSED}-{i}"))
    brought = sum(file.data_file.rows for file in files if file.table == "tasks")
    if brought != len(matches.asked):
        raise RunError("a run was deleted while its rows were reused: allocate again")
    errors = int(matches.failed.sum())
    part = Part(REUSED, len(matches.asked) - errors, errors, tuple(files))
    plan.objects.write(f"{plan.key.parts}/{REUSED}.json", part.to_json())
    return part


def _copied(copy: _Copy) -> list[PartFile]:
    """The rows of one run; once more where that came to its end meanwhile, and with it the files of its parts."""
    for left in reversed(range(_TRIES)):
        try:
            return list(copy.files())
        except FileNotFoundError:
            if not left:
                raise
            copy.run.look()
        except pa.ArrowException as error:
            raise RunDamaged(
                f"rows of {copy.run.key.path} cannot be taken over: a table of it is damaged ({str(error).splitlines()[0]}). "
                "Restore it, or delete the run"
            ) from error
    raise AssertionError


class _Copy:
    """The rows of one known run on their way."""

    def __init__(
        self, run: KnownRun, matches: Matches, plan: RunPlan, experiment: Experiment, specs: pa.Table, name: str
    ) -> None:
        self.run, self._plan, self._specs, self._name = run, plan, specs, name
        self._schemas, self._identified = plan.schemas(experiment), experiment.options.inject_workflow_run_id
        self._matches = matches.by_position()
        #: What its rows are called there, ascending.
        self._keys = run.sort_indexes[self._matches.position]

    def files(self) -> Iterator[PartFile]:
        """Its rows, in files of some size, each sorted."""
        rows, number = Rows(), 0
        for part_number, part in enumerate(self.run.parts):
            for file in part.files:
                schema, own = stored_schema(self.run.objects, file.key), file.table in self._schemas.tables
                if not own:
                    index = json.dumps(index_columns(schema))
                    schema = schema.with_metadata({**(schema.metadata or {}), INDEX_KEY: index})
                empty = not own
                for table in source_of(self.run.objects, file).batches():
                    taken = self._taken(table, file.table, part_number)
                    if taken.num_rows:
                        kept = taken if own else taken.replace_schema_metadata(schema.metadata)
                        rows.add(ChunkResult(tables=[(file.table, kept)]))
                        empty = False
                    if rows.bytes > _HELD_BYTES:
                        yield from write_files(self._plan, f"{self._name}-{number}", rows)
                        rows, number = Rows(), number + 1
                if empty:  # the columns of a dataframe count, whoever has rows
                    rows.add(ChunkResult(tables=[(file.table, schema.empty_table())]))
        yield from write_files(self._plan, f"{self._name}-{number}", rows)

    def _taken(self, table: pa.Table, name: str, part: int) -> pa.Table:
        """Those rows of a table that answer inputs, as rows of the new run."""
        keys = table.column(KEY).to_numpy()
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        mine = self._keys[at] == keys
        if self.run.coverage.overlaps:
            mine &= self.run.coverage.owned(part, keys)
        if not mine.all():
            table, at = table.filter(pa.array(mine)), at[mine]
        asked = pa.array(self._matches.asked[at])
        inputs = self._inputs(name)
        for i, column in enumerate(table.schema):
            if column.name in inputs:
                table = table.set_column(i, column, self._input(column.name, asked).cast(column.type))
        if name == "tasks":
            return side_by_side(self._schemas.tables[name], self._told(at), table)
        if name in self._schemas.tables:
            return side_by_side(self._schemas.tables[name], table)
        return table

    def _input(self, name: str, asked: pa.Array) -> pa.ChunkedArray | pa.Array:
        """A column of these inputs of the new run, with identifiers of its own."""
        if self._identified and name == "workflow_run_id":
            return run_ids(self._plan.key.path, self._specs.column(KEY).take(asked))
        if self._identified and name == "root_workflow_run_id":
            return pa.repeat(pa.scalar(self._plan.workflow_run_id, pa.string()), len(asked))
        return self._specs.column(name).take(asked)

    def _inputs(self, table: str) -> frozenset[str]:
        """The columns of a table that tell of its inputs."""
        if table in ("tasks", "logs", "packs"):
            names = ID_LEVELS
        elif table in ("scalars", "errors"):
            names = self._schemas.inputs.names
        else:
            names = self._schemas.levels.names
        return frozenset(names) & frozenset(self._specs.column_names)

    def _told(self, at: np.ndarray) -> pa.Table:
        """Who ran inputs first."""
        origins, which = self._matches.origins, pa.array(self._matches.origin[at])
        attempts = pa.array([one.attempt for one in origins], pa.int64()).take(which)
        runs = pa.array([one.run for one in origins], pa.string()).take(which)
        return pa.table({"attempt": attempts, "reused_from": runs, "reused_index": self._matches.drawn[at]})

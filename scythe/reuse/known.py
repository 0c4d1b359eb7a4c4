"""Which inputs of a version its runs have rows of: by run, what tells the input, who ran it with which code, and whether it failed.

Reads records, inputs and the bookkeeping of rows; no results. Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.errors import FormatError, NotFoundError, RunDamaged, RunError
from scythe.gather.final import all_parts, coverage_of
from scythe.gather.parts import Part, failed, number_of, sort_indexes
from scythe.leaf.input_files import recorded_files
from scythe.record.find import reserved, run_keys
from scythe.record.format import reading
from scythe.record.layout import RunKey
from scythe.record.manifest import IO_SCHEMAS, read_manifest
from scythe.record.plan import RunPlan
from scythe.record.provenance import recorded
from scythe.record.results import read_result
from scythe.reuse.identity import Identities, Specs, file_identity
from scythe.terminal.console import tell
from scythe_catalog.iceberg.datafile import stored_schema
from scythe_catalog.memo import cached_property
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects

#: What is raised where a run is half deleted, damaged, of a later Scythe, or not here whole.
UNREADABLE = (NotFoundError, RunDamaged, FormatError, RunError, FileNotFoundError, pa.ArrowException)
_TRIES = 3
_TASKS = ("sort_index", "attempt", "reused_from", "reused_index")
_NOBODY = -1


@dataclass(frozen=True)
class Origin:
    """Who ran some inputs: an attempt on a run, and its code as far as that was recorded."""

    run: str
    attempt: int | None
    code: str | None
    commit: str | None
    #: Which random numbers they drew, as `RunPlan.stream` has it.
    stream: int = 0

    def to_json(self) -> dict[str, Any]:
        told = {"run": self.run, "attempt": self.attempt, "code": self.code, "git_commit": self.commit}
        return {**told, "stream": self.stream}


class KnownRun:
    """One run of the version: its inputs, and what it holds of them."""

    def __init__(self, objects: Objects, key: RunKey) -> None:
        self.objects, self.key = objects, key
        self.plan = RunPlan.load(objects, key)
        self.manifest = read_manifest(objects, key)
        self.look()

    def look(self) -> None:
        """Looks at its parts, anew where it has come to its end meanwhile."""
        for left in reversed(range(_TRIES)):
            try:
                self._look()
            except FileNotFoundError:
                if not left:
                    raise
            else:
                return

    def _look(self) -> None:
        result = read_result(self.objects, self.key)
        #: Which of its ends the rows are of that are seen; None of a run that goes on.
        self.gather = result.gather if result is not None else None
        self.parts: list[Part] = all_parts(self.plan)
        self.coverage = coverage_of(self.plan, self.parts)
        keys = sort_indexes(self.plan)
        self.sort_indexes = np.arange(self.plan.inputs) if keys is None else keys
        self.failed = np.zeros(self.plan.inputs, bool)
        for number, failures in enumerate(failed(self.objects, self.parts).values()):
            self.failed[self._positions(failures[self.coverage.owned(number, failures)])] = True
        self._find_origins()

    def _positions(self, sort_indexes: np.ndarray) -> np.ndarray:
        return sort_indexes if self.plan.dense else np.searchsorted(self.sort_indexes, sort_indexes)

    def _find_origins(self) -> None:
        """For each input, which of `origins` ran it; -1 where it has no row yet."""
        self.origins: list[Origin] = []
        self.origin = np.full(self.plan.inputs, _NOBODY, np.int32)
        #: The `sort_index` under which each was run: with the origin's stream it tells which random numbers it drew.
        self.drawn = self.sort_indexes.copy()
        at: dict[tuple[str | None, int | None], int] = {}
        for number, part in enumerate(self.parts):
            for rows in self._tasks(part):
                keys = rows.column("sort_index").to_numpy()
                which, pairs = _encoded(rows)
                found = np.empty(len(pairs), np.int32)
                for i, pair in enumerate(pairs):
                    if pair not in at:
                        at[pair] = len(self.origins)
                        self.origins.append(self._origin(*pair))
                    found[i] = at[pair]
                own = self.coverage.owned(number, keys)
                positions = self._positions(keys[own])
                self.origin[positions] = found[which[own]]
                reused = rows.column("reused_index")
                if reused.null_count < len(reused):
                    there = reused.is_valid().to_numpy()[own]
                    self.drawn[positions[there]] = reused.fill_null(0).to_numpy()[own][there]

    def _tasks(self, part: Part) -> Iterator[pa.Table]:
        written = number_of(part.name)
        for file in part.files:
            if file.table != "tasks" or file.last < file.first:
                continue
            with reading(self.objects, file.key), self.objects.reader(file.key) as stream:
                stored = pq.ParquetFile(stream)
                names = [n for n in _TASKS if n in stored.schema_arrow.names]
                rows = stored.read(names)
            n = rows.num_rows
            if written or "attempt" not in names:
                told = pa.repeat(pa.scalar(written or None, pa.int64()), n)
                rows = rows.drop_columns([*{"attempt"} & {*names}]).append_column("attempt", told)
            for name, dtype in (("reused_from", pa.string()), ("reused_index", pa.int64())):
                if name not in names:
                    rows = rows.append_column(name, pa.nulls(n, dtype))
            yield rows

    def _origin(self, reused_from: str | None, attempt: int | None) -> Origin:
        if reused_from is None:
            made_by = recorded(self.objects, self.key, attempt) if attempt is not None else None
            code, commit = (made_by.code, made_by.described) if made_by is not None else (None, None)
            return Origin(self.key.path, attempt, code, commit, self.plan.stream)
        told = [one for one in reused_of(self.manifest) if (one.run, one.attempt) == (reused_from, attempt)]
        return told[0] if told else Origin(reused_from, attempt, None, None)

    # --- inputs -------------------------------------------------------------------------------------

    def identified(self) -> KnownRun:
        """The run, whose inputs are read now; raises RunDamaged where they are damaged."""
        _ = self.identities
        return self

    def forget(self) -> None:
        """Lets go of what matching alone needs."""
        for name in ("identities", "specs"):
            self.__dict__.pop(name, None)

    @cached_property
    def specs(self) -> Specs:
        """Its inputs."""
        return specs_of(self.plan)

    @cached_property
    def identities(self) -> Identities:
        """What tells its inputs from others."""
        return self.specs.identities()


def specs_of(plan: RunPlan, *, addresses: bool = False) -> Specs:
    """The inputs of a run as they are stored; with `addresses` a file of which no more is known is told by its address.

    Raises:
        RunDamaged: they are gone or damaged, found now or when a column is read.
    """
    objects, key = plan.objects, plan.key
    with reading(objects, key.specs, stays=True):
        schema = stored_schema(objects, key.specs)
    files: dict[str, dict[str, str | None]] = {c.name: {} for c in TableSchema.from_arrow(schema) if c.kind.is_file}
    for file in recorded_files(objects, key) if files else ():
        files[file.field][file.uri] = file_identity(file, file.uri.rsplit("/", 1)[-1])

    def read(names: Sequence[str]) -> pa.Table:
        with reading(objects, key.specs, stays=True), objects.reader(key.specs) as stream:
            return pq.read_table(stream, columns=list(names))

    told = (schema.metadata or {}).get(IO_SCHEMAS.encode())
    fields = [column["name"] for column in json.loads(told)["input"]] if told is not None else schema.names
    computed = [column["name"] for column in plan.computed]
    return Specs(schema, plan.inputs, read, files, fields, computed, addresses=addresses)


def reused_of(manifest: Mapping[str, Any]) -> list[Origin]:
    """Who ran the inputs that a run has reused, as its manifest tells."""
    told = manifest.get("reused") or ()
    return [Origin(o["run"], o["attempt"], o["code"], o["git_commit"], o.get("stream", 0)) for o in told]


def known_runs(objects: Objects, experiment: str, version: str, qualname: str, seed: int) -> list[KnownRun]:
    """The runs of a version that were allocated for this function and with this seed, the newest first.

    Runs that are damaged or not here whole have no say: their inputs are run again, which is told. So it is of an unfinished
    one that packs its output files, which lie elsewhere once it ends.
    """
    passed_over: dict[str, str] = {}

    def known(key: RunKey) -> KnownRun | None:
        try:
            run = KnownRun(objects, key)
            if (run.plan.seed, run.plan.qualname) != (seed, qualname):
                return None
            if not (run.plan.pack and read_result(objects, key) is None):
                return run.identified()
            if run.parts:
                passed_over[key.path] = "it packs its output files, and is not finished: resume it first"
        except (NotFoundError, FileNotFoundError):  # it is being deleted
            pass
        except UNREADABLE as error:
            passed_over[key.path] = str(error).splitlines()[0]
        return None

    # One whose deletion was begun has its manifest still, where who deletes it was killed.
    deleted = reserved(objects, experiment, version).deleted
    keys = [key for key in run_keys(objects, experiment, [version]) if key not in deleted]
    found = objects.each(known, reversed(keys))
    for path, why in sorted(passed_over.items()):
        tell(f"{path} is passed over, and what it has is run again: {why}")
    return [run for run in found if run is not None]


@dataclass(frozen=True)
class KnownRows:
    """The rows of several runs, one behind the other: those first that are the best answer to an input."""

    runs: Sequence[KnownRun]
    origins: Sequence[Origin]
    numbers: np.ndarray
    #: Which of `runs`, and which of its inputs.
    run: np.ndarray
    position: np.ndarray
    #: Which of `origins`.
    origin: np.ndarray
    failed: np.ndarray
    #: The `sort_index` under which each was run first.
    drawn: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[KnownRun], *, errors: bool) -> KnownRows:
        """What the runs (the newest first) hold; inputs that failed alone with `errors`."""
        origins: list[Origin] = []
        at: dict[Origin, int] = {}
        columns: list[list[np.ndarray]] = [[] for _ in range(6)]
        for i, run in enumerate(runs):
            held = (run.origin != _NOBODY) & ~run.identities.unknown
            if not errors:
                held &= ~run.failed
            rows = np.flatnonzero(held)
            if not len(rows):
                continue
            for one in run.origins:
                if one not in at:
                    at[one] = len(origins)
                    origins.append(one)
            mapped = np.array([at[one] for one in run.origins], np.int32)
            every = (
                run.identities.numbers[rows], np.full(len(rows), i, np.int32), rows,
                mapped[run.origin[rows]], run.failed[rows], run.drawn[rows],
            )  # fmt: skip
            for column, values in zip(columns, every, strict=True):
                column.append(values)
        empty = (np.uint64, np.int32, np.int64, np.int32, bool, np.int64)
        whole = [np.concatenate([np.empty(0, dtype), *c]) for dtype, c in zip(empty, columns, strict=True)]
        return cls(runs, origins, *whole)


def _encoded(tasks: pa.Table) -> tuple[np.ndarray, list[tuple[str | None, int | None]]]:
    """For each row which of the distinct pairs of `reused_from` and `attempt` it has, and these."""
    codes, values = [], []
    for name in ("reused_from", "attempt"):
        encoded = tasks.column(name).combine_chunks().dictionary_encode("encode")
        codes.append(encoded.indices.to_numpy().astype(np.int64))
        values.append(encoded.dictionary.to_pylist())
    each = codes[0] * len(values[1]) + codes[1]
    distinct, which = (
        (each[:1], np.zeros(len(each), np.int64)) if not np.ptp(each) else np.unique(each, return_inverse=True)
    )
    pairs = [(values[0][int(c) // len(values[1])], values[1][int(c) % len(values[1])]) for c in distinct]
    return which, pairs


__all__ = ["UNREADABLE", "KnownRows", "KnownRun", "Origin", "known_runs", "reused_of", "specs_of"]

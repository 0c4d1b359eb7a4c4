"""The tables of one run as a report needs them: the columns that count, as many rows as can be looked at. Writes nothing."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from scythe.define.bookkeeping import ErrorRow
from scythe.define.renames import Renames
from scythe.errors import NotFoundError, ScytheError
from scythe.gather.run_files import scan_parts, scan_result, schema_of_result
from scythe.names import ID_LEVELS, RESERVED_TABLES
from scythe.record.manifest import renames_now
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult
from scythe.reporting.facts import Variable
from scythe.runs.run import ExperimentRun
from scythe_catalog.memo import cached_property
from scythe_catalog.schema import Column, TableSchema

MOST_ROWS, MOST_CELLS = 1_000_000, 50_000_000
_ROW = "_row"
_SEED = 17


@dataclass
class Tables:
    """What can be read of a run, and what cannot: `notes` tells. Columns have the names that they have now."""

    run: ExperimentRun
    result: RunResult | None
    notes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def frame(self, table: str, columns: Sequence[str]) -> pl.LazyFrame:
        """Columns of a table, ordered by `sort_index`: of the run's own files, wherever the catalog may be."""
        run, result, renamed = self.run, self.result, self._renames.of(table)
        if result is None:
            return _named(scan_parts(RunPlan.load(run.objects, run.key), table), renamed).select(columns)
        if table not in result.tables:
            raise NotFoundError(
                f"{run.experiment_id} has no table {table!r}; it has {', '.join(sorted(result.tables))}"
            )
        return _named(scan_result(run.objects, result.tables[table]), renamed).select(columns)

    def collected(
        self, table: str, columns: Sequence[str], section: str, most: int | None = None
    ) -> pl.DataFrame | None:
        """Columns of a table, of its first rows where it says how many; None where it cannot be read, which is noted."""
        with self.noting(section, f"The table {table}"):
            frame = self.frame(table, columns)
            return (frame if most is None else frame.head(most)).collect()
        return None

    def sampled(self, table: str, columns: Sequence[str], most: int, section: str) -> tuple[pl.DataFrame, int]:
        """Columns of a table, of `most` rows drawn at random where there are more, and how many there are."""
        with self.noting(section, f"The table {table}"):
            frame = self.frame(table, columns)
            rows = int(frame.select(pl.len()).collect().item())
            if rows <= most:
                return frame.collect(), rows
            chosen = np.sort(np.random.default_rng(_SEED).choice(rows, most, replace=False))
            picked = pl.col(_ROW).is_in(pl.Series(chosen.astype(np.uint32)).implode())
            return frame.with_row_index(_ROW).filter(picked).drop(_ROW).collect(engine="streaming"), rows
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null)), 0

    def schemas(self) -> dict[str, TableSchema]:
        """The schemas of the tables that the models determine; none where the run's plan is gone or damaged."""
        with self.noting("head", "The plan of the run"):
            plan = RunPlan.load(self.run.objects, self.run.key)
            return {name: planned.schema.renamed(self._renames.of(name)) for name, planned in plan.tables.items()}
        return {}

    def dataframes(self) -> dict[str, TableSchema]:
        """The dataframes of a finished run, by name, with their columns."""
        found: dict[str, TableSchema] = {}
        for name, table in (self.result.tables if self.result is not None else {}).items():
            if name not in RESERVED_TABLES:
                with self.noting("dataframes", f"The dataframe {name}"):
                    found[name] = schema_of_result(self.run.objects, table).renamed(self._renames.of(name))
        return found

    @cached_property
    def _renames(self) -> Renames:
        with self.noting("head", "What fields were called before"):
            return renames_now(self.run.objects, self.run.key.experiment)
        return Renames()

    @contextmanager
    def noting(self, section: str, what: str) -> Generator[None]:
        """Within it, what cannot be read is noted, and ends it."""
        try:
            yield
        except READ_FAILURES as error:
            self.note(section, f"{what} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}")

    def note(self, section: str, text: str) -> None:
        """Something that a reader of the report must know."""
        self.notes.append((section, text))


def _named(frame: pl.LazyFrame, renamed: Mapping[str, str]) -> pl.LazyFrame:
    return frame.rename({**renamed}, strict=False) if renamed else frame


#: What reading may raise of a run that is damaged, changed or deleted meanwhile.
READ_FAILURES = (ScytheError, OSError, pl.exceptions.PolarsError)


def variables(schemas: dict[str, TableSchema]) -> tuple[list[Variable], list[Variable]]:
    """The inputs and the outputs of a run, computed features among the inputs; the identifiers are neither."""
    if not {"scalars", "errors"} <= schemas.keys():
        return [], []
    told = {*ErrorRow._fields, *ID_LEVELS}
    inputs = [c for c in schemas["errors"] if c.name not in told]
    names = {c.name for c in inputs} | set(ID_LEVELS)
    outputs = [c for c in schemas["scalars"] if c.name not in names]
    return variables_of(inputs), variables_of(outputs)


def variables_of(columns: Iterable[Column]) -> list[Variable]:
    """The columns of a table as what they stand for."""
    return [Variable(c.name, c.unit, c.doc) for c in columns]

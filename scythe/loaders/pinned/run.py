"""The gathers that a dataset draws on: runs as they ended when it was made. Later ends and later runs change nothing.

Reads tables of these gathers by the names of their columns. Knows nothing of batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.define.renames import Renames
from scythe.errors import CatalogError, NotFoundError, RunDamaged, ScytheError, StorageError
from scythe.gather.run_files import schema_of_result
from scythe.loaders.rows import Rows
from scythe.reader.choices import as_told
from scythe.reader.many_runs import PARTITION_COLUMNS, partition_of
from scythe.reader.united import brought_together, check_alike
from scythe.record.layout import RunKey
from scythe.record.manifest import schemas_of_run
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult
from scythe.remote.forks import check_fork
from scythe.remote.packed import PREFIX
from scythe.settings import storage
from scythe_catalog.iceberg.scan import scan_content, scan_files
from scythe_catalog.memo import cached_property
from scythe_catalog.schema import Column, TableSchema
from scythe_catalog.storage.objects import Objects

#: The tables that have one row an input at most, in the order in which a column is looked for.
ROW_TABLES = ("scalars", "result_file_refs", "tasks")

#: A table of a bucket up to this size is fetched whole.
_SMALL_BYTES = 1 << 20
#: For a message, where a run is gone: what there is to do.
LEFT = "; refresh() gives the dataset of the runs that are left, from which a training begins anew"
#: What names a pinned gather: version, folder of the run, gather (None: the run was not finished).
Pin = tuple[str, str, str | None]


@dataclass
class Together:
    """The runs of a dataset, in which a column is of one table: what one run has among its outputs is not looked for in the `tasks` of another."""

    runs: Sequence[PinnedRun] = ()
    _tables: dict[str, str | None] = field(default_factory=dict[str, "str | None"])

    def table_of(self, column: str) -> str | None:
        """The table that has a column, among those with one row an input, in any of the runs."""
        if column not in self._tables:
            has = (table for table in ROW_TABLES if any(run.has(table, column) for run in self.runs))
            self._tables[column] = next(has, None)
        return self._tables[column]


@dataclass(frozen=True)
class PinnedRun:
    """One run as it was: the files of a gather, or what an unfinished run had come to by then, in memory."""

    objects: Objects
    key: RunKey
    result: RunResult | None
    #: What was renamed until now: its files may have the former names.
    renames: Renames = field(default_factory=Renames)
    #: Of an unfinished run.
    rows: pl.DataFrame | None = None
    #: All that it is read together with, itself too.
    together: Together = field(default_factory=Together, compare=False, repr=False)
    #: The small tables that were fetched, by name.
    _contents: dict[str, bytes] = field(default_factory=dict[str, bytes], compare=False, repr=False)

    @property
    def pin(self) -> Pin:
        """What names it."""
        return self.key.version, self.key.folder, self.result.gather if self.result is not None else None

    @cached_property
    def schemas(self) -> dict[str, TableSchema]:
        """The columns of its tables, as they are called now."""
        return {name: schema.renamed(self.renames.of(name)) for name, schema in self._stored.items()}

    @cached_property
    def _stored(self) -> dict[str, TableSchema]:
        """The columns of its tables, as its files have them."""
        if self.result is None:
            return {"scalars": RunPlan.load(self.objects, self.key).tables["scalars"].schema}
        tables = self.result.tables
        return dict(zip(tables, self.objects.each(self._schema_of, tables), strict=True))

    def _schema_of(self, table: str) -> TableSchema:
        assert self.result is not None
        content = self._content(table)
        try:
            if content is None:
                return schema_of_result(self.objects, self.result.tables[table])
            return TableSchema.from_arrow(pq.read_schema(pa.BufferReader(content)))
        except FileNotFoundError:
            raise self._gone() from None
        except (pa.ArrowInvalid, RunDamaged) as error:
            raise self._damaged(table, str(error.__cause__ or error)) from error

    def _content(self, table: str) -> bytes | None:
        """All of a small table in a bucket, fetched once: each look into a file there asks three times, one after the other."""
        assert self.result is not None
        told = self.result.tables[table]
        if self.objects.folder is not None or told.bytes > _SMALL_BYTES:
            return None
        if table not in self._contents:
            try:
                self._contents[table] = self.objects.read(told.key)
            except FileNotFoundError:
                raise self._gone() from None
        return self._contents[table]

    def named(self, column: str) -> str:
        """What a column is called now, which may be asked for by a former name: a dataset that was made then does."""
        return self.renames.columns.get(column, column)

    def named_in(self, table: str, column: str) -> str:
        """What a column of one of its tables is called now."""
        return self.renames.of(table).get(column, column)

    def first_named(self, column: str) -> str:
        """What a column was called at first."""
        now = self.named(column)
        return self.renames.first.get(now, now)

    def column_of(self, column: str) -> Column | None:
        """A column of a table with one row an input, as it is called now or was; None where there is none."""
        table = self.table_of(column)
        return self.schemas[table][self.named(column)] if table is not None else None

    def scan(self, table: str) -> pl.LazyFrame:
        """One of its tables, ordered by `sort_index`.

        Raises:
            NotFoundError: it has none of this name, or its files are gone.
            ForkError: in a process that was forked beside running threads.
        """
        check_fork()
        if table not in self.schemas:
            raise NotFoundError(f"{self.key.path} has no table {table!r}; it has {', '.join(sorted(self.schemas))}")
        if self.rows is not None:
            return self.rows.lazy()
        if (content := self._content(table)) is not None:
            found = scan_content(content, self._stored[table])
        else:
            self.check_there(table)
            assert self.result is not None
            found = scan_files(self.objects, [self.result.tables[table].key], self._stored[table])
        return found.rename(self.renames.of(table), strict=False)

    def check_there(self, table: str) -> None:
        """Nothing while the file of a table is there; of an unfinished run it is in memory.

        Raises:
            NotFoundError: it is gone.
        """
        if self.result is not None and not self.objects.exists(self.result.tables[table].key):
            raise self._gone()

    def check_root(self, uris: pl.Series) -> None:
        """Nothing where addresses of its files are those of files here, or of files that never were.

        Raises:
            CatalogError: they are those of the root that this one was copied from, or lay in before.
        """
        if uris.str.strip_prefix(PREFIX).str.starts_with(f"{self.objects.root}/").all():
            return
        made_in = RunPlan.from_json(self.objects.read(self.key.plan), self.objects.uri(self.key.plan)).root
        if made_in != self.objects.root:
            raise CatalogError(
                f"the run {self.key.path} was made in {made_in} and has been moved to {self.objects.root}: the addresses of its "
                "files are still those of before; make them and the catalog anew with `scythe rebuild`"
            )

    def _damaged(self, table: str, what: str) -> RunDamaged:
        assert self.result is not None
        return RunDamaged(
            f"the table {table!r} of {self.key.path} is damaged ({self.objects.uri(self.result.tables[table].key)}): {what}"
        )

    def _gone(self) -> NotFoundError:
        what = f"the run {self.key.path} is gone, or the end of it that this dataset was made of"
        return NotFoundError(f"{what}{if_gone(self.objects) or LEFT}")

    def table_of(self, column: str) -> str | None:
        """The table that has a column, among those with one row an input; None where it is in another one in other runs."""
        table = self.together.table_of(column)
        return table if table is not None and self.has(table, column) else None

    def has(self, table: str, column: str) -> bool:
        """Whether a table of it has a column, as it is called now or was."""
        return table in self.schemas and self.named(column) in self.schemas[table]

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The fields of its input model, as they are called now; none of a run that does not tell."""
        told = schemas_of_run(self.objects, self.key)
        return frozenset(map(self.named, TableSchema.from_json(told["input"]).names)) if told else frozenset()

    @cached_property
    def sort_index(self) -> np.ndarray:
        """The `sort_index` of each good row."""
        found = self.read("scalars", [pl.col("sort_index")])["sort_index"].to_numpy()
        if self.result is not None and len(found) != self.height:
            raise self._damaged("scalars", f"it has {len(found):,} rows, its run tells of {self.height:,}")
        return found

    def read(self, table: str, columns: Sequence[pl.Expr]) -> pl.DataFrame:
        """Columns of a table; raises StorageError where it cannot be read."""
        with self._reading(table):
            return self.scan(table).select(columns).collect()

    @contextlib.contextmanager
    def _reading(self, table: str) -> Generator[None]:
        """While rows of a table are read: damage and a network that fails are the same to Polars."""
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            if self.result is None or isinstance(error, StorageError):
                raise
            if isinstance(error, FileNotFoundError):
                raise self._gone() from None
            where, what = self.objects.uri(self.result.tables[table].key), str(error).splitlines()[0]
            raise StorageError(f"the table {table!r} of {self.key.path} cannot be read ({where}): {what}") from error

    @property
    def height(self) -> int:
        """How many good rows it has."""
        return self.result.tables["scalars"].rows if self.result is not None else len(self.sort_index)

    def blocks(self, names: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Columns of the good rows, some rows at a time, each with the position of its first; one that the run lacks is null.

        Raises:
            RunDamaged: its table has not as many rows as it had.
            StorageError: it cannot be read.
        """
        together = list(dict.fromkeys(name for name in names if self.table_of(name) == "scalars"))
        alone = {name: self.column(name) for name in dict.fromkeys(names) if name not in together}
        read = [pl.DataFrame({"": range(self.height)})]
        if together:  # the next ones are read while one is used
            read = self.scan("scalars").select(self._by(together)).collect_batches(maintain_order=True, lazy=True)
        start = 0
        with self._reading("scalars"):
            for frame in read:
                now, count = frame.rechunk(), frame.height  # one array a column, or each look at it would make one
                if start + count > self.height:
                    break
                lacked = pl.repeat(None, count, dtype=pl.Null, eager=True) if alone else pl.Series()
                for name, values in alone.items():
                    now = now.with_columns((lacked if values is None else values.slice(start, count)).alias(name))
                yield start, now
                del frame, now  # before the next one comes
                start += count
        if start != self.height:
            raise self._damaged("scalars", f"it has other rows than its run tells of, which has {self.height:,}")

    def columns(self, names: Sequence[str]) -> dict[str, pl.Series | None]:
        """The values of columns, those of the scalars read together."""
        together = [name for name in names if self.table_of(name) == "scalars"]
        read = self.read("scalars", self._by(together)) if together else pl.DataFrame()
        return {name: read[name] if name in together else self.column(name) for name in names}

    def column(self, name: str) -> pl.Series | None:
        """The values of a column, one a good row; None where the run has no such column."""
        table = self.table_of(name)
        if table is None:
            return None
        if table == "scalars":
            return self.read(table, self._by([name])).to_series()
        other = self.read(table, [pl.col("sort_index"), *self._by([name])])
        at = np.searchsorted(other["sort_index"].to_numpy(), self.sort_index)
        return other[name][at]

    def _by(self, names: Sequence[str]) -> list[pl.Expr]:
        """Columns under the names by which they are asked for."""
        return [pl.col(self.named(name)).alias(name) for name in names]


def is_gone(objects: Objects) -> bool:
    """Whether a root is a folder that is not there."""
    return objects.folder is not None and not objects.folder.exists()


def where_it_lies(objects: Objects) -> Objects:
    """The root of a dataset that was pickled: on another machine, or after it was moved, the one that is set there; pins tell its runs."""
    if is_gone(objects):
        with contextlib.suppress(ScytheError):
            return objects if is_gone(storage()) else storage()
    return objects


def if_gone(objects: Objects) -> str:
    """For a message: that the whole root is not there; nothing where it is."""
    return f"; the root {objects.root} is not there, was it moved? Make the dataset anew" if is_gone(objects) else ""


def together(runs: Iterable[PinnedRun]) -> list[PinnedRun]:
    """The same runs, which know of one another."""
    shared = Together()
    shared.runs = [replace(run, together=shared) for run in runs]
    return list(shared.runs)


def called(runs: Sequence[PinnedRun], rows: Rows, row: int) -> str:
    """A row in a message: input and run."""
    (run,), (at,) = rows.places(np.array([row]))
    return f"input {runs[run].sort_index[at]} of {runs[run].key.path}"


def frame_of(runs: Sequence[PinnedRun], rows: Rows, *, many: bool) -> pl.LazyFrame:
    """Inputs and outputs of rows, in their order; where `many` runs may be asked for, with what tells these apart.

    Raises:
        NotFoundError: a run is gone.
        ReadError: a column has another unit in one run than in another, or types that no column holds together.
    """
    schemas = [run.schemas["scalars"] for run in runs]
    check_alike(schemas, None)
    whole, casts = brought_together(schemas)
    parts: list[pl.LazyFrame] = []
    for i, run in enumerate(runs):
        where, at = rows.of(i)
        run.check_there("scalars")
        if files := [column.name for column in schemas[i] if column.kind.is_file]:
            for uris in run.read("scalars", [pl.col(name).drop_nulls().first() for name in files]):
                run.check_root(uris)
        place = pl.DataFrame({"_at": at, "_place": where}).lazy()
        parts.append(
            run.scan("scalars")
            .with_row_index("_at")
            .with_columns(pl.col("_at").cast(pl.Int64))
            .join(place, on="_at")
            .with_columns(casts[i], **(partition_of(run.key) if many else {}))
        )
    last = PARTITION_COLUMNS if many else ()
    found = as_told(pl.concat(parts, how="diagonal_relaxed"), whole, schemas)
    return found.sort("_place").select(cs.exclude("_at", "_place", *last), *last)

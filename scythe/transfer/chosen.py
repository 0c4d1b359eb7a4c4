"""Which files of a run are carried: its records and tables, and those of its input and output files that are asked for.

Of a finished run neither the files of earlier gathers nor `final/` come along, which names the same files once more. Copies nothing,
writes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import polars as pl

from scythe.define.renames import name_among
from scythe.errors import NotFoundError, ReadError, TransferError
from scythe.gather.parts import number_of
from scythe.gather.run_files import scan_parts, schema_of_file
from scythe.record.layout import RunKey
from scythe.record.manifest import renames_now
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult
from scythe.remote.packed import PREFIX, taken_apart
from scythe.transfer.arrived import INSIDE, OBJECTS
from scythe.transfer.conditions import filtered, missing
from scythe_catalog.iceberg.scan import scan_files
from scythe_catalog.memo import cached_property
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Found, Objects

_KEY = "sort_index"
_REFS = "result_file_refs"
#: Fewer files than this share of a run's are asked for one by one; of more, the folder is listed.
_FEW = 0.02
#: A shard comes whole where at least this share of its bytes is asked for, else file by file.
_NEARLY_ALL = 0.9
_OUTSIDE = r"(^|/)\.{0,2}(/|$)"


@dataclass(frozen=True)
class Asked:
    """What of each run is asked for."""

    #: None for all of them.
    tables: tuple[str, ...] | None = None
    #: None for all of them.
    fields: tuple[str, ...] | None = None
    where: pl.Expr | None = None


def asked_of(tables: object, files: object, where: object) -> Asked:
    """What `tables`, `files` and `where` of `download` ask for.

    Raises:
        ReadError: one of them is none.
    """
    condition = where
    if isinstance(where, str):
        try:
            condition = pl.sql_expr(where)
        except pl.exceptions.PolarsError as error:
            raise ReadError(f"where={where!r} is no condition of SQL: {error}") from error
    if condition is not None and not isinstance(condition, pl.Expr):
        raise ReadError(f"where={where!r} is neither an expression of Polars nor a condition of SQL, as 'r_value < 3'")
    return Asked(_names("tables", tables), () if files is False else _names("files", files), condition)


def _names(argument: str, given: object) -> tuple[str, ...] | None:
    if given is True or given == "all":
        return None
    if isinstance(given, str):
        raise ReadError(f"{argument}={given!r} is one name: give a list of names, [{given!r}], or 'all'")
    if not isinstance(given, Iterable):
        raise ReadError(f"{argument}={given!r} is neither 'all' nor a list of names")
    return tuple(map(str, given))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def frame_of(found: Iterable[Found]) -> pl.DataFrame:
    """Files as a frame: key, size, tag."""
    return pl.DataFrame([(f.key, f.size, f.tag) for f in found], OBJECTS, orient="row")


def listed(objects: Objects, key: RunKey) -> pl.DataFrame:
    """The records and tables of a run, those of earlier gathers included; not its input and output files."""
    inner = [found for folder in ("scatter-gather", "final") for found in objects.found(f"{key.path}/{folder}")]
    return frame_of([*objects.direct(key.path), *inner])


def tables_of(result: RunResult, asked: Asked) -> list[str]:
    """The tables that are asked for, and that which names the output files, where files are.

    Raises:
        NotFoundError: the run has no such table.
    """
    if asked.tables is None:
        return list(result.tables)
    for name in asked.tables:
        if name not in result.tables:
            raise NotFoundError(missing(f"{result.experiment_id} has no table", name, list(result.tables)))
    names = () if asked.fields == () or _REFS not in result.tables else (_REFS,)
    return list(dict.fromkeys([*asked.tables, *names]))


def records_and_tables(there: pl.DataFrame, key: RunKey, result: RunResult | None, asked: Asked) -> pl.DataFrame:
    """Those of a run's files that are carried whatever rows are asked for.

    Raises:
        NotFoundError: the run has no table that is asked for.
        TransferError: it has none of a file that its result names.
    """
    keys: list[str] = there["key"].to_list()
    outcome = (f"{key.path}/scatter-gather/output/", key.final("").rsplit("/", 1)[0] + "/")
    chosen = {k for k in keys if not k.startswith(outcome)} | {key.result, key.cancelled}
    attempt = result.attempt if result is not None else -1  # what is reused is a part of attempt 0
    chosen |= {k for k in keys if k.startswith(f"{key.parts}/") and number_of(k.rsplit("/", 1)[-1]) > attempt}
    if result is not None:
        tables = {result.tables[name].key for name in tables_of(result, asked)}
        if lost := sorted(tables - set(keys)):
            raise TransferError(
                f"{key.path} has no file {lost[0]}, which its result names: it is damaged at its source"
            )
        chosen |= tables | ({key.gathered_files(result.gather)} if result.gather is not None else set())
    return there.filter(pl.col("key").is_in(list(chosen)))


@dataclass(frozen=True)
class Places:
    """Where the tables of a run are read: here, where they have arrived, else at their source."""

    source: Objects
    local: Objects
    key: RunKey
    result: RunResult | None

    @cached_property
    def owners(self) -> list[str]:
        """The folders of other runs whose output files the run names: it has reused rows of theirs."""
        return self.result.owners if self.result is not None else RunPlan.load(self.source, self.key).owners

    def scan(self, key: str) -> tuple[pl.LazyFrame, TableSchema]:
        objects = self.local if self.local.exists(key) else self.source
        schema = schema_of_file(objects, key)
        return scan_files(objects, [key], schema), schema

    def table(self, name: str) -> tuple[pl.LazyFrame, TableSchema] | None:
        """A table of the run as far as it is; None where it has none of the name."""
        if self.result is not None:
            found = self.result.tables.get(name)
            if (
                found is not None and name == _REFS and ("packs" in self.result.tables or self.owners)
            ):  # here it may name single files of shards, and its own copies of those of other runs
                return replace(self, local=self.source).scan(found.key)
            return self.scan(found.key) if found is not None else None
        plan = RunPlan.load(self.source, self.key)
        return (scan_parts(plan, name), plan.tables[name].schema) if name in plan.tables else None


def check(places: Places, asked: Asked) -> None:
    """Nothing where there are the fields and columns that are asked for.

    Raises:
        NotFoundError: listing what there is.
        ReadError: the condition is none.
    """
    if asked.fields == ():
        return
    _fields(places, asked)
    _rows(places, asked)


def _fields(places: Places, asked: Asked) -> list[str]:
    """The fields of files that are asked for, by any name of theirs, as the run calls them.

    Raises:
        NotFoundError: it has no such field.
    """
    names = list({c.name: None for _, schema in _with_files(places) for c in schema if c.kind.is_file})
    if asked.fields is None:
        return names
    renamed = renames_now(places.source, places.key.experiment).columns
    found: list[str] = []
    for name in asked.fields:
        own = name_among(names, name, renamed)
        if own is None:
            raise NotFoundError(missing(f"{places.key.path} has no files of a field", name, names))
        found.append(own)
    return found


def files_of(places: Places, asked: Asked) -> pl.DataFrame:
    """The input and output files that are asked for, of the rows and of the fields: `key`, and how to get at those `INSIDE` a shard.

    Raises:
        ReadError: the condition cannot be asked of the rows.
        TransferError: a reference leads out of its run.
    """
    if asked.fields == ():
        return pl.DataFrame(schema=INSIDE)
    rows, wanted, known = _rows(places, asked), _fields(places, asked), set[str]()
    found: list[pl.DataFrame] = [pl.DataFrame(schema={"uri": pl.String, "field": pl.String})]
    for frame, schema in _with_files(places):
        files = [c.name for c in schema if c.kind.is_file and c.name not in known]
        known.update(files)
        fields = [name for name in files if name in wanted]
        if fields:
            kept = frame if rows is None else frame.join(rows, on=_KEY, how="semi")
            uris = [
                kept.select(pl.col(name).cast(pl.String).alias("uri"), pl.lit(name).alias("field")) for name in fields
            ]
            try:
                found.append(pl.concat(uris).drop_nulls().unique().collect())
            except pl.exceptions.PolarsError as error:
                if rows is None:
                    raise
                raise ReadError(f"where= cannot be asked of the rows of {places.key.path}: {error}") from error
    named = pl.concat(found)
    plain = named.filter(~pl.col("uri").str.starts_with(PREFIX))
    packed = named.filter(pl.col("uri").str.starts_with(PREFIX))
    more = [
        *([_others(places, plain)] if places.owners else []),
        *([_inside(places, packed)] if packed.height else []),
    ]
    return pl.concat([keyed(places, plain, [places.key.path]), *more], how="diagonal").unique("key").sort("key")


def _others(places: Places, plain: pl.DataFrame) -> pl.DataFrame:
    """Files in the folders of other runs: they come into the run's own, which then needs those no more."""
    there = keyed(places, plain, places.owners).rename({"key": "inside"})
    found = places.source.described(there["inside"].unique())
    sizes = pl.DataFrame(
        [(f.key, f.size, 0) for f in found],
        {name: INSIDE[name] for name in ("inside", "length", "offset")},
        orient="row",
    )
    name = pl.col("inside").str.extract(r"/results/(.+)$")
    files = there.join(sizes, on="inside", how="left").with_columns(
        pl.format(f"{places.key.path}/results/{{}}", name).alias("key"), pl.lit(None, pl.Int64).alias("crc32c")
    )
    if (lost := files.filter(pl.col("length").is_null())).height:
        raise TransferError(f"{places.source.uri(lost['inside'][0])} is not there, though {places.key.path} names it")
    return files.select(*INSIDE)


def _inside(places: Places, packed: pl.DataFrame) -> pl.DataFrame:
    """The same of files in shards: shards that are wanted nearly whole, and single files of the others."""
    files = packed.select("field").hstack(taken_apart(packed["uri"])).rename({"shard": "uri"})
    files = keyed(places, files, [places.key.path, *places.owners]).rename({"key": "inside"}).unique(["field", "name"])
    shards = frame_of(places.source.described(files["inside"].unique())).select(inside="key", all="size")
    reach = (pl.col("offset") + pl.col("length")).max().alias("reach")
    held = pl.struct("offset", "length", "crc32c").alias("held")
    wanted = files.group_by("inside").agg(pl.col("length").sum(), reach, held).join(shards, on="inside", how="left")
    lost = wanted.filter(pl.col("all").is_null() | (pl.col("all") < pl.col("reach"))).sort("inside")
    if lost.height:
        size = lost["all"][0]
        what = "is not there" if size is None else f"is cut short ({size:,} of {lost['reach'][0]:,} bytes)"
        raise TransferError(
            f"{places.source.uri(lost['inside'][0])} {what}, though {places.key.path} names files in it: put it back, or leave them out "
            "with files= or where="
        )
    own = pl.col("inside").str.starts_with(f"{places.key.path}/")
    whole = wanted.filter(own & (pl.col("length") >= pl.col("all") * _NEARLY_ALL)).select(key="inside", held="held")
    apart = files.filter(~pl.col("inside").is_in(whole["key"].implode()))
    keys = [places.key.output_file(field, name) for field, name in apart.select("field", "name").iter_rows()]
    single = apart.with_columns(pl.Series("key", keys, pl.String))
    return pl.concat([whole, single.select(*INSIDE)], how="diagonal")


def _with_files(places: Places) -> list[tuple[pl.LazyFrame, TableSchema]]:
    """The tables that tell of input files, then of output files."""
    tables = (places.scan(places.key.specs), places.table(_REFS))
    return [table for table in tables if table is not None]


def _rows(places: Places, asked: Asked) -> pl.LazyFrame | None:
    """The `sort_index` of each input that is asked for; None for all."""
    if asked.where is None:
        return None
    scalars = places.table("scalars")
    if scalars is None:
        raise NotFoundError(f"{places.key.path} has no table 'scalars', by which where= chooses rows")
    renamed = renames_now(places.source, places.key.experiment).of("scalars")
    return filtered(scalars[0], asked.where, f"the rows of {places.key.path}", "scalars", renamed).select(_KEY)


def keyed(places: Places, files: pl.DataFrame, folders: Sequence[str]) -> pl.DataFrame:
    """Those of some files (`uri`) that lie in the folders of these runs, here or at the source, with their `key`."""
    own = pl.lit(None, pl.String)
    for root, folder in itertools.product((places.source.root, places.local.root), folders):
        begins = pl.col("uri").str.starts_with(f"{root}/{folder}/")
        own = pl.when(begins).then(pl.col("uri").str.slice(len(root) + 1)).otherwise(own)
    found = files.with_columns(own.alias("key")).drop_nulls("key").drop("uri")
    if (outside := found["key"].filter(found["key"].str.contains(_OUTSIDE))).len():
        raise TransferError(f"{places.key.path} names a file {outside[0]!r}, which leads out of its folder")
    return found


def looked_up(source: Objects, key: RunKey, files: pl.DataFrame, rows: int) -> pl.DataFrame:
    """Files of a run with their sizes and tags: few are asked for one by one, of many their folders are listed.

    Raises:
        TransferError: one is not there.
    """
    inside = files.filter(pl.col("inside").is_not_null()) if "inside" in files.columns else pl.DataFrame(schema=INSIDE)
    keys: list[str] = files.join(inside, on="key", how="anti")["key"].to_list()
    if len(keys) <= rows * _FEW:
        found = frame_of(source.described(keys))
    else:
        folders = sorted({k.rsplit("/", 1)[0] for k in keys})
        found = pl.concat([frame_of(source.direct(folder)) for folder in folders] or [frame_of([])])
        found = found.filter(pl.col("key").is_in(list(keys)))
    if lost := sorted(set(keys) - set(found["key"])):
        more = f" (and {len(lost) - 1:,} more)" if len(lost) > 1 else ""
        raise TransferError(
            f"{source.uri(lost[0])}{more} is not there, though {key.path} names it: put it back, or leave it out with "
            "files= or where="
        )
    if "held" in files.columns:
        found = found.join(files.select("key", "held"), on="key", how="left")
    tag = pl.format("{} at {}", pl.col("crc32c").fill_null(-1), "offset")  # by which a file in a shard is known again
    return pl.concat([found, inside.with_columns(pl.col("length").alias("size"), tag.alias("tag"))], how="diagonal")


__all__ = [
    "Asked",
    "Places",
    "asked_of",
    "check",
    "files_of",
    "frame_of",
    "listed",
    "looked_up",
    "records_and_tables",
]

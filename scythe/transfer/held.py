"""What of a run lies in a root: its tables, and those of its files that lie where the tables say. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from scythe.errors import TransferError
from scythe.gather.parts import stored_parts
from scythe.record.layout import RunKey
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, read_result
from scythe.remote.packed import PREFIX, taken_apart
from scythe.reuse.owners import dependants_of, files_elsewhere
from scythe.transfer.chosen import Places, frame_of, keyed
from scythe_catalog.storage.objects import Objects

_REFS = "result_file_refs"


def check_whole(objects: Objects, key: RunKey) -> None:
    """Nothing where all output files that the tables of a run name in its own folder are there, shards as long as they must be.

    Raises:
        TransferError: one is not.
    """
    named = _named(objects, key, read_result(objects, key))
    lost = named.join(_there(objects, key, "results", "artifacts"), on="key", how="left").filter(
        pl.col("size").is_null() | (pl.col("size") < pl.col("reach"))
    )
    if lost.height:
        first = lost.sort("sort_index").row(0, named=True)
        what = "is not there" if first["size"] is None else f"is cut short ({first['size']:,} bytes)"
        more = f" (and {others:,} more)" if (others := lost["key"].n_unique() - 1) else ""
        raise TransferError(
            f"{objects.uri(first['key'])}{more} {what}, though {key.path} names it: put it back, or delete the run"
        )


def lacking(source: Objects, target: Objects, key: RunKey) -> str | None:
    """What of a run another root has not, in words: tables, files; None where it has all that there is of it in the source."""
    ours, theirs = read_result(source, key), read_result(target, key)
    tables = sorted((ours.tables.keys() if ours else set()) - (theirs.tables.keys() if theirs else set()))
    parts = stored_parts(RunPlan.load(source, key), after=ours.attempt if ours is not None else -1)
    folders = [f"{key.path}/artifacts", *([f"{key.path}/results"] if ours is None or parts else [])]
    files = sum(
        _files(source, folder).join(_files(target, folder), on=["key", "size"], how="anti").height for folder in folders
    )
    # They never change but for addresses in them, which follow the root; and the attempts that wrote them were compared.
    files += len({file.key for part in parts for file in part.files} - set(_files(target, key.parts)["key"]))
    if ours is not None:
        at, their = (_present(objects, key, result) for objects, result in ((source, ours), (target, theirs)))
        files += at.join(their, on=["sort_index", "field"], how="anti").height
    told = [f"the table {tables[0]!r}"] if len(tables) == 1 else [f"the tables {', '.join(map(repr, tables))}"] * bool(tables)  # fmt: skip
    told += [f"{files:,} file{'s' * (files > 1)}"] * bool(files)
    return " and ".join(told) or None


def unnamed(objects: Objects, key: RunKey, keys: Iterable[str]) -> list[str]:
    """Those of a finished run's output files that neither its tables name, nor those of runs that have reused rows of it."""
    given, result = list(keys), read_result(objects, key)
    if not given or result is None or result.left_out:  # the table that names them may be what did not come along
        return []
    named = {*_named(objects, key, result)["key"]}
    named.update(objects.key(uri) for other in dependants_of(objects, key) for uri in files_elsewhere(objects, other))
    return [one for one in given if one not in named]


def _present(objects: Objects, key: RunKey, result: RunResult | None) -> pl.DataFrame:
    """The output files that lie where the tables say: `sort_index, field`."""
    owners = Places(
        objects, objects, key, result
    ).owners  # of rows that were reused, the files lie in the folders of these
    there = [_there(objects, key, "results", "artifacts"), *(_files(objects, f"{owner}/results") for owner in owners)]
    named = _named(objects, key, result, owners).join(pl.concat(there), on="key")
    return named.filter(pl.col("size") >= pl.col("reach")).select("sort_index", "field")


def _there(objects: Objects, key: RunKey, *folders: str) -> pl.DataFrame:
    return pl.concat([_files(objects, f"{key.path}/{folder}") for folder in folders])


def _files(objects: Objects, folder: str) -> pl.DataFrame:
    return frame_of(objects.found(folder)).select("key", "size")


def _named(objects: Objects, key: RunKey, result: RunResult | None, owners: Sequence[str] = ()) -> pl.DataFrame:
    """The output files that the tables of a run name in its own folder, and in those of others: `sort_index, field, key`, and how far a file must `reach` [bytes]."""
    places = Places(objects, objects, key, result)
    found = places.table(_REFS)
    none = pl.DataFrame(schema={"sort_index": pl.Int64, "field": pl.String, "key": pl.String, "reach": pl.Int64})
    parts = [none]
    for name in (c.name for c in found[1] if c.kind.is_file) if found is not None else ():
        assert found is not None
        uris = found[0].select("sort_index", pl.col(name).cast(pl.String).alias("uri")).drop_nulls().collect()
        inside = taken_apart(uris["uri"])
        files = uris.with_columns(
            pl.lit(name).alias("field"),
            pl.when(pl.col("uri").str.starts_with(PREFIX)).then(inside["shard"]).otherwise("uri").alias("uri"),
            (inside["offset"] + inside["length"]).fill_null(0).alias("reach"),
        )
        parts.append(keyed(places, files, [key.path, *owners]).select(none.columns))
    return pl.concat(parts, how="vertical_relaxed")


__all__ = ["check_whole", "lacking", "unnamed"]

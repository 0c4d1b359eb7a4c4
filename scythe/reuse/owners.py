"""Which runs' output files other runs name, whose rows they have reused: such a run is not deleted before those.

The manifest of a run tells whose files it names. Deletion and allocation look for each other after they have left their own
mark, so that neither passes the other by unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from scythe.errors import FormatError, NotFoundError, RunDamaged, RunError
from scythe.gather.parts import Part, source_of
from scythe.gather.run_files import scan_parts, scan_result
from scythe.record.find import run_keys
from scythe.record.layout import FOLDERS, RunKey
from scythe.record.manifest import manifest_told
from scythe.record.plan import RunPlan
from scythe.record.results import read_result
from scythe.remote.packed import PREFIX
from scythe_catalog.storage.objects import Objects

_REFS, _PACKS = "result_file_refs", "packs"


def owners_in(plan: RunPlan, part: Part, files: Iterable[str]) -> list[str]:
    """The runs, by their `experiment_id`, in whose folders the output files lie that reused rows name."""
    found = set[str]()
    for file in part.files:
        if file.table == _REFS:
            for rows in source_of(plan.objects, file).batches():
                for name in files:
                    found.update(_runs(plan, pl.Series(rows.column(name)).cast(pl.String))["run"].unique())
    return sorted(found - {plan.key.path})


def _runs(plan: RunPlan, uris: pl.Series) -> pl.DataFrame:
    """Those of some addresses that lie below a run of the experiment: which `run`, and the file (or the shard that holds it)."""
    below = f"{pl.escape_regex(plan.objects.root)}/({pl.escape_regex(plan.key.experiment)}/{FOLDERS})/"
    known = uris.to_frame("uri").select(
        pl.col("uri").str.extract(f"^(?:{pl.escape_regex(PREFIX)})?{below}").alias("run"),
        pl.col("uri").str.strip_prefix(PREFIX).str.replace(r"\?offset=[^?]*$", "").alias("file"),
    )
    return known.drop_nulls("run")


def files_elsewhere(objects: Objects, key: RunKey) -> list[str]:
    """The addresses of the output files (or of the shards that hold them) that a run names in the folders of others, sorted."""
    if not owners_of(manifest_told(objects, key)):
        return []
    plan, result = RunPlan.load(objects, key), read_result(objects, key)
    refs = scan_result(objects, result.tables[_REFS]) if result is not None else scan_parts(plan, _REFS)
    schema = plan.tables[_REFS].schema
    found = set[str]()
    for column in schema:
        if column.kind.is_file:
            uris = refs.select(pl.col(column.name).cast(pl.String)).collect().to_series()
            found |= set(_runs(plan, uris).filter(pl.col("run") != key.path)["file"])
    return sorted(found)


def dependants_of(objects: Objects, key: RunKey) -> list[RunKey]:
    """The runs that name output files of a run, oldest first; of those that cannot be read nobody knows."""
    if not _has_files(objects, key):
        return []
    others = [other for other in run_keys(objects, key.experiment, [key.version]) if other != key]
    manifests = objects.each(lambda other: manifest_told(objects, other), others)
    return [other for other, told in zip(others, manifests, strict=True) if key.path in owners_of(told)]


def all_dependants_of(objects: Objects, key: RunKey) -> list[RunKey]:
    """The runs that name output files of a run, and those that name theirs, oldest first."""
    found: set[RunKey] = set()
    waiting = [key]
    while waiting:
        new = {*dependants_of(objects, waiting.pop())} - found
        found |= new
        waiting += new
    return [other for other in run_keys(objects, key.experiment, [key.version]) if other in found]


def _has_files(objects: Objects, key: RunKey) -> bool:
    try:
        return _REFS in RunPlan.load(objects, key).tables
    except (NotFoundError, RunDamaged, FormatError):
        return True


def owners_of(manifest: Mapping[str, Any]) -> list[str]:
    """The runs, by their `experiment_id`, whose output files a run names, as its manifest tells."""
    return [str(path) for path in manifest.get("owners") or ()]


def check_unneeded(objects: Objects, key: RunKey) -> None:
    """Nothing where no run names output files of this one.

    Raises:
        RunError: some do.
    """
    found = dependants_of(objects, key)
    if found:
        named = ", ".join(other.path for other in found)
        raise RunError(
            f"{key.path} cannot be deleted: {named} {'has' if len(found) == 1 else 'have'} reused rows of it, whose output files "
            "lie in its folder. Delete those first, or with it: `scythe delete --with`, delete(dependants=True)"
        )


def check_there(objects: Objects, owners: Iterable[str], seen: Mapping[str, str | None]) -> None:
    """Nothing where all of these runs are still there, and nobody is deleting one, or its files by themselves.

    Args:
        objects: The root.
        owners: The runs in whose folders files are named.
        seen: Of the runs that rows were taken from which of their ends it was.

    Raises:
        RunError: one is gone, or its files may be.
    """
    for path in owners:
        key = RunKey(*path.split("/"))
        if objects.exists(key.tombstone) or not objects.exists(key.manifest):
            again = f"allocate again; where its deletion was killed, call it again first: `scythe delete {path}`"
            raise RunError(f"{path} was deleted while its rows were reused: {again}")
        if (
            path not in seen
        ):  # its files do not go, or another run of those names files of it, too, and keeps them there
            continue
        result = read_result(objects, key)
        if result is not None and result.gather != seen[path] and _PACKS in result.tables:
            raise RunError(f"{path} was packed while its rows were reused: allocate again")


__all__ = [
    "all_dependants_of",
    "check_there",
    "check_unneeded",
    "dependants_of",
    "files_elsewhere",
    "owners_in",
    "owners_of",
]

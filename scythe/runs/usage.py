"""How much room experiments and runs take, and what of it. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from scythe.names import CATALOG
from scythe.record.find import experiment_names, run_keys
from scythe.record.layout import RunKey
from scythe_catalog.storage.objects import Found, Objects

#: Part of a run -> folder of it. What lies in none of them counts as `other`.
_PARTS = {"inputs": ("artifacts/", "specs.pq"), "tables": ("scatter-gather/output/", "final/"), "files": ("results/",)}
_COLUMNS = (*_PARTS, "other")


def usage(objects: Objects, experiment: str | None = None) -> pl.DataFrame:
    """What each experiment takes, or each run of one, largest first: `name, total, inputs, tables, files, other, catalog` [bytes].

    On a disk, `final/` holds other names of files that are counted already. Of single runs, `catalog` is null: it is shared.
    """
    rows: list[dict[str, str | int | None]] = []
    for name in experiment_names(objects) if experiment is None else [experiment]:
        found = {key.path: parts_of(objects, key, objects.found(key.path)) for key in run_keys(objects, name)}
        if experiment is not None:
            rows += [{"name": path, **parts, "catalog": None} for path, parts in found.items()]
            continue
        whole = {part: sum(parts[part] for parts in found.values()) for part in _COLUMNS}
        catalog = sum(one.size for one in objects.found(f"{CATALOG}/{name}"))
        rows.append({"name": name, **whole, "catalog": catalog})
    schema = {"name": pl.String, **dict.fromkeys((*_COLUMNS, "catalog"), pl.Int64)}
    frame = pl.DataFrame(rows, schema=schema).with_columns(pl.sum_horizontal(*_COLUMNS, "catalog").alias("total"))
    return frame.select("name", "total", *_COLUMNS, "catalog").sort("total", descending=True)


def parts_of(objects: Objects, key: RunKey, found: Iterable[Found]) -> dict[str, int]:
    """What the objects of a run take, by what they are: `inputs`, `tables`, `files`, `other` [bytes]."""
    sizes = dict.fromkeys(_COLUMNS, 0)
    for one in found:
        place = one.key.removeprefix(f"{key.path}/")
        if objects.folder is not None and place.startswith("final/"):
            continue
        sizes[next((part for part, starts in _PARTS.items() if place.startswith(starts)), "other")] += one.size
    return sizes


__all__ = ["parts_of", "usage"]

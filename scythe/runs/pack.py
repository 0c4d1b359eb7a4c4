"""Packs the output files of a finished run: they are copied into shards, and a new end of the run names them there.

The files by themselves stay, unless they are to go. Runs no function; can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from scythe.define.renames import name_among
from scythe.define.schemas import PACKS
from scythe.errors import NotFoundError, RunError
from scythe.gather.packs import packs_of
from scythe.gather.parts import stored_parts
from scythe.gather.publish import Gathered, is_unpublished, new_gather, publish, record, settle
from scythe.leaf.shards import Shards
from scythe.names import ID_LEVELS, meant
from scythe.record.attempts import check_arrived, check_newest
from scythe.record.format import reading
from scythe.record.generations import Generations, catalog_of
from scythe.record.layout import RunKey
from scythe.record.lease import Lease
from scythe.record.manifest import renames_now
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, TableResult, read_result
from scythe.reuse.owners import dependants_of
from scythe.settings import engine_settings
from scythe_catalog.iceberg.datafile import DataFile, DataFileWriter, pandas_index, stored_field_ids
from scythe_catalog.memo import cached_property
from scythe_catalog.storage.objects import Objects

_REFS, _PACKS = "result_file_refs", "packs"
_ROWS, _AT_ONCE = 8192, 16
#: Files that are no larger are read at once, others in blocks of so many bytes.
_BLOCK = 8 * 1024 * 1024


@dataclass
class Packed:
    """What was packed."""

    files: int = 0
    bytes: int = 0


def pack(objects: Objects, key: RunKey, fields: Sequence[str], *, delete: bool = False) -> Packed:
    """Copies the output files of some fields into shards, and names them there; what is packed already stays as it is.

    Args:
        objects: The root.
        key: The run.
        fields: The file outputs.
        delete: Remove the files by themselves, once nothing of the run names them any more.

    Raises:
        NotFoundError: the run has no such file output.
        RunError: it is not finished, was downloaded without a table, or not to the end, somebody works on it or died at it, or, with
            `delete`, another run names its files.
    """
    check_arrived(objects, key)
    with Lease(objects, key, "inline", packs=True) as lease:
        result = read_result(objects, key)
        if result is None or result.left_out:
            raise RunError(f"{key.path} is not finished, or not here whole: resume it, or pack it where it came from")
        if stored_parts(RunPlan.load(objects, key), after=result.attempt):  # a new end would supersede them unread
            raise RunError(
                f"{key.path} was gone on with by an attempt that came to no end: resume it first, to keep what that did"
            )
        if _PACKS in result.tables and not {*PACKS.names} <= {*result.tables[_PACKS].columns}:
            raise RunError(
                f"{key.path} has a dataframe named {_PACKS!r}, as older runs may: its files cannot be packed"
            )
        if is_unpublished(objects, key):  # of an earlier call, which was killed
            settle(objects, catalog_of(objects, engine_settings().catalog), key)
            if is_unpublished(objects, key):
                raise RunError(
                    f"{key.path} is not wholly of this root yet: a download or a `scythe rebuild` goes on, or was cut short; wait for it, or call it again"
                )
        if delete:
            _check_unnamed(objects, key, "pack it without deleting the files by themselves")
        packing = _Packing(objects, key, result)
        fields = packing.fields(fields)
        done = packing.to_shards(fields, lease.number)
        if delete:  # of an earlier call, too
            # Who reuses rows of it looks for another end of the run, once its own manifest is there.
            _check_unnamed(objects, key, "it is packed, and the files by themselves stay")
            for name in fields:
                objects.delete_folder(key.output_file(name, "").rstrip("/"))
        return done


def _check_unnamed(objects: Objects, key: RunKey, so: str) -> None:
    """Nothing where no run names output files of this one; `so` says what follows from it.

    Raises:
        RunError: some do.
    """
    if named := dependants_of(objects, key):
        raise RunError(
            f"{', '.join(other.path for other in named)} {'names' if len(named) == 1 else 'name'} output files of {key.path}, "
            f"having reused rows of it: {so}"
        )


class _Packing:
    def __init__(self, objects: Objects, key: RunKey, result: RunResult) -> None:
        self._objects, self._key, self._before = objects, key, result
        self._catalog = catalog_of(objects, engine_settings().catalog)
        self._plan = RunPlan.load(objects, key)
        self._done = Packed()

    def fields(self, asked: Sequence[str]) -> list[str]:
        """The file outputs that are asked for, by any name of theirs, as the run calls them.

        Raises:
            NotFoundError: it has no such file output.
        """
        renamed = renames_now(self._objects, self._key.experiment).columns
        found = {name: name_among(self._known, name, renamed) for name in asked}
        for name, own in found.items():
            if own is None:
                raise NotFoundError(f"{self._key.path} has no file output {name!r}{meant(name, self._known)}")
        return [own for own in dict.fromkeys(found.values()) if own is not None]

    @cached_property
    def _known(self) -> list[str]:
        refs = self._before.tables.get(_REFS)
        return [name for name in refs.columns if name not in self._levels] if refs is not None else []

    def to_shards(self, fields: Sequence[str], attempt: int) -> Packed:
        objects, key, before = self._objects, self._key, self._before
        if not fields:
            return self._done
        refs = before.tables[_REFS]
        gather, keys = new_gather(key, attempt, {*before.tables, _PACKS})
        earlier = Gathered.of(objects, before, key)
        files = dict(earlier.files)
        files[_REFS] = self._refs(refs, keys[_REFS], fields)
        if not self._done.files:
            return self._done
        packs, files[_PACKS] = self._packs(keys[_REFS], keys[_PACKS], self._known)
        tables = {**before.tables, _PACKS: packs}
        for name in tables.keys() - {_REFS, _PACKS}:
            objects.link(tables[name].key, keys[name])
        named = {
            n: t.model_copy(update={"key": keys[n], "rows": files[n].rows, "bytes": files[n].bytes})
            for n, t in tables.items()
        }
        result = before.model_copy(update={"gather": gather, "attempt": attempt, "tables": named})
        named_files = {n: replace(f, uri=objects.uri(keys[n])) for n, f in files.items()}
        gathered = Gathered(named_files, same_rows=earlier.followed(before.gather))
        check_newest(objects, key, attempt)
        record(objects, key, result, gathered)
        publish(objects, self._catalog, key, result, gathered, [key.unpublished(gather)])
        return self._done

    @property
    def _levels(self) -> frozenset[str]:
        """The columns of the table of files that are not files."""
        return frozenset(c["name"] for c in self._plan.tables["scalars"].columns)

    def _refs(self, table: TableResult, target: str, fields: Sequence[str]) -> DataFile:
        """The table of files once more, with the addresses of files in shards."""
        objects = self._objects
        with reading(objects, table.key), objects.reader(table.key) as stream:
            file = pq.ParquetFile(stream)
            schema = file.schema_arrow
            columns, index = stored_field_ids(schema), pandas_index(schema)
            with (
                DataFileWriter(objects, target, schema, columns, index=index) as writer,
                Shards(self._plan) as shards,
            ):
                for batch in file.iter_batches(_ROWS):
                    rows = pa.Table.from_batches([batch])
                    for name in fields:
                        at = schema.get_field_index(name)
                        uris = list(self._packed(rows.column(name).to_pylist(), shards))
                        rows = rows.set_column(at, schema.field(at), pa.array(uris, schema.field(at).type))
                    writer.write(rows)
                objects.publish_all(shards.close())
        return writer.describe(self._catalog.table(self._key.experiment, table.catalog_table).iceberg.schema())

    def _packed(self, uris: Sequence[str | None], shards: Shards) -> Iterator[str | None]:
        objects, own = self._objects, self._objects.uri(self._key.path) + "/results/"
        keys = [objects.key(uri) if uri is not None and uri.startswith(own) else None for uri in uris]
        wanted = [key for key in keys if key is not None]
        opened = (file for i in range(0, len(wanted), _AT_ONCE) for file in self._opened(wanted[i : i + _AT_ONCE]))
        for i, (uri, key) in enumerate(zip(uris, keys, strict=True)):
            if key is None:
                yield uri
                continue
            self._done.files += 1
            yield shards.put(i, self._counted(next(opened)), key.rsplit("/", 1)[-1])
            if shards.full:
                objects.publish_all(shards.close())

    def _counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self._done.bytes += len(block)
            yield block

    def _opened(self, keys: Sequence[str]) -> list[Iterator[bytes]]:
        """The contents of files, in blocks of which the first ones are read by now."""
        objects = self._objects
        try:
            return objects.each(lambda key: _blocks(objects.reader(key)), keys)
        except FileNotFoundError:
            lost = sorted({*keys} - {found.key for found in objects.described(keys)})
            more = f" (and {len(lost) - 1:,} more)" if len(lost) > 1 else ""
            raise RunError(
                f"{objects.uri((lost or keys)[0])}{more} is not there, though {self._key.path} names it: put it back. Nothing was changed"
            ) from None

    def _packs(self, refs: str, target: str, columns: Sequence[str]) -> tuple[TableResult, DataFile]:
        """The table that tells where the files lie, from that of files."""
        objects = self._objects
        table = Generations(self._catalog, self._key.experiment, objects).open(self._key, _PACKS, PACKS)
        with reading(objects, refs), objects.reader(refs) as stream:
            rows = (pa.Table.from_batches([batch]) for batch in pq.ParquetFile(stream).iter_batches(_ROWS))
            with DataFileWriter(objects, target, PACKS.arrow, table.ids, index=ID_LEVELS) as writer:
                for packs in packs_of(rows, columns):
                    writer.write(packs)
        name, columns = table.iceberg.name()[-1], list(PACKS.names)
        made = TableResult(uri=objects.uri(target), key=target, catalog_table=name, columns=columns, rows=0, bytes=0)
        return made, writer.describe(table.iceberg.schema())


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    first = file.read(_BLOCK)
    if len(first) == _BLOCK:
        return chain([first], _rest(file))
    file.close()
    return iter([first])


def _rest(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from iter(lambda: file.read(_BLOCK), b"")


__all__ = ["Packed", "pack"]

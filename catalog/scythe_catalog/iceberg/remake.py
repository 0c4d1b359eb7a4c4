"""Makes a table hold exactly the files that it should, in one commit: after a move, a copy, or damage.

Never drops what there is: a table keeps its columns, their ids and its properties, and until the commit readers see
what it held. It races with other committers as any commit does, and decides anew when one was faster.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scythe_catalog.errors import CommitConflict, TableNotFound
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import DataFile
from scythe_catalog.iceberg.partition import Partition, data_file, files_of, swap
from scythe_catalog.iceberg.tables import LEDGER, Table, called

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable

_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Wanted:
    """What a table should hold: data files with their partitions, and the keys under which some were appended."""

    files: Mapping[str, tuple[DataFile, Partition]]
    keys: frozenset[str] = field(default=frozenset())


#: Says what a table should hold, given the table and the files that it holds now: URI -> values of its partition.
Decide = Callable[[Table, Mapping[str, tuple[Any, ...]]], Wanted]


def remake(catalog: Catalog, namespace: str, name: str, decide: Decide) -> None:
    """Makes a table hold what `decide` says, and nothing else.

    Raises:
        TableNotFound: there is no such table, or none that could be read.
        CatalogError: it is that of another root.
        CommitConflict: other committers were always faster.
    """
    from pyiceberg.exceptions import CommitFailedException

    deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.05
    while True:
        table = _here(catalog, namespace, name)
        present = files_of(table, {})
        try:
            _commit(table, present, decide(Table(table), {uri: _values(file) for uri, file in present.items()}))
            return
        except CommitFailedException as error:
            if time.monotonic() > deadline:
                raise CommitConflict(f"no commit to {namespace}.{name} went through: {error}") from error
        time.sleep(random.uniform(0, pause))
        pause = min(pause * 1.6, 2.0)


def _here(catalog: Catalog, namespace: str, name: str) -> IcebergTable:
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    from scythe_catalog.iceberg.folder_catalog import FolderCatalog

    iceberg = catalog.iceberg
    try:
        if isinstance(iceberg, FolderCatalog):
            return iceberg.table_here((namespace, name))
        table = called(iceberg.load_table((namespace, name)), namespace, name)
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        raise TableNotFound(f"there is no table {namespace}.{name} in {catalog.warehouse}") from error
    except FileNotFoundError:
        table = None  # the catalog's server names metadata that are gone: with them went all that it knew
    if table is not None:  # its metadata are there, and so is the root that it is of
        catalog.check_own(table.location(), namespace, name)
    if table is None or not table.location().startswith(f"{catalog.warehouse}/"):
        iceberg.drop_table((namespace, name))
        raise TableNotFound(f"the table {namespace}.{name} is not in {catalog.warehouse} any more")
    return table


def _values(file: Any) -> tuple[Any, ...]:
    return tuple(file.partition[i] for i in range(len(file.partition)))


def _commit(table: IcebergTable, present: Mapping[str, Any], wanted: Wanted) -> None:
    gone = [file for uri, file in present.items() if uri not in wanted.files]
    new = [data_file(table, file, part) for uri, (file, part) in wanted.files.items() if uri not in present]
    keys = {key for key in table.properties if key.startswith(LEDGER)}
    kept = {LEDGER + key for key in wanted.keys}
    tx = table.transaction()
    swap(tx, gone, new)
    if keys - kept:
        tx.remove_properties(*sorted(keys - kept))
    tx.set_properties({_REMADE: str(int(time.time())), **dict.fromkeys(kept - keys, "1")})
    tx.commit_transaction()


#: A property that says when a table was last remade; with it there is something to commit for an empty one, too.
_REMADE = "scythe.remade"

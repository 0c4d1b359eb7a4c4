"""What a dataframe comes to over all inputs of a run: its columns and types, its rows, and the inputs that do not fit.

Sees each input's rows only as sources of sorted Arrow tables. Never reads a file of its own, never writes anything.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa

from scythe.errors import SchemaError
from scythe.gather.merge import KEY, Source, keys_of, without
from scythe.leaf.dataframes import INDEX_KEY
from scythe_catalog.iceberg.datafile import pandas_index
from scythe_catalog.schema import Column, TableSchema, joined, loses, refitted, same_names
from scythe_catalog.schema.kinds import Kind, Unknown

#: Rows of one dataframe that have the same schema; no input of theirs is superseded by another fragment's.
Fragment = tuple[pa.Schema, Source]

Kinds = dict[str, Kind]


@dataclass(frozen=True)
class Dataframe:
    """A dataframe over all inputs: its columns, the fragments that go with it, and the inputs that do not, with the reason.

    The input with the lowest `sort_index` that has rows sets the columns; the types are those that the
    values of all inputs have a place in, and what none of them tells stays unknown.
    """

    kinds: Kinds
    index: list[str]
    fragments: list[Fragment] = field(default_factory=list[Fragment])
    misfits: dict[int, str] = field(default_factory=dict[int, str])

    @classmethod
    def of(cls, fragments: Sequence[Fragment], levels: TableSchema) -> Dataframe:
        """What these fragments of one name, at least one, come to together; columns of `levels` are typed by the models."""
        filled = sorted((fragment for fragment in fragments if not fragment[1].empty), key=_first)
        empty = [schema for schema, source in fragments if source.empty]
        return _Joining(levels).over(filled, empty)

    def typed(self, levels: TableSchema) -> TableSchema:
        """The columns: levels as the models declare them, the rest by their kinds."""
        columns = (levels[n] if n in levels else Column(n, kind, True) for n, kind in self.kinds.items())
        return TableSchema(tuple(columns)).relaxed()

    def sources(self, dropped: np.ndarray, schema: pa.Schema) -> Iterator[Source]:
        """The rows of each fragment in the common types, those of `schema`, without the inputs in `dropped` (sorted)."""
        for own, source in self.fragments:
            same = own.equals(schema, check_metadata=False) and not _within(dropped, source)
            yield source if same else replace(source, batches=partial(self._in_common, source, dropped), stored=None)

    def _in_common(self, source: Source, dropped: np.ndarray) -> Iterator[pa.Table]:
        for table in without(source.batches(), dropped):
            yield promoted(table, self.kinds)


def _within(keys: np.ndarray, source: Source) -> bool:
    """Whether a source may have rows of some of these keys (sorted)."""
    low, high = np.searchsorted(keys, [source.first, source.last + 1])
    return bool(low < high)


class _Joining:
    """The columns of the fragments seen so far, lowest `sort_index` first."""

    def __init__(self, levels: TableSchema) -> None:
        self.levels = levels
        self.kinds: Kinds = {}
        self.fragments: list[Fragment] = []
        #: What each fragment tells of the columns: nothing of those that turned out to be null throughout.
        self.told: list[Kinds] = []
        #: The lowest input with a value in a column of a fragment, of those that were looked at.
        self.lowest: dict[tuple[int, str], int | None] = {}
        self.misfits: dict[int, str] = {}
        self.leader = 0

    def over(self, filled: Sequence[Fragment], empty: Sequence[pa.Schema]) -> Dataframe:
        """What the fragments with rows come to, and those without where they tell what the others leave open."""
        for schema, source in filled:
            reason = self._add(schema, source)
            if reason is not None:
                self.misfits |= {int(key): reason for key in np.unique(keys_of(source))}
        if not self.fragments and empty:
            self.kinds, index = self._kinds_of(empty[0]), index_columns(empty[0])
        else:
            index = index_columns(self.fragments[0][0]) if self.fragments else []
        for schema in empty:
            self._complete(self._kinds_of(schema))
        for told, (_, source) in zip(self.told, self.fragments, strict=True):
            if any(loses(kind, self.kinds[name]) for name, kind in told.items()):
                self.misfits |= _unpromotable(source, self.kinds, self.misfits)
        ordered = {name: self.kinds[name] for name in self.levels.names if name in self.kinds} | self.kinds
        return Dataframe(ordered, index, self.fragments, self.misfits)

    def _add(self, schema: pa.Schema, source: Source) -> str | None:
        """Takes a fragment in, or says why it does not go with those before it, and leaves all as it was."""
        before = self.kinds, self.told, self.misfits
        reason = self._added(schema, source)
        if reason is not None:
            self.kinds, self.told, self.misfits = before
        return reason

    def _added(self, schema: pa.Schema, source: Source) -> str | None:
        own = self._kinds_of(schema)
        if not self.fragments:
            self.kinds, self.leader = own, source.first
        else:
            extra = next((name for name in own if name not in self.kinds and name not in self.levels), None)
            if extra is not None:
                return (
                    f"it has the column {extra!r}, which that of input {self.leader} has not: the first says which columns "
                    "there are, so give it all of them, null where there is nothing"
                )
            try:
                together = self._together(own)
            except SchemaError:
                for name in [name for name, kind in own.items() if _unlike(self.kinds.get(name, kind), kind, name)]:
                    own, reason = self._parted(name, own, source)
                    if reason is not None:
                        return reason
                together = self._together(own)
            if together != self.kinds:
                reason = self._twin(together) or self._costly(together, source.first)
                if reason is not None:
                    return reason
                self.kinds = together
        self.fragments.append((schema, source))
        self.told.append(own)
        return None

    def _together(self, own: Kinds) -> Kinds:
        return self.kinds | {name: joined(self.kinds.get(name, kind), kind, name) for name, kind in own.items()}

    def _parted(self, name: str, own: Kinds, source: Source) -> tuple[Kinds, str | None]:
        """What a fragment tells where a column of it and those before do not go together: the first input with a value in it tells its type.

        The others that have one are misfits, those that have none stay. A reason where all of the fragment are.
        """
        mine = _inputs_with(name, source)
        if not len(mine):
            return own | {name: Unknown()}, None
        before = {i for i, told in enumerate(self.told) if told.get(name, Unknown()) != Unknown()}
        if any(self._has_value_below(mine[0], name, i) for i in sorted(before)):
            reason = _unlike(self.kinds[name], own[name], name)
            if np.array_equal(mine, np.unique(keys_of(source))):
                return own, reason
            self.misfits = self.misfits | dict.fromkeys(mine.tolist(), reason)
            return own | {name: Unknown()}, None
        reason = _unlike(own[name], self.kinds[name], name)
        for i in before:
            self.misfits = self.misfits | dict.fromkeys(_inputs_with(name, self.fragments[i][1]).tolist(), reason)
        self.told = [told | ({name: Unknown()} if i in before else {}) for i, told in enumerate(self.told)]
        self.kinds = self.kinds | {name: Unknown()}
        return own, None

    def _has_value_below(self, key: int, name: str, i: int) -> bool:
        """Whether an input below `key` has a value in a column of a fragment; each is read once."""
        source = self.fragments[i][1]
        if source.first < key and (i, name) not in self.lowest:
            found = _inputs_with(name, source)
            self.lowest[i, name] = int(found[0]) if len(found) else None
        lowest = self.lowest.get((i, name))
        return lowest is not None and lowest < key

    def _kinds_of(self, schema: pa.Schema) -> Kinds:
        columns = TableSchema.from_arrow(schema)
        return {c.name: self.levels[c.name].kind if c.name in self.levels else c.kind for c in columns}

    def _twin(self, kinds: Kinds) -> str | None:
        """Why columns, or members of structs, of two inputs cannot stand in one table; None where they can.

        Names of two runs are the versions' matter: a column that another replaces is a breaking change. Names that
        stand together already (a run of an earlier Scythe may have such) cost nobody.
        """
        alike = same_names(kinds.items())
        if alike is None or same_names(self.kinds.items()) is not None:
            return None
        return f"some readers take its {alike[1]!r} for {alike[0]!r} of another input: give both one name"

    def _costly(self, together: Kinds, before: int) -> str | None:
        """Why types would cost inputs below `before` their values, which come first; None where they keep them."""
        for told, (_, source) in zip(self.told, self.fragments, strict=True):
            at_risk = [name for name, k in told.items() if loses(k, together[name])]
            if source.first < before and at_risk:
                lost = next((i for i in _unpromotable(source, together, self.misfits, below=before)), None)
                if lost is not None:
                    return f"its types have no exact place for the values of input {lost} in {', '.join(map(repr, at_risk))}"
        return None

    def _complete(self, kinds: Kinds) -> None:
        for name, kind in kinds.items():
            if name in self.kinds:
                try:
                    found = joined(self.kinds[name], kind)
                except SchemaError:
                    continue
                if not loses(self.kinds[name], found):
                    self.kinds = self.kinds | {name: found}


def _unlike(there: Kind, here: Kind, name: str) -> str:
    """Why an input is a misfit whose column is of another kind than that of an input before it; empty where they go together."""
    try:
        joined(there, here, name)
    except SchemaError as error:
        return f"its types do not go with those of inputs before it: {error}"
    return ""


def _inputs_with(name: str, source: Source) -> np.ndarray:
    """The inputs that have a value in a column, ascending."""
    found = [batch.filter(batch.column(name).is_valid()).column(KEY).to_numpy() for batch in source.batches()]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _first(fragment: Fragment) -> int:
    return fragment[1].first


def index_columns(schema: pa.Schema) -> list[str]:
    """The columns that pandas reads back as the index, of a part or of a run's earlier final file."""
    told = (schema.metadata or {}).get(INDEX_KEY)
    return json.loads(told) if told is not None else pandas_index(schema)


def promoted(table: pa.Table, kinds: Kinds) -> pa.Table:
    """The rows with the columns and types that the dataframe has over all inputs.

    Raises:
        pyarrow.ArrowException: a value that has no exact place there.
    """
    columns = [
        refitted(table.column(name), kind) if name in table.column_names else pa.nulls(table.num_rows, kind.storage)
        for name, kind in kinds.items()
    ]
    return pa.table(columns, names=list(kinds))


def _unpromotable(source: Source, kinds: Kinds, known: Collection[int], below: int | None = None) -> dict[int, str]:
    """The inputs with a value that has no place in the types that all inputs share, and why; none that are `known` to be misfits."""
    misfits: dict[int, str] = {}
    for batch in without(source.batches(), np.array(sorted(known), np.int64)):
        keys = batch.column(KEY).to_numpy()
        if below is not None:
            keys = keys[: int(np.searchsorted(keys, below))]
            if not len(keys):
                break
        table = batch.slice(0, len(keys))
        try:
            promoted(table, kinds)
        except pa.ArrowException:
            for key in np.unique(keys):
                try:
                    promoted(table.filter(pa.array(keys == key)), kinds)
                except pa.ArrowException as error:
                    misfits[int(key)] = str(error)
    return misfits

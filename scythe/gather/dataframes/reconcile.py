"""What a dataframe comes to over all inputs of a run: its columns and types, its rows, and the inputs that do not fit.

Sees each input's rows only as sources of sorted Arrow tables. Never reads a file of its own, never writes anything.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import numpy as np
import pyarrow as pa

from scythe.errors import SchemaError
from scythe.gather.dataframes.told import Kinds, Telling, filled, tellings
from scythe.gather.merge import KEY, Source, keys_of, without
from scythe.leaf.dataframes import INDEX_KEY
from scythe_catalog.iceberg.datafile import pandas_index
from scythe_catalog.schema import Column, TableSchema, joined, loses, refitted, same_names
from scythe_catalog.schema.kinds import Unknown

#: Rows of one dataframe that have the same schema; no input of theirs is superseded by another fragment's.
Fragment = tuple[pa.Schema, Source]

_BEHIND_ALL = 2**63 - 1


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
        empty = [schema for schema, source in fragments if source.empty]
        return _Joining(levels).over([one for one in fragments if not one[1].empty], empty)

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


@dataclass
class _Part:
    """A fragment, and what its inputs tell of the columns of which frames tell unlike things."""

    kinds: Kinds
    fragment: Fragment
    first: int
    tellings: list[Telling] = field(default_factory=list[Telling])

    @property
    def source(self) -> Source:
        return self.fragment[1]


class _Joining:
    """The columns of all inputs, one input after the other, the lowest `sort_index` first.

    What becomes of an input follows from it and those before it alone, whatever parts their rows lie in.
    """

    def __init__(self, levels: TableSchema) -> None:
        self.levels = levels
        self.kinds: Kinds = {}
        self.parts: list[_Part] = []
        self.misfits: dict[int, str] = {}
        #: Up to here values were held against the kinds.
        self._settled = -1

    def over(self, fragments: Sequence[Fragment], empty: Sequence[pa.Schema]) -> Dataframe:
        """What the fragments with rows come to, and those without where they tell what the others leave open."""
        parts = [_Part(self._kinds_of(schema), (schema, source), _lowest(source)) for schema, source in fragments]
        parts.sort(key=lambda part: part.first)
        telling = sorted(empty, key=_written)
        index: list[str] = []
        if parts:
            index = index_columns(parts[0].fragment[0])
            self._join(parts)
            for part in parts:
                self._complete(part.kinds)
        elif telling:
            index = index_columns(telling[0])
            self.kinds = _agreed([self._kinds_of(schema) for schema in telling])
        for schema in telling if parts else ():
            self._complete(self._kinds_of(schema))
        ordered = {name: self.kinds[name] for name in self.levels.names if name in self.kinds} | self.kinds
        return Dataframe(ordered, index, [part.fragment for part in self.parts], self.misfits)

    def _join(self, parts: list[_Part]) -> None:
        """Takes in what has the columns of the first; each input then, where frames tell unlike things of a column."""
        leader = parts[0]
        for part in parts:
            extra = next((name for name in part.kinds if name not in leader.kinds and name not in self.levels), None)
            if extra is None:
                self.parts.append(part)
            else:
                self._refuse(
                    _inputs_of(part.source),
                    f"it has the column {extra!r}, which that of input {leader.first} has not: the first says which columns "
                    "there are, so give it all of them, null where there is nothing",
                )
        everything = dict.fromkeys(name for part in self.parts for name in part.kinds)
        unlike = [
            name
            for name in everything
            if name not in leader.kinds
            or any(p.kinds.get(name, leader.kinds[name]) != leader.kinds[name] for p in self.parts)
        ]
        self.kinds = {name: Unknown() if name in unlike else kind for name, kind in leader.kinds.items()}
        if unlike:
            for part in self.parts:
                own = {name: part.kinds[name] for name in unlike if name in part.kinds}
                levels = {name: kind for name, kind in own.items() if name in self.levels}
                part.tellings = [
                    replace(told, kinds=told.kinds | levels)
                    for told in tellings(part.source, {n: kind for n, kind in own.items() if n not in levels})
                ]
            self._fold()

    def _fold(self) -> None:
        """Takes in what each input tells, in their order; those that do not go with what is known by then are misfits."""
        refused: dict[int, str] = {}  # number of a telling -> why, as long as the kinds stay
        all_told = [told for part in self.parts for told in part.tellings]
        at = min(part.first for part in self.parts)
        while True:
            growing: list[tuple[int, int, Kinds]] = []
            reasons = dict(refused)
            for number, told in enumerate(all_told):
                place = int(np.searchsorted(told.inputs, at))
                if place == len(told.inputs) or number in refused:
                    continue
                together = self._together(told.kinds)
                if isinstance(together, str):
                    reasons[number] = together
                elif together != self.kinds:
                    growing.append((int(told.inputs[place]), number, together))
            upto, number, together = min(growing, key=lambda found: found[0]) if growing else (_BEHIND_ALL, 0, {})
            for other, reason in reasons.items():
                low, high = np.searchsorted(all_told[other].inputs, [at, upto])
                self._refuse(all_told[other].inputs[low:high], reason)
            self._settle(upto)
            if not growing:
                return
            costs = self._costs(together, upto)
            if costs is not None:
                refused[number], at = costs, upto
                continue
            if (lost := self._lost(together, upto, upto + 1, all_told[number])) and upto in lost:
                self.misfits[upto] = lost[upto]
            else:
                self.kinds, refused = together, {}
            at = upto + 1

    def _refuse(self, inputs: np.ndarray, reason: str) -> None:
        self.misfits |= dict.fromkeys(inputs.tolist(), reason)

    def _together(self, told: Kinds) -> Kinds | str:
        """The kinds with what an input tells beside them, or why it does not go with them."""
        together = dict(self.kinds)
        for name, kind in told.items():
            try:
                together[name] = joined(self.kinds.get(name, kind), kind, name)
            except SchemaError as error:
                return f"its types do not go with those of inputs before it: {error}"
        return self._twin(together) or together

    def _settle(self, upto: int) -> None:
        """Finds the inputs below one whose values have no exact place in the kinds as they are when these come."""
        self.misfits |= self._lost(self.kinds, self._settled + 1, upto)
        self._settled = upto - 1

    def _costs(self, together: Kinds, before: int) -> str | None:
        """Why kinds would cost inputs below `before` their values, which come first; None where they keep them."""
        if lost := self._lost(together, 0, before):
            first = min(lost)
            where = [name for name, kind in self.kinds.items() if kind != Unknown() and loses(kind, together[name])]
            return f"its types have no exact place for the values of input {first} in {', '.join(map(repr, where))}"
        return None

    def _lost(self, kinds: Kinds, low: int, high: int, only: Telling | None = None) -> dict[int, str]:
        """Those of the inputs from `low` to before `high`, as far as they are no misfits, that have a value without a place in some kinds, and why."""
        found: dict[int, str] = {}
        for part in self.parts:
            if part.first >= high or part.source.last < low:
                continue
            at_risk = {
                name
                for told in part.tellings
                if (told is only if only is not None else self._together(told.kinds) == self.kinds)
                for name, kind in told.kinds.items()
                if name in kinds and loses(kind, kinds[name])
            }
            if at_risk:
                some = {name: kinds[name] for name in part.kinds if name in at_risk}
                found |= _unpromotable(part.source, some, self.misfits, low, high)
        return found

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

    def _complete(self, kinds: Kinds) -> None:
        """Takes over what frames tell of columns in which no input has a value."""
        for name, kind in kinds.items():
            if name in self.kinds:
                found = self.kinds | {name: filled(self.kinds[name], kind)}
                if found != self.kinds and self._twin(found) is None:
                    self.kinds = found


def _agreed(told: Sequence[Kinds]) -> Kinds:
    """What frames without rows tell of columns together; what they tell unlike is unknown."""
    found: Kinds = {}
    for name in dict.fromkeys(name for kinds in told for name in kinds):
        try:
            found[name] = reduce(joined, (kinds[name] for kinds in told if name in kinds))
        except SchemaError:
            found[name] = Unknown()
    return found


def _written(schema: pa.Schema) -> tuple[int, str, str]:
    """By what frames without rows are put in order, whichever ended first: those of most columns come first."""
    return -len(schema), str(schema.remove_metadata()), str(schema.metadata)


def _lowest(source: Source) -> int:
    """The first input of a source that has rows in it."""
    if source.stored is not None:
        return source.first
    return next(int(table.column(KEY)[0].as_py()) for table in source.batches() if table.num_rows)


def _inputs_of(source: Source) -> np.ndarray:
    return np.unique(keys_of(source))


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


def _unpromotable(source: Source, kinds: Kinds, known: Collection[int], low: int, high: int) -> dict[int, str]:
    """The inputs from `low` to before `high` with a value that has no place in these kinds, and why; none that are `known` to be misfits."""
    misfits: dict[int, str] = {}
    for batch in without(source.batches(), np.array(sorted(known), np.int64)):
        keys = batch.column(KEY).to_numpy()
        start, stop = np.searchsorted(keys, [low, high])
        if start == stop:
            continue
        table, keys = batch.slice(start, stop - start), keys[start:stop]
        try:
            promoted(table, kinds)
        except pa.ArrowException:
            for key in np.unique(keys):
                try:
                    promoted(table.filter(pa.array(keys == key)), kinds)
                except pa.ArrowException as error:
                    misfits[int(key)] = str(error)
    return misfits

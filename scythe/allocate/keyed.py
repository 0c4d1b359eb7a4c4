"""A run by a key of its caller: the same key gives the same run, over retries, crashes and machines.

Which run a key names is told by records that are created if absent, numbered from 1; the newest counts. One whose allocation
came to no end is followed by another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scythe.allocate.store import Request
from scythe.errors import AllocationError, NotFoundError, RunDamaged
from scythe.gather.parts import sort_indexes
from scythe.record import layout
from scythe.record.attempts import store_time
from scythe.record.format import parse
from scythe.record.layout import RunKey
from scythe.record.manifest import schema_hash
from scythe.record.plan import RunPlan
from scythe.record.provenance import difference, recorded, short
from scythe.record.reserve import allocating, record_key, undo
from scythe.record.versions import STRATEGIES, SemVer, VersioningStrategy
from scythe.reuse.identity import Specs
from scythe.reuse.known import specs_of
from scythe.reuse.matching import are_equal
from scythe.terminal.console import tell
from scythe.terminal.phase import Phase
from scythe_catalog.storage.objects import Objects

#: For how long nothing must have been written to half an allocation until another takes its place [s]. Who was only slow finds
#: that out before its run counts.
_QUIET = 120.0
_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


@dataclass(frozen=True)
class _Record:
    number: int
    run: RunKey


class Keyed:
    """What is known of a key of an experiment."""

    def __init__(self, objects: Objects, name: str, key: str) -> None:
        self._objects, self._name, self._key = objects, name, key
        self._mine: _Record | None = None

    def begun(self, asked: Request, wanted: VersioningStrategy | str | SemVer) -> RunKey | None:
        """The run of the key, once it is stored whole; None where there is none, or its allocation came to no end.

        Raises:
            AllocationError: it has other inputs, another seed, another function, other models, or another version than the one that
                is named.
        """
        record = self._newest()
        if record is None:
            return None
        with Phase(f"waiting for {record.run.path}, which another process is storing"):
            if not self._is_whole(record.run):
                return None
        if wanted not in STRATEGIES and str(SemVer.parse(wanted)) != record.run.version:
            raise AllocationError(
                f"key={self._key!r} is that of {record.run.path}, not of version {wanted}: give that a key of its own"
            )
        self._check_asked(record.run, asked)
        return record.run

    def take(self, run: RunKey) -> bool:
        """Makes a run that of the key, unless another is it since `begun` was asked."""
        newest = self._newest()
        if newest is not None and self._objects.exists(newest.run.reservation) and not self._is_gone(newest.run):
            return False
        number = newest.number + 1 if newest is not None else 1
        if not record_key(self._objects, run, self._key, number):
            return False
        self._mine = _Record(number, run)
        return True

    @property
    def is_mine(self) -> bool:
        """Whether the run that took the key still has it: nobody has taken this process for dead."""
        return self._newest() == self._mine

    # --- records ------------------------------------------------------------------------------------

    def _newest(self) -> _Record | None:
        folder = layout.keyed(self._name, self._key, 0).rsplit("/", 1)[0]
        names = sorted(self._objects.files(folder))
        if not names:
            return None
        told = parse(self._objects.read(f"{folder}/{names[-1]}"), names[-1])
        return _Record(int(names[-1].split(".")[0]), RunKey(self._name, told["version"], told["folder"]))

    # --- the run of a record ------------------------------------------------------------------------

    def _is_gone(self, run: RunKey) -> bool:
        return self._objects.exists(run.tombstone)

    def _is_whole(self, run: RunKey) -> bool:
        """Whether a run is stored whole: waits for whoever stores it, and clears up behind one that died at it."""
        for pause in _pauses():
            if self._is_gone(run):
                return False
            if self._objects.exists(run.manifest):
                return True
            if not self._objects.exists(run.reservation):
                return False
            if self._is_dead(run):
                undo(self._objects, run)
                return False
            time.sleep(pause)
        raise AssertionError

    def _is_dead(self, run: RunKey) -> bool:
        process = allocating(self._objects, run)
        if process is not None and process.lives is False:
            return True
        written = [found.modified.timestamp() for found in self._objects.found(run.path)]
        last = max([*written, self._objects.read_dated(run.reservation)[1]])
        return store_time(self._objects) - last > _QUIET

    def _check_asked(self, run: RunKey, asked: Request) -> None:
        try:
            plan = RunPlan.load(self._objects, run)
        except NotFoundError:
            return  # of it no plan is left: `resume` says what is wrong
        if plan.seed != asked.seed:
            what = f"the seed {plan.seed}, not {asked.seed}"
        elif plan.qualname != (mine := asked.experiment.target.__qualname__):
            what = f"the function {plan.qualname}, not {mine}"
        elif plan.schema_sha256 != schema_hash(asked.experiment):
            what = "other input or output models"
        elif not self._has_inputs(plan, asked):
            what = "other inputs"
        else:
            self._tell_of_code(run, asked)
            return
        raise AllocationError(
            f"key={self._key!r} is that of {run.path}, which has {what}: give this one a key of its own"
        )

    def _tell_of_code(self, run: RunKey, asked: Request) -> None:
        """Says so where the run was begun with other code: it is the run of the key all the same."""
        begun_with = recorded(self._objects, run, 1)
        mine = asked.code.sha256
        if begun_with is not None and None not in (begun_with.code, mine) and begun_with.code != mine:
            tell(
                f"key={self._key!r} is that of {run.path}, which was begun with other code of "
                f"{asked.experiment.name} ({short(begun_with.code)}, this is {short(mine)}{difference(self._objects, run, 1, asked.code)}): its rows are those of that code; "
                "give another key to run all inputs with this one"
            )

    def _has_inputs(self, plan: RunPlan, asked: Request) -> bool:
        inputs = asked.inputs
        try:
            stored = specs_of(plan, addresses=True)
        except RunDamaged:
            return True  # `resume` says so
        fields = asked.experiment.schemas.input.schema.names
        keys = sort_indexes(plan)
        if not np.array_equal(
            np.arange(plan.inputs) if keys is None else keys, inputs.table.column("sort_index").to_numpy()
        ):
            return False
        mine = Specs.of(inputs.table, asked.files.identities, fields, (c.name for c in inputs.computed), addresses=True)
        every = np.arange(mine.rows)
        return mine.rows == stored.rows and bool(are_equal(mine, every, stored, every).all())


def _pauses() -> Iterator[float]:
    pause = _PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


__all__ = ["Keyed"]

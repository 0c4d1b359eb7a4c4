"""The rows that earlier runs of a version have for the inputs of a new one: found, held against its code, brought into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.define.sources.modules import SCRIPTS
from scythe.gather.coverage import Coverage
from scythe.record.attempts import attempts
from scythe.record.layout import RunKey
from scythe.record.plan import RunPlan
from scythe.record.provenance import commit_of, difference, recorded
from scythe.record.results import read_result
from scythe.reuse.copied import copy_rows
from scythe.reuse.identity import FileIdentities, Specs
from scythe.reuse.known import KnownRows, KnownRun, Origin, known_runs
from scythe.reuse.matching import Matches, are_equal, check_code, matched
from scythe.reuse.owners import owners_in
from scythe_catalog.storage.objects import Objects


@dataclass(frozen=True)
class Brought:
    """What a new run has of others: who ran how many of its inputs, and the runs whose output files it names."""

    reused: list[dict[str, Any]]
    owners: list[str]
    #: Of the runs that rows were taken from which of their ends was seen.
    seen: dict[str, str | None]


class NewInputs:
    """The inputs of a run that is to be: what is there of them in other runs of a version."""

    def __init__(
        self,
        experiment: Experiment,
        inputs: pa.Table,
        files: FileIdentities,
        computed: Iterable[str],
        objects: Objects,
        name: str,
        seed: int,
        *,
        code: Code,
    ) -> None:
        self._experiment, self._objects, self._name, self._seed = experiment, objects, name, seed
        self._sort_indexes = inputs.column("sort_index").to_numpy()
        self.specs = Specs.of(inputs, files, experiment.schemas.input.schema.names, computed)
        self.identities = self.specs.identities()
        self.code = code

    def answers(self, version: str, *, any_code: bool, errors: bool) -> Answers:
        """The best answer to each input that has one.

        Args:
            version: That of the runs that may answer.
            any_code: Whether rows of other code are taken, too.
            errors: Whether inputs that failed are answered by their error, rather than run again.

        Raises:
            AllocationError: some are known from other code, or from code that nobody recorded.
        """
        qualname = self._experiment.target.__qualname__
        runs = known_runs(self._objects, self._name, version, qualname, self._seed)
        known = KnownRows.of(runs, errors=errors)
        found = matched(self.specs, self.identities, known, self.code.sha256)
        for run in runs:
            run.forget()
        if not any_code:
            commit = commit_of(self._experiment) if self._has_others(found) else None
            check_code(found, self.code.sha256, commit, self._differing)
        return Answers(found, self._experiment)

    def _has_others(self, found: Matches) -> bool:
        return any(one.code is None or one.code != self.code.sha256 for one, _ in found.counted)

    def _differing(self, origin: Origin) -> str:
        parts = difference(self._objects, RunKey(*origin.run.split("/")), origin.attempt or 1, self.code)
        script = self._experiment.source if self._experiment.target.__module__ in SCRIPTS else None
        if script is not None and parts.endswith(f" in {Path(script).name}"):
            parts += " (all of a script counts: in a module of its own a function stays itself when what allocates it changes)"
        return parts

    def is_begun(self, run: KnownRun, *, any_code: bool) -> bool:
        """Whether this unfinished run has just these inputs, in this order, and all that worked on it had this code."""
        same = (
            read_result(self._objects, run.key) is None
            and (run.plan.seed, run.plan.qualname) == (self._seed, self._experiment.target.__qualname__)
            and np.array_equal(run.sort_indexes, self._sort_indexes)
            and not (self.identities.unknown.any() or run.identities.unknown.any())
            and np.array_equal(run.identities.numbers, self.identities.numbers)
        )
        if not same:
            return False
        last = max((attempt.number for attempt in attempts(self._objects, run.key)), default=1)
        made_by = recorded(self._objects, run.key, last)
        codes = {made_by.code if made_by is not None else None, *(one.code for one in run.origins)}
        if not any_code and (self.code.sha256 is None or codes != {self.code.sha256}):
            return False
        every = np.arange(len(self._sort_indexes))
        return bool(are_equal(self.specs, every, run.specs, every).all())


@dataclass(frozen=True)
class Answers:
    """Which rows of other runs answer which inputs of a new one."""

    matches: Matches
    experiment: Experiment

    @property
    def count(self) -> int:
        """How many inputs are answered."""
        return len(self.matches.asked)

    @property
    def stream(self) -> int:
        """Which random numbers a run draws that has these rows: others than they did."""
        return max((one.stream + 1 for one, _ in self.matches.counted), default=0)

    def brought(self, plan: RunPlan, specs: pa.Table) -> Brought:
        """Brings the rows into the run of this plan, whose inputs are `specs`."""
        part = copy_rows(self.matches, plan, self.experiment, specs)
        reused = [{**one.to_json(), "inputs": n} for one, n in self.matches.counted]
        files = self.experiment.schemas.file_outputs
        # Files of a run that packs all from the start are never by themselves.
        seen = {run.key.path: run.gather for run in self.matches.runs if not {*files} <= {*run.plan.pack}}
        return Brought(reused, owners_in(plan, part, files) if part is not None else [], seen)

    def open_ranges(self, inputs: int) -> list[tuple[int, int]]:
        """What is left to run, as half-open ranges of positions."""
        coverage = Coverage(inputs)
        coverage.cover(0, self.matches.asked)
        return coverage.open_ranges()


__all__ = ["Answers", "Brought", "NewInputs"]

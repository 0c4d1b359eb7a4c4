"""What an allocation with `reuse` finds: a run that was begun with the same inputs, or rows that earlier runs have of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from scythe.allocate.store import Request
from scythe.errors import AllocationError
from scythe.gather.status import status_of
from scythe.record.find import run_keys
from scythe.record.versions import STRATEGIES, SemVer, VersioningStrategy
from scythe.reuse.answers import Answers, NewInputs
from scythe.reuse.known import UNREADABLE, KnownRun
from scythe.runs.open import load_run
from scythe.runs.run import ExperimentRun
from scythe.terminal.console import tell
from scythe.terminal.phase import Phase
from scythe_catalog.storage.objects import Objects


@dataclass(frozen=True)
class Reuse:
    """Which rows of earlier runs are taken over."""

    wanted: bool = False
    #: Those of other code, too.
    any_code: bool = False
    #: Inputs that failed, with their error.
    errors: bool = False


def version_of(wanted: VersioningStrategy | str | SemVer | None, *, reuse: bool) -> VersioningStrategy | str | SemVer:
    """The version that is asked for: `bumpmajor`, with `reuse` `keep`, where nothing is said.

    Raises:
        AllocationError: another step beside `reuse`.
    """
    if wanted is None:
        return "keep" if reuse else "bumpmajor"
    if reuse and wanted in STRATEGIES and wanted != "keep":
        raise AllocationError(
            f"version={wanted!r} makes a new version, of which no input is known yet: leave it out with reuse=True, or name "
            "the version whose rows are to be reused, or the new one, in which each input is run once"
        )
    return wanted


class Growing:
    """An allocation with `reuse` into a version."""

    def __init__(self, asked: Request, objects: Objects, version: SemVer, reuse: Reuse) -> None:
        self._asked, self._objects, self._version, self._reuse = asked, objects, str(version), reuse
        with Phase("looking for what is known already"):
            self._inputs = NewInputs(
                asked.experiment,
                asked.inputs.table,
                asked.files.identities,
                (column.name for column in asked.inputs.computed),
                objects,
                asked.name,
                asked.seed,
                code=asked.code,
            )

    def begun(self) -> ExperimentRun | None:
        """The version's newest run, where that is unfinished and has the same inputs and code; nobody works on it, or its engine
        can be joined.
        """
        keys = run_keys(self._objects, self._asked.name, [self._version])
        if not keys:
            return None
        status = status_of(self._objects, keys[-1])
        if status not in ("allocated", "incomplete", "cancelled", "running"):
            return None
        with contextlib.suppress(*UNREADABLE):
            run = KnownRun(self._objects, keys[-1])
            if status == "running" and self._asked.engine.engine.attach(run.plan) is None:
                return None
            if self._inputs.is_begun(run, any_code=self._reuse.any_code):
                tell(f"{run.key.path} was begun with these inputs: it goes on")
                return load_run(self._objects, run.key)
        return None

    def answers(self) -> Answers:
        """What is known.

        Raises:
            AllocationError: some is known from other code alone.
        """
        with Phase("looking for what is known already"):
            found = self._inputs.answers(self._version, any_code=self._reuse.any_code, errors=self._reuse.errors)
        n, all_ = found.count, self._asked.inputs.table.num_rows
        which = (
            f"{n:,} of {all_:,} inputs {'is' if n == 1 else 'are'}"
            if all_ > 1
            else "the input is"
            if n
            else "the input is not"
        )
        tell(f"{which} there already ({self._version}), {all_ - n:,} to run")
        return found


__all__ = ["Growing", "Reuse", "version_of"]

"""Waits for a run that goes on on a cluster: how far it is, what a person sees of that, and what Ctrl-C says. Asks no engine."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from scythe.record.attempt_plan import Ended, progress_of
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult
from scythe.terminal.console import tell
from scythe.terminal.progress import Progress


class Waiting:
    """What is shown of a run while somebody waits for it."""

    def __init__(self, plan: RunPlan, progress: Progress) -> None:
        self._plan, self._progress = plan, progress

    def look(self, words: Callable[[int], str | None]) -> None:
        """Shows how far the run is; `words` says what it waits for, told how many of its inputs have ended."""
        ended = self._so_far()
        self._progress.say_once(ended.news)
        self._progress.update(ended.done, ended.failed, words(ended.done))
        self._progress.draw()

    def over(self, result: RunResult) -> RunResult:
        """Shows what the run has come to, and gives it back."""
        self._progress.update(result.inputs, result.errors)
        self._progress.draw()
        if result.errors:
            self._progress.say(result.errors_told)
        return result

    def _so_far(self) -> Ended:
        try:
            return progress_of(self._plan.objects, self._plan.key, self._plan.inputs)
        except (OSError, BaseError):  # the next look says more
            return Ended(0, 0)


@contextmanager
def waiting(plan: RunPlan, *, quiet: bool = False) -> Generator[Waiting]:
    """A run that is waited for in this block; Ctrl-C ends the waiting alone, and says so."""
    title = f"{plan.key.experiment} {plan.key.version}"
    with Progress(title, plan.inputs, quiet=quiet) as progress:
        try:
            yield Waiting(plan, progress)
        except KeyboardInterrupt:
            path = plan.key.path
            tell(
                f'\nScythe: {path} goes on on the cluster; wait for it again with: scythe watch "{path}", '
                f'stop it with: scythe cancel "{path}"'
            )
            raise KeyboardInterrupt from None


__all__ = ["Waiting", "waiting"]

"""How many inputs of an attempt may fail until the run stops, and what is said then. Stops nothing by itself."""

from __future__ import annotations

from scythe.errors import TooManyErrors
from scythe.gather.error_kinds import ErrorKinds
from scythe.record.plan import MaxErrors

#: So many inputs that finish first and fail alike are a mistake that all others make, too.
FIRST_INPUTS = 20


class ErrorLimit:
    """Counts what comes in, as `allocate(max_errors=...)` says."""

    def __init__(self, most: MaxErrors, inputs: int, run: str) -> None:
        self._most, self._inputs, self._run = most, inputs, run
        self._rows = self._errors = 0
        #: Whether the first inputs are seen not to fail alike: nothing can stop the run from then on.
        self._passed = most is None

    def check(self, rows: int, errors: int, kinds: ErrorKinds) -> None:
        """Counts inputs that have finished, whose kinds of errors are among `kinds`.

        Raises:
            TooManyErrors: it is more than the run may have.
        """
        self._rows, self._errors = self._rows + rows, self._errors + errors
        self._judge(self._rows, self._errors, kinds)

    def check_with(self, rows: int, errors: int, kinds: ErrorKinds) -> None:
        """The same with as many inputs that others have finished until now, `kinds` being those of all.

        Raises:
            TooManyErrors: together it is more than the run may have.
        """
        self._judge(self._rows + rows, self._errors + errors, kinds)

    def _judge(self, rows: int, errors: int, kinds: ErrorKinds) -> None:
        if self._passed:
            return
        found = kinds.all()
        failed = f"{errors:,} inputs have failed" if errors != 1 else "1 input has failed"
        what = f"{found[0].name}: {found[0].message}" if found else "errors that `scythe errors` shows"
        by = f", most of them with {what}" if errors != 1 else f", with {what}"
        if self._most == "alike":
            if rows or len(found) > 1:
                self._passed = True
            elif errors >= FIRST_INPUTS and sum(kind.count for kind in found) == errors:
                raise TooManyErrors(
                    self._told(f"the first {errors:,} inputs that finished have all failed alike: {what}")
                )
        elif isinstance(self._most, float) and errors > self._most * self._inputs:
            raise TooManyErrors(self._told(f"{failed}, more than {self._most:.3g} of all{by}"))
        elif isinstance(self._most, int) and errors > self._most:
            raise TooManyErrors(self._told(f"{failed}, more than {self._most:,}{by}"))

    def check_part(self, rows: int, errors: int, kinds: ErrorKinds) -> None:
        """The same for inputs whose errors are not among `kinds`: whether these are alike cannot be told, and stops nothing."""
        if self._most == "alike":
            self._passed = True
        self.check(rows, errors, kinds)

    def allowed(self, out: int) -> int | None:
        """How many more inputs may be begun while `out` are on their way; None for any number."""
        if self._passed or self._most != "alike":
            return None
        return max(0, FIRST_INPUTS - self._rows - self._errors - out)

    def _told(self, what: str) -> str:
        return (
            f'the run {self._run} was stopped: {what}\nMend it, and go on with: scythe resume "{self._run}" --errors '
            "(without --errors those that failed stay as they are). To go on whatever fails: --max-errors none, "
            "or resume(max_errors=None)"
        )


def stopped(run: str) -> str:
    """What the message of a run that was stopped begins with."""
    return f"the run {run} was stopped:"

"""What is wrong with values: which column, which rows, which rule. Never finds a problem itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scythe_catalog.errors import DataError

#: So many problems are told in full.
_SHOWN = 50


@dataclass(frozen=True)
class Problem:
    """One broken rule of one column; `rows` counts from 0 and is empty where the whole column is meant."""

    column: str
    rule: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.column}: {self.rule}"
        shown = ", ".join(map(str, self.rows[:10])) + (", …" if len(self.rows) > 10 else "")
        return f"{self.column}: {self.rule} ({len(self.rows):,} row{'s' * (len(self.rows) > 1)}: {shown})"


def raise_problems(what: str | None, problems: Iterable[Problem]) -> None:
    """Nothing where there are none.

    Raises:
        DataError: one line a problem.
    """
    found = tuple(problems)
    if found:
        head = f"{what}: " if what else ""
        lines = "\n".join(f"  {p}" for p in found[:_SHOWN]) if len(found) > 1 or what else "".join(map(str, found))
        if len(found) > _SHOWN:
            lines += f"\n  … and {len(found) - _SHOWN:,} more"
        raise DataError(f"{head}{len(found)} problem{'s' * (len(found) > 1)} with the values\n{lines}", found)

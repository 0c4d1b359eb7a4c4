"""The inputs that took elements with them: which of them are tried no more, how often each was tried, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scythe.define.bookkeeping import LogRow
from scythe.engines.slurm.folder import Gone, tried_alone


@dataclass(frozen=True)
class Killer:
    """An input that is tried no more, and the ends of the elements in which it was tried, as far as that is known, the first first."""

    row: int
    ends: Sequence[Gone]

    @property
    def told(self) -> str:
        """What became of it, for people."""
        often = ", again and again" if len(self.ends) > 1 else ""
        return f"Slurm ended the job that ran it{often}: {self.ends[-1].state}"

    @property
    def began(self) -> float | None:
        """When its first try began, of those of which that is known [s since 1970]; None where it is known of none."""
        return min((began for one in self.ends if (began := one.began(self.row))), default=None)

    @property
    def seconds(self) -> float:
        """For how long it ran, in all tries of which that is known."""
        return sum(max(0.0, one.at - began) for one in self.ends if (began := one.began(self.row)))

    @property
    def printed(self) -> LogRow | None:
        """What it printed in the last try of which that is known."""
        kept = (one.printed for one in reversed(self.ends) if one.printed and one.began(self.row))
        return next((LogRow(None, *texts) for texts in kept), None)


def condemned(gone: Iterable[Gone], still_open: Iterable[int], retries: int) -> set[int]:
    """The open inputs that have killed as many elements, alone in each, as they may."""
    return {row for row, tries in tried_alone(gone).items() if tries > retries} & {*still_open}


def killers(gone: Sequence[Gone], rows: Collection[int], holders: Mapping[int, Sequence[str]]) -> list[Killer]:
    """What is known of these condemned inputs; `holders` are the elements that had each of them, the first first.

    An element that died before it could say at which input it was had begun with the first of them that it had: those before it
    have all been run since, and killed none.
    """
    ends = {one.element: one for one in gone if one.is_blamed and one.is_told}
    first: dict[str, int] = {}
    for row in sorted(rows):
        for element in holders.get(row, ()):
            first.setdefault(element, row)

    def was_tried(row: int, one: Gone) -> bool:
        if one.rows == [row] or one.began(row):
            return True
        may_have_begun = row in one.rows or not one.exact
        return may_have_begun and first.get(one.element) == row and not any(one.began(other) for other in rows)

    found: list[Killer] = []
    for row in sorted(rows):
        had_it = dict.fromkeys([*holders.get(row, ()), *(name for name, one in ends.items() if row in one.rows)])
        found.append(Killer(row, [ends[name] for name in had_it if name in ends and was_tried(row, ends[name])]))
    return found


__all__ = ["Killer", "condemned", "killers"]

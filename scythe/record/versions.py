"""SemVer as Scythe writes it (`v1.2.3`), and which version an allocation gets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, Self, cast, get_args

import semver

from scythe.errors import VersionError
from scythe_catalog.schema import Difference, Severity

_PLAIN = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
VersioningStrategy = Literal["bumpmajor", "bumpminor", "bumppatch", "keep", "auto"]
"""How `allocate` chooses the version of a new run after the latest one.

- `keep`: the latest once more. `bumppatch`: v1.2.3 -> v1.2.4. Both need columns that are the same.
- `bumpminor`: v1.2.3 -> v1.3.0. Fields may have been added.
- `bumpmajor`: v1.2.3 -> v2.0.0. Anything may have changed.
- `auto`: the smallest of these three steps that fits what changed.

Examples:
    >>> from scythe import BaseExperiment
    >>> run, ref = BaseExperiment(simulate_energy).allocate(pl.DataFrame({"r_value": [2.0]}), version="auto")
    >>> run.version
    'v1.0.1'
"""
STRATEGIES: tuple[VersioningStrategy, ...] = get_args(VersioningStrategy)


class SemVer(semver.Version):
    """A semantic version, printed with a `v`; parsed with or without it. Versions are ordered as SemVer says.

    Args:
        major: Raised where the models changed in any way.
        minor: Raised where fields were added.
        patch: Raised where the models are the same.
        prerelease: As in `v1.1.0-rc.1`, which stands before `v1.1.0`.
        build: As in `v1.0.0+linux`, to which no run can be allocated.

    Examples:
        >>> from scythe.allocate import SemVer
        >>> print(SemVer(1, 10, 0), SemVer(1, 10, 0) > SemVer.parse("v1.9.3"))
        v1.10.0 True
    """

    @classmethod
    def parse(cls, version: Any, optional_minor_and_patch: bool = False) -> Self:
        """The version of a text.

        Args:
            version: `v1.2.3` or `1.2.3`, as text or bytes; a SemVer, too.
            optional_minor_and_patch: Take `v1` for `v1.0.0` and `v1.2` for `v1.2.0`.

        Raises:
            VersionError: it is anything else.

        Examples:
            >>> from scythe.allocate import SemVer
            >>> print(SemVer.parse("1.2.3"))
            v1.2.3
        """
        try:
            text = version.decode() if isinstance(version, bytes) else str(version)
        except UnicodeDecodeError as error:
            raise VersionError(f"{version!r} is not a semantic version: write it as v1.2.3") from error
        try:
            return super().parse(text.strip().removeprefix("v"), optional_minor_and_patch)
        except ValueError as error:
            raise VersionError(f"{text!r} is not a semantic version: write it as v1.2.3") from error

    @classmethod
    def FromString(cls, version: str) -> Self:  # noqa: N802 - the name that its users have in their code
        """The same as `parse`.

        Args:
            version: `v1.2.3` or `1.2.3`.

        Raises:
            VersionError: it is anything else.

        Examples:
            >>> from scythe.allocate import SemVer
            >>> SemVer.FromString("v1.2.3").minor
            2
        """
        return cls.parse(version)

    def next_major_version(self) -> Self:
        """v1.2.3 -> v2.0.0: what `version="bumpmajor"` gives after v1.2.3.

        Examples:
            >>> from scythe.allocate import SemVer
            >>> print(SemVer(1, 2, 3).next_major_version())
            v2.0.0
        """
        return cast(Self, self.bump_major())

    def next_minor_version(self) -> Self:
        """v1.2.3 -> v1.3.0: what `version="bumpminor"` gives after v1.2.3.

        Examples:
            >>> from scythe.allocate import SemVer
            >>> print(SemVer(1, 2, 3).next_minor_version())
            v1.3.0
        """
        return cast(Self, self.bump_minor())

    def next_patch_version(self) -> Self:
        """v1.2.3 -> v1.2.4: what `version="bumppatch"` gives after v1.2.3.

        Examples:
            >>> from scythe.allocate import SemVer
            >>> print(SemVer(1, 2, 3).next_patch_version())
            v1.2.4
        """
        return cast(Self, self.bump_patch())

    def __str__(self) -> str:
        return f"v{super().__str__()}"

    def __hash__(self) -> int:
        return super().__hash__()


FIRST = SemVer(1, 0, 0)


def parse_folders(names: Iterable[str]) -> list[SemVer]:
    """The versions among folder names, each once, lowest first; other names are passed over."""
    plain: list[SemVer] = []
    others: list[SemVer] = []
    for name in set(names):
        if match := _PLAIN.fullmatch(name):
            plain.append(SemVer(*map(int, match.groups())))
        elif name.startswith("v") and semver.Version.is_valid(name[1:]):
            others.append(SemVer.parse(name))
    plain.sort(key=semver.Version.to_tuple)  # of plain versions the numbers alone decide: a thousand are sorted at once
    return sorted(plain + others, key=lambda v: (v, v.build or "")) if others else plain


def check_allocatable(version: SemVer) -> SemVer:
    """The version, if runs can be given it.

    Raises:
        VersionError: it has build metadata, which do not count in the order of versions: which is the latest?
    """
    if version.build is not None:
        plain = str(version).partition("+")[0]
        raise VersionError(
            f"{version} differs from {plain} by build metadata alone, and these two have no order: allocate {plain}, "
            "or the next patch"
        )
    return version


def next_version(strategy: VersioningStrategy, latest: SemVer | None, difference: Difference | None) -> SemVer:
    """The version that a strategy gives, after `latest` and what changed in the schema since.

    Raises:
        VersionError: the step is too small for the difference.
    """
    if latest is None or difference is None:
        return FIRST
    step = {Severity.IDENTICAL: "bumppatch", Severity.ADDITIVE: "bumpminor", Severity.BREAKING: "bumpmajor"}
    wanted = step[difference.severity] if strategy == "auto" else strategy
    version = {
        "keep": latest,
        "bumppatch": latest.next_patch_version(),
        "bumpminor": latest.next_minor_version(),
        "bumpmajor": latest.next_major_version(),
    }[wanted]
    check_step(wanted, allowed_between(latest, version), latest, difference)
    return version


def may_be_made_by(strategy: str, version: SemVer) -> bool:
    """Whether a version may have come about by a strategy, as far as its numbers tell; by anything that is no step it may."""
    made_by = "bumppatch" if version.patch else "bumpminor" if version.minor else "bumpmajor"
    return not strategy.startswith("bump") or strategy == made_by


def allowed_between(below: SemVer, version: SemVer) -> Severity:
    """How much may change from one version to a higher one."""
    if version.major != below.major:
        return Severity.BREAKING
    return Severity.ADDITIVE if version.minor != below.minor else Severity.IDENTICAL


class TooSmallStep(VersionError):
    """A step that is too small for what changed: `told` says so, and `way` what to do."""

    def __init__(self, told: str, way: str) -> None:
        super().__init__(f"{told}\n{way}")
        self.told, self.way = told, way

    def __reduce__(self) -> tuple[type[TooSmallStep], tuple[str, str]]:
        return TooSmallStep, (self.told, self.way)


def check_step(step: str, allowed: Severity, latest: SemVer, difference: Difference) -> None:
    """Nothing where the difference is allowed.

    Raises:
        TooSmallStep: with the difference spelled out, and the step that would do.
    """
    if difference.severity <= allowed:
        return
    enough = "bumpminor" if difference.severity is Severity.ADDITIVE else "bumpmajor"
    same = f"{latest} is there already, with another schema"
    raise TooSmallStep(
        f"{same if step == str(latest) else f'{step} is too small a step from {latest}: the schema has changed'}\n{difference}",
        f'Allocate with version="{enough}" (or "auto"), or undo the change.',
    )

"""Which code, packages and machine are about to work on a run: looked at once an attempt, and recorded. Runs git, which changes nothing.

Git is asked without its optional locks, so that it writes nothing either, and in a thread beside the allocation, which
writes its files meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from types import ModuleType

from scythe.define.code import Code, differing
from scythe.define.experiment import Experiment
from scythe.errors import ScytheError
from scythe.record.format import dump, parse_as
from scythe.record.layout import RunKey
from scythe.settings import engine_settings
from scythe_catalog.redaction import redacted
from scythe_catalog.storage.objects import Objects

_OWN_PACKAGES = ("scythe-engine", "hatchet-sdk", "numpy", "pandas", "polars", "pyarrow", "pydantic", "pyiceberg")
_GIT_SECONDS = 2.0
_PATCH_BYTES, _STATUS_BYTES = 1024 * 1024, 1024 * 1024 * 1024
#: What a diff says of a file that has another time and the same content.
_TOUCHED = re.compile(r"^diff --git .*\n(?=diff --git |\Z)", re.MULTILINE)


@dataclass(frozen=True)
class Provenance:
    """Which code, packages and machine work on a run from now on."""

    engine: str
    host: str
    python: str
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    #: The commit of the repository that holds the experiment, None without one.
    git_commit: str | None = None
    #: Whether the files that git knows differed from that commit; None where that is not known.
    dirty: bool | None = None
    #: How they differed, as `git diff` writes it, without the secrets that it would show.
    patch: str | None = None
    #: Why there is no patch though they did.
    no_patch: str | None = None
    #: The hash of the code that makes the rows (`scythe.define.code.Code`); None where there is no source, and where any code may.
    code: str | None = None
    #: The first digits of the hash of each source and value that it covers, by its name: by these it is told in what two codes differ.
    code_parts: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def described(self) -> str | None:
        """The commit, with `-dirty` behind it where the files differed."""
        return _described(self.git_commit, self.dirty)

    def to_json(self) -> bytes:
        """The record as JSON."""
        return dump({**asdict(self), "packages": dict(self.packages), "code_parts": dict(self.code_parts)}, indent=1)

    @classmethod
    def from_json(cls, raw: bytes, where: str = "a run's provenance") -> Provenance:
        """The record that `to_json` wrote; keys of later versions are passed over.

        Raises:
            RunDamaged: it is none.
            FormatError: it is in a format of a later Scythe.
        """
        return parse_as(cls, raw, where)


def provenance(experiment: Experiment, engine: str, code: Code) -> Provenance:
    """What is true of this process, its files and its machine now; `code` is what has been read to be run."""
    commit, dirty = _commit(experiment.source)
    patch, no_patch = _patch(experiment.source) if dirty else (None, None)
    return Provenance(
        engine=engine,
        host=socket.gethostname(),
        python=platform.python_version(),
        packages=_packages(experiment),
        git_commit=commit,
        dirty=dirty,
        patch=patch,
        no_patch=no_patch,
        code=code.sha256,
        code_parts=code.parts,
    )


def begin(experiment: Experiment, engine: str, code: Code) -> Callable[[], Provenance]:
    """Begins to look, and gives what waits for the end: git takes a while, of which nobody should notice."""
    found = Future[Provenance]()

    def look() -> None:
        try:
            found.set_result(provenance(experiment, engine, code))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            found.set_exception(error)

    threading.Thread(target=look, daemon=True, name="scythe-provenance").start()
    return found.result


def record(
    objects: Objects,
    key: RunKey,
    experiment: Experiment,
    engine: str,
    attempt: int,
    code: Code,
    stored: Provenance | None,
) -> None:
    """Records what an attempt on a run is made by.

    Args:
        objects: The run's root.
        key: The run.
        experiment: Its function.
        engine: Which engine works on it.
        attempt: The number of the attempt.
        code: The code that its rows are made by; one without a hash where nobody knows.
        stored: What the run's allocation has recorded, if that is what starts the attempt: it holds for the first one, if the code is the same.
    """
    if stored is None:
        stored = provenance(experiment, engine, code)
    elif attempt == 1 and stored.code == code.sha256:
        return
    objects.write(
        key.provenance(0 if attempt == 1 else attempt),
        replace(stored, code=code.sha256, code_parts=code.parts).to_json(),
    )


def recorded(objects: Objects, key: RunKey, attempt: int) -> Provenance | None:
    """What was recorded of an attempt; None of those of earlier versions of Scythe. Raises RunDamaged."""
    where = key.provenance(0 if attempt == 1 else attempt)
    try:
        return Provenance.from_json(objects.read(where), objects.uri(where))
    except FileNotFoundError:
        return None


def difference(objects: Objects, key: RunKey, attempt: int, code: Code) -> str:
    """In what the code of an attempt differs from this: the end of a sentence; empty where nobody knows."""
    with contextlib.suppress(ScytheError):  # what is damaged is told by who needs it
        made_by = recorded(objects, key, attempt)
        parts = differing(made_by.code_parts, code.parts) if made_by is not None else ""
        return f"; they differ in {parts}" if parts else ""
    return ""


def commit_of(experiment: Experiment) -> str | None:
    """The commit of the repository that holds an experiment now, with `-dirty` behind it where files differ from it; None without one."""
    commit, dirty = _commit(experiment.source)
    return _described(commit, dirty)


def short(name: str | None) -> str | None:
    """The first digits of a commit or a hash, with what says that files differed."""
    return name and name[:12] + ("-dirty" if name.endswith("-dirty") else "")


def _described(commit: str | None, dirty: bool | None) -> str | None:
    return commit and f"{commit}{'-dirty' if dirty else ''}"


def _packages(experiment: Experiment) -> dict[str, str]:
    """Versions of what Scythe stands on and of what the experiment's module imports."""
    module = sys.modules.get(experiment.module)
    imported = {
        (v.__name__ if isinstance(v, ModuleType) else getattr(v, "__module__", None) or "").split(".")[0]
        for v in list(vars(module).values() if module else ())
    }
    names = {*_OWN_PACKAGES, *imported} - {"", "scythe", "builtins"} - set(sys.stdlib_module_names)
    return dict(found for name in sorted(names) if (found := _installed(name)) is not None)


@cache
def _installed(name: str) -> tuple[str, str] | None:
    """The package that a module came with, and its version: `yaml` came with PyYAML. None where it was not installed."""
    try:
        return name, version(name)
    except PackageNotFoundError:
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    if folder.name not in ("site-packages", "dist-packages"):
        return None
    own = f"\n{file.relative_to(folder).as_posix()},"
    for package in distributions(path=[str(folder)]):  # not `packages_distributions`, which takes half a second
        if own in f"\n{package.read_text('RECORD')}":
            return package.metadata["Name"], package.version
    return None


def _commit(source: str | None) -> tuple[str | None, bool | None]:
    """The commit of the repository that holds the experiment, and whether its files differ; None without one."""
    if source is None:
        return None, None
    # Not `git describe --dirty`, which writes the index whatever it is told of optional locks.
    told, _ = _git(source, _STATUS_BYTES, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    commit = re.search("^# branch.oid ([0-9a-f]+)$", told or "", re.MULTILINE)  # "(initial)" before the first one
    if told is None or commit is None:
        return None, None
    return commit[1], re.search("^[^#]", told, re.MULTILINE) is not None


def _patch(source: str | None) -> tuple[str | None, str | None]:
    """How the files that git knows differ from the commit, or why that is not told; the contents of binary files are not."""
    if source is None or not engine_settings().record_patch:
        return None, "SCYTHE_RECORD_PATCH is off"
    # Without the refresh, for which git writes its index even where it was told to take no optional locks.
    words = ("-c", "diff.autoRefreshIndex=false", "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv")
    told, why = _git(source, _PATCH_BYTES, *words)
    return (redacted(_TOUCHED.sub("", told)), None) if told is not None else (None, why)


def _git(source: str, most: int, *words: str) -> tuple[str | None, str | None]:
    """What git says about the folder of a file, or why it says nothing: it gets two seconds, and so many bytes."""
    calm = {
        **os.environ,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }  # it refreshes no index, and asks nobody
    try:
        process = subprocess.Popen(
            ("git", *words), cwd=Path(source).parent, env=calm, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        return None, str(error)
    timer = threading.Timer(_GIT_SECONDS, process.kill)
    timer.start()
    with process:
        assert process.stdout is not None
        raw = process.stdout.read(most + 1)
        if len(raw) > most:
            process.kill()
    timer.cancel()
    if len(raw) > most:
        return None, f"it is larger than {most:,} bytes"
    if process.returncode != 0:
        return None, f"git took longer than {_GIT_SECONDS:g} s, or failed"
    return raw.decode(errors="replace"), None


__all__ = ["Provenance", "begin", "commit_of", "difference", "provenance", "record", "recorded", "short"]

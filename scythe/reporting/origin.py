"""Where a run comes from, in words: the five numbers, its records, attempts and packages. Reads no table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from scythe.errors import ScytheError
from scythe.gather.status import Counts, Look
from scythe.record.history import RunAttempt
from scythe.record.provenance import short
from scythe.reporting.facts import Number, Origin, Spread
from scythe.reporting.spreads import shown
from scythe.runs.run import ExperimentRun

_ATTEMPT_COLUMNS = ("attempt", "began", "engine", "host", "python", "commit", "code")


def numbers_of(counts: Counts, inputs: int, seconds: Spread | None) -> tuple[Number, ...]:
    """The run in five numbers: inputs, results, errors, how long it took, and how long an input did."""
    total = counts.inputs if counts.inputs is not None else inputs
    rows, errors = counts.rows or 0, counts.errors or 0
    open_ = max(0, total - rows - errors)
    median = seconds.median if seconds is not None else None
    slowest = seconds.high if seconds is not None else None
    return (
        Number("Inputs", f"{total:,}", f"{open_:,} still open" if open_ else "all done" if total else ""),
        Number("Results", f"{rows:,}", _share(rows, total)),
        Number("Errors", f"{errors:,}", _share(errors, total), bad=errors > 0),
        Number("Run time", _duration(counts.seconds), "" if counts.seconds is not None else "not finished"),
        Number("Per input", _duration(median), f"median; slowest {_duration(slowest)}" if slowest is not None else ""),
    )


def _share(part: int, total: int) -> str:
    if not total:
        return ""
    share = part / total
    if 0 < share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if 0.999 < share < 1 else f"{share * 100:.3g} %"


def _duration(seconds: float | None) -> str:
    """A time for people: two units at most."""
    if seconds is None:
        return "–"
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
    size, unit = next((one for one in units if seconds >= one[0]), units[-1])
    if seconds < 60:
        return f"{seconds / size:.3g} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def origin_of(run: ExperimentRun, look: Look, manifest: Mapping[str, Any]) -> Origin:
    """What the records of a run tell of it."""
    facts: list[tuple[str, str]] = [("Run", run.experiment_id), ("Folder", run.uri)]
    result = look.result
    if result is not None:
        tables = result.tables.values()
        rows, size = sum(table.rows for table in tables), sum(table.bytes for table in tables)
        facts.append(("Finished", f"{result.finished:%Y-%m-%d %H:%M:%S} UTC"))
        facts.append(("Tables", f"{len(tables)} with {rows:,} rows, {_bytes(size)}"))
    for label, key in (
        ("Engine", "engine"), ("Host", "host"), ("Python", "python"), ("Commit", "git_commit"), ("Seed", "seed"),
        ("Schema", "schema_sha256"), ("Identifier", "workflow_run_id"), ("Tags", "tags"),
    ):  # fmt: skip
        value = manifest.get(key)
        if value not in (None, "", [], ()):
            facts.append((label, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    packages = manifest.get("packages")
    named = packages.items() if isinstance(packages, Mapping) else ()
    try:
        attempts = run.attempts
    except ScytheError as error:
        attempts = []
        facts.append(("Attempts", str(error)))
    return Origin(
        tuple(facts),
        _ATTEMPT_COLUMNS if attempts else (),
        tuple(_attempt(one) for one in attempts),
        tuple((str(name), str(version)) for name, version in named),
    )


def _attempt(one: RunAttempt) -> tuple[str, ...]:
    made_by = one.provenance
    began = f"{one.began.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}" if one.began is not None else "–"
    python, commit, code = (made_by.python, made_by.described, made_by.code) if made_by is not None else (None,) * 3
    return (str(one.number), began, one.engine, one.host, python or "–", short(commit) or "–", short(code) or "–")


def _bytes(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{shown(count / size)} {unit}"
    return f"{count} B"

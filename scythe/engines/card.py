"""A run as the card that a notebook shows: looked up when it is shown. It never raises, and asks no cluster."""

from __future__ import annotations

import time

from scythe.errors import ScytheError
from scythe.gather.error_kinds import ErrorKinds
from scythe.gather.run_files import scan_parts
from scythe.gather.status import Counts, Look, counts_of, look_at
from scythe.record.attempts import latest_attempt
from scythe.record.layout import MANIFEST, RunKey
from scythe.record.plan import RunPlan
from scythe.record.provenance import recorded
from scythe.record.results import ErrorKind, kinds_told
from scythe.terminal.cards import Card, html
from scythe.terminal.notebook import link_to
from scythe_catalog.storage.objects import Objects

_COMMIT = 9
#: What a kind is told by.
_OF_KINDS = ("sort_index", "exception_type", "exception_message", "traceback")


def run_html(objects: Objects, key: RunKey) -> str:
    """The card of a run; of one that cannot be looked at, what hinders it."""
    try:
        return html(_card(objects, key))
    except Exception as error:  # noqa: BLE001 - a notebook would show a traceback in place of the card
        return html(Card(key.path, "unknown", problem=f"{type(error).__name__}: {error}".splitlines()[0]))


def _card(objects: Objects, key: RunKey) -> Card:
    look, counts = counts_of(objects, key, look_at(objects, key))
    uri, (commit, damage) = objects.uri(key.path), _commit(objects, key, look)
    return Card(
        key.path,
        look.status,
        counts.inputs,
        counts.rows,
        counts.errors,
        f"{counts.seconds:,.3g} s"
        if counts.seconds is not None
        else f"at {time.strftime('%H:%M:%S', time.gmtime())} UTC",
        kinds_told(look.result.error_kinds if look.result is not None else _kinds(objects, key, counts)),
        folder=uri,
        link=link_to(uri, MANIFEST) if look.status != "deleted" else None,
        commit=commit,
        problem=look.problem or damage,
    )


def _kinds(objects: Objects, key: RunKey, counts: Counts) -> list[ErrorKind]:
    """The kinds of errors of a run that is not finished, as far as they are stored."""
    if not counts.errors:
        return []
    kinds = ErrorKinds()
    try:
        kinds.add(scan_parts(RunPlan.load(objects, key), "errors").select(_OF_KINDS).collect().to_arrow())
    except FileNotFoundError:  # it has ended since it was counted: its parts are in its result now
        return []
    return kinds.all()


def _commit(objects: Objects, key: RunKey, look: Look) -> tuple[str | None, str | None]:
    """The commit of the newest attempt, or why it cannot be told."""
    try:
        last = latest_attempt(objects, key) if look.status != "damaged" else None
        made_by = recorded(objects, key, last.number if last is not None else 1)
    except ScytheError as error:
        return None, str(error)
    if made_by is None or made_by.git_commit is None:
        return None, None
    return f"{made_by.git_commit[:_COMMIT]}{'-dirty' if made_by.dirty else ''}", None

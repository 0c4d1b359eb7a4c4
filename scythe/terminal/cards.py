"""HTML for people in notebooks: a run, and how far it is, as a card of a few lines. Pure: from facts to text.

Styles stand in the elements, for notebooks that were saved are shown without style sheets. Colours are those of the page, or
grey and half transparent, but for marks that are clear on light and dark alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from pydantic import BaseModel

_GREEN, _RED, _BLUE, _GREY, _AMBER = "#2e9e6b", "#d64545", "#3b82d6", "#8c8c8c", "#b87a14"
#: Of a status; of all others it is amber.
_MARKS = {
    "finished": _GREEN, "running": _BLUE, "allocated": _BLUE, "allocating": _BLUE, "damaged": _RED,
    "deleted": _GREY, "cancelled": _GREY,
}  # fmt: skip
_FAINT = "rgba(128,128,128,0.25)"
_CARD = (
    "font-family:system-ui,sans-serif;font-size:13px;line-height:1.5;max-width:44em;padding:6px 10px;margin:2px 0;"
    f"border:1px solid {_FAINT};border-radius:6px;overflow-wrap:anywhere"
)
_PRE = "margin:2px 0;white-space:pre-wrap;font-family:monospace;font-size:12px;background:none;color:inherit"
_LONGEST = 600
#: What each model of pydantic answers: nothing that one looks for in a run.
_INHERITED = frozenset(name for name in dir(BaseModel) if not name.startswith("_"))


@dataclass(frozen=True)
class Card:
    """What is shown of a run."""

    title: str
    #: A word, which also gives the colour of the mark.
    status: str
    #: All inputs, those that came to rows, and those that failed; None where that cannot be told.
    inputs: int | None = None
    rows: int | None = None
    errors: int | None = None
    #: What stands behind the counts, such as how long it took.
    beside: str = ""
    #: Lines of their own, such as the kinds of errors.
    lines: Sequence[str] = ()
    #: Lines as they were printed.
    printed: Sequence[str] = ()
    #: Where the run lies, and where a link there leads.
    folder: str | None = None
    link: str | None = None
    commit: str | None = None
    #: What is wrong with it, in a line.
    problem: str | None = None


def html(card: Card) -> str:
    """The card, with every text escaped."""
    mark = f'<span style="color:{_MARKS.get(card.status, _AMBER)}">&#9679;</span>'
    head = f"<div>{mark} <b>{_text(card.title)}</b> &nbsp;{_text(card.status)}</div>"
    parts = [head, _bar(card), _counts(card), *(_line(text) for text in card.lines)]
    if card.problem:
        parts.append(_line(card.problem, f"color:{_RED}"))
    parts += [f'<pre style="{_PRE}">{_text(text)}</pre>' for text in card.printed]
    parts.append(_foot(card))
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def own_names(names: Iterable[str]) -> list[str]:
    """What a notebook offers of a model, out of all its names: its own, not those of every model."""
    return [name for name in names if name not in _INHERITED]


def _bar(card: Card) -> str:
    if card.inputs is None:
        return ""
    shares = [(card.rows or 0, _GREEN), (card.errors or 0, _RED)]
    filled = "".join(
        f'<div style="height:6px;min-width:3px;width:{min(100.0, 100 * part / card.inputs):.2f}%;background:{colour}"></div>'
        for part, colour in shares
        if part and card.inputs
    )
    return (
        f'<div style="display:flex;height:6px;margin:4px 0;border-radius:3px;overflow:hidden;background:{_FAINT}">'
        f"{filled}</div>"
    )


def _counts(card: Card) -> str:
    if card.inputs is None:
        return _line(card.beside) if card.beside else ""
    done = (card.rows or 0) + (card.errors or 0)
    failed = f'<span style="color:{_RED if card.errors else "inherit"}">{card.errors or 0:,} failed</span>'
    beside = f" &middot; {_text(card.beside)}" if card.beside else ""
    return f"<div>{done:,} of {card.inputs:,} inputs &middot; {failed}{beside}</div>"


def _foot(card: Card) -> str:
    found: list[str] = []
    if card.folder is not None:
        shown = _text(card.folder)
        found.append(f'<a href="{escape(card.link)}">{shown}</a>' if card.link else shown)
    if card.commit is not None:
        found.append(f"commit <code>{_text(card.commit)}</code>")
    return f'<div style="opacity:0.8">{" &middot; ".join(found)}</div>' if found else ""


def _line(text: str, style: str = "") -> str:
    return f'<div style="{style}">{_text(text)}</div>'


def _text(text: str) -> str:
    return escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")

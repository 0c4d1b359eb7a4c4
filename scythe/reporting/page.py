"""The page of a report: facts and their figures as one HTML file that fetches nothing. Reads no run, computes no facts.

Whatever a run holds, a name, a message, a unit, stands in it as text: all of it is escaped. The page forbids itself to
load anything (`Content-Security-Policy`), and has no script.
"""

from __future__ import annotations

import datetime as dt
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scythe.reporting import figures
from scythe.reporting.facts import (
    Band,
    Failing,
    FailureMap,
    Kind,
    Machine,
    Number,
    Relation,
    Relations,
    RunFacts,
    Spread,
    Variable,
)
from scythe.reporting.spreads import cut, shown
from scythe.reporting.svg import escape

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_MESSAGE_LETTERS = 400


@dataclass(frozen=True)
class Section:
    """A part of the page: where links lead, its heading, and what it shows of a run (nothing where that is empty)."""

    anchor: str
    title: str
    #: What stands above its notes, in words, and what below them; nothing of what a run does not have.
    content: Callable[[RunFacts], tuple[str, str]]

    def body(self, run: RunFacts) -> str:
        """All of it, what must be noted about it included."""
        lead, below = self.content(run)
        notes = run.notes_of(self.anchor)
        return "".join(map(_lead, (lead, *notes) if lead else notes)) + below


def page(runs: Sequence[RunFacts], made: dt.datetime, by: str) -> str:
    """The whole page of one run, or of several side by side.

    Args:
        runs: What there is to tell of each.
        made: When the page was made.
        by: Name and version of what made it.
    """
    title = " and ".join(f"{r.experiment} {r.version}" for r in runs)
    shown_sections = [(one, [one.body(run) for run in runs]) for one in SECTIONS]
    shown_sections = [(one, bodies) for one, bodies in shown_sections if any(bodies)]
    links = "".join(f'<a href="#{one.anchor}">{escape(one.title)}</a>' for one, _ in shown_sections)
    content = [_beside([_header(run) for run in runs], "header"), f"<nav>{links}</nav>"]
    for one, bodies in shown_sections:
        of = [f"{run.experiment} {run.version} {run.folder}" if len(runs) > 1 else "" for run in runs]
        parts = [_section(one, body, i, of[i]) for i, body in enumerate(bodies)]
        content.append(_beside(parts, "div"))
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main{' class=two' if len(runs) > 1 else ''}>\n"
        + "\n".join(content)
        + f"\n<footer>Made by {escape(by)} on {made:%Y-%m-%d %H:%M} UTC.</footer>\n</main>\n</body>\n</html>\n"
    )


def _beside(parts: Sequence[str], tag: str) -> str:
    """One part as it is, several in columns."""
    if len(parts) == 1:
        return parts[0]
    return f'<{tag} class="pair">' + "".join(f"<div>{part}</div>" for part in parts) + f"</{tag}>"


def _section(one: Section, body: str, place: int, of: str) -> str:
    anchor = one.anchor if place == 0 else f"{one.anchor}-{place + 1}"
    run = f'<p class="of">{escape(of)}</p>' if of else ""
    return f'<section id="{anchor}">{run}<h2>{escape(one.title)}</h2>{body or _lead("Nothing to show.")}</section>'


# --- the head ---------------------------------------------------------------------------------------------


def _header(run: RunFacts) -> str:
    moment = f"{run.folder[:10]} {run.folder[11:].replace('-', ':')} UTC"
    parts = [
        f'<p class="eyebrow">Report of a run</p><h1>{escape(run.experiment)}</h1><p class="about">'
        f"<span>{escape(run.version)}</span><span>{escape(moment)}</span>"
        f'<span class="status{"" if run.status == "finished" else " open"}">{escape(run.status)}</span></p>'
    ]
    if run.note:
        parts.append(f'<p class="about">{escape(run.note)}</p>')
    if run.problem:
        parts.append(f'<p class="callout">{escape(run.problem)}</p>')
    parts += [f'<p class="callout">{escape(text)}</p>' for text in run.notes_of("head")]
    parts.append(f'<dl class="numbers">{"".join(map(_number, run.numbers))}</dl>')
    return "".join(parts)


def _number(one: Number) -> str:
    return (
        f'<div{" class=bad" if one.bad else ""}><dt>{escape(one.label)}</dt><dd class="value">{escape(one.value)}</dd>'
        f'<dd class="note">{escape(one.note)}</dd></div>'
    )


# --- inputs and outputs -----------------------------------------------------------------------------------


def _inputs(run: RunFacts) -> tuple[str, str]:
    if not run.inputs:
        return "", ""
    return "All inputs of the run, those that failed among them.", _grid(map(_spread, run.inputs))


def _outputs(run: RunFacts) -> tuple[str, str]:
    if not run.outputs:
        return "", ""
    return "Of the inputs that succeeded." + _one_axis(run.outputs), _grid(map(_spread, run.outputs))


def _one_axis(spreads: Sequence[Spread]) -> str:
    return " Axes reach as far as in the run beside." if any(one.span for one in spreads) else ""


def _spread(one: Spread) -> str:
    return _card(_named(one.variable), _histogram(one), one.variable.doc)


def _histogram(one: Spread, *, wide: bool = False) -> str:
    drawn = one.scale is not None and bool(one.counts) and not one.told
    figure = figures.histogram(one, wide=wide) if drawn else f'<p class="told">{escape(one.told)}</p>'
    return figure + _stats(one, drawn)


def _stats(one: Spread, drawn: bool) -> str:
    kind = one.scale.kind if one.scale is not None else "number"
    parts: list[str] = []
    if one.low is not None and one.median is not None and one.high is not None:
        if one.low == one.high:
            parts.append(f"<b>{escape(shown(one.low, kind))}</b>")
        else:
            low, median, high = (escape(shown(v, kind)) for v in (one.low, one.median, one.high))
            parts.append(f"<span>{low}</span><span>median <b>{median}</b></span><span>{high}</span>")
    elif one.scale is not None and not drawn and one.scale.labels:
        parts.append(f"<b>{escape(one.scale.labels[0])}</b>")
    if one.missing:
        parts.append(f'<span class="bad">{one.missing:,} without a value</span>')
    if one.infinite:
        parts.append(f'<span class="bad">{one.infinite:,} NaN or infinite</span>')
    return f'<p class="stats">{"".join(parts)}</p>' if parts else ""


# --- relations --------------------------------------------------------------------------------------------


def _relations(run: RunFacts) -> tuple[str, str]:
    told = run.relations
    if not told.drawn:
        return "", _sensitivity(run)
    measures = {one.measure for one in told.drawn} | {cell[0] for row in told.table for cell in row if cell is not None}
    lead = (
        "Each output against each input, the strongest first. ρ is Spearman's rank correlation, from −1 to 1: how far the "
        "output rises (or falls) with the input, straight or curved."
    )
    if measures & {"η", "V"}:
        lead += (
            " Categories have no order: η (0 to 1) is the root of the share of the ranks' variance that lies between them, "
            "V is Cramér's, of two categories."
        )
    lead += " Lines: median, and dashed the band of 5 to 95 %."
    body = _sensitivity(run)
    body += _matrix(told) if len(told.inputs) > 1 and told.outputs else ""
    body += _grid(map(_relation, told.drawn))
    if told.pairs > len(told.drawn):
        body += _lead(f"{told.pairs - len(told.drawn):,} weaker pairs are not drawn.")
    return lead, body


def _sensitivity(run: RunFacts) -> str:
    if run.indices is None:
        return ""
    what = (
        "Sensitivity analysis (SALib). first: the share of the output's variance that an input explains alone; total: with all that it does "
        "together with others; each with the ends of its 95 % interval."
        if "total" in run.indices.columns
        else "Sensitivity analysis by Morris's method (SALib). mu_star: the mean absolute effect of an input on the output, with the ends of its "
        "95 % interval; sigma: how much the effect differs from place to place."
    )
    return _lead(what) + _table(run.indices.columns, run.indices.rows)


def _matrix(told: Relations) -> str:
    head = "".join(f'<th class="number" title="{escape(n)}">{escape(n)}</th>' for n in told.inputs)
    rows = [
        f'<tr><th title="{escape(name)}">{escape(name)}</th>{"".join(map(_cell, row))}</tr>'
        for name, row in zip(told.outputs, told.table, strict=True)
    ]
    return f'<div class="scroll"><table class="matrix"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def _cell(cell: tuple[str, float] | None) -> str:
    if cell is None:
        return "<td>–</td>"
    measure, value = cell
    sign = "minus" if round(value, 2) < 0 else "plus"
    mark = "" if measure == "ρ" else f"{measure} "
    return f'<td class="{sign}" style="--s:{abs(value):.2f}">{mark}{_signed(value)}</td>'


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _relation(one: Relation) -> str:
    minus = " minus" if round(one.strength, 2) < 0 else ""
    beside = f'<span class="measure{minus}">{one.measure} {_signed(one.strength)}</span>'
    return _card(_over(one.output, one.input), figures.relation(one), None, beside)


# --- failures ---------------------------------------------------------------------------------------------


def _failures(run: RunFacts) -> tuple[str, str]:
    told = run.failures
    if told is None:
        return "", ""
    share = f"{told.count / told.inputs:.1%}".replace("%", " %") if told.inputs else ""
    lead = f"{told.count:,} of {told.inputs:,} inputs failed ({share}). Errors of a kind differ in their values alone."
    parts: list[str] = []
    if told.kinds:
        head = '<tr><th class="number">inputs</th><th class="number">of all</th><th class="number">first</th><th>kind</th></tr>'
        rows = "".join(_kind(kind, told.inputs or told.count) for kind in told.kinds)
        parts.append(f'<div class="scroll"><table>{head}{rows}</table></div>')
    if told.maps:
        parts.append("<h3>Where they lie, in the inputs that tell failed from good best</h3>")
        parts.append(_grid(map(_failure_map, told.maps), wide=True))
    if told.along:
        parts.append("<h3>Failed (red) among all (grey) along each input, the most telling first</h3>")
        parts.append(_grid(map(_failing, told.along)))
    return lead, "".join(parts)


def _kind(one: Kind, inputs: int) -> str:
    numbers = (f"{one.count:,}", f"{one.count / inputs * 100:.3g} %", str(one.first))
    cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
    common = "".join(f'<br><span class="common">{escape(text)}</span>' for text in one.common)
    place = f'<br><span class="place">{escape(one.place)}</span>'
    return f'<tr>{cells}<td class="message"><b>{escape(one.name)}</b> {escape(cut(one.message, _MESSAGE_LETTERS))}{place}{common}</td></tr>'


def _failure_map(one: FailureMap) -> str:
    beside = '<span class="measure failed">failed in red</span>'
    return _card(_over(one.y, one.x), figures.failure_map(one), None, beside)


def _failing(one: Failing) -> str:
    stats = f'<p class="stats"><span class="bad">failed <b>{escape(one.bad_range)}</b></span>'
    stats += f"<span>good <b>{escape(one.good_range)}</b></span></p>" if one.good_range else "</p>"
    return _card(_named(one.variable), figures.failing(one) + stats, None)


# --- times, dataframes, files -----------------------------------------------------------------------------


def _times(run: RunFacts) -> tuple[str, str]:
    told = run.times
    if told is None:
        return "", ""
    cards = [_card('Time per input <span class="unit">s</span>', _histogram(told.seconds, wide=True), None)]
    one = told.machine
    if one is not None:
        cards.append(_card("Workers at work", figures.at_work(one), None))
        cards.append(_card("Each worker", figures.workers(one), None))
    cards.append(_card("Slowest inputs", _table(told.columns, told.slowest, ' class="number"'), None))
    return _told_of(one) if one is not None else "", _grid(cards, wide=True)


def _told_of(one: Machine) -> str:
    many = "worker was" if one.count == 1 else "workers were"
    text = f"{one.count:,} {many} at work {one.share * 100:.0f} % of the time from the first start to the last end."
    if one.attempts > 1:
        text += f" Of attempt {one.attempt}, which ran most inputs of {one.attempts} attempts."
    if one.count > len(one.workers):
        text += f" The {len(one.workers)} that ran most inputs have a line each."
    return text


def _bands(run: RunFacts) -> tuple[str, str]:
    if not run.bands:
        return "", ""
    body = ""
    for name in dict.fromkeys(band.frame for band in run.bands):
        body += f"<h3>{escape(name)}</h3>" + _grid(_band(band) for band in run.bands if band.frame == name)
    return "Median over all inputs, and the band in which 90 % of the values lie (5 to 95 %).", body


def _band(one: Band) -> str:
    return _card(_over(one.y, one.x), figures.band(one), one.y.doc)


def _pictures(run: RunFacts) -> tuple[str, str]:
    if not run.pictures:
        return "", ""
    drawn = "".join(
        f'<figure><img src="data:image/jpeg;base64,{b64encode(p.jpeg).decode()}" width="{p.width}" height="{p.height}" '
        f'alt="{escape(p.name)}"><figcaption><span>{escape(p.field)}</span><span>input {p.sort_index}</span></figcaption></figure>'
        for p in run.pictures
    )
    return "The first images that the inputs gave.", f'<div class="pictures">{drawn}</div>'


def _origin(run: RunFacts) -> tuple[str, str]:
    told = run.origin
    facts = "".join(f"<dt>{escape(label)}</dt><dd><code>{escape(value)}</code></dd>" for label, value in told.facts)
    body = f'<dl class="facts">{facts}</dl>'
    if told.attempts:
        body += "<h3>Attempts</h3>" + _table(told.attempt_columns, told.attempts)
    if told.packages:
        listed = "".join(f"<div>{escape(name)}<span>{escape(version)}</span></div>" for name, version in told.packages)
        body += f'<h3>Packages</h3><div class="packages">{listed}</div>'
    return "", body


# --- their parts ------------------------------------------------------------------------------------------


def _named(variable: Variable) -> str:
    unit = f' <span class="unit">{escape(variable.unit)}</span>' if variable.unit else ""
    return escape(variable.name) + unit


def _over(y: Variable, x: Variable) -> str:
    return f'{_named(y)} <span class="by">over</span> {_named(x)}'


def _card(caption: str, body: str, doc: str | None, beside: str = "") -> str:
    told = f'<p class="doc">{escape(doc)}</p>' if doc else ""
    return f'<figure class="card"><figcaption><span class="name">{caption}</span>{beside}</figcaption>{told}{body}</figure>'


def _grid(cards: Iterable[str], *, wide: bool = False) -> str:
    return f'<div class="grid{" wide" if wide else ""}">{"".join(cards)}</div>'


def _lead(text: str) -> str:
    return f'<p class="lead">{escape(text, quote=False)}</p>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], of_each: str = "") -> str:
    """A table of texts, with an attribute of each of its cells."""
    head = "".join(f"<th{of_each}>{escape(c)}</th>" for c in columns)
    body = "".join(f"<tr>{''.join(f'<td{of_each}>{escape(c)}</td>' for c in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


SECTIONS = (
    Section("outputs", "Outputs", _outputs),
    Section("relations", "What drives the outputs", _relations),
    Section("failures", "Failures", _failures),
    Section("inputs", "Inputs", _inputs),
    Section("dataframes", "Dataframes", _bands),
    Section("files", "Images", _pictures),
    Section("times", "Time", _times),
    Section("provenance", "Provenance", _origin),
)

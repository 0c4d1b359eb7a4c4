"""One picture of the benchmark: seconds of Scythe and of the quickest way by hand, a pair of bars a job, each pair on its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _LABEL, _BAR, _GAP, _PAIR = 720, 250, 16, 4, 56
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #333 } .by-hand { fill: #b8bfc9 } .scythe { fill: #2b7a78 }
  @media (prefers-color-scheme: dark) { text { fill: #ddd } .by-hand { fill: #5d6673 } .scythe { fill: #4fb3af } }
"""


def drawn(jobs: Sequence[tuple[str, float, float]]) -> str:
    """An SVG; of each job its name, Scythe's seconds and those by hand."""
    height = 28 + _PAIR * len(jobs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<title>Wall seconds of whole processes: Scythe, and by hand with joblib</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="scythe" x="{_LABEL}" y="4" width="12" height="12"/><text x="{_LABEL + 18}" y="15">Scythe</text>',
        f'<rect class="by-hand" x="{_LABEL + 90}" y="4" width="12" height="12"/>'
        f'<text x="{_LABEL + 108}" y="15">by hand with joblib</text>',
    ]
    room = _WIDTH - _LABEL - 70
    for number, (job, ours, theirs) in enumerate(jobs):
        top, longest = 28 + _PAIR * number, max(ours, theirs)
        parts.append(f'<text x="{_LABEL - 10}" y="{top + _BAR + 8}" text-anchor="end">{escape(job)}</text>')
        for line, (kind, seconds) in enumerate((("scythe", ours), ("by-hand", theirs))):
            y, width = top + line * (_BAR + _GAP), max(1.0, room * seconds / longest)
            parts.append(f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}"/>')
            parts.append(f'<text x="{_LABEL + width + 6:.1f}" y="{y + 13}">{seconds:.1f} s</text>')
    return "\n".join([*parts, "</svg>", ""])

"""A figure of Matplotlib as an element of a page: its size and style, and its SVG with the page's colours and font. Draws nothing itself."""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colours that stand for variables of the page's style.
INK, QUIET, LINE, ACCENT, BAD, STRONG = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {
    INK: "--ink", QUIET: "--quiet", LINE: "--line", ACCENT: "--accent", BAD: "--bad", STRONG: "--strong",
}  # fmt: skip
FONT = 9.5

#: Signs that say in which direction texts run, https://www.unicode.org/reports/tr9/.
_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape(text: str, quote: bool = True) -> str:
    """A text as it may stand in a page: nothing in it is taken for a part of it, nor turns around what stands beside it."""
    return html.escape(_DIRECTIONS.sub(lambda found: f"\\u{ord(found[0]):04x}", text), quote)


@contextmanager
def figure(
    size: tuple[float, float], name: str, *, left: float, flat: bool = False
) -> Generator[tuple[Axes, list[str]]]:
    """Axes to draw on; at the end the list holds the figure as SVG. A `flat` one has no vertical axis."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    made: list[str] = []
    width, height = size
    # Letters that Matplotlib's own font lacks are drawn by the reader's.
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing")
        drawing = Figure(figsize=(width / 72, height / 72))
        FigureCanvasSVG(drawing)
        axes = drawing.add_axes((left / width, 20 / height, 1 - (left + 12) / width, 1 - 28 / height))
        axes.patch.set_visible(False)
        drawing.patch.set_visible(False)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom" or (side == "left" and not flat))
            spine.set_color(LINE)
        axes.tick_params(labelcolor=QUIET, color=LINE, width=0.8, length=3, pad=3, labelsize=FONT)
        yield axes, made
        out = StringIO()
        drawing.savefig(out, format="svg", metadata=_NO_METADATA)
    made.append(_for_page(out.getvalue(), name))


_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "scythe", "text.parse_math": False, "text.usetex": False,
    "axes.unicode_minus": True, "font.size": FONT, "path.simplify": True, "figure.dpi": 72, "axes.linewidth": 0.8,
}  # fmt: skip
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_HEAD = re.compile(r"(?s)\A.*?<svg\b[^>]*?viewBox=\"([^\"]+)\"[^>]*>")
_DROPPED = re.compile(r"(?s)<!--.*?-->|<metadata>.*?</metadata>|<style type=\"text/css\">.*?</style>|<defs>\s*</defs>")
_OWN_ID = re.compile(
    r' id="(?:figure|axes|patch|matplotlib\.axis|xtick|ytick|text|line2d|Line|Poly|Quad|image|Lin)[\w.]*_\d+"'
)
_PATH = re.compile(r' d="([^"]*)"')
_DECIMALS = re.compile(r"(\.\d{2})\d+")
_FONT_OF_TEXT = re.compile(r"font: ([\d.]+)px [^;\"]*")


def _for_page(svg: str, name: str) -> str:
    """Matplotlib's file as an element of a page: the page's colours and font, and nothing that only a file needs."""
    head = _HEAD.match(svg)
    assert head is not None
    body = _DROPPED.sub("", svg[head.end() :])
    body = _OWN_ID.sub("", body)
    body = _PATH.sub(_shorter, body)
    body = _FONT_OF_TEXT.sub(r"font-size: \1px", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r">\s*\n\s*<", "><", body)
    return f'<svg viewBox="{head[1]}" role="img" aria-label="{escape(name)}">{body.strip()}'


def _shorter(path: re.Match[str]) -> str:
    return f' d="{_DECIMALS.sub(lambda digits: digits[1], " ".join(path[1].split()))}"'

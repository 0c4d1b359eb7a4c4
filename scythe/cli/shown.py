"""What a terminal shows of texts and tables: aligned, and nothing in them that the terminal would take as a command."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from scythe.terminal.console import plain

if TYPE_CHECKING:
    import polars as pl

    from scythe.remote.cache import Usage


_NO_ASCII = re.compile(r"[^\x00-\x7f]")


def say(text: str, *, err: bool = False) -> None:
    """Shows a text: whatever a name or a message holds, it does nothing to the terminal."""
    typer.echo(plain(text), err=err)


def counted(count: int, what: str) -> str:
    """A number of things: 1 file, 2 files."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def link_of(uri: str) -> str:
    """A folder's address as terminals take it for a link, with blanks in it, too."""
    scheme, separator, path = uri.partition("file://")
    return uri if scheme or not separator else separator + quote(path)


def count_of(found: Usage) -> str:
    """How many files, and how large together."""
    return f"{counted(found.files, 'file')}, {bytes_of(found.bytes)}"


def bytes_of(count: int) -> str:
    """A size in the unit that suits it: 12.3 MB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


def _escaped(text: str) -> str:
    """JSON that any terminal can show: what is no ASCII as escapes, unless it takes UTF-8."""
    if (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8":
        return text
    return _NO_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def show_table(frame: pl.DataFrame, empty: str, *, json: bool = False) -> None:
    """A frame as aligned text, as wide as it needs to be: it can be piped; or as JSON, with bytes in base64."""
    if json:
        import polars as pl

        coded = [_coded(pl.col(name), dtype).alias(name) for name, dtype in frame.schema.items()]
        typer.echo(_escaped(frame.select(coded).write_json()))
        return
    if frame.height == 0:
        say(empty)
        return
    cells = [[_cell(v) for v in row] for row in frame.rows()]
    widths = [max(len(n), *(len(r[i]) for r in cells)) for i, n in enumerate(frame.columns)]
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    for line in (frame.columns, *cells):
        padded = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)]
        say("  ".join(padded).rstrip())


def _coded(values: pl.Expr, dtype: object) -> pl.Expr:
    """Values that Polars can write as JSON, which has no bytes; a map with some becomes the list of its entries."""
    import polars as pl

    match dtype:
        case pl.Binary():
            return values.bin.encode("base64")
        case pl.List():
            return values.list.eval(_coded(pl.element(), dtype.inner))
        case pl.Struct():
            return values.struct.with_fields([_coded(pl.field(f.name), f.dtype).alias(f.name) for f in dtype.fields])
        case pl.Map() if "Binary" in str(dtype):
            return _coded(values.map.entries(), pl.List(pl.Struct({"key": dtype.key, "value": dtype.value})))
        case _:
            return values


def _cell(value: Any) -> str:
    import datetime as dt

    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
        case int():
            return f"{value:,}"
        case dt.datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case _:
            text = " ".join(plain(str(value)).split())
            return text if len(text) <= 100 else text[:99] + "…"

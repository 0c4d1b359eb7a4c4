"""A table of inputs out of a file, in the types that the model gives its columns. Holds no values against the model's rules."""

from __future__ import annotations

import codecs
import json
import re
import stat
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scythe.cli.written_numbers import check_json, check_texts

if TYPE_CHECKING:
    import datetime as dt

    import polars as pl
    import pyarrow as pa

    from scythe_catalog.schema import Column, CompiledModel
    from scythe_catalog.schema.kinds import Kind

#: Digits of a second beyond its millionths.
_FINER = re.compile(r"\.\d{6}\d*[1-9]")

#: Durations as ISO 8601 has them (years and months have no length), and as clocks, pandas and Python write them.
_ISO = re.compile(
    r"(?P<sign>[+-]?)P(?=.)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<microseconds>\d{1,6})0*)?S)?)?"
)
_CLOCK = re.compile(
    r"(?=.*\d)(?:(?P<days>[+-]?\d+) days?(?:,? (?=[+-]?\d)|$))?(?P<sign>[+-]?)"
    r"(?:(?P<hours>\d+):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)(?:\.(?P<microseconds>\d{1,6})0*)?)?"
)

#: No column holds whole numbers of more digits.
_MOST_DIGITS = 40
#: How a CSV file may write a truth value, in any case.
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

_LINES = (".ndjson", ".jsonl")
SUFFIXES = (".parquet", ".pq", ".csv", ".json", *_LINES)


def read_inputs(path: Path, compiled: CompiledModel) -> pl.DataFrame | list[dict[str, Any]]:
    """The inputs in a file; what it can only write as text (days, instants, decimals) as what the model says that it is.

    Rows where an object of JSON lacks what another has: what it lacks is left to the model.

    Raises:
        typer.BadParameter: there is no such file, or it holds something else.
    """
    import polars as pl

    from scythe_catalog.schema import kinds as k

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise typer.BadParameter(f"{path} is none of {', '.join(SUFFIXES)}", param_hint="specs")
    try:
        there = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint="specs") from error
    if not there:
        raise typer.BadParameter(f"there is no file {path}", param_hint="specs")
    # What a validator of the model takes first is as the file has it.
    columns = {
        name: column
        for column in compiled.schema
        if column.name not in compiled.loose
        for name in _names(compiled, column)
    }
    exact = {
        name: column
        for name, column in columns.items()
        if _is_text(column) or _parsed(column) or (suffix == ".csv" and isinstance(column.kind, k.Bool | k.Float))
    }
    try:
        if suffix in (".parquet", ".pq"):
            return pl.read_parquet(path)
        _check_text(path)
        if suffix == ".csv":  # the types of columns, and which there are, are those of all rows
            if (other := _other_separator(path)) is not None:
                raise ValueError(
                    f"its values are parted by {other!r}: save it with commas between them, and points in its numbers"
                )
            frame = pl.read_csv(path, infer_schema_length=None, schema_overrides=dict.fromkeys(exact, pl.String))
            texts = {name: frame[name] for name in frame.columns if name in exact}
            return frame.with_columns(_of_texts(found, columns[name]) for name, found in texts.items())
        rows = _rows_of_json(path)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        if "utf-8" in why.lower():
            why += ": save it as UTF-8 (of Excel's kinds `CSV UTF-8`)"
        raise typer.BadParameter(f"{path} cannot be read: {why}", param_hint="specs") from error
    for name, column in columns.items():
        check_json(name, column.kind, [row.get(name) for row in rows])
    given = {name: [row[name] for row in rows if name in row] for name in exact}
    told = {
        name: iter(_as_told(name, values, exact[name]).to_list())
        for name, values in given.items()
        if values and all(value is None or isinstance(value, str | int | Decimal) for value in values)
    }
    kinds = {name: column.kind for name, column in columns.items()}
    return [
        {
            name: next(told[name]) if name in told else _of_json(value, kinds.get(name), name)
            for name, value in row.items()
        }
        for row in rows
    ]


def _check_text(path: Path) -> None:
    """Nothing where a file begins as text in UTF-8 does.

    Raises:
        ValueError: it is UTF-16, or no text.
    """
    with path.open("rb") as file:
        begin = file.read(4096)
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is text in UTF-16, not in UTF-8")
    if b"\0" in begin:
        raise ValueError("it holds bytes that are 0, and so is no text in UTF-8")


def _of_json(value: Any, kind: Kind | None, path: str) -> Any:
    """A value of JSON as the kind of its place says that it is, at any depth; what an object lacks is left to the model.

    Raises:
        typer.BadParameter: a text that is none of what its place wants.
    """
    from scythe_catalog.schema import Column
    from scythe_catalog.schema import kinds as k
    from scythe_catalog.schema.lift import members_of, root_of

    if isinstance(kind, k.Struct) and (root := root_of(kind)) is not None:
        return _of_json(value, root, path)
    if isinstance(value, dict):
        named: dict[str, Any] = value
        known = members_of(kind) if isinstance(kind, k.Struct) else {}
        of_all = kind.value if isinstance(kind, k.Map) else None
        return {name: _of_json(item, known.get(name, of_all), f"{path}.{name}") for name, item in named.items()}
    if isinstance(value, list):
        items: list[Any] = value
        if isinstance(kind, k.Struct) and kind.python is None and len(kind.members) == len(items):
            return tuple(
                _of_json(item, m.kind, f"{path}.{i}")
                for i, (item, m) in enumerate(zip(items, kind.members, strict=True))
            )
        each = kind.item if isinstance(kind, k.List) else None
        return [_of_json(item, each, f"{path}.{i}") for i, item in enumerate(items)]
    if isinstance(value, Decimal):
        if isinstance(kind, k.Decimal) or (isinstance(kind, k.Int) and value == value.to_integral_value()):
            return _as_told(path, [value], Column(path, kind)).to_list()[0]
        return float(value)
    if isinstance(kind, k.Float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # exact, as was found before
    if (
        isinstance(value, str)
        and kind is not None
        and _parsed(column := Column(path, kind))
        and not isinstance(kind, k.Int)
    ):
        return _as_told(path, [value], column).to_list()[0]
    return value


def _other_separator(path: Path) -> str | None:
    """What stands between the names of a CSV file's columns, where that is no comma."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            names = next(lines, "")
    except (OSError, UnicodeDecodeError):
        return None
    return next((other for other in (";", "\t", "|") if other in names), None) if "," not in names else None


def _names(compiled: CompiledModel, column: Column) -> list[str]:
    """What a column may be called in a file."""
    from scythe_catalog.schema import aliases

    info = compiled.model.model_fields.get(column.name)
    return [column.name, *(aliases(info) if info is not None else ())]


def _rows_of_json(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, in which no digit is lost.

    Raises:
        ValueError: it holds something else, a key twice, or half of a character.
    """
    text = path.read_text("utf-8-sig")
    lines = text.split("\n") if path.suffix.lower() in _LINES else [text]
    found = list[Any]()
    for number, line in enumerate(lines, 1):
        try:
            found += [json.loads(line, parse_float=Decimal, object_pairs_hook=_once)] if line.strip() else []
        except json.JSONDecodeError as error:
            where = error.lineno if len(lines) == 1 else number
            raise ValueError(f"line {where:,}, character {error.colno:,}: {error.msg}") from error
    if path.suffix.lower() == ".json" and found and not isinstance(found[0], dict):
        (found,) = found
    rows = found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):  # pyright: ignore[reportUnknownVariableType]
        raise ValueError("it is no list of objects, one an input")
    if "\\ud" in text.lower():
        json.dumps(rows, ensure_ascii=False, default=str).encode()
    return rows  # pyright: ignore[reportUnknownVariableType]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object"
        )
    return found


def _is_text(column: Column) -> bool:
    from scythe_catalog.schema import kinds as k

    if isinstance(column.kind, k.Category):  # members are given by their values, too
        return all(isinstance(member.value, str) for member in column.kind.python or ())
    return isinstance(column.kind, k.Str | k.Uri | k.Uuid)


def _parsed(column: Column) -> bool:
    """Whether the values have a form of their own as text, or one that a number of JSON or a column of floats would round."""
    import pyarrow as pa

    from scythe_catalog.schema import kinds as k

    t, storage = pa.types, column.kind.storage
    of_time = t.is_date(storage) or t.is_timestamp(storage) or t.is_time(storage)
    return of_time or t.is_decimal(storage) or isinstance(column.kind, k.Int | k.Duration)


def _of_texts(texts: pl.Series, column: Column) -> pl.Series:
    """A column of a CSV file as what the model says that it means."""
    import polars as pl

    from scythe_catalog.schema import kinds as k

    if _is_text(column):
        return texts
    texts = texts.replace("", None)  # in quotes, as pandas writes the gaps of a single column
    if isinstance(column.kind, k.Int):
        whole = texts.cast(pl.Int64, strict=False)
        if whole.null_count() == texts.null_count():
            return whole
    if isinstance(column.kind, k.Float):
        written = texts.str.strip_chars()
        numbers = written.cast(pl.Float64, strict=False)
        if numbers.null_count() == texts.null_count():
            check_texts(numbers, written)
            return numbers
        wrong = texts.filter(numbers.is_null() & texts.is_not_null())[0]
        raise typer.BadParameter(
            f"{texts.name}: {wrong!r} is no float; write it as 1.5, and what is missing as nothing", param_hint="specs"
        )
    if isinstance(column.kind, k.Bool):
        told = texts.str.strip_chars().str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
        if told.null_count() == texts.null_count():
            return told
        wrong = texts.filter(told.is_null() & texts.is_not_null())[0]
        raise typer.BadParameter(f"{texts.name}: {wrong!r} is no bool; write it as true or false", param_hint="specs")
    return _as_told(texts.name, texts.to_list(), column)


def _as_told(name: str, values: list[Any], column: Column) -> pl.Series:
    """Texts, and numbers of JSON, as what the model says that they mean."""
    import polars as pl

    if not _is_text(column) and not all(v is None or isinstance(v, str | int | Decimal) for v in values):
        return pl.Series(name, values, strict=False)  # which the model refuses by name
    try:
        return pl.Series(name, _values(values, column))
    except ValueError:
        wrong = next(value for value in values if _is_wrong(value, column))
        raise typer.BadParameter(
            f"{name}: {str(wrong) if isinstance(wrong, Decimal) else repr(wrong)} is no {column.kind.describe()}; write it as {_form(column)}",
            param_hint="specs",
        ) from None


def _form(column: Column) -> str:
    import pyarrow as pa

    from scythe_catalog.schema import kinds as k

    t, storage = pa.types, column.kind.storage
    if _is_text(column):
        return "text, in quotes"
    if isinstance(column.kind, k.Duration):
        return "PT1H30M, or as 1:30:00"
    if t.is_integer(storage):
        return f"digits alone, within {storage.bit_width} bits"
    if t.is_decimal(storage):
        return f"{1:.{storage.scale}f}, with no more digits"
    if t.is_timestamp(storage):
        return "2024-01-31T12:00:00" + ("" if storage.tz is None else "+01:00")
    return "2024-01-31" if t.is_date(storage) else "12:00:00"


def _values(given: list[Any], column: Column) -> pa.Array:
    """Raises ValueError where a value is something else."""
    import datetime as dt

    import pyarrow as pa

    from scythe_catalog.schema import kinds as k

    storage = column.kind.storage
    if _is_text(column):
        if not all(value is None or isinstance(value, str) for value in given):
            raise ValueError("no text")
        return pa.array(given, pa.string())
    if any(isinstance(value, bool) for value in given):
        raise ValueError("a truth value is no number")
    if isinstance(column.kind, k.Int):
        numbers = [None if value is None else _whole(value) for value in given]
        try:
            return pa.array(numbers, storage)
        except OverflowError as error:
            raise ValueError("beyond its bits") from error
    texts = [None if value is None else str(value) for value in given]
    if pa.types.is_time(storage):  # to which Arrow casts no text
        times = [dt.time.fromisoformat(text) if text is not None else None for text in texts]
        if any(time is not None and time.tzinfo is not None for time in times):
            raise ValueError("a time of day has no zone")
        if any(text is not None and _FINER.search(text) for text in texts):
            raise ValueError("nanoseconds")
        return pa.array(times, storage)
    if isinstance(column.kind, k.Duration):
        return pa.array([None if text is None else _duration(text) for text in texts], pa.duration("us"))
    if pa.types.is_decimal(storage):
        return pa.array(
            [None if text is None else _decimal(text) for text in texts], pa.decimal128(38, storage.scale)
        ).cast(storage)
    return pa.array(texts, pa.string()).cast(storage)


def _duration(text: str) -> dt.timedelta:
    """Raises ValueError for what is none, has parts of a millionth of a second, or is too long for one."""
    import datetime as dt

    iso = _ISO.fullmatch(text.strip())
    found = iso or _CLOCK.fullmatch(text.strip())
    if found is None:
        raise ValueError("no duration")
    told = {unit: number or "0" for unit, number in found.groupdict().items()}
    sign = -1 if told.pop("sign") == "-" else 1
    parts = {unit: int(f"{number:0<6}" if unit == "microseconds" else number) for unit, number in told.items()}
    days = parts.pop("days")
    try:  # a clock's own sign is not that of the days before it: `-1 day, 23:00:00` is an hour back
        return dt.timedelta(days=sign * days if iso else days) + sign * dt.timedelta(**parts)
    except OverflowError as error:
        raise ValueError("too long") from error


def _decimal(value: Any) -> Decimal:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError("no number") from None
    if not number.is_finite():
        raise ValueError("no finite number")
    if number.adjusted() > _MOST_DIGITS:  # to write it out would take its time
        raise ValueError("too large")
    return number


def _whole(value: Any) -> int:
    number = _decimal(value)
    if number != number.to_integral_value():
        raise ValueError("a fraction")
    return int(number)


def _is_wrong(value: Any, column: Column) -> bool:
    try:
        _values([value], column)
    except ValueError:
        return True
    return False


__all__ = ["SUFFIXES", "read_inputs"]

"""What a type says of itself, and the list of all types that there are. Knows nothing of models, fields or tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pyarrow as pa

from scythe_catalog.compute import pc
from scythe_catalog.errors import SchemaError
from scythe_catalog.lazy_pandas import postpone_pandas

postpone_pandas()

if TYPE_CHECKING:
    import polars as pl


Values = list[Any]
#: The bounds that compare, and what compares.
ORDER: Mapping[str, Any] = {"ge": pc.greater_equal, "gt": pc.greater, "le": pc.less_equal, "lt": pc.less}


@dataclass(frozen=True)
class Kind:
    """A logical type. Two kinds are equal when they store the same values with the same meaning.

    A new one is a frozen dataclass that names itself, its annotations and what it is stored as, and says what differs
    of the rest (one that inherits from another kind, `annotations` and `arrow` anew). Its fields are part of the stored
    JSON; those that do not compare belong to the model's Python classes.
    """

    #: What the stored JSON calls it.
    name: ClassVar[str]
    #: False where only pydantic can tell whether a frame's values are acceptable.
    flat: ClassVar[bool] = True
    #: Whether its values are measured, so that a unit may stand behind the description.
    number: ClassVar[bool] = False
    #: The Arrow type of the column in Parquet and Iceberg, where all of its columns have the same.
    stored: ClassVar[pa.DataType]
    #: The annotations that mean it, as they stand in a model.
    annotations: ClassVar[tuple[Any, ...]] = ()
    #: Classes of the Python objects that a frame's column of it may hold.
    classes: ClassVar[tuple[type, ...]] = ()
    #: Whether an Arrow type means it where no model says what a column is.
    arrow: ClassVar[Callable[[pa.DataType], bool] | None] = None

    # --- where it comes from ----------------------------------------------------------------------

    @classmethod
    def of_annotation(cls, annotation: Any, told: Mapping[str, Any]) -> Kind | None:
        """The kind that an annotation means, None where it means another; `told` is what field and model declare.

        Raises:
            ValueError: no column holds it; says the way out.
        """
        return cls() if annotation in cls.annotations else None

    @classmethod
    def of_arrow(cls, dtype: pa.DataType) -> Kind | None:
        """The kind that holds an Arrow type faithfully, None where that is another."""
        return cls() if cls.arrow is not None and cls.arrow(dtype) else None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kind:
        """The kind that `to_json` wrote, without the Python classes of the model it came from."""
        return cls(**{f.name: _told(data[f.name]) for f in fields(cls) if f.compare and f.name in data})

    def to_json(self) -> dict[str, Any]:
        """The kind as plain JSON, read back by `kind_from_json`."""
        told = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.compare}
        return {"kind": self.name, **{name: value for name, value in told.items() if value is not None}}

    def describe(self) -> str:
        """A word or two for error messages."""
        return self.name

    @property
    def is_file(self) -> bool:
        """Whether its values are files to be carried along."""
        return False

    @property
    def loose(self) -> bool:
        """Whether values of any type may be acceptable, which only pydantic can tell."""
        return False

    @property
    def parts(self) -> tuple[tuple[str, Kind], ...]:
        """The kinds that it is made of, each by the name that Iceberg gives it in the path of a column."""
        return ()

    # --- how it is stored and shown ---------------------------------------------------------------

    @property
    def storage(self) -> pa.DataType:
        """The Arrow type of the column in Parquet and Iceberg, from which the types of all readers follow.

        One that Iceberg v2, Polars and DuckDB all hold: bool, int64, float64, string, binary, date32, time64[us],
        timestamp[us] (of no zone or UTC), decimal128, or a list, map or struct of these.
        """
        return self.stored

    def polars(self) -> pl.DataType | type[pl.DataType]:
        """The dtype that the reader gives."""
        return polars_of(self.storage)

    def dump(self, values: Values) -> Values:
        """Python values of a column (None for null), lowered to what Arrow takes."""
        return values

    def load(self, values: Values) -> Values:
        """What Arrow gives for a column, lifted to the model's Python values."""
        return values

    def array(self, values: Values) -> pa.Array:
        """Python values as one Arrow array; raises ValueError, TypeError or OverflowError where one does not fit."""
        try:
            return pa.array(self.dump(values), self.storage)
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is not one of its values") from error
        except AttributeError as error:
            raise TypeError(str(error)) from error

    def level(self, value: Any) -> Any:
        """What an index level shows of a model's value."""
        return value

    # --- what it takes of a user's frame ----------------------------------------------------------

    def accepts(self, dtype: pa.DataType) -> bool:
        """Whether a column of an Arrow type may hold its values: any that is stored as it is, unless it says otherwise."""
        try:
            return kind_of_arrow(dtype).storage == self.storage
        except SchemaError:
            return False

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """An accepted column in its storage type; raises as `array` does, or as Arrow, where a value would lose something."""
        return values.cast(self.storage)

    def takes(self, python: type) -> bool:
        """Whether a frame's column may hold objects of a class."""
        return issubclass(python, self.classes)

    def lift(self, *, strict: bool) -> Callable[[Any], Any] | None:
        """What makes a frame's value one that pydantic takes (`strict`: of the model's own class); None where it is one."""
        return None

    def held(self, rule: str, values: pa.ChunkedArray, bound: Any) -> pa.ChunkedArray:
        """Where a bound (ge, gt, le or lt) holds, compared exactly; null where the value is null."""
        return ORDER[rule](values, self.array([bound])[0])


# --- all of them --------------------------------------------------------------------------------------

K = TypeVar("K", bound=type[Kind])
_KINDS: dict[str, type[Kind]] = {}


def register(kind: K) -> K:
    """Makes a type known, from its annotation to its stored JSON; usable as a decorator. Each process does so anew.

    Raises:
        SchemaError: another type has its name.
    """
    known = _KINDS.setdefault(kind.name, kind)
    if known.__qualname__ != kind.__qualname__:
        raise SchemaError(
            f"column kind {kind.name!r} is {known.__qualname__} already: give {kind.__qualname__} a name of its own"
        )
    _KINDS[kind.name] = kind
    kind_of_arrow.cache_clear()
    return kind


def kind_from_json(data: Mapping[str, Any]) -> Kind:
    """The kind that `Kind.to_json` wrote, without the Python classes of the model it came from.

    Raises:
        SchemaError: the JSON names a kind that this version does not know.
    """
    name = data["kind"]
    if name not in _KINDS:
        raise SchemaError(
            f"column kind {name!r} is not known to this version of Scythe: upgrade Scythe where you read it"
        )
    return _KINDS[name].from_json(data)


def is_annotation(annotation: Any) -> bool:
    """Whether an annotation means a kind as it stands, whatever it is made of."""
    return any(annotation in kind.annotations for kind in _KINDS.values())


def kind_of_annotation(annotation: Any, told: Mapping[str, Any]) -> Kind | None:
    """The kind that an annotation means, None where it is none or not one alone; types registered last come first.

    Raises:
        ValueError: no column holds it; says the way out.
    """
    found = (kind.of_annotation(annotation, told) for kind in reversed(_KINDS.values()))
    return next((kind for kind in found if kind is not None), None)


@lru_cache(maxsize=4096)
def kind_of_arrow(dtype: pa.DataType) -> Kind:
    """The kind that holds an Arrow type faithfully: for dataframes, which have no model.

    Raises:
        SchemaError: Iceberg has no type for it.
    """
    if pa.types.is_dictionary(dtype) or pa.types.is_run_end_encoded(dtype):
        return kind_of_arrow(dtype.value_type)
    for kind in reversed(_KINDS.values()):
        found = kind.of_arrow(dtype)
        if found is not None:
            return found
    if isinstance(dtype, pa.BaseExtensionType):
        name = getattr(dtype, "extension_name", None) or type(dtype).__name__
        shown = f"{name} ({dtype.storage_type})"
        raise SchemaError(f"no table column can hold the extension type {shown}: give its storage, or its text")
    raise SchemaError(f"no table column can hold the Arrow type {dtype}")


def _plain(value: Any) -> Any:
    return value.to_json() if isinstance(value, Kind) else list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _told(plain: Any) -> Any:
    return kind_from_json(plain) if isinstance(plain, Mapping) else tuple(plain) if isinstance(plain, list) else plain  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


# --- what several of them need ------------------------------------------------------------------------


@cache
def polars_of(dtype: pa.DataType) -> pl.DataType:
    """The dtype as which Polars reads an Arrow type."""
    import polars as pl

    return pl.Series(pa.array([], dtype)).dtype


def is_class(annotation: Any, *classes: type) -> bool:
    """Whether an annotation is a class, of one of these."""
    return isinstance(annotation, type) and issubclass(annotation, classes)


def of_classes(values: Values, *classes: type) -> None:
    """Nothing where all values are None or of these classes, whatever else Arrow would take.

    Raises:
        TypeError: naming the first that is not.
    """
    others = set(map(type, values)) - {type(None), *classes}
    if not all(issubclass(python, classes) for python in others):
        value = next(v for v in values if v is not None and not isinstance(v, classes))
        raise TypeError(f"{value!r} is a {type(value).__name__}")


def exactly(values: pa.ChunkedArray, converted: pa.ChunkedArray) -> pa.ChunkedArray:
    """What values were converted to, if that loses nothing.

    Raises:
        ValueError: it does.
    """
    if not pc.all(pc.equal(converted.cast(values.type), values), min_count=0).as_py():
        raise ValueError("not exact")
    return converted


def each_once(values: pa.ChunkedArray, convert: Callable[[Values], pa.Array]) -> pa.ChunkedArray:
    """A column by the Python values that occur in it, each of which is converted once."""
    joined = values.combine_chunks() if values.num_chunks else pa.array([], values.type)
    found: Any = joined.dictionary_encode()
    return pa.chunked_array([convert(found.dictionary.to_pylist()).take(found.indices)])

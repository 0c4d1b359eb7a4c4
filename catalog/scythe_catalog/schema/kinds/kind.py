"""What a kind is: how a Python value is stored in Arrow, and what Polars shows for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from scythe_catalog.lazy_pandas import postpone_pandas

postpone_pandas()

if TYPE_CHECKING:
    import polars as pl


Values = list[Any]


def of_classes(values: Values, *classes: type) -> None:
    """Nothing where all values are None or of these classes, whatever else Arrow would take.

    Raises:
        TypeError: naming the first that is not.
    """
    others = set(map(type, values)) - {type(None), *classes}
    if not all(issubclass(python, classes) for python in others):
        value = next(v for v in values if v is not None and not isinstance(v, classes))
        raise TypeError(f"{value!r} is a {type(value).__name__}")


class Kind:
    """A logical type. Two kinds are equal when they store the same values with the same meaning."""

    name: ClassVar[str]
    #: False where only pydantic can tell whether a frame's values are acceptable.
    flat: ClassVar[bool] = True

    @property
    def storage(self) -> pa.DataType:
        """The Arrow type of the column in Parquet and Iceberg."""
        raise NotImplementedError

    def polars(self) -> pl.DataType | type[pl.DataType]:
        """The dtype that the reader gives."""
        raise NotImplementedError

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

    def to_json(self) -> dict[str, Any]:
        """The kind as plain JSON, read back by `kind_from_json`."""
        return {"kind": self.name}

    def describe(self) -> str:
        """A word or two for error messages."""
        return self.name

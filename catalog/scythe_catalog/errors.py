"""The root of every error that Scythe raises, and the errors of the catalog.

Never raises anything itself. `scythe.errors` continues this tree for runs and experiments.
"""

from __future__ import annotations

from scythe_catalog.redaction import redacted


class ScytheError(Exception):
    """Root of all errors raised by Scythe and by its catalog; what it says never shows a secret."""

    def __str__(self) -> str:
        return redacted(super().__str__())


class SchemaError(ScytheError):
    """A model cannot be compiled to a table, or two schemas do not fit each other."""


class DataError(ScytheError):
    """Values do not fit the schema they are meant for.

    Attributes:
        problems: one entry a violated rule, in the order of the schema's columns.
    """

    def __init__(self, message: str, problems: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class CatalogError(ScytheError):
    """A table cannot be opened, created, committed or read."""


class TableNotFound(CatalogError):
    """No table has this name."""


class CommitConflict(CatalogError):
    """Another committer was faster, as often as we tried again."""


class StorageError(ScytheError, OSError):
    """A bucket or a catalog's server cannot be reached, is not there, or refuses, or a folder cannot be made; an OSError too."""


class StorageRefused(StorageError):
    """A bucket is not there, or not for these credentials: asking again would not mend it."""

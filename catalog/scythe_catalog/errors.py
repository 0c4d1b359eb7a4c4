"""The root of every error that Scythe raises, and the errors of the catalog.

Never raises anything itself. `scythe.errors` continues this tree for runs and experiments.
"""

from __future__ import annotations

from scythe_catalog.redaction import redacted


class ScytheError(Exception):
    """Root of all errors raised by Scythe and by its catalog; what it says never shows a secret.

    Catch it to catch whatever Scythe itself raises; exceptions of your own function keep their class. Each message names the thing, the
    value and the way out.

    Examples:
        >>> from scythe import ScytheError
        >>> try:
        ...     scythe.read("simulate_heat")
        ... except ScytheError as error:
        ...     print(type(error).__name__)
        NotFoundError
    """

    def __str__(self) -> str:
        return redacted(super().__str__())


class SchemaError(ScytheError):
    """A model cannot be compiled to a table, or two schemas do not fit each other.

    Raised when an experiment is registered. Give the field that the message names a type that a column holds, and convert it in the function.

    Examples:
        >>> from scythe import ExperimentInputSpec, ExperimentRegistry
        >>> class Vague(ExperimentInputSpec):
        ...     payload: object
        >>> def simulate_vague(input_spec: Vague) -> BuildingOutput: ...
        >>> ExperimentRegistry.Register()(simulate_vague)
        Traceback (most recent call last):
        scythe_catalog.errors.SchemaError: Vague.payload: no table column can hold object faithfully. ...
    """


class DataError(ScytheError):
    """Values do not fit the schema they are meant for.

    An allocation raises it as `InputError`. Correct the values, or the bounds and types of the model.

    Attributes:
        problems: one entry a violated rule, in the order of the schema's columns.
    """

    def __init__(self, message: str, problems: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class CatalogError(ScytheError):
    """A table cannot be opened, created, committed or read.

    Its two kinds are `TableNotFound` and `CommitConflict`. The message names the table. What was committed stays readable.
    """


class TableNotFound(CatalogError):
    """No table of the catalog has this name.

    Where a root was copied, moved or downloaded without its catalog, `scythe rebuild` makes the catalog again.
    """


class CommitConflict(CatalogError):
    """Another committer was faster, as often as we tried again.

    Nothing of this commit is in the table. Do the same once more when fewer write: `resume` gathers a run again.
    """


class StorageError(ScytheError, OSError):
    """A bucket or a catalog's server cannot be reached, is not there, or refuses, or a folder cannot be made; an OSError too.

    Raised by whatever uses the root; `allocate` raises an `AllocationError` in its place. Look at the name, the credentials and
    `AWS_ENDPOINT_URL`, then do the same again.
    """


class CatalogAway(StorageError):
    """The server or database of a configured catalog does not answer, or takes nothing; what lies in the root is not concerned."""


class StorageRefused(StorageError):
    """A bucket is not there, or not for these credentials: asking again would not mend it.

    Correct the bucket's name or the credentials.
    """


def damaged(table: str, error: BaseException) -> CatalogError:
    """That metadata of the table at some address cannot be read."""
    return CatalogError(
        f"metadata of the table {table} are damaged ({type(error).__name__}: {str(error)[:80]}): remove that folder, which holds no "
        "rows (in a catalog that you have configured yourself, drop the table), and make the table anew with `scythe rebuild`"
    )

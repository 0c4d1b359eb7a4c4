"""A catalog of PyIceberg's configuration that may be away for a while: what it is asked is asked again, and its errors are told as storage's.

PyIceberg lets errors of each catalog's own library through: SQLAlchemy's, those of requests, botocore's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from scythe_catalog.errors import CatalogAway
from scythe_catalog.storage.repeated import tried_again

if TYPE_CHECKING:
    import pyiceberg.catalog

#: For how long a catalog that does not answer is asked again [s].
PATIENCE_SECONDS = 30.0
_ASKED = (
    "commit_table", "create_namespace", "create_table", "drop_namespace", "drop_table", "list_namespaces", "list_tables",
    "load_namespace_properties", "load_table", "namespace_exists", "register_table", "rename_table", "table_exists",
    "update_namespace_properties",
)  # fmt: skip
#: Libraries of which such errors say that nobody answers, or not now, by the names of their classes.
_AWAY = {
    "sqlalchemy": ("OperationalError", "InterfaceError", "TimeoutError"),
    "requests": ("RequestException",),
    "botocore": ("HTTPClientError", "ConnectionError"),
    "thrift": ("TTransportException",),
    "pyiceberg": ("ServerError", "ServiceUnavailableError", "TooManyRequestsError"),
}
#: What SQLite's errors of the same class say where waiting helps; others are of a file that is read-only, or no database.
_SQLITE_WAITS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL")
_DATABASE = {"sqlalchemy": ("SQLAlchemyError",)}


def asked_again(catalog: pyiceberg.catalog.Catalog) -> pyiceberg.catalog.Catalog:
    """The same catalog, of which each question is asked again for a while where it does not answer.

    Its questions raise CatalogAway in place of other libraries' errors. A commit of which nobody knows whether it was made is a
    CommitFailedException: who commits looks whether it was.
    """
    catalog.__class__ = _patient_class(type(catalog))
    return catalog


@lru_cache(maxsize=16)
def _patient_class(of: type[Any]) -> type[Any]:
    return type(of.__name__, (of,), {method: _patient(getattr(of, method)) for method in _ASKED})


def is_away(error: BaseException) -> bool:
    """Whether an error says that a catalog's server or database does not answer."""
    said = getattr(getattr(error, "orig", None), "sqlite_errorname", None)
    if said is not None and not said.startswith(_SQLITE_WAITS):
        return False
    return _is_of(error, _AWAY) or isinstance(error, ConnectionError | TimeoutError)


def _is_of(error: BaseException, kinds: Mapping[str, Collection[str]]) -> bool:
    return any(kind.__name__ in kinds.get(kind.__module__.partition(".")[0], ()) for kind in type(error).__mro__)


def _patient(ask: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(ask)
    def asked(self: Any, *args: Any, **more: Any) -> Any:
        from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

        name = self.name
        began = time.monotonic()
        try:
            try:
                return ask(self, *args, **more)
            except Exception as error:
                if not is_away(error):
                    raise
                return tried_again(
                    f"the catalog {name!r}",
                    error,
                    lambda: ask(self, *args, **more),
                    lambda error: is_away(error) and time.monotonic() - began < PATIENCE_SECONDS,
                )
        except CommitStateUnknownException as error:
            raise CommitFailedException(str(error)) from error
        except Exception as error:
            if not (away := is_away(error)) and not _is_of(error, _DATABASE):
                raise
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CatalogAway(f"the catalog {name!r} cannot be {'reached' if away else 'used'}: {why}") from error

    return asked


__all__ = ["asked_again", "is_away"]

"""What depends on who keeps a bucket: how it is reached, what its failures mean, and how Polars reads from it.

One object, made from the root's URI. Scythe's own is S3; a package of your own can bring another, a class that is
named in the entry points of the group `scythe.stores` under the scheme of its addresses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from scythe_catalog.errors import CatalogError
from scythe_catalog.plugins import known

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

#: The group of entry points by which a package brings a provider.
GROUP = "scythe.stores"
_OWN = {"s3": "scythe_catalog.storage.s3:S3"}


class Provider(ABC):
    """How the bucket of a root is reached; made from the root's URI, the same for each process that is given it."""

    #: An object up to this size [bytes] is copied by the server in one request.
    copied_bytes: ClassVar[int] = 5 * 1024**3

    def __init__(self, root: str) -> None:
        self.root = root

    @abstractmethod
    def store(self, *, patient: bool = False) -> ObjectStore:
        """obstore's store below the root; `patient` for large uploads. Raises StorageError where it cannot be reached."""

    @abstractmethod
    def attempted(self, call: Callable[[], T]) -> T:
        """What `call` gives, which asks the store; tried again where the network or the server fails.

        Raises:
            FileNotFoundError: there is no such object.
            StorageRefused: the bucket is not there, or not for these credentials.
            StorageError: it cannot be reached.
        """

    @abstractmethod
    def polars_options(self) -> dict[str, Any]:
        """The storage options under which Polars' own reader reaches the same bucket."""


def known_schemes() -> list[str]:
    """The schemes of addresses for which there is a provider."""
    return list(known(GROUP, _OWN))


@lru_cache(maxsize=256)
def provider_of(root: str) -> Provider:
    """The provider of a bucket, from its URI.

    Raises:
        CatalogError: there is none for such an address.
    """
    scheme = root.partition("://")[0]
    found = known(GROUP, _OWN).get(scheme)
    if found is None:
        raise CatalogError(f"no store is known for {root}")
    return found.load()(root)

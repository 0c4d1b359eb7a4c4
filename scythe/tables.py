"""Where the catalog of a root is: its reserved folder, or what PyIceberg's configuration names."""

from __future__ import annotations

from scythe.layout import CATALOG
from scythe_catalog.objects import Objects
from scythe_catalog.tables import Catalog


def catalog_of(objects: Objects, name: str | None = None) -> Catalog:
    """The catalog of a root; `name` is one of PyIceberg's own configuration (`SCYTHE_CATALOG`)."""
    return Catalog(objects.uri(CATALOG), name)

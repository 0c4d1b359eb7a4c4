"""`python tests/hatchet_standin [--version v0.50.0] [--worker-loss-seconds 3]`: one JSON line, then serve."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path


def only_the_contracts() -> None:
    """Make `hatchet_sdk` importable without its client, of which the stand-in needs the protocol only.

    This saves seconds at each start.
    """
    found = importlib.util.find_spec("hatchet_sdk")
    if found is None or found.submodule_search_locations is None:
        raise SystemExit("the stand-in needs hatchet-sdk, whose package holds the protocol")
    bare = types.ModuleType("hatchet_sdk")
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules["hatchet_sdk"] = bare


sys.path[0] = str(Path(__file__).resolve().parents[2])
only_the_contracts()

from tests.hatchet_standin.serve import main  # noqa: E402

main()

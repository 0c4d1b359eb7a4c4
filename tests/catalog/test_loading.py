"""While libraries are loaded the garbage collector rests, and goes on afterwards as it was told to."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

_FIRST_USE = """
import gc, json
from scythe import BaseExperiment, ExperimentRegistry
from scythe_catalog.iceberg.catalog import Catalog
Catalog("file:///nowhere", None).iceberg
print(json.dumps([gc.isenabled(), gc.get_freeze_count(), gc.get_stats()[2]["collections"]]))
"""
_NESTED = """
import gc, json, sys, weakref
from scythe_catalog.loading import uncollected

class Thing: pass
thing = Thing()
thing.itself, seen = thing, weakref.ref(thing)
inside = []
with uncollected():
    with uncollected():
        pass
    inside.append(gc.isenabled())
del thing
gc.collect()
collected = seen() is None
try:
    with uncollected():
        raise KeyError
except KeyError:
    after_failure = gc.isenabled()
gc.freeze()
frozen = gc.get_freeze_count()
with uncollected():
    pass
still = gc.get_freeze_count()
gc.disable()
with uncollected():
    pass
print(json.dumps([inside, collected, after_failure, 0 < still <= frozen, gc.isenabled()]))
"""


def _said(program: str) -> list[object]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_first_use_never_looks_at_all_that_it_loads() -> None:
    collects, frozen, whole_collections = _said(_FIRST_USE)
    assert (collects, frozen) == (True, 0)
    assert whole_collections == 0


def test_garbage_of_before_is_found_afterwards_and_what_was_told_to_the_collector_stays() -> None:
    assert _said(_NESTED) == [[False], True, True, True, False]


def test_it_collects_while_tests_run() -> None:
    assert gc.isenabled()

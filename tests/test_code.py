"""The hash of an experiment's code: equal where the files are equal, another where any of the project's files is."""

from __future__ import annotations

import importlib
import itertools
import linecache
import os
import shutil
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from scythe.define.code import differing, read_code
from scythe.define.experiment import Experiment, ExperimentOptions, define
from scythe.define.sources.values import noted_in
from scythe.engines.inline import InlineEngine
from scythe.engines.local import LocalEngine
from scythe.registry import ExperimentRegistry, experiment_of

MODELS = """
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

class In(ExperimentInputSpec):
    x: float

class Out(ExperimentOutputSpec):
    y: float
"""
FUNCTION = """
@ExperimentRegistry.Register(name="weigh")
def weigh(spec: In) -> Out:
    # within
    return Out(y=spec.x)
"""
#: study -> physics.air -> physics.constants (relative); study -> tools, within the function; the package's __init__.
PROJECT = {
    "study.py": f"import json\nimport polars\nfrom physics import air\n{MODELS}\n{FUNCTION.replace('# within', 'import tools')}",
    "physics/__init__.py": "",
    "physics/air.py": "from .constants import RHO\nimport physics.air\n",
    "physics/constants.py": "RHO = 1.2\n",
    "physics/unused.py": "RHO = 9\n",
    "tools.py": "import study\n",
    "other.py": "",
}

Project = Callable[[dict[str, str], str], Path]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports and registers is forgotten afterwards."""
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    return folder


def hash_in(folder: Path, module: str = "study") -> str | None:
    """The hash as a fresh process finds it that imports a module of this folder."""
    program = f"""
        import sys
        sys.path.insert(0, {str(folder)!r})
        import {module}
        from scythe.define.code import read_code
        from scythe.registry import experiment_of
        print(read_code(experiment_of("weigh")).sha256)
    """
    return _printed("-c", textwrap.dedent(program))


def _printed(*arguments: str, cwd: Path | None = None) -> str:
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=cwd)
    return run.stdout.splitlines()[-1]


def loaded(folder: Path, module: str = "study") -> Experiment:
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    importlib.import_module(module)
    return experiment_of("weigh")


def test_the_same_files_in_another_folder_have_the_same_hash_in_another_process(alone: None, tmp_path: Path) -> None:
    here = loaded(write(tmp_path / "client", PROJECT))
    there = shutil.copytree(tmp_path / "client", tmp_path / "elsewhere" / "worker")
    assert read_code(here).sha256 == hash_in(there)
    assert len(read_code(here).sha256 or "") == 64


def test_a_script_that_is_run_has_the_hash_of_the_module_that_a_worker_imports(tmp_path: Path) -> None:
    told = 'if __name__ == "__main__":\n    from scythe.define.code import read_code\n    print(read_code(experiment_of("weigh")).sha256)\n'
    script = PROJECT["study.py"] + "\nfrom scythe.registry import experiment_of\n" + told
    folder = write(tmp_path, {**PROJECT, "study.py": script})
    assert _printed("study.py", cwd=folder) == hash_in(folder)
    assert _printed("-m", "study", cwd=folder) == hash_in(folder)


@pytest.mark.parametrize(
    "changed", ["study.py", "physics/__init__.py", "physics/air.py", "physics/constants.py", "tools.py"]
)
def test_each_module_that_is_imported_counts(alone: None, tmp_path: Path, changed: str) -> None:
    experiment = loaded(write(tmp_path, PROJECT))
    before = read_code(experiment).sha256
    write(tmp_path, {changed: PROJECT[changed] + "\nCHANGED = True\n"})
    assert read_code(experiment).sha256 != before


@pytest.mark.parametrize(
    ("study", "changed"),
    [
        ("import profile", "profile.py"),
        ("import test.laws", "test/laws.py"),
        ("import importlib; importlib.import_module('laws.air')", "laws/air.py"),
        ("import importlib; importlib.import_module('.air', 'laws')", "laws/air.py"),
        ("__import__('laws').air", "laws/__init__.py"),
        ("import laws.fast", f"laws/fast{EXTENSION_SUFFIXES[0]}"),
    ],
)
def test_a_module_of_the_project_counts_however_it_is_called_made_and_imported(
    alone: None, tmp_path: Path, study: str, changed: str
) -> None:
    files = {"study.py": MODELS + FUNCTION.replace("# within", study), changed: "RHO = 1.2\n"}
    if "/" in changed:
        files.setdefault(f"{changed.split('/', maxsplit=1)[0]}/__init__.py", "")
    hashes = [hash_in(write(tmp_path, files | {changed: f"RHO = {rho}\n"})) for rho in (1.2, 1.3, 1.2)]
    assert hashes[0] is not None
    assert hashes[0] == hashes[2] != hashes[1]


WRAPPED = {
    "laws.py": "import functools\ndef scaled(f, by=None):\n    @functools.wraps(f)\n    def inner(spec):\n        return f(spec)\n    return inner\n"
    "class Scaled:\n    def __init__(self, f): functools.update_wrapper(self, f)\n",
    "base.py": MODELS + "def weigh(spec: In) -> Out:\n    return Out(y=spec.x)\n",
    "factors.py": "def double(x): return 2 * x\n",
    "study.py": "import base, factors, laws\nfrom scythe.registry import ExperimentRegistry\n",
}


@pytest.mark.parametrize(
    ("study", "changed"),
    [
        ("laws.scaled(base.weigh)", ("laws.py", "base.py")),
        ("laws.scaled(laws.scaled(base.weigh))", ("laws.py", "base.py")),
        ("given(base.weigh, by=factors.double)", ("base.py", "factors.py", "given.py")),
        ("given(base.weigh, by=[factors])", ("base.py", "factors.py", "given.py")),
    ],
)
def test_the_module_of_a_decorator_counts_and_what_it_was_given(
    alone: None, tmp_path: Path, study: str, changed: tuple[str, ...]
) -> None:
    """`functools.wraps` says of the outer function that it is of the inner one's module."""
    given = (
        WRAPPED["laws.py"]
        .replace("def scaled(f, by=None)", "def given(f, by)")
        .replace("return f(spec)", "return f(spec) if by else None")
    )
    files = WRAPPED | {
        "given.py": given,
        "study.py": WRAPPED["study.py"]
        + f"from given import given\nExperimentRegistry.Register(name='weigh')({study})\n",
    }
    before = hash_in(write(tmp_path, files))
    assert before is not None
    for file in changed:
        assert hash_in(write(tmp_path, files | {file: files[file] + "\nCHANGED = True\n"})) != before, file
    assert hash_in(write(tmp_path, files)) == before


def test_a_module_of_packages_without_an_init_counts_before_it_is_imported(alone: None, tmp_path: Path) -> None:
    files = {
        "study.py": MODELS + FUNCTION.replace("# within", "import lab.air.density"),
        "lab/air/density.py": "RHO = 1.2\n",
    }
    experiment = loaded(write(tmp_path, files))
    before = read_code(experiment).sha256
    write(tmp_path, {"lab/air/density.py": "RHO = 1.3\n"})
    assert read_code(experiment).sha256 != before


@pytest.mark.parametrize("changed", ["study.py", "physics/constants.py"])
def test_a_module_that_was_edited_after_its_import_is_not_what_this_process_runs(
    alone: None, tmp_path: Path, changed: str
) -> None:
    experiment = loaded(write(tmp_path, PROJECT))
    assert read_code(experiment, here=True).sha256 == read_code(experiment).sha256
    write(tmp_path, {changed: PROJECT[changed] + "\nCHANGED = True\n"})
    later = experiment.defined_at + 10
    os.utime(tmp_path / changed, (later, later))
    assert read_code(experiment, here=True).sha256 is None
    assert InlineEngine().read_code(experiment).sha256 is None
    assert LocalEngine().read_code(experiment).sha256 == read_code(experiment).sha256  # its processes import anew


def test_an_older_edit_of_a_module_is_seen_though_the_function_is_defined_anew(alone: None, tmp_path: Path) -> None:
    experiment = loaded(write(tmp_path, PROJECT))
    write(tmp_path, {"physics/constants.py": "RHO = 9\n"})
    os.utime(tmp_path / "physics/constants.py", (1, 1))

    again = define(experiment.target, "weigh", ExperimentOptions())
    assert read_code(again, here=True).sha256 is None
    importlib.reload(sys.modules["physics.constants"])
    assert read_code(again, here=True).sha256 == read_code(again).sha256


def test_the_values_that_a_function_has_from_its_maker_are_its_code(alone: None, tmp_path: Path) -> None:
    made = PROJECT["study.py"] + textwrap.dedent("""
        def maker(factor):
            calls = []
            def weigh(spec: In) -> Out:
                calls.append(spec.x)
                return Out(y=factor * spec.x)
            return weigh
    """)
    study = sys.modules[loaded(write(tmp_path, {**PROJECT, "study.py": made})).target.__module__]

    def hashed(factor: Any) -> str | None:
        return read_code(define(study.maker(factor), "weigh", ExperimentOptions())).sha256

    assert hashed(2) == hashed(2)
    assert len({hashed(2), hashed(2.0), hashed("2"), hashed((1, 2)), hashed(None)}) == 5


@pytest.mark.parametrize("changed", ["physics/unused.py", "other.py"])
def test_what_is_not_imported_does_not_count(alone: None, tmp_path: Path, changed: str) -> None:
    experiment = loaded(write(tmp_path, PROJECT))
    before = read_code(experiment).sha256
    write(tmp_path, {changed: "CHANGED = True\n"})
    assert read_code(experiment).sha256 == before


def test_line_endings_do_not_count(alone: None, tmp_path: Path) -> None:
    experiment = loaded(write(tmp_path, PROJECT))
    before = read_code(experiment).sha256
    (tmp_path / "tools.py").write_bytes(b"import study\r\n")
    assert read_code(experiment).sha256 == before


def test_a_module_of_another_name_is_other_code(alone: None, tmp_path: Path) -> None:
    write(tmp_path, {**PROJECT, "renamed.py": PROJECT["study.py"]})
    assert hash_in(tmp_path, "study") != hash_in(tmp_path, "renamed")


def test_a_module_that_was_imported_meanwhile_changes_nothing(alone: None, tmp_path: Path) -> None:
    experiment = loaded(write(tmp_path, PROJECT))
    before = read_code(experiment).sha256
    importlib.import_module("tools")
    assert read_code(experiment).sha256 == before


def test_what_is_installed_does_not_count(alone: None, tmp_path: Path) -> None:
    site = write(tmp_path / "lib" / "site-packages", {"installed_thing.py": "A = 1\n"})
    sys.path.insert(0, str(site))
    source = PROJECT["study.py"].replace("import json", "import installed_thing")
    experiment = loaded(write(tmp_path / "project", {**PROJECT, "study.py": source}))
    before = read_code(experiment).sha256
    write(site, {"installed_thing.py": "A = 2\n"})
    assert read_code(experiment).sha256 == before


@pytest.mark.parametrize(("begin", "encoding"), [("", "utf-8-sig"), ("# coding: latin-1\n", "latin-1")])
def test_a_module_counts_and_what_it_imports_in_each_encoding_of_python(
    alone: None, tmp_path: Path, begin: str, encoding: str
) -> None:
    folder = write(tmp_path, PROJECT)
    file = folder / "physics/air.py"
    source = begin + PROJECT["physics/air.py"] + "UNIT = 'µ'\n"
    file.write_bytes(source.encode(encoding))
    experiment = loaded(folder)
    known = {read_code(experiment).sha256}
    file.write_bytes(source.replace("µ", "ä").encode(encoding))
    known.add(read_code(experiment).sha256)
    write(folder, {"physics/constants.py": "RHO = 1.3\n"})
    known.add(read_code(experiment).sha256)
    assert len(known) == 3


def test_a_neighbour_that_is_no_python_stops_nothing(alone: None, tmp_path: Path) -> None:
    source = PROJECT["study.py"].replace("import tools", "import broken")
    experiment = loaded(write(tmp_path, {**PROJECT, "study.py": source, "broken.py": "def ("}))
    assert read_code(experiment).sha256 is not None


# --- cells ------------------------------------------------------------------------------------------


def run_cells(*cells: str) -> dict[str, Any]:
    """Runs cells as a notebook does: sources in the line cache, no file."""
    main: Any = sys.modules["__main__"]
    for number, cell in enumerate(cells):
        name = f"/tmp/ipykernel_1/{hash(cell)}_{number}.py"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        exec(compile(cell, name, "exec"), main.__dict__)
    return main.__dict__


@pytest.fixture
def notebook(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))


HELPER = "def density(x):\n    return 1.2 * x\n"
CALLS = FUNCTION.replace("y=spec.x", "y=density(spec.x)")


def test_of_a_notebook_the_cells_count_that_the_function_uses(notebook: None) -> None:
    run_cells(MODELS, HELPER, CALLS, "def unused():\n    return 1\n")
    before = read_code(experiment_of("weigh")).sha256
    assert before is not None
    run_cells("def unused():\n    return 2\n", CALLS)
    assert read_code(experiment_of("weigh")).sha256 == before
    run_cells(HELPER.replace("1.2", "1.3"))
    assert read_code(experiment_of("weigh")).sha256 != before


def test_of_a_notebook_the_models_count(notebook: None) -> None:
    run_cells(MODELS, HELPER, CALLS)
    before = read_code(experiment_of("weigh")).sha256
    run_cells(MODELS.replace("x: float", "x: float = 2"), HELPER, CALLS)
    assert read_code(experiment_of("weigh")).sha256 != before


@pytest.mark.parametrize(
    ("before", "after"), [("2.0", "3.0"), ("[1, 2]", "[1, 3]"), ("{'a': {1, 2}}", "{'a': {1, 3}}"), ("'x'", "b'x'")]
)
def test_of_a_notebook_the_values_count_that_the_function_uses(notebook: None, before: str, after: str) -> None:
    uses = FUNCTION.replace("spec.x", "spec.x if FACTOR else 0")
    run_cells(MODELS, f"FACTOR = {before}\nOTHER = 1\n", uses)
    first = read_code(experiment_of("weigh")).sha256
    run_cells(f"FACTOR = {before}\nOTHER = 2\n", uses)
    assert read_code(experiment_of("weigh")).sha256 == first
    run_cells(f"FACTOR = {after}\n")
    assert read_code(experiment_of("weigh")).sha256 != first


@pytest.mark.parametrize(
    "notes",
    [
        "out = {}; out['y'] = FACTOR",
        "a = [0]; a[0] += FACTOR",
        "d = {1: 2}; del d[1]; FACTOR",
        "a = []; a.append(FACTOR)",
    ],
)
def test_of_a_notebook_a_value_counts_whatever_the_function_notes_beside_it(notebook: None, notes: str) -> None:
    uses = FUNCTION.partition("    # within")[0] + f"    {notes}\n    return Out(y=spec.x)\n"
    run_cells(MODELS, "FACTOR = 2.0\n", uses)
    first = read_code(experiment_of("weigh")).sha256
    run_cells("FACTOR = 3.0\n")
    assert read_code(experiment_of("weigh")).sha256 != first


def test_of_a_notebook_each_of_two_lambda_functions_counts(notebook: None) -> None:
    cells = ("f = lambda x: 2 * x\n", "g = lambda x: x + 1\n")
    seen = set[str | None]()
    for first, second in (cells, ("f = lambda x: 3 * x\n", cells[1]), (cells[0], "g = lambda x: x + 2\n")):
        run_cells(MODELS, first, second, FUNCTION.replace("spec.x", "f(g(spec.x))"))
        seen.add(read_code(experiment_of("weigh")).sha256)
    assert len(seen) == 3
    run_cells(MODELS, *reversed(cells), FUNCTION.replace("spec.x", "f(g(spec.x))"))
    assert read_code(experiment_of("weigh")).sha256 in seen


OBJECTS = {
    "bound method": (
        "class M:\n    def __init__(self, k): self.k = k\n    def p(self, x): return self.k * x\nOBJECT = M(2).p\n",
        "OBJECT = M(3).p\n",
    ),
    "records": ("import numpy\nOBJECT = numpy.rec.array([1, 2])\n", "OBJECT = numpy.rec.array([1, 3])\n"),
    "ordered": (
        "import collections, numpy\nOBJECT = collections.OrderedDict(a=numpy.zeros(2))\n",
        "OBJECT['a'] = numpy.ones(2)\n",
    ),
    "dict with attributes": ("class D(dict): pass\nOBJECT = D(a=1)\nOBJECT.k = 1\n", "OBJECT['a'] = 2\n"),
    "attribute": ("class Config:\n    def __init__(self): self.k = 3\nOBJECT = Config()\n", "OBJECT.k = 4\n"),
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass Config:\n    k: int = 3\nOBJECT = Config()\n",
        "OBJECT = Config(4)\n",
    ),
    "slots": (
        "class Config:\n    __slots__ = ('k',)\n    def __init__(self, k): self.k = k\nOBJECT = Config(3)\n",
        "OBJECT = Config(4)\n",
    ),
    "method": (
        "class Config:\n    def k(self): return 3\nOBJECT = Config()\n",
        "class Config:\n    def k(self): return 4\nOBJECT = Config()\n",
    ),
    "class's attribute": ("class Config:\n    k = 3\nOBJECT = Config()\n", "Config.k = 4\n"),
    "array": ("import numpy\nOBJECT = numpy.zeros(3)\n", "OBJECT[0] = 1\n"),
    "frame": ("import polars\nOBJECT = polars.DataFrame({'a': [1]})\n", "OBJECT = polars.DataFrame({'a': [2]})\n"),
    "partial": ("import functools\nOBJECT = functools.partial(pow, 2)\n", "OBJECT = functools.partial(pow, 3)\n"),
    "function in a dict": ("def f(x): return x\nOBJECT = {'f': f}\n", "def f(x): return 2 * x\nOBJECT = {'f': f}\n"),
    "lambda functions in a list": ("OBJECT = [lambda x: x, lambda x: 2 * x]\n", "OBJECT.reverse()\n"),
    "cached function": (
        "import functools\n@functools.lru_cache\ndef f(x): return x\nOBJECT = f\n",
        "@functools.lru_cache\ndef f(x): return 2 * x\nOBJECT = f\n",
    ),
    "vectorized function": (
        "import numpy\ndef f(x): return x\nOBJECT = numpy.vectorize(f)\n",
        "def f(x): return 2 * x\nOBJECT = numpy.vectorize(f)\n",
    ),
    "function in an attribute": (
        "class Config:\n    def __init__(self, f): self.f = f\ndef f(x): return x\nOBJECT = Config(f)\n",
        "def f(x): return 2 * x\nOBJECT = Config(f)\n",
    ),
    "value beside a lock": (
        "import threading\nclass Config:\n    def __init__(self, k): self.k, self.lock = k, threading.Lock()\nOBJECT = Config(1)\n",
        "OBJECT = Config(2)\n",
    ),
    "array of a class": (
        "import numpy\nclass Config:\n    k = numpy.zeros(2)\nOBJECT = Config\n",
        "Config.k = numpy.ones(2)\n",
    ),
    "default of before": (
        "K = 2\ndef OBJECT(x, k=K): return k * x\nK = 2\n",
        "K = 3\ndef OBJECT(x, k=K): return k * x\nK = 2\n",
    ),
    "closure": ("def make(k):\n    return lambda x: k * x\nOBJECT = make(2)\n", "OBJECT = make(3)\n"),
    "closures in a dict": (
        "def make(k):\n    def f(x): return k * x\n    return f\nOBJECT = {'a': make(2), 'b': make(3)}\n",
        "OBJECT = {'a': make(3), 'b': make(2)}\n",
    ),
    "argument of a decorator": (
        "import functools\ndef scaled(k):\n    def deco(f):\n        @functools.wraps(f)\n        def g(x): return k * f(x)\n        return g\n"
        "    return deco\nK = 2\n@scaled(K)\ndef OBJECT(x): return x\nK = 2\n",
        "K = 3\n@scaled(K)\ndef OBJECT(x): return x\nK = 2\n",
    ),
    "defaultdict": (
        "import collections\nOBJECT = collections.defaultdict(lambda: 1.0)\n",
        "OBJECT = collections.defaultdict(lambda: 2.0)\n",
    ),
    "attribute of a dict": ("class D(dict): pass\nOBJECT = D()\nOBJECT.k = 1.0\n", "OBJECT = D()\nOBJECT.k = 2.0\n"),
    "method of a tuple in a list": (
        "import typing\nclass P(typing.NamedTuple):\n    a: int = 1\n    def area(self): return self.a\nOBJECT = [P(1)]\n",
        "class P(typing.NamedTuple):\n    a: int = 1\n    def area(self): return 2 * self.a\nOBJECT = [P(1)]\n",
    ),
    "method of a member in a list": (
        "import enum\nclass M(enum.Enum):\n    A = 1\n    def f(self): return 1.0\nOBJECT = [M.A]\n",
        "class M(enum.Enum):\n    A = 1\n    def f(self): return 2.0\nOBJECT = [M.A]\n",
    ),
    "number beside a lock in a list": (
        "import threading\nOBJECT = [1.0, threading.Lock()]\n",
        "OBJECT = [2.0, threading.Lock()]\n",
    ),
    "number beside a generator": (
        "OBJECT = {'k': 1.0, 'g': (i for i in [1])}\n",
        "OBJECT = {'k': 2.0, 'g': (i for i in [1])}\n",
    ),
    "namespace with a lock": (
        "import threading, types\nOBJECT = types.SimpleNamespace(k=1.0, lock=threading.Lock())\n",
        "OBJECT.k = 2.0\n",
    ),
    "slots with a lock": (
        "import dataclasses, threading\n@dataclasses.dataclass(slots=True)\nclass C:\n    k: float = 1.0\n"
        "    lock: object = dataclasses.field(default_factory=threading.Lock)\nOBJECT = C()\n",
        "OBJECT = C(2.0)\n",
    ),
    "attribute of a function": ("def OBJECT(x): return x * OBJECT.k\nOBJECT.k = 1.0\n", "OBJECT.k = 2.0\n"),
    "object that wraps": (
        "import functools\nclass W:\n    def __init__(s, f, k): s.f = f; s.k = k; functools.update_wrapper(s, f)\n"
        "    def __call__(s, x): return s.k * s.f(x)\ndef ff(x): return x\nOBJECT = W(ff, 1.0)\n",
        "OBJECT = W(ff, 2.0)\n",
    ),
    "class of a function": (
        "def make(k):\n    class L:\n        kk = k\n    return L\nOBJECT = make(1.0)\n",
        "OBJECT = make(2.0)\n",
    ),
    "class without a source": ("OBJECT = type('R', (), {'k': 1.0})\n", "OBJECT = type('R', (), {'k': 2.0})\n"),
    "set of texts beside an array": (
        "import numpy\nOBJECT = {'a': {'x', 'y', 'z'}, 'b': numpy.zeros(2)}\n",
        "OBJECT = {'a': {'x', 'y', 'w'}, 'b': numpy.zeros(2)}\n",
    ),
    "function of a partial": (
        "import functools\ndef f(a, x): return a + x\nOBJECT = functools.partial(f, 2)\n",
        "def f(a, x): return a * x\nOBJECT = functools.partial(f, 2)\n",
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_of_a_notebook_the_objects_count_that_the_function_uses(notebook: None, kind: str) -> None:
    made, changed = OBJECTS[kind]
    run_cells(MODELS, made, "import threading\nLOCK = threading.Lock()\n", FUNCTION.replace("spec.x", "(LOCK, OBJECT)"))
    first = read_code(experiment_of("weigh")).sha256
    assert first is not None
    run_cells("LOCK = threading.Lock()\n")
    assert read_code(experiment_of("weigh")).sha256 == first
    run_cells(made)
    assert read_code(experiment_of("weigh")).sha256 == first
    run_cells(changed)
    assert read_code(experiment_of("weigh")).sha256 != first


def test_of_a_notebook_a_class_counts_as_its_cell_was_run_last(notebook: None) -> None:
    uses = FUNCTION.replace("spec.x", "Config().k")
    for first, second in (
        (
            "class Config:\n    @property\n    def k(self): return 1\n",
            "class Config:\n    @property\n    def k(self): return 2\n",
        ),
        ("class Config(BaseModel):\n    k: int = 1\n", "class Config(BaseModel):\n    k: int = 2\n"),
    ):
        cells = [MODELS, "from pydantic import BaseModel\n", first, uses]
        again_in = "/tmp/ipykernel_1/again.py"
        seen: list[str | None] = []
        for cell in (first, second, first, second):
            run_cells(*cells[:2], uses)
            linecache.cache[f"{again_in}{cell}"] = entry = (
                len(cell),
                None,
                cell.splitlines(keepends=True),
                f"{again_in}{cell}",
            )
            exec(compile("".join(entry[2]), entry[3], "exec"), sys.modules["__main__"].__dict__)
            seen.append(read_code(experiment_of("weigh")).sha256)
        assert None not in seen
        assert all(a != b for a, b in itertools.pairwise(seen)), seen
        linecache.cache = {name: one for name, one in linecache.cache.items() if not name.startswith(again_in)}


def test_of_a_notebook_a_model_counts_that_a_field_names_as_a_text(notebook: None) -> None:
    inner = "from pydantic import BaseModel, field_validator\nclass Inner(BaseModel):\n    k: int = 1\n    def twice(self): return 2 * self.k\n"
    late = "from __future__ import annotations\n" + MODELS.replace(
        "    x: float", "    x: float\n    inner: Inner = None"
    )
    seen = set[str | None]()
    for cell in (inner, inner.replace("2 *", "3 *")):
        run_cells(cell, late, FUNCTION)
        seen.add(read_code(experiment_of("weigh")).sha256)
    assert len(seen - {None}) == 2


def test_of_a_notebook_the_objects_have_one_hash_in_every_process(tmp_path: Path) -> None:
    made = [cell for cell, _ in OBJECTS.values()]
    program = f"""
        import sys
        from tests.test_code import MODELS, FUNCTION, run_cells
        from scythe.define.code import read_code
        from scythe.registry import experiment_of
        for made in {made!r}:
            run_cells(MODELS, made, FUNCTION.replace("spec.x", "OBJECT"))
            print(read_code(experiment_of("weigh")).sha256)
    """
    told = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
    assert len(set(told.pop().split())) == len(made)


ALIKE = {
    "cached property": "import functools\nclass C:\n    @functools.cached_property\n    def a(self): return 1.0\nOBJECT = C()\n",
    "member with an address": "import enum, functools\nclass M(enum.Enum):\n    A = functools.partial(print)\nOBJECT = M.A\n",
    "function that counts": "def OBJECT(): OBJECT.calls += 1\nOBJECT.calls = 0\nOBJECT()\n",
    "itself": "class N: pass\nOBJECT = N()\nOBJECT.me = OBJECT\nOBJECT.kids = [OBJECT]\n",
    "any attribute": "class C:\n    def __getattr__(self, n): return 1\nOBJECT = C()\n",
    "connection": "import sqlite3\nOBJECT = sqlite3.connect(':memory:')\n",
    "frame": "import pandas\nOBJECT = pandas.DataFrame({'a': [1.0]})\nOBJECT['b'] = 2.0\n",
    "singleton": "class Z:\n    __slots__ = ()\nOBJECT = Z()\nZ = Z()\n",
}


@pytest.mark.parametrize("kind", ALIKE)
def test_of_a_notebook_an_object_is_the_same_after_it_was_used(notebook: None, kind: str) -> None:
    run_cells(MODELS, ALIKE[kind], FUNCTION.replace("spec.x", "OBJECT"))
    first = read_code(experiment_of("weigh")).sha256
    assert first is not None
    run_cells("getattr(OBJECT, 'a', None); OBJECT() if type(OBJECT).__name__ == 'function' else None\n")
    assert read_code(experiment_of("weigh")).sha256 == first


def test_of_a_notebook_in_one_cell_what_comes_after_the_models_is_no_code(notebook: None) -> None:
    seen = set[str | None]()
    for result in range(2):
        run_cells(f"{MODELS}{FUNCTION}\nresult = {result}\nprint(result)\n")
        seen.add(read_code(experiment_of("weigh")).sha256)
    assert len(seen - {None}) == 1


def test_of_a_notebook_no_attributes_count_nor_what_the_function_notes_its_calls_in(notebook: None) -> None:
    notes = "    seen.append(spec)\n    cache[spec.x] = 1\n    return Out(y=spec.x)\n"
    run_cells(MODELS, "seen = []\ncache = {}\nx = 1\n", FUNCTION.partition("    # within")[0] + notes)
    before = read_code(experiment_of("weigh")).sha256
    run_cells("seen.append(1)\ncache[1] = 2\nx = 2\n")
    assert read_code(experiment_of("weigh")).sha256 == before


def test_sets_within_other_collections_are_written_alike_in_every_process(tmp_path: Path) -> None:
    program = "from scythe.define.sources.values import written; print(written({'a': [{'x', 'y', 'z'}], 'b': (frozenset('pqr'),)}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert told == {"{'a': list(set('x', 'y', 'z')), 'b': tuple(frozenset('p', 'q', 'r'))}\n"}


def test_of_a_notebook_the_modules_of_the_project_count(notebook: None, tmp_path: Path) -> None:
    sys.path.insert(0, str(write(tmp_path, {"notes_tools.py": "A = 1\n"})))
    run_cells(MODELS, "import notes_tools\n", FUNCTION.replace("spec.x", "notes_tools.A"))
    before = read_code(experiment_of("weigh")).sha256
    write(tmp_path, {"notes_tools.py": "A = 2\n"})
    assert read_code(experiment_of("weigh")).sha256 != before


def test_where_there_is_no_source_there_is_no_hash(notebook: None) -> None:
    exec(compile(MODELS + FUNCTION, "<string>", "exec"), sys.modules["__main__"].__dict__)
    assert read_code(experiment_of("weigh")).sha256 is None


def test_many_threads_find_the_same_hash(alone: None, tmp_path: Path) -> None:
    many = {
        f"long_{i}.py": "".join(f"def f{j}(x): return [x, {{'a': (x + {j}) * 2}}]\n" for j in range(300))
        for i in range(8)
    }
    source = "".join(f"import {name[:-3]}\n" for name in many) + PROJECT["study.py"]
    experiment = loaded(write(tmp_path, {**PROJECT, **many, "study.py": source}))
    with ThreadPoolExecutor(8) as threads:
        assert len({code.sha256 for code in threads.map(read_code, [experiment] * 40)}) == 1


def test_what_a_method_notes_something_in_is_seen_beside_a_text_of_any_indentation() -> None:
    noted = noted_in(
        '    def f(self, x):\n        """One\nline."""\n        LOG[x] = 1\n        study.rows[0].append(OTHER)\n'
    )
    assert noted.names == {"LOG", "study"}
    assert noted.ways == {(("LOG",), False), (("study", "rows"), False)}


# --- scripts ----------------------------------------------------------------------------------------

SCRIPT = (
    "import dataclasses, enum, functools, logging, time, types\nfrom pathlib import Path\nimport numpy as np\n" + MODELS
)
USES = """
@ExperimentRegistry.Register(name="own")
def own(spec: In) -> Out:
    {before}
    return Out(y=spec.x * ({uses}))
"""
LOOP = "if __name__ == '__main__':\n    for {name} in ({values}):\n        {then}told()\n"


def own(uses: str, before: str = "pass") -> str:
    return USES.format(uses=uses, before=before)


def loop(name: str = "FACTOR", values: str = "1.0, 2.0", then: str = "") -> str:
    return LOOP.format(name=name, values=values, then=f"{then}; " if then else "")


TWO = "def a(x): return x\ndef b(x): return 2 * x\n"
CFG = "class Cfg:\n    def __init__(self): self.k = 1.0\n    def set(self, k): self.k = k\nCFG = Cfg()\n"
SET_ON = {
    "loop": own("FACTOR") + loop(),
    "global": "FACTOR = float('1')\n" + own("FACTOR") + "def main():\n    global FACTOR\n    for FACTOR in (1.0, 2.0):\n        told()\nif __name__ == '__main__':\n    main()\n",
    "attribute in a function": CFG + own("CFG.k") + "def main():\n    for f in (1.0, 2.0):\n        CFG.k = f\n        told()\nif __name__ == '__main__':\n    main()\n",
    "member in a function": "OPTIONS = dict(k=1.0)\n" + own("OPTIONS['k']") + "def main():\n    told()\n    OPTIONS['k'] = 2.0\n    told()\nif __name__ == '__main__':\n    main()\n",
    "method of an array": "ARR = np.ones(2)\n" + own("ARR.sum()") + loop("f", then="ARR.fill(f)"),
    "method of an object": CFG + own("CFG.k") + loop("f", then="CFG.set(f)"),
    "setattr": CFG + own("CFG.k") + loop("f", then="setattr(CFG, 'k', f)"),
    "function": TWO + own("METHOD(1)") + loop("METHOD", "a, b"),
    "class": "class A:\n    k = 1.0\nclass B:\n    k = 2.0\nMODEL = A\n" + own("MODEL.k") + loop("MODEL", "A, B"),
    "lambda function": own("METHOD(1)") + loop("k", then="METHOD = lambda x, k=k: k * x"),
    "module": "import math, cmath\n" + own("LIBRARY.pi") + loop("LIBRARY", "math, cmath"),
    "method that reads": "class Model:\n    def solve(self): return FACTOR\nmodel = Model()\n" + own("model.solve()") + loop(),
    "attribute of a class, of an object": "class Model:\n    k = 1.0\nmodel = Model()\n" + own("model.k") + loop("Model.k"),
    "array of a class": "class Model:\n    k = np.ones(2)\n" + own("Model.k.sum()") + loop("f", then="Model.k = np.ones(2) * f"),
    "nested class": "class Cfg:\n    class Env:\n        k = 1.0\n" + own("Cfg.Env.k") + loop("Cfg.Env.k"),
    "cached helper": "@functools.lru_cache\ndef helper(): return FACTOR\n" + own("helper()") + loop(),
    "function in a dict": "def a(): return FACTOR\nMETHODS = {'a': a}\n" + own("METHODS['a']()") + loop(),
    "decorator": "def timed(f):\n    def g(): return f()\n    return g\n@timed\ndef helper(): return FACTOR\n" + own("helper()") + loop(),
    "wrapper": "def scaled(f):\n    @functools.wraps(f)\n    def g(): return FACTOR * f()\n    return g\n@scaled\ndef helper(): return 1\n" + own("helper()") + loop(),
    "closure": "def make(k):\n    def h(): return k\n    return h\n" + own("h()") + loop("k", then="h = make(k)"),
    **{
        f"closure of {what}": TWO + "def make(held):\n" + textwrap.indent(own(uses), "    ") + "    return own\n" + loop("k", values, then="own = make(k)")
        for what, uses, values in (
            ("a dict", "held['k']", "{'k': 1.0}, {'k': 2.0}"), ("an array", "held.sum()", "np.ones(2), np.zeros(2)"), ("a function", "held(1)", "a, b")
        )
    },
    "within a branch": own("FACTOR") + "if len('x') == 1:\n    FACTOR = 1.0\n    told()\n    FACTOR = 2.0\n    told()\nelse:\n    FACTOR = 3.0\n",
    "copy that it changes": "X0 = np.ones(2)\n" + own("state[0]", "state = X0; state = state.copy(); state[0] = 2.0") + loop("f", then="X0 = np.ones(2) * f"),
    "attribute that it sets of another object": "class Params:\n    k = 1.0\n" + own("cfg.k", "cfg = types.SimpleNamespace(); cfg.k = Params.k") + loop("Params.k"),
    "attribute that its object sets": "class Params:\n    k = 1.0\nclass M:\n    def __init__(self): self.k = Params.k\n" + own("M().k") + loop("Params.k"),
    "list of another class": "class Params:\n    rows = [1]\nclass M:\n    rows = []\n" + own("len(m.rows)", "m = M(); m.rows.append(Params.rows)") + loop("Params.rows", "[1], [2]"),
    "text": own("globals()['FACTOR']") + loop(),
    "attribute by a text": "class Cfg:\n    k = 1.0\n" + own("getattr(Cfg, 'k')") + loop("Cfg.k"),
    "property": "class M:\n    @property\n    def k(self): return FACTOR\n    @functools.cached_property\n    def k2(self): return FACTOR\n" + own("M().k2") + loop(),
}  # fmt: skip
TWICE = "if __name__ == '__main__':\n    {first}\n    told(); own(In(x=1.0)); told()\n"
STAYS = {
    "what is made once": "log = logging.getLogger(__name__)\nNOW = time.time()\nrng = np.random.default_rng()\nHERE = Path(__file__).parent\n"
    + own("rng.random()", "log.info(NOW); Path(__file__); __name__") + TWICE.format(first="pass"),
    "branches": "if len(SCRIPT_ARGS) > 100:\n    MODE = 1\nelse:\n    MODE = 2\ntry:\n    import nothing_there as gpu\nexcept ImportError:\n    gpu = None\n"
    .replace("SCRIPT_ARGS", "''") + own("MODE", "gpu") + TWICE.format(first="pass"),
    "stars": "from os.path import *\nfrom random import *\n" + own("random()", "join") + TWICE.format(first="pass"),
    "members": "class Mode(enum.Enum):\n    A = functools.partial(print)\n" + own("1", "MODE.value") + TWICE.format(first="MODE = Mode.A"),
    "cached property": "class C:\n    @functools.cached_property\n    def a(self): return 1.0\n" + own("cfg.a") + TWICE.format(first="cfg = C()"),
    "counter of a class": "class C:\n    calls = 0\n    def f(self):\n        type(self).calls += 1\n        return 1\n" + own("C().f()") + TWICE.format(first="pass"),
    "counter of a class by its name": "class C:\n    calls = 0\n    def f(self):\n        C.calls += 1\n        return 1\n" + own("C().f()") + TWICE.format(first="pass"),
    "counter of a class by cls": "class C:\n    calls = 0\n    @classmethod\n    def f(cls):\n        cls.calls += 1\n        return 1\n" + own("C.f()") + TWICE.format(first="pass"),
    "list of a class": "class B:\n    rows = []\nclass C(B):\n    def f(self):\n        self.rows.append(1)\n        return len(self.rows)\n" + own("C().f()") + TWICE.format(first="pass"),
    "list of the class of what it makes": "class C:\n    rows = []\n" + own("len(c.rows)", "c = C(); c.rows.append(1)") + TWICE.format(first="pass"),
    "cache by another name": "CACHE = {}\n" + own("len(CACHE)", "cache = CACHE; cache[len(cache)] = 1") + TWICE.format(first="pass"),
    "other name of an instance": "class Z:\n    __slots__ = ()\n    def f(self): return 1\nZ = Z()\n" + own("Z.f()") + TWICE.format(first="pass"),
    "generator of its own": "rng = np.random.default_rng(1)\n" + own("rng.random()") + TWICE.format(first="pass"),
}  # fmt: skip


def run_script(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Runs a source as a script; the hashes at each call of `told` in it."""
    file, told = folder / "go.py", list[str | None]()
    file.write_text(SCRIPT + source)
    main = types.ModuleType("__main__")
    main.__file__, main.__spec__ = str(file), ModuleSpec("__main__", None)
    vars(main)["told"] = lambda: told.append(read_code(experiment_of("own"), sent=True).sha256)
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(file.read_text(), str(file), "exec"), vars(main))
    return told


@pytest.mark.parametrize("kind", SET_ON)
def test_what_a_script_sets_as_it_goes_on_is_code(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    first, second = run_script(tmp_path, SET_ON[kind], monkeypatch)
    assert first is not None
    assert first != second
    assert run_script(tmp_path, SET_ON[kind], monkeypatch) == [first, second]


@pytest.mark.parametrize("kind", STAYS)
def test_what_a_script_makes_once_is_the_same_code_at_each_start(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    first = run_script(tmp_path, STAYS[kind], monkeypatch)
    assert None not in first
    assert len({*first, *run_script(tmp_path, STAYS[kind], monkeypatch)}) == 1


def test_parts_in_which_two_codes_differ_are_named_for_people() -> None:
    one = {
        "sim.py": "1",
        "pack/__init__.py": "1",
        "<value>/sim.K": "1",
        "<enclosed>/scale": "1",
        "<cell>/yield_of": "1",
    }
    assert differing(one, one) == ""
    assert differing(one, {}) == differing({}, one) == "", "early versions have recorded none"
    assert differing(one, {**one, "sim.py": "2"}) == "sim.py"
    assert differing(one, {**one, "<value>/__main__.K": "1", "<value>/sim.K": "2"}) == "the value sim.K, the value K"
    told = differing(one, {"<given>/f": "1", "<class>/Wall": "1"})
    assert told == "yield_of, the class Wall, the value scale, what f was made with, the value sim.K and 2 more"
    assert differing({"a.py": "1", "<value>/K": "1"}, {"a.py": "2"}) == "a.py, the value K"

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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scythe.define.code import read_code
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
    import types

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
    assert noted.attributes == {"rows"}

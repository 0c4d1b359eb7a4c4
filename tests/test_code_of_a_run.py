"""What a run's rows are made by: one code from its first row to its last, the one that is recorded, and that which the caller sees."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

MODULE = """
import math, os, time
from pathlib import Path
import numpy as np
import pack.inner
import settings
from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

K = 1.0
LIMITS = {"low": 1}
STATE = []
COUNT = 0
HALF, DAY = 1 / 2, 0
HOUR = 60 * 60.0
YEAR = HOUR * 24 * 365
TABLE = {}
CACHE = {}
STARTED = time.time()
ROOT = math.sqrt(1.0)
PARTS = dict(k=1.0)
ARRAY = np.ones(1)
TABLE_OF_ALL = {}
for name in ("a", "b"):
    TABLE_OF_ALL[name] = 1.0
random = np.random.default_rng()


def begin_anew():
    global random, STARTED
    random, STARTED = np.random.default_rng(), 0.0


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: float
    late: float


def set_k(value):
    global K
    K = value


class Solver:
    tolerance = 1e-6
    calls = 0

    def solve(self, x):
        Solver.calls += 1
        return x


def scaled(x):
    cache = CACHE
    cache[x] = x
    x = x * YEAR / YEAR + sum(TABLE.values()) + Solver().solve(0) + 0 * (random.random() + STARTED)
    x = x * ROOT * PARTS["k"] * ARRAY.sum() * TABLE_OF_ALL["a"] * settings.MODEL.k * settings.law(1.0)
    return x * K * LIMITS["low"] * settings.SCALE * pack.inner.DEPTH * settings.LOADED


settings.LOADED = 1.0  # while the module is loaded: workers have it, too


@ExperimentRegistry.Register(retries=0, max_inputs_per_process=3)
def model(spec: In) -> Out:
    global COUNT
    COUNT += 1
    STATE.append(spec.x)
    import late

    Path("begun").touch()
    while spec.x > 2 and not Path("edited").exists():
        time.sleep(0.01)
    return Out(y=scaled(1), late=late.LATE)
"""


SETTINGS = """
SCALE = 1.0
LOADED = 0.5

class Model:
    def __init__(self, k):
        self.k = k

MODEL = Model(1.0)

def law(x):
    return x

def other(x):
    return 2 * x
"""


@pytest.fixture
def project(root: Path) -> Path:
    folder = root.parent / "project"
    folder.mkdir()
    (folder / "sim.py").write_text(MODULE)
    (folder / "settings.py").write_text(SETTINGS)
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    (folder / "pack" / "inner.py").write_text("DEPTH = 1.0\n")
    (folder / "late.py").write_text("LATE = 1.0\n")
    return folder


def script(project: Path, source: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs a script in the project's folder."""
    path = project / "go.py"
    begin = "import sys, polars as pl, scythe\nfrom scythe import *\nS = pl.DataFrame({'x': range(12)})\n"
    path.write_text(begin + textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, "-B", path.name], cwd=project, capture_output=True, text=True, timeout=120, check=False, **more
    )


def test_files_that_are_edited_while_a_run_goes_on_change_none_of_its_rows(project: Path) -> None:
    ran = script(
        project,
        """
        from pathlib import Path
        import sim, time
        def told(ref):
            ref.result()
            print(scythe.read("model").select(pl.col("y", "late").unique()).to_dict(as_series=False))
        if __name__ == "__main__":
            run, ref = BaseExperiment(sim.model).allocate(S, workers=2, chunk=1)
            while not Path("begun").exists():
                time.sleep(0.01)
            for name, old, new in (("sim", "K = 1.0", "K = 7.0"), ("settings", "SCALE = 1.0", "SCALE = 7.0"), ("late", "1.0", "7.0")):
                Path(name + ".py").write_text(Path(name + ".py").read_text().replace(old, new))
            Path("edited").touch()
            told(ref)
            run, ref = BaseExperiment(sim.model).allocate(S, version="keep", workers=2)
            told(ref)
        """,
    )
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first == "{'y': [1.0], 'late': [1.0]}", ran.stderr
    assert second == "{'y': [49.0], 'late': [7.0]}", ran.stderr
    for name in ("sim", "settings"):
        assert f"{name}.py" in ran.stderr
    assert "edited since this process has loaded the code; the run takes what is there now, and calls" in ran.stderr


def test_a_script_that_is_edited_while_it_runs_is_not_recorded_as_what_it_is_by_then(project: Path) -> None:
    ran = script(
        project,
        """
        import os, time
        from pathlib import Path
        class In(ExperimentInputSpec):
            x: int
        class Out(ExperimentOutputSpec):
            y: float
        @ExperimentRegistry.Register()
        def own(spec: In) -> Out:
            return Out(y=1.0)
        if __name__ == "__main__":
            for engine in ("local", "inline"):
                run, ref = BaseExperiment(own).allocate(S, version="auto", engine=engine)
                ref.result()
                print(run.attempts[-1].provenance.code is not None)
            Path("go.py").write_text(Path("go.py").read_text().replace("y=1.0", "y=2.0"))
            os.utime("go.py", (time.time() + 5, time.time() + 5))
            for engine in ("local", "inline"):
                run, ref = BaseExperiment(own).allocate(S, version="keep", engine=engine)
                ref.result()
                print(run.attempts[-1].provenance.code, scythe.read(own, run=run)["y"].unique().to_list())
        """,
    )
    assert ran.stdout.split("\n")[:-1] == ["True", "True", "None [1.0]", "None [1.0]"], ran.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("sim.K = 5.0", "sim.K is 5.0 here, and 1.0 in its file"),
        ("sim.set_k(5.0)", "sim.K is 5.0 here, and 1.0 in its file"),
        ("sim.LIMITS.update(low=5, more=[0] * 99)", "sim.LIMITS is {'low': 5, 'more': [0, 0, 0"),
        ("sim.LIMITS['low'] = 5", "sim.LIMITS is {'low': 5} here, and {'low': 1} in its file"),
        ("sim.settings.SCALE = 5.0", "settings.SCALE is 5.0 here, and 1.0 in its file"),
        ("sim.settings.SCALE = 1", "settings.SCALE is 1 here, and 1.0 in its file"),
        ("sim.pack.inner.DEPTH = 2.5", "pack.inner.DEPTH is 2.5 here, and 1.0 in its file"),
        ("sim.YEAR = 5.0", "sim.YEAR is 5.0 here, and 31536000.0 in its file"),
        ("sim.TABLE['a'] = 5.0", "sim.TABLE is {'a': 5.0} here, and {} in its file"),
        ("sim.ROOT = 5.0", "sim.ROOT is 5.0 here, and another where its file is loaded"),
        ("setattr(sim, 'ROOT', 5.0)", "sim.ROOT is 5.0 here, and another where its file is loaded"),
        ("vars(sim)['ROOT'] = 5.0", "sim.ROOT is 5.0 here, and another where its file is loaded"),
        ("sim.PARTS['k'] = 5.0", "sim.PARTS is {'k': 5.0} here"),
        ("from sim import PARTS; PARTS.update(k=5.0)", "sim.PARTS is {'k': 5.0} here"),
        ("sim.ARRAY[0] = 5.0", "sim.ARRAY is array([5.]) here"),
        ("sim.LIMITS = {'low': sim.ARRAY}", "sim.LIMITS is {'low': array([1.])} here"),
        ("sim.LIMITS = sim.ARRAY", "sim.LIMITS is array([1.]) here"),
        ("sim.TABLE_OF_ALL['a'] = 5.0", "sim.TABLE_OF_ALL is {'a': 5.0, 'b': 1.0} here"),
        ("sim.settings.MODEL = sim.settings.Model(5.0)", "settings.MODEL is <settings.Model"),
        ("sim.settings.MODEL.k = 5.0", "settings.MODEL is <settings.Model"),
        ("sim.settings.law = sim.settings.other", "settings.law is <function other"),
        ("sim.Solver.tolerance = 5.0", "sim.Solver.tolerance is 5.0 here, and 1e-06 in its file"),
        (
            "sim.Solver.calls = 8; sim.HOUR = 2; sim.STATE.append(3); sim.COUNT = 8; sim.STARTED = 0; sim.settings.OTHER = 3",
            None,
        ),
        ("sim.ROOT = 1.0; sim.PARTS = {'k': 1.0}; sim.settings.MODEL = sim.settings.Model(1.0)", None),
    ],
)
def test_values_that_workers_would_not_have_are_refused_and_told_apart_where_they_hold(
    project: Path, change: str, told: str | None
) -> None:
    (project / "edited").touch()
    ran = script(
        project,
        f"""
        import sim
        from scythe.errors import AllocationError
        if __name__ == "__main__":
            BaseExperiment(sim.model).allocate(S, engine="inline")[1].result()
            {change}
            try:
                BaseExperiment(sim.model).allocate(S, version="keep", workers=1)[1].result()
                print("taken")
            except AllocationError as error:
                print(error)
            try:
                BaseExperiment(sim.model).allocate(S, engine="inline", reuse=True)[1].result()
                print("reused")
            except AllocationError as error:
                print(error)
        """,
    )
    local, inline = ran.stdout.splitlines()
    if told is None:
        assert (local, inline) == ("taken", "reused"), ran.stderr
    else:
        assert told in local
        assert "Make it an input field, or write it into the module" in local
        assert "are known from other code" in inline
        assert f"; they differ in the value {told.split()[0]}. " in inline


OWN = """
import os, time
import numpy as np
from pydantic import BaseModel
KNOWN, HOURS = {}, 24
HOUR = 3600.0
DAY = HOUR * 24
STARTED = time.time()
class In(ExperimentInputSpec):
    x: int
class Out(ExperimentOutputSpec):
    y: float
class Holder:
    k = 1.0
def scaled(x):
    return x * FACTOR + DAY + len(KNOWN) + STARTED * 0 + PLAIN.sum() + np.sum(Holder.k)
@ExperimentRegistry.Register(retries=0)
def own(spec: In) -> Out:
    return Out(y=scaled(spec.x))
FACTOR = 1.0
PLAIN = np.zeros(2)
def set_hour():
    global HOUR, DAY
    DAY = 5.0
"""


@pytest.mark.parametrize("engine", ["inline", "local"])
@pytest.mark.parametrize(
    "change",
    [
        "FACTOR = 3.0",
        "FACTOR = np.float64(3.0)",
        "PLAIN = np.ones(2)",
        "PLAIN[1] = 7",
        "KNOWN['a'] = 1",
        "KNOWN.update(a=1)",
        "set_hour()",
        "import __main__; __main__.DAY = 4.0",
        "Holder.k = 2.0",
        "Holder.k = np.ones(2)",
    ],
)
def test_rows_of_before_a_script_set_a_value_are_not_those_of_after(project: Path, engine: str, change: str) -> None:
    ran = script(
        project,
        OWN
        + textwrap.dedent(
            f"""
            def rows():
                run, ref = BaseExperiment(own).allocate(S[:2], reuse=True, any_code=False, engine={engine!r}, **more)
                ref.result()
                return scythe.read(own, run=run)["y"].to_list()
            if __name__ == "__main__":
                more = {{"workers": 1}} if {engine!r} == "local" else {{}}
                first, again = rows(), rows()
                assert first == again
                {change}
                from scythe.errors import AllocationError
                try:
                    print(rows() == [scaled(0), scaled(1)] != first)
                except AllocationError as error:
                    print("are known from other code" in str(error) and "; they differ in " in str(error))
            """
        ),
    )
    assert ran.stdout == "True\n", ran.stderr


def test_what_a_script_sets_is_refused_where_workers_load_the_script_without_it(project: Path) -> None:
    ran = script(
        project,
        OWN
        + textwrap.dedent(
            """
            from scythe.define.code import values_set
            from scythe.errors import AllocationError
            from scythe.registry import experiment_of
            if __name__ == "__main__":
                print(*values_set(experiment_of("own"), of_script=True), sep="; ")
                FACTOR, KNOWN["a"], ENGINE = 3.0, 1, "slurm"
                try:
                    BaseExperiment(own).allocate(S, engine="slurm")
                except AllocationError as error:
                    print(error)
            """
        ),
    )
    before, after = ran.stdout.splitlines()
    assert before == "", ran.stderr
    assert "FACTOR is 3.0 here, as the script sets it; KNOWN is {'a': 1} here, as the script sets it" in after


def test_a_cached_function_of_a_script_goes_to_workers_with_what_it_reads(project: Path) -> None:
    ran = script(
        project,
        """
        import functools
        class In(ExperimentInputSpec):
            x: int
        class Out(ExperimentOutputSpec):
            y: float
        @functools.lru_cache(maxsize=3)
        def slow(x):
            return x * FACTOR
        class Held:
            @staticmethod
            @functools.cache
            def twice(x):
                return 2 * x
        @ExperimentRegistry.Register(retries=0)
        def own(spec: In) -> Out:
            return Out(y=slow(spec.x) + Held.twice(spec.x) + slow.cache_parameters()["maxsize"])
        if __name__ == "__main__":
            FACTOR = 3.0
            BaseExperiment(own).allocate(S[:3], engine="local", workers=1)[1].result()
            print(scythe.read(own)["y"].to_list())
        """,
    )
    assert ran.stdout == "[3.0, 8.0, 13.0]\n", ran.stderr


def test_a_script_is_not_gone_on_with_without_the_values_that_it_had_set(project: Path) -> None:
    ran = script(
        project,
        OWN
        + textwrap.dedent(
            """
            if __name__ == "__main__":
                if len(sys.argv) > 1:
                    FACTOR = 3.0
                def stop(spec):
                    raise KeyboardInterrupt
                inner, scaled = scaled, lambda x: stop(x) if x == 2 else inner(x)
                try:
                    BaseExperiment(own).allocate(S[:3], engine="inline")
                except KeyboardInterrupt:
                    pass
            """
        ),
    )
    assert not ran.returncode, ran.stderr
    again = subprocess.run(
        [sys.executable, "-c", "from scythe.cli import main; main()", "resume", "own"],
        cwd=project, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert again.returncode == 1
    assert "own reads FACTOR, " in again.stderr
    assert "sets as it goes on" in again.stderr
    edited = project / "go.py"
    edited.write_text(edited.read_text().replace("FACTOR = 3.0", "pass").replace("inner, scaled = ", "inner, other = "))
    again = subprocess.run(
        [sys.executable, "-c", "from scythe.cli import main; main()", "resume", "own"],
        cwd=project, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "goes on with other code of own" in again.stderr
    assert "; they differ in go.py, the value FACTOR" in again.stderr


def test_the_function_of_before_is_refused_where_it_was_defined_anew(root: Path) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()

    def cell(source: str) -> Any:
        ran = shell.run_cell(textwrap.dedent(source))
        return ran.error_in_exec

    define = """
    from scythe import *
    class In(ExperimentInputSpec):
        r: float
    class Out(ExperimentOutputSpec):
        q: float
    @ExperimentRegistry.Register()
    def anew(spec: In) -> Out:
        return Out(q={} * spec.r)
    """
    run = "run, ref = E.allocate([{'r': 1.0}], version='auto', engine='inline'); found = scythe.read(anew, run=run)['q'].to_list()"
    assert cell(define.format(1.0)) is None
    assert cell("import scythe\nE = BaseExperiment(anew)") is None
    assert cell(run) is None
    assert cell(define.format(7.0)) is None
    for again in (run, "E.try_out([{'r': 1.0}])"):
        error = cell(again)
        assert "anew has been defined anew since this BaseExperiment was made" in str(error)
        assert "make it again, BaseExperiment(anew)" in str(error)
    assert cell("E = BaseExperiment(anew)") is None
    assert cell(run) is None
    assert shell.user_ns["found"] == [7.0]
    assert cell(define.format(9.0).replace("@ExperimentRegistry.Register()", "")) is None
    told = str(cell("BaseExperiment(anew)"))
    assert (
        "there are two of anew, for it has been defined anew: run the cell again that registers the experiment" in told
    )


def test_what_is_recorded_and_what_workers_load_are_of_one_reading(project: Path) -> None:
    ran = script(
        project,
        """
        from pathlib import Path
        import sim, scythe.allocate.store as store
        from scythe.define.code import read_code
        def edit(*given):
            text = Path("settings.py").read_text()
            Path("settings.py").write_text(text.replace("SCALE = 1.0", "SCALE = 7.0"))
            return number(*given)
        if __name__ == "__main__":
            Path("edited").touch()
            before = read_code(BaseExperiment(sim.model).experiment).sha256
            number, store.give_number = store.give_number, edit
            run, ref = BaseExperiment(sim.model).allocate(S, workers=2)
            ref.result()
            print(scythe.read("model")["y"].unique().to_list(), run.attempts[0].provenance.code == before)
            store.give_number = number
            run, ref = BaseExperiment(sim.model).allocate(S, reuse=True, any_code=True)
            try:
                BaseExperiment(sim.model).allocate(S, reuse=True)
            except scythe.errors.AllocationError as error:
                print("known from other code" in str(error))
        """,
    )
    assert ran.stdout.split("\n")[:-1] == ["[1.0] True", "True"], ran.stderr


def test_a_run_that_is_begun_later_than_it_was_stored_is_recorded_with_the_code_that_begins_it(project: Path) -> None:
    died = script(
        project,
        """
        import os, sim, scythe.allocate.allocation as allocation
        if __name__ == "__main__":
            allocation.start = lambda *_: os._exit(9)
            BaseExperiment(sim.model).allocate(S)
        """,
    )
    assert died.returncode == 9, died.stderr
    (project / "settings.py").write_text(SETTINGS.replace("SCALE = 1.0", "SCALE = 3.0"))
    (project / "edited").touch()
    ran = script(
        project,
        """
        import sim
        from scythe.define.code import read_code
        if __name__ == "__main__":
            experiment = BaseExperiment(sim.model).experiment
            run = scythe.open_run("model")
            run.resume().result()
            print(run.attempts[0].provenance.code == read_code(experiment).sha256, scythe.read("model")["y"].unique().to_list())
            run, ref = BaseExperiment(sim.model).allocate(S, reuse=True)
            print(ref.result().rows)
        """,
    )
    assert ran.stdout.split("\n")[:-1] == ["True [3.0]", "12"], ran.stderr
    assert "12 of 12 inputs are there already" in ran.stderr

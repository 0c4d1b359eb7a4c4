"""A user's module, found and loaded: for the experiments that it registers, on a command line or for a run.

Code is taken from where the user has it already: registered in this process, importable, below the working folder, or
named by the user. A run's plan names a module and a file, but whoever may write the root may have written that: such
a name alone never makes a file run.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from scythe.define.experiment import Experiment
from scythe.define.sources.modules import LOADED_SCRIPT
from scythe.errors import NotFoundError
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry, experiment_of

#: The script or module, while it is loaded only for the experiment that it defines.
loading: ContextVar[str | None] = ContextVar("loading", default=None)


def load_experiments(modules: Iterable[str]) -> list[Experiment] | None:
    """The experiments that modules (`package.module`, `file.py`) register, or that are named behind a colon.

    None where modules alone are given: all that is registered then.

    Raises:
        NotFoundError: a module or a name in it is not there.
    """
    named: list[Experiment] = []
    whole = False
    for text in modules:
        if ":" in text:
            named.append(experiment_of(load_named(text)))
        else:
            _import(text)
            whole = True
    return None if whole else named


def load_named(text: str) -> Any:
    """What a module (`package.module`, `file.py`) has under the name behind a colon.

    Raises:
        NotFoundError: the module or the name is not there, or there is no colon.
    """
    path, _, name = text.partition(":")
    if not name:
        raise NotFoundError(f"{text} names a module alone: put a colon and a name behind it, {text}:NAME")
    module = _import(path)
    if not hasattr(module, name):
        known = [own for own, value in vars(module).items() if not own.startswith("_") and callable(value)]
        near = difflib.get_close_matches(name, known, 1)
        raise NotFoundError(f"{path} has no {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
    return getattr(module, name)


def find_experiment(plan: RunPlan, module: str | None = None, *, source: str | None = None) -> Experiment:
    """The experiment of a plan: registered here, or loaded from where the user has its module.

    Args:
        plan: Of the run whose function is wanted.
        module: The module (`package.module`, `file.py`, either with `:name` behind it) that the user says defines it.
        source: The file that, as whoever started this process told it, defines it: it may lie anywhere.

    Raises:
        NotFoundError: it is in none of these places.
    """
    if module is not None:
        return _of_module(plan, module)
    for load in (lambda: None, lambda: _import_of(plan), lambda: _run_file(plan, source)):
        load()
        if (found := registered(plan)) is not None:
            return found
    raise NotFoundError(
        f"the experiment {plan.qualname!r} of {plan.key.path} is not registered here (it was {plan.module}, in "
        f"{plan.source or 'a notebook'}, which is not below {Path.cwd()} and is not run unasked): name its module or file, "
        f'as in `scythe resume "{plan.key.path}" module_or_file.py`, or import it first'
    )


def registered(plan: RunPlan) -> Experiment | None:
    """The experiment of a plan, if it is registered here by now.

    Raises:
        NotFoundError: several of its function are, none of which has the name of its run.
    """
    there = [e for e in ExperimentRegistry.experiments() if e.target.__qualname__ == plan.qualname]
    found = [e for e in there if e.module == plan.module or e.source == plan.source]
    return _meant(plan, found) if found else None


def _of_module(plan: RunPlan, module: str) -> Experiment:
    before = {id(experiment) for experiment in ExperimentRegistry.experiments()}
    named = load_experiments([module])
    if named:
        return named[0]
    found = [e for e in ExperimentRegistry.experiments() if e.target.__qualname__ == plan.qualname]
    new = [e for e in found if id(e) not in before]
    if not found:
        raise NotFoundError(f"{module} registers no experiment {plan.qualname!r}, which {plan.key.path} needs")
    return _meant(plan, new or found)


def _meant(plan: RunPlan, found: list[Experiment]) -> Experiment:
    """That of some experiments of a plan's function which has the name of its run: a function may make several of one name in code.

    Raises:
        NotFoundError: none has, and they are several functions.
    """
    named = [e for e in found if e.name == plan.key.experiment]
    if not named and len({id(e.target) for e in found}) > 1:
        raise NotFoundError(
            f"{plan.key.path} is of the function {plan.qualname!r}, which is registered as {', '.join(e.name for e in found)}: "
            f"register it as {plan.key.experiment!r}, or name the module with :NAME behind it"
        )
    return (named or found)[-1]


def _import(path: str) -> ModuleType:
    _importable(Path.cwd())
    name = path
    if path.endswith(".py"):
        _importable(Path(path).resolve().parent)
        name = Path(path).stem
    with _only_loading(path):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise NotFoundError(
                    f"there is no module {name!r} in {Path.cwd()} or on the Python path: name the module that registers your experiment"
                ) from error
            raise


def _import_of(plan: RunPlan) -> None:
    """Imports the plan's module, from the Python path, the working folder, or the place where it was below that."""
    if plan.module == "__main__":
        return
    folders = [Path.cwd()]
    if plan.source is not None and _is_at_home(plan):
        above = Path(plan.source).parents
        folders.insert(0, above[min(plan.module.count("."), len(above) - 1)])
    added = [folder for folder in folders if _importable(folder)]  # they stay: worker processes import the module, too
    try:
        with _only_loading(plan.source or plan.module):
            importlib.import_module(plan.module)
    except ImportError:
        for folder in added:
            sys.path.remove(str(folder))


def _run_file(plan: RunPlan, trusted: str | None) -> None:
    """Loads the defining script as a module of another name than `__main__`, so that its guarded part stays still."""
    if plan.source is None or not (plan.source == trusted or _is_at_home(plan)):
        return
    name = f"{LOADED_SCRIPT}{hashlib.sha256(plan.source.encode()).hexdigest()[:12]}__"
    spec = importlib.util.spec_from_file_location(name, plan.source)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    _importable(Path(plan.source).parent)  # its neighbours are imported by it, here and in the workers
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    cloudpickle.register_pickle_by_value(module)
    with _only_loading(plan.source):
        spec.loader.exec_module(module)


def _is_at_home(plan: RunPlan) -> bool:
    """Whether the plan's file is one of the user's: below the working folder, and not below the root."""
    file, home, root = Path(plan.source or "").resolve(), Path.cwd().resolve(), plan.objects.folder
    if not file.is_file() or not file.is_relative_to(home) or home == Path(home.anchor):
        return False
    return root is None or not file.is_relative_to(root.resolve())


def _importable(folder: Path) -> bool:
    """Puts a folder on the Python path; False where it is there already."""
    if str(folder) in sys.path:
        return False
    sys.path.insert(0, str(folder))
    return True


@contextmanager
def _only_loading(what: str) -> Generator[None]:
    token = loading.set(what)
    try:
        yield
    finally:
        loading.reset(token)

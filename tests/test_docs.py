"""The documentation: every example runs, every public name is explained, every setting and option is listed.

Pages of the cluster run with a bucket, the stand-in engine and a worker that serves their modules; those of
storage with a bucket.
"""

from __future__ import annotations

import html
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

import scythe
from tests.cluster import Worker
from tests.hatchet_standin import StandinEngine
from tests.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {path.stem: path for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]}
EXAMPLES = sorted((ROOT / "examples").rglob("*.md"))
HOME = "https://github.com/szvsw/scythe/blob/main/"
RAW = "https://raw.githubusercontent.com/szvsw/scythe/main/"

#: Pages whose examples need a bucket, and those that need an engine and a worker too.
ON_A_BUCKET = {"storage", "cluster", "howto-bucket"}
ON_A_CLUSTER = {"cluster"}
#: Run by `tests/slurm`, where there is one.
ON_SLURM = {"slurm"}

#: The page of each public verb.
PAGE_OF = {
    "read": "read",
    "scan": "scan",
    "files": "files",
    "dataset": "dataset",
    "rows": "rows",
    "report": "report",
    "sample": "sample",
    "sensitivity": "sample",
    "download": "download",
    "upload": "download",
    "fetch": "download",
    "list_experiments": "listing",
    "list_runs": "listing",
    "open_run": "listing",
    "Register": "register",
    "allocate": "allocate",
    "extend": "grow",
}

_BLOCK = re.compile(r"^(?P<indent>[ \t]*)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```[ \t]*$", re.M | re.S)
_BASH = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)
_TITLE = re.compile(r'title="([^"]+\.py)"')
_FENCED = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.M | re.S)
_SECONDS = 120
#: A page of the cluster waits for several runs, on a machine that may have other things to do.
_CLUSTER_SECONDS = 250
_WAIT = """
import importlib, sys
from scythe.engines.hatchet.tasks import task_names
from scythe.registry import ExperimentRegistry
from tests.cluster import wait_until_served
for module in sys.argv[1:]:
    importlib.import_module(module)
experiments = ExperimentRegistry.experiments()
wait_until_served(*(name for e in experiments for name in task_names(e, single=False)))
"""


@dataclass(frozen=True)
class Script:
    """The Python of a page: files of their own, and all other blocks as one script."""

    modules: dict[str, str]
    code: str


def script_of(text: str) -> Script:
    """The ```python blocks of a page, in their order."""
    modules: dict[str, str] = {}
    code: list[str] = []
    for block in _BLOCK.finditer(text):
        indent = block["indent"]
        lines = [line.removeprefix(indent) for line in block["code"].splitlines(keepends=True)]
        title = _TITLE.search(block["info"])
        if title:
            modules[title[1]] = modules.get(title[1], "") + "".join(lines)
        else:
            code.append("".join(lines))
    return Script(modules, "\n".join(code))


def run_page(page: Path, folder: Path, cache: Path, given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the Python of a page in an empty folder, with no settings but the defaults and those that are given."""
    script = script_of(page.read_text(encoding="utf-8"))
    for name, code in script.modules.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code, encoding="utf-8")
    main = folder / f"{page.stem.lower()}_page.py"
    main.write_text(script.code, encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SCYTHE_", "PYTEST_", "HATCHET_"))}
    env["SCYTHE_CACHE_DIR"] = str(cache)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env.update(given)
    with ExitStack() as stack:
        if page.stem in ON_A_CLUSTER:
            env.update(stack.enter_context(StandinEngine()).env)
            modules = [
                name.removesuffix(".py") for name, code in script.modules.items() if "ExperimentRegistry" in code
            ]
            stack.enter_context(Worker(*modules, "--slots", "2", env=env, cwd=folder))
            waiting = [sys.executable, "-c", _WAIT, *modules]
            subprocess.run(waiting, cwd=folder, env={**env, "PYTHONPATH": f"{ROOT}{os.pathsep}."}, check=True)
        return subprocess.run(
            [sys.executable, main.name],
            cwd=folder, env=env, capture_output=True, text=True, check=False,
            timeout=_CLUSTER_SECONDS if page.stem in ON_A_CLUSTER else _SECONDS,
        )  # fmt: skip


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3: S3Server
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The pages that are asked for, run two at a time."""
    wanted = [
        item.callspec.params["page"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
    ]
    cache = tmp_path_factory.mktemp("cache")
    given = {
        page: {**s3.environment(), "SCYTHE_STORAGE_BUCKET": s3.new_bucket()} if page in ON_A_BUCKET else {}
        for page in wanted
    }
    with ThreadPoolExecutor(2) as pool:
        yield {
            page: pool.submit(run_page, PAGES[page], tmp_path_factory.mktemp(page.lower()), cache, given[page])
            for page in wanted
        }


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ON_SLURM])
def test_the_examples_of_a_page_run_in_an_empty_folder(
    page: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]
) -> None:
    done = runs[page].result()
    assert done.returncode == 0, f"{page} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"


def test_the_commands_that_download_run_as_they_are_printed(tmp_path: Path) -> None:
    text = PAGES["download"].read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(text[: text.index("few = pl.col")] + "```\n", encoding="utf-8")  # to where the inputs have run
    done = run_page(page, tmp_path, tmp_path / "cache", {})
    assert done.returncode == 0, done.stderr
    commands = [line for block in _BASH.findall(text) for line in block.splitlines() if "scythe download" in line]
    assert len(commands) == 2
    env = {k: v for k, v in os.environ.items() if not k.startswith("SCYTHE_")}
    for command in commands:
        words = [sys.executable, "-m", "scythe.cli", *shlex.split(command)[1:]]
        ran = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert len([*tmp_path.glob("simulate_energy-v1.0.0-*-scalars.csv"), *tmp_path.glob("*-tasks.xlsx")]) == 2


def test_blocks_with_a_title_are_files_and_the_others_one_script() -> None:
    script = script_of(
        '```python title="a/b.py"\nx = 1\n```\n```python\ny = 2\n```\n```py\nz\n```\n  ```python\n  w = 3\n  ```\n'
    )
    assert script.modules == {"a/b.py": "x = 1\n"}
    assert script.code == "y = 2\n\nw = 3\n"


def test_every_public_name_is_explained() -> None:
    explained = {word for name, path in PAGES.items() if name != "README" for word in words_shown(path)}
    assert sorted(set(scythe.__all__) - explained) == []


def test_every_verb_has_a_page_that_is_headed_by_it() -> None:
    verbs = {name for name in scythe.__all__ if inspect.isfunction(getattr(scythe, name))}
    assert verbs <= set(PAGE_OF)
    for verb, page in PAGE_OF.items():
        headings = " ".join(re.findall(r"^#+ .*$", PAGES[page].read_text(encoding="utf-8"), re.M))
        assert re.search(rf"\b{verb}\b", headings), f"{verb} is in no heading of {page}.md"
        assert script_of(PAGES[page].read_text(encoding="utf-8")).code, f"{page}.md has no example"


def test_every_option_of_register_and_allocate_is_listed() -> None:
    from scythe.allocate import BaseExperiment
    from scythe.registry import ExperimentRegistry

    for function, page in ((ExperimentRegistry.Register, "register"), (BaseExperiment.allocate, "allocate")):
        parameters = inspect.signature(function).parameters.items()
        options = [name for name, p in parameters if name != "self" and p.kind is not p.VAR_POSITIONAL]
        assert [name for name in options if name not in words_shown(PAGES[page])] == [], page


def test_every_setting_is_listed() -> None:
    from scythe import settings
    from scythe.worker import ScytheWorkerConfig

    models = (
        settings.StorageSettings, settings.EngineSettings, settings.HatchetSettings, settings.TimeoutSettings,
        ScytheWorkerConfig,
    )  # fmt: skip
    names = {f"{m.model_config.get('env_prefix')}{field}".upper() for m in models for field in m.model_fields}
    read_directly = {
        name
        for path in (ROOT / "scythe").rglob("*.py")
        for name in re.findall(r'environ\S*?\(?\[?"(SCYTHE_\w+)"', path.read_text(encoding="utf-8"))
    }
    assert sorted((names | read_directly) - words_shown(PAGES["settings"])) == []


def test_every_error_and_every_command_is_listed() -> None:
    from scythe import errors
    from scythe.cli import app

    assert sorted(set(errors.__all__) - words_shown(PAGES["errors"])) == []
    assert sorted({str(c.name) for c in app.registered_commands} - words_shown(PAGES["cli"])) == []


def test_links_between_pages_lead_somewhere() -> None:
    for path in [*PAGES.values(), *EXAMPLES]:
        prose = _FENCED.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path}: {target}"


def test_the_links_of_the_readme_are_absolute_and_lead_to_files_of_this_repository() -> None:
    """It is shown on the package index, too, where a relative link leads nowhere."""
    prose = _FENCED.sub("", PAGES["README"].read_text(encoding="utf-8"))
    targets = [a or b for a, b in re.findall(r"\]\(([^)\s]+)\)|^\[[^]]+\]: (\S+)", prose, re.M)]
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    here = [target.partition("#")[0].removeprefix(HOME) for target in targets if target.startswith(HOME)]
    assert len(here) > 20
    assert [path for path in here if not (ROOT / path).exists()] == []


def test_what_is_installed_under_our_name_is_above_what_the_package_index_has_under_it() -> None:
    """The index has an older library of the same name, up to 1.3.0: pip would call that one newer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert Version(project["version"]) > Version("1.3.0")
    for name, path in PAGES.items():
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("`pip install scythe-engine` alone gets an older library"):
                assert not re.search(r"(pip install|uv add)[^`#]* ['\"]?scythe-engine(?!(\[[\w,]+\])? @)", line), (
                    f"{name}: {line}"
                )


def test_code_blocks_fit_the_column_of_a_page() -> None:
    for path in [*PAGES.values(), *EXAMPLES]:
        blocks = _FENCED.findall(path.read_text(encoding="utf-8"))
        assert [line for block in blocks for line in block.splitlines() if len(line) > 88] == [], path


def test_the_navigation_shows_every_page() -> None:
    shown = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(path.name for path in DOCS.glob("*.md"))


def test_llms_txt_has_each_page_once_in_the_order_of_the_navigation_with_a_line_on_it() -> None:
    parts = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    nav: list[tuple[str, ...]] = []
    for part in parts:
        ((name, pages),) = part.items()
        nav += [("", "", name), *((title, path, "") for page in pages for title, path in page.items())]
    listed = re.findall(
        rf"^- \[(.+?)\]\({re.escape(RAW)}docs/(\S+\.md)\): \S.{{10,130}}$|^## (.+)$",
        (DOCS / "llms.txt").read_text(encoding="utf-8"), re.M,
    )  # fmt: skip
    assert listed == nav


def test_the_pages_are_built_without_a_warning_and_show_the_types_of_signatures(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("scythe", "catalog"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        cwd=tmp_path, env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, check=False, timeout=_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.parent.name for path in (tmp_path / "site").rglob("index.html")}
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= built
    assert (tmp_path / "site" / "llms.txt").exists()
    signatures = re.sub(r"<[^>]+>", "", (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8"))
    assert "retries: int = 1" in html.unescape(signatures)


def words_shown(path: Path) -> set[str]:
    """The words in the headings and in the code spans of a page's prose."""
    prose = _FENCED.sub("", path.read_text(encoding="utf-8"))
    shown = [*re.findall(r"^#+ (.*)$", prose, re.M), *re.findall(r"`([^`\n]+)`", prose)]
    return {word for text in shown for word in re.findall(r"\w+", text)}

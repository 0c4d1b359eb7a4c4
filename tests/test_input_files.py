"""Input files stay what they were at allocation, whatever a function does to those that it is given."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import obstore
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import scythe
from scythe import FileReference, OptionalFileReference
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import InputError
from scythe.registry import ExperimentRegistry
from scythe.settings import storage
from scythe_catalog.storage.objects import Objects
from scythe_catalog.storage.provider import provider_of
from tests.web_server import web_server

# Worker processes cannot import this module by its name, which pytest made up.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Site(ExperimentInputSpec):
    weather: FileReference
    second: OptionalFileReference = None
    habit: str = "reads"


class Seen(ExperimentOutputSpec):
    text: str
    name: str


def site(path: Path | str, i: int = 0, habit: str = "reads", **more: Any) -> Site:
    return Site(experiment_id="", sort_index=i, weather=path, habit=habit, **more)


def act(input_spec: Site) -> Seen:
    """Reads its file, then does to it what its habit says."""
    path = input_spec.weather
    assert isinstance(path, Path)
    seen = Seen(text=path.read_text(), name=path.name)
    match input_spec.habit:
        case "appends":
            with path.open("a") as file:
                file.write("X")
        case "same size":
            path.write_text(seen.text.swapcase())
        case "deletes":
            path.unlink()
        case "renames":
            path.rename(path.with_name("away"))
        case "replaces":
            path.with_name("new").write_text(seen.text)
            path.with_name("new").replace(path)
        case "fails":
            path.write_text("")
            raise ValueError("no sun")
        case "dies":
            path.write_text("half")
            os._exit(4)
        case _:
            pass
    return seen


HABITS = ("reads", "appends", "same size", "deletes", "renames", "replaces", "fails")


def run(specs: list[Site], function: Callable[..., Any] = act, **options: Any) -> dict[int, str]:
    """Runs `act` on one worker; the messages of errors by input."""
    ExperimentRegistry.Register(**{"retries": 0, **options})(function)
    BaseExperiment(function).allocate(specs, "auto", workers=1, chunk=50)[1].result()
    errors = scythe.read(function, table="errors")
    return dict(errors.select("sort_index", "exception_message").iter_rows())


@settings(max_examples=4)
@given(habits=st.lists(st.sampled_from(HABITS), min_size=1, max_size=12), number=st.integers(0, 2**32))
def test_a_function_that_changes_its_file_fails_and_the_others_read_what_was_stored(
    habits: list[str], number: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path_factory.mktemp("root")))
        patch.chdir(folder)
        files = [folder / "sun.epw", folder / "rain.epw"]
        for file in files:
            file.write_text(file.stem)
        dice = random.Random(number)
        specs = [site(dice.choice(files), i, habit) for i, habit in enumerate([*habits, "reads"])]
        found = run(specs)
        assert set(found) == {i for i, s in enumerate(specs) if s.habit != "reads"}
        for i, message in found.items():
            if specs[i].habit != "fails":
                assert 'local_file_location="copied-to-tempdir"' in message
                assert "it was brought back" in message
        kept = dict(scythe.read(act).select("sort_index", "text").iter_rows())
        assert kept == {i: Path(str(s.weather)).stem for i, s in enumerate(specs) if s.habit == "reads"}
        assert [file.read_text() for file in files] == ["sun", "rain"]


def test_what_a_failing_function_changed_is_noted_beside_its_own_error(root: Path) -> None:
    Path("sun.epw").write_text("sun")
    assert run([site(Path("sun.epw"), 0, "fails")]) == {0: "no sun"}
    text = scythe.read(act, table="errors")["traceback"][0]
    assert text.startswith("Traceback")
    assert "sun.epw) was changed while this input ran" in text


def test_a_file_that_a_killed_function_left_half_written_is_brought_back(root: Path) -> None:
    Path("sun.epw").write_text("sun and wind")
    found = run([site(Path("sun.epw"), i, habit) for i, habit in enumerate(["dies", "reads", "reads"])])
    assert set(found) == {0}
    assert scythe.read(act)["text"].to_list() == ["sun and wind"] * 2


def test_a_file_that_cannot_be_brought_back_is_refused_from_then_on(root: Path) -> None:
    source = Path("sun.epw").resolve()
    source.write_text("sun")

    def spoil(input_spec: Site) -> Seen:
        source.unlink(missing_ok=True)
        return act(input_spec)

    found = run([site(source, i, habit) for i, habit in enumerate(["appends", "reads", "reads"])], spoil)
    assert "cannot be brought back" in found[0]
    for i in (1, 2):
        assert "was changed by a function, and cannot be brought back" in found[i]
        assert str(source) in found[i]


def test_a_file_that_has_no_place_to_be_brought_back_to_leaves_nothing_staged(root: Path) -> None:
    source = Path("sun.epw").resolve()
    source.write_text("sun")

    def block(input_spec: Site) -> Seen:
        stored = Path(str(input_spec.weather)).parent
        shutil.rmtree(stored)
        stored.write_text("a file in place of the folder")
        return Seen(text="", name="")

    assert set(run([site(source, 0, "reads")], block)) == {0}
    assert list((root / ".staging").iterdir()) == []


def test_copies_of_their_own_may_be_changed(root: Path) -> None:
    Path("sun.epw").write_text("sun")
    Path("sun.epw").chmod(0o444)

    def edit(input_spec: Site, tempdir: Path) -> Seen:
        return act(input_spec)

    specs = [site(Path("sun.epw"), i, "appends") for i in range(3)]
    assert run(specs, edit, local_file_location="copied-to-tempdir") == {}
    assert scythe.read(edit)["text"].to_list() == ["sun"] * 3


def test_files_of_equal_content_keep_their_names(root: Path) -> None:
    for name in ("boston.epw", "athens.epw"):
        Path(name).write_text("")
    Path("other").mkdir()
    Path("other/boston.epw").write_text("not empty")
    Path("twin").mkdir()
    Path("twin/boston.epw").write_text("")
    paths = ["boston.epw", "athens.epw", "other/boston.epw", "twin/boston.epw"]
    assert run([site(Path(p), i) for i, p in enumerate(paths)]) == {}
    frame = scythe.read(act).sort("sort_index")
    assert frame["name"].to_list()[:2] == ["boston.epw", "athens.epw"]
    assert [uri.rsplit("/", 1)[1] for uri in frame["weather"].to_list()[:2]] == ["boston.epw", "athens.epw"]
    assert frame["text"].to_list() == ["", "", "not empty", ""]
    assert frame["weather"].n_unique() == 3


def test_files_whose_names_differ_by_case_do_not_overwrite_each_other(root: Path) -> None:
    for name in ("Sun.epw", "sun.EPW", "line\nbreak.epw"):
        Path(name).write_text(name)
    Path("x" * 240 + ".epw").write_text("long")
    paths = ["Sun.epw", "sun.EPW", "line\nbreak.epw", "x" * 240 + ".epw"]
    assert run([site(Path(p), i) for i, p in enumerate(paths)]) == {}
    frame = scythe.read(act).sort("sort_index")
    assert frame["text"].to_list() == [*paths[:3], "long"]
    assert frame["weather"].str.to_lowercase().n_unique() == 4


def test_the_run_records_what_each_input_file_was(root: Path) -> None:
    Path("sun.epw").write_text("sun")

    def look_away(input_spec: Site) -> Seen:
        return Seen(text="", name="")

    remote = "https://example.org/rain.epw"
    specs = [site(Path("sun.epw"), 0, second=remote), site(Path("sun.epw"), 1)]
    assert run(specs, look_away, auto_fetch_files=False) == {}
    record = root / scythe.open_run(look_away).experiment_id / "scatter-gather" / "input" / "artifacts.pq"
    rows = {row["field"]: row for row in pq.read_table(record).to_pylist()}
    weather = rows["weather"]
    assert (weather["uri"], weather["name"], weather["size"]) == ("artifacts/weather/sun.epw", "sun.epw", 3)
    assert weather["sha256"] == hashlib.sha256(b"sun").hexdigest()
    assert weather["source"] == str(Path("sun.epw").resolve())
    assert (rows["second"]["uri"], rows["second"]["sha256"]) == (remote, None)


def test_of_remote_files_the_run_records_what_their_servers_say_of_them(bucket: str) -> None:
    def look_away(input_spec: Site) -> Seen:
        return Seen(text="", name="")

    objects = Objects.at(f"s3://{bucket}/weather")
    objects.write("sun.epw", b"sun")
    with web_server() as web:
        named = {
            objects.uri("sun.epw"): (obstore.head(provider_of(objects.root).store(), "sun.epw")["e_tag"], 3),
            web.gives("/rain", b"rain", ETag='"r1"'): ('"r1"', 4),
            web.gives("/wind", b"windy", Last_Modified="Mon, 02 Feb 2026 10:00:00 GMT"): (
                "Mon, 02 Feb 2026 10:00:00 GMT",
                5,
            ),
            web.gives("/gone", b"", status=404): (None, None),
            objects.uri("gone.epw"): (None, None),
            "http://127.0.0.1:1/nobody": (None, None),
        }
        assert run([site(uri, i) for i, uri in enumerate(named)], look_away, auto_fetch_files=False) == {}
        assert web.asked == []
        assert sorted(web.looked_at) == ["/gone", "/rain", "/wind"]
    stored = storage()
    record = io.BytesIO(stored.read(scythe.open_run(look_away).key.artifact_record))
    rows = pq.read_table(record).to_pylist()
    assert {row["uri"]: (row["tag"], row["size"]) for row in rows} == named


def test_a_run_in_a_bucket_fetches_a_changed_file_again(bucket: str) -> None:
    Path("sun.epw").write_text("sun")
    habits = ["reads", "appends", "reads", "deletes", "reads"]
    found = run([site(Path("sun.epw"), i, habit) for i, habit in enumerate(habits)])
    assert set(found) == {1, 3}, found
    assert scythe.read(act)["text"].to_list() == ["sun"] * 3


class Maybe(ExperimentInputSpec):
    weather: OptionalFileReference = None


def look(input_spec: Maybe) -> Seen:
    return Seen(text="none", name=str(input_spec.weather))


def test_a_run_in_which_no_input_names_a_file_is_allocated_and_its_record_of_files_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path))
    ExperimentRegistry.Register()(look)
    run, ref = BaseExperiment(look).allocate([Maybe(experiment_id="", sort_index=0)], engine="inline")
    assert ref.result().rows == 1
    record = tmp_path / run.experiment_id / "scatter-gather" / "input" / "artifacts.pq"
    assert pq.read_table(record).num_rows == 0


def test_a_file_that_goes_or_changes_while_it_is_stored_is_an_input_error_that_names_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{i}.txt" for i in range(3)]
    for file in files:
        file.write_text("x")
    ExperimentRegistry.Register(retries=0)(act)
    copied = shutil.copyfile

    def changes(source: Path, target: Path) -> object:
        done = copied(source, target)
        if source == files[1]:
            source.write_text("longer")
        return done

    def goes(source: Path, target: Path) -> object:
        done = copied(source, target)
        if source == files[2]:
            source.unlink()
        return done

    for change, said in ((changes, "1.txt' was changed while it was stored"), (goes, "2.txt' was there a moment ago")):
        monkeypatch.setattr(shutil, "copyfile", change)
        with pytest.raises(InputError, match=said):
            BaseExperiment(act).allocate([site(file) for file in files], engine="inline")
    assert scythe.list_experiments().is_empty()


def test_a_file_may_be_given_by_its_uri(root: Path, tmp_path: Path) -> None:
    class Site(ExperimentInputSpec):
        weather: FileReference

    def forecast(spec: Site) -> ExperimentOutputSpec:
        assert isinstance(spec.weather, Path)
        assert spec.weather.read_text() == "hot"
        return ExperimentOutputSpec()

    forecast.__annotations__ = {"spec": Site, "return": ExperimentOutputSpec}
    site = BaseExperiment(ExperimentRegistry.Register()(forecast))

    for name in ("plain.epw", "with space.epw", "a%20b.epw"):
        path = tmp_path / name
        path.write_text("hot")
        assert Site(weather=path.as_uri()).weather == path
        for specs in (pl.DataFrame({"weather": [path.as_uri()]}), [{"weather": path.as_uri()}]):
            assert site.allocate(specs, engine="inline")[1].result().rows == 1
        assert Site(weather=f"file://{path}").weather == path


@pytest.mark.parametrize("uri", ["s3://bucket/a.epw", "https://host/a.epw", "weather.epw", "a/b.epw"])
def test_a_file_comes_back_out_of_json_as_what_it_was(uri: str) -> None:
    class Site(ExperimentInputSpec):
        weather: FileReference

    given = Site(weather=uri)  # pyright: ignore[reportArgumentType]
    back = Site.model_validate_json(given.model_dump_json())
    assert (back.weather, type(back.weather)) == (given.weather, type(given.weather))


@pytest.mark.parametrize("content", [np.zeros(3), 3, b"hot", ["a"], pl.DataFrame({"a": [1]})], ids=str)
def test_what_is_no_path_is_told_how_a_file_is_given(content: Any) -> None:
    class Out(ExperimentOutputSpec):
        hourly: FileReference

    with pytest.raises(
        ValidationError, match=r"a file is given by its path or URL, not by its content .*: save it"
    ) as raised:
        Out(hourly=content)
    assert raised.value.error_count() == 1

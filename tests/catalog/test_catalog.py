"""What a catalog promises, held against the folder catalog on a disk and in a bucket, and against PyIceberg's own."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, Field, create_model
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NamespaceNotEmptyError,
    NoSuchNamespaceError,
    NoSuchTableError,
)

from scythe_catalog.errors import CatalogError, TableNotFound
from scythe_catalog.iceberg.datafile import DataFile, read_description
from scythe_catalog.iceberg.scan import scan
from scythe_catalog.schema import TableSchema, compile_model
from tests.catalog.places import NAME, SPACE, V1, V2, Place, Row, drop_before_the_next_commit, made_place, schema_of


@pytest.fixture(params=["folder", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty catalog on this machine; `test_conformance` runs the same tests on a bucket and on Postgres."""
    return made_place(request.param, request, tmp_path, monkeypatch)


class Part(BaseModel):
    a: int


class PartMore(BaseModel):
    a: int
    b: int


class TestOpening:
    def test_a_table_that_is_not_there_is_not_found(self, place: Place) -> None:
        with pytest.raises(TableNotFound, match=rf"there is no table {SPACE}\.{NAME} in "):
            place.table()
        assert place.catalog.tables(SPACE) == []

    def test_a_table_of_another_name_is_not_found_in_a_namespace_that_is_there(self, place: Place) -> None:
        place.ensure()
        with pytest.raises(TableNotFound):
            place.catalog.table(SPACE, "other")
        assert place.catalog.tables(SPACE) == [NAME]

    def test_a_made_table_has_the_schema_and_the_partition_columns_it_was_made_with(self, place: Place) -> None:
        made = place.ensure(properties={"owner": "me"})
        for table in (made, place.table()):
            assert table.schema == compile_model(Row).schema
            fields = table.iceberg.spec().fields
            assert tuple(f.name for f in fields) == ("version", "run")
            assert set(table.ids) == {"number", "text", "version", "run"}
            assert table.iceberg.properties["owner"] == "me"
            assert table.iceberg.schema().find_field("number").required

    def test_ensuring_twice_changes_nothing(self, place: Place) -> None:
        first, second = place.ensure(), place.ensure()
        assert first.iceberg.metadata_location == second.iceberg.metadata_location
        assert first.iceberg.metadata == second.iceberg.metadata

    def test_a_dropped_table_is_gone_and_its_files_stay(self, place: Place) -> None:
        place.ensure()
        file = place.file("one", [Row(number=1)])
        place.table().append([file], V1, key="one")
        place.catalog.drop(SPACE, NAME)
        with pytest.raises(TableNotFound):
            place.table()
        assert place.objects.exists("data/one.pq")
        place.catalog.drop(SPACE, NAME)
        place.ensure()
        assert place.table().files(V1) == []

    def test_a_table_made_by_someone_else_says_so(self, place: Place) -> None:
        place.ensure()
        with place.table().iceberg.transaction() as tx:
            tx.remove_properties("scythe.schema")
        with pytest.raises(CatalogError, match="was not made by Scythe"):
            _ = place.table().schema


class TestWidening:
    def test_an_added_column_is_null_in_the_rows_before_it(self, place: Place) -> None:
        place.ensure(schema_of(number=int))
        place.table().append([place.file("old", [create_model("M", number=(int, ...))(number=1)])], V1, key="old")
        wide = place.ensure(compile_model(Row).schema)
        assert wide.schema.names == ("number", "text")
        place.table().append([place.file("new", [Row(number=2, text="b")])], V1, key="new")
        frame = scan(place.table(), V1).collect().sort("number")
        assert frame.to_dicts() == [{"number": 1, "text": None}, {"number": 2, "text": "b"}]

    def test_a_required_column_that_is_added_is_optional_in_the_table(self, place: Place) -> None:
        place.ensure(schema_of(number=int))
        assert place.ensure(schema_of(number=int, more=float)).schema["more"].nullable

    def test_a_column_that_became_optional_takes_nulls(self, place: Place) -> None:
        place.ensure(schema_of(number=int))
        table = place.ensure(schema_of(number=int | None))
        assert table.schema["number"].nullable
        assert not table.iceberg.schema().find_field("number").required

    def test_a_wider_decimal_is_taken(self, place: Place) -> None:
        place.ensure(schema_of(cost=Annotated[Decimal, Field(max_digits=9, decimal_places=2)]))
        table = place.ensure(schema_of(cost=Annotated[Decimal, Field(max_digits=12, decimal_places=2)]))
        assert str(table.iceberg.schema().find_type("cost")) == "decimal(12, 2)"

    def test_new_properties_are_set_on_a_table_that_is_there(self, place: Place) -> None:
        place.ensure()
        assert place.ensure(properties={"owner": "you"}).iceberg.properties["owner"] == "you"

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (schema_of(number=int), schema_of(number=int, more=float)),
            (schema_of(number=int), schema_of(number=int | None)),
            (schema_of(kind=Literal["a"]), schema_of(kind=Literal["a", "b"])),
            (schema_of(kind=Literal["a"]), schema_of(kind=str)),
            (schema_of(part=Part), schema_of(part=PartMore)),
            (schema_of(parts=list[Part]), schema_of(parts=list[PartMore])),
            (schema_of(by=dict[str, Part]), schema_of(by=dict[str, PartMore])),
            (schema_of(items=list[int]), schema_of(items=list[int | None])),
        ],
        ids=["column", "optional", "category", "text", "struct", "list of structs", "map of structs", "item"],
    )
    def test_rows_of_the_old_and_of_the_new_schema_find_their_table_as_often_as_they_come(
        self, place: Place, old: TableSchema, new: TableSchema
    ) -> None:
        place.ensure(old)
        wide = place.ensure(new).schema
        assert place.ensure(new).schema == wide
        assert set(place.ensure(old).schema.names) == set(wide.names)
        assert place.ensure(new).schema.to_json() == wide.to_json()

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (schema_of(number=int), schema_of(number=str)),
            (schema_of(number=int), schema_of(number=float)),
            (schema_of(number=int), schema_of(number=dt.timedelta)),
            (schema_of(part=Part), schema_of(part=dict[str, int])),
            (schema_of(items=list[int]), schema_of(items=list[str])),
        ],
        ids=["text", "float", "duration", "map", "items"],
    )
    def test_a_breaking_change_is_refused_and_leaves_the_table_as_it_was(
        self, place: Place, old: TableSchema, new: TableSchema
    ) -> None:
        before = place.ensure(old)
        with pytest.raises(CatalogError, match=rf"{SPACE}\.{NAME} cannot hold the new columns:\n.*changed from"):
            place.ensure(new)
        assert place.table().iceberg.metadata_location == before.iceberg.metadata_location


class TestAppending:
    def test_appended_rows_are_read_and_counted(self, place: Place) -> None:
        place.ensure()
        file = place.file("one", [Row(number=2), Row(number=1)])
        table = place.table().append([file], V1, key="one")
        assert table.files(V1) == [file.uri]
        assert place.numbers() == [1, 2]
        assert file.rows == 2
        assert table.iceberg.current_snapshot().summary["total-records"] == "2"

    def test_a_key_is_committed_once_however_often_it_is_called(self, place: Place) -> None:
        place.ensure()
        stale = place.table()
        for _ in range(3):
            stale.append([place.file("one", [Row(number=1)])], V1, key="one")
        place.table().append([place.file("other", [Row(number=7)])], V1, key="one")
        assert place.numbers() == [1]

    def test_an_empty_batch_makes_no_snapshot(self, place: Place) -> None:
        place.ensure()
        place.table().append([], V1, key="none")
        assert place.table().iceberg.current_snapshot() is None

    def test_a_description_survives_its_json_and_may_be_read_from_the_file(self, place: Place) -> None:
        place.ensure()
        file = place.file("one", [Row(number=2, text="b"), Row(number=1)])
        assert DataFile.from_json(json.loads(json.dumps(file.to_json()))) == file
        assert read_description(place.objects, "data/one.pq", place.table().iceberg.schema()) == file
        place.table().append([DataFile.from_json(json.loads(json.dumps(file.to_json())))], V1, key="one")
        (task,) = place.table().iceberg.scan().plan_files()
        ids = place.table().ids
        assert task.file.null_value_counts[ids["text"]] == 1
        assert task.file.lower_bounds[ids["number"]] == (1).to_bytes(8, "little")

    @pytest.mark.parametrize("text", ["a" * 15 + "\ud7ff" + "b", "\U0010ffff" * 20])
    def test_a_text_that_no_short_one_is_greater_than_has_no_upper_bound(self, place: Place, text: str) -> None:
        place.ensure()
        told = place.file("one", [Row(number=1, text=text)]).statistics
        number = str(place.table().ids["text"])
        assert number in told["lower_bounds"]
        assert number not in told["upper_bounds"]

    def test_a_commit_that_loses_its_race_is_tried_again_and_doubles_nothing(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.ensure()
        mine, theirs = place.file("mine", [Row(number=1)]), place.file("theirs", [Row(number=2)])
        catalog = type(place.catalog.iceberg)
        commit, overtaken = catalog.commit_table, []

        def overtake(self: Any, *arguments: Any) -> Any:
            """Lets another committer through just before the first commit."""
            if not overtaken:
                overtaken.append(True)
                place.table().append([theirs], V1, key="theirs")
                with pytest.raises(CommitFailedException):
                    commit(self, *arguments)
                raise CommitFailedException("overtaken")
            return commit(self, *arguments)

        monkeypatch.setattr(catalog, "commit_table", overtake)
        place.table().append([mine], V1, key="mine")
        assert place.numbers() == [1, 2]

    def test_a_table_that_is_dropped_right_before_a_commit_stays_dropped(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.ensure()
        file = place.file("one", [Row(number=1)])
        drop_before_the_next_commit(place, monkeypatch)
        with pytest.raises(NoSuchTableError):
            place.table().append([file], V1, key="one")
        assert place.catalog.tables(SPACE) == []
        with pytest.raises(TableNotFound):
            place.table()


class TestReplacing:
    def test_a_partition_holds_exactly_the_files_it_was_given(self, place: Place) -> None:
        place.ensure()
        one, two, three = (place.file(str(i), [Row(number=i)]) for i in (1, 2, 3))
        place.table().append([one, two], V1, key="parts")
        table = place.table().replace([two, three], V1)
        assert table.files(V1) == sorted([two.uri, three.uri])
        assert place.numbers() == [2, 3]

    def test_replacing_again_changes_nothing(self, place: Place) -> None:
        place.ensure()
        file = place.file("one", [Row(number=1)])
        first = place.table().replace([file], V1)
        second = place.table().replace([file], V1)
        assert first.iceberg.metadata_location == second.iceberg.metadata_location
        assert place.numbers() == [1]

    def test_one_replacement_is_one_snapshot(self, place: Place) -> None:
        place.ensure()
        place.table().append([place.file("one", [Row(number=1)])], V1, key="one")
        before = len(place.table().iceberg.snapshots())
        place.table().replace([place.file("two", [Row(number=2)])], V1)
        assert len(place.table().iceberg.snapshots()) == before + 1

    def test_a_partition_can_be_emptied(self, place: Place) -> None:
        place.ensure()
        place.table().append([place.file("one", [Row(number=1)])], V1, key="one")
        assert place.table().replace([], V1).files(V1) == []
        assert place.numbers() == []

    def test_partitions_are_told_apart_by_all_their_columns(self, place: Place) -> None:
        place.ensure()
        other_run = {**V1, "run": "r2"}
        partitions = [V1, V2, other_run]
        files = [place.file(str(i), [Row(number=i)]) for i in range(3)]
        for file, partition in zip(files, partitions, strict=True):
            place.table().append([file], partition, key=file.uri)
        assert [place.table().files(p) for p in partitions] == [[f.uri] for f in files]
        assert place.table().files({"version": "v1.0.0"}) == sorted([files[0].uri, files[2].uri])
        place.table().replace([], V1)
        assert [place.numbers(p) for p in partitions] == [[], [1], [2]]
        assert place.table().files({"version": "v9.0.0", "run": "r1"}) == []

    def test_forgotten_keys_may_be_committed_again_and_others_not(self, place: Place) -> None:
        place.ensure()
        place.table().append([place.file("a", [Row(number=1)])], V1, key="run/a")
        place.table().append([place.file("b", [Row(number=2)])], V2, key="other/b")
        place.table().replace([], V1, forget="run/")
        place.table().append([place.file("a2", [Row(number=3)])], V1, key="run/a")
        place.table().append([place.file("b2", [Row(number=4)])], V2, key="other/b")
        assert (place.numbers(V1), place.numbers(V2)) == ([3], [2])

    @pytest.mark.parametrize(
        ("annotation", "values"),
        [
            (str, ["it's", "a/b ü"]),
            (int, [-1, 2**40]),
            (
                AwareDatetime,
                [dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC), dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)],
            ),
            (
                AwareDatetime,
                [dt.datetime(1969, 12, 31, 23, 59, 59, 500_000, dt.UTC), dt.datetime(1900, 1, 1, tzinfo=dt.UTC)],
            ),
        ],
        ids=["text", "integer", "instant", "instant before 1970"],
    )
    def test_partitions_of_every_type_in_use_are_found_again(self, place: Place, annotation: Any, values: Any) -> None:
        key = compile_model(create_model("Keyed", key=(annotation, ...))).schema["key"]
        place.catalog.ensure(SPACE, NAME, compile_model(Row).schema, [key])
        files = [place.file(str(i), [Row(number=i)]) for i in range(2)]
        for file, value in zip(files, values, strict=True):
            place.table().append([file], {"key": value}, key=file.uri)
        assert [place.table().files({"key": v}) for v in values] == [[f.uri] for f in files]
        assert [scan(place.table(), {"key": v}, keep=["key"]).collect()["key"].to_list() for v in values] == [
            [v] for v in values
        ]


def test_snapshots_stay_few_and_rows_stay_all_after_many_commits(place: Place) -> None:
    place.ensure()
    file_of = [place.file(str(i), [Row(number=i)]) for i in range(45)]
    table = place.table()
    most = 0
    for i, file in enumerate(file_of):
        table = table.append([file], V1, key=str(i))
        most = max(most, len(table.iceberg.snapshots()))
    assert most <= 22
    assert len(place.table().files(V1)) == 45
    assert place.numbers() == list(range(45))
    assert len(place.table().iceberg.metadata.metadata_log) <= 5
    place.table().append([file_of[0]], V1, key="0")
    assert len(place.table().files(V1)) == 45


class TestFolder:
    """What the folder catalog promises beyond the others: its files are Iceberg's own, found by the folder."""

    @pytest.fixture
    def place(self, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
        place = made_place(self.SORT, request, tmp_path, monkeypatch)
        place.ensure()
        return place

    SORT = "folder"

    METADATA = f"catalog/{SPACE}/{NAME}/metadata"
    HINT = f"{METADATA}/version-hint.text"

    def test_a_hint_that_lags_behind_is_no_more_than_a_hint_and_is_raised_by_the_next_committer(
        self, place: Place
    ) -> None:
        files = [place.file(str(i), [Row(number=i)]) for i in range(3)]
        for i, file in enumerate(files):
            place.table().append([file], V1, key=str(i))
        for broken in (b"1", b"not a number", b""):
            place.objects.write(self.HINT, broken)
            assert place.numbers() == [0, 1, 2]
            assert place.objects.read(self.HINT) == broken  # reading writes nothing
            place.table().append([files[0]], V1, key="0")  # nor does this have anything to commit
            assert place.objects.read(self.HINT) == b"4"

    def test_a_lost_hint_is_made_again(self, place: Place) -> None:
        place.table().append([place.file("a", [Row(number=1)])], V1, key="a")
        place.objects.delete([self.HINT])
        assert place.numbers() == [1]
        place.table().append([place.file("b", [Row(number=2)])], V1, key="b")
        assert place.objects.read(self.HINT) == b"3"

    def test_a_hint_before_the_oldest_version_that_is_left_is_survived(self, place: Place) -> None:
        place.table().append([place.file("a", [Row(number=1)])], V1, key="a")
        place.objects.delete([f"{self.METADATA}/v1.metadata.json"])
        place.objects.write(self.HINT, b"1")
        assert place.numbers() == [1]

    def test_namespaces_are_made_once_and_hold_properties(self, place: Place) -> None:
        catalog = place.catalog.iceberg
        assert catalog.list_namespaces() == [(SPACE,)]
        assert catalog.list_tables(SPACE) == [(SPACE, NAME)]
        with pytest.raises(NamespaceAlreadyExistsError):
            catalog.create_namespace(SPACE)
        with pytest.raises(NamespaceNotEmptyError):
            catalog.drop_namespace(SPACE)
        catalog.update_namespace_properties(SPACE, updates={"owner": "me"})
        assert catalog.load_namespace_properties(SPACE) == {"owner": "me"}
        place.catalog.drop(SPACE, NAME)
        catalog.drop_namespace(SPACE)
        assert not catalog.namespace_exists(SPACE)
        with pytest.raises(NoSuchNamespaceError):
            catalog.load_namespace_properties(SPACE)

    def test_a_table_lies_in_its_own_folder_and_nowhere_else(self, place: Place) -> None:
        schema = place.table().iceberg.schema()
        with pytest.raises(ValueError, match="lies at"):
            place.catalog.iceberg.create_table((SPACE, "other"), schema, location="file:///elsewhere")

    @pytest.mark.parametrize("name", ["with space", "ünï", "100%", "a#b", "a?b"])
    def test_a_root_of_any_name_will_do(
        self, name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = made_place(self.SORT, request, tmp_path, monkeypatch, name)
        place.ensure()
        place.table().append([place.file("a", [Row(number=1)])], V1, key="a")
        assert place.table().files(V1) == [place.objects.uri("data/a.pq")]
        assert place.numbers() == [1]

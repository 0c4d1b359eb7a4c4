"""Who works on what, by files alone: every open input is claimed once, whoever is faster, and the dead are known by what they left."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scythe
from scythe.engines.slurm import commands, opened
from scythe.engines.slurm.commands import Queued, check_time, flags
from scythe.engines.slurm.folder import NOTHING_STORED, Beat, Folder, Gone, Ticket, suspects, tried_alone
from scythe.engines.slurm.killed import condemned, killers
from scythe.engines.slurm.ref import told
from scythe.errors import RunError, SettingsError
from scythe.record import lease
from scythe.record.attempts import latest_attempt
from scythe.record.format import dump, parse
from scythe.record.layout import RunKey
from scythe_catalog.storage import disk
from scythe_catalog.storage.folder import Folder as StorageFolder
from scythe_catalog.storage.objects import Objects

KEY = RunKey("experiment", "v1.0.0", "2026-01-01_00-00-00")


def folder(root: Path) -> Folder:
    """The folder as one element sees it, which remembers nothing of the others."""
    return Folder(Objects.at(str(root)), KEY, 1)


@settings(max_examples=10)
@given(n=st.integers(0, 200), elements=st.integers(1, 5), sizes=st.lists(st.integers(-1, 40), min_size=1, max_size=6))
def test_elements_that_claim_at_once_part_the_inputs_among_them(
    tmp_path_factory: pytest.TempPathFactory, n: int, elements: int, sizes: list[int]
) -> None:
    root = tmp_path_factory.mktemp("claims")
    claimed: list[Ticket] = []

    def claim(me: int) -> None:
        own, wanted = folder(root), itertools.cycle(sizes)
        while (ticket := own.take(f"element {me}", n, lambda left, _: min(next(wanted), left), None)) is not None:
            claimed.append(ticket)

    everybody = [threading.Thread(target=claim, args=(me,)) for me in range(elements)]
    for one in everybody:
        one.start()
    for one in everybody:
        one.join()
    claimed.sort(key=lambda ticket: ticket.start)
    assert [i for ticket in claimed for i in range(ticket.start, ticket.stop)] == list(range(n))
    assert sorted(ticket.number for ticket in claimed) == list(range(len(claimed)))


class Late(StorageFolder):
    """A folder as a node sees it whose file system remembers for a while what was not there; its own files it sees at once."""

    def __init__(self, root: str, seconds: float) -> None:
        super().__init__(root)
        object.__setattr__(self, "own", set[str]())
        object.__setattr__(self, "seconds", seconds)

    def create(self, key: str, data: bytes) -> bool:
        made = super().create(key, data)
        if made:
            self.own.add(key)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        return made

    def exists(self, key: str) -> bool:
        return super().exists(key) and self._is_seen(key)

    def read(self, key: str) -> bytes:
        data = super().read(key)
        if not self._is_seen(key):
            raise FileNotFoundError(key)
        return data

    def files(self, prefix: str) -> list[str]:
        return [name for name in super().files(prefix) if self._is_seen(f"{prefix}/{name}")]

    def _is_seen(self, key: str) -> bool:
        age = time.time() - (self.folder / key).stat().st_mtime
        return key in self.own or age > self.seconds  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("seconds", [0.1, 0.6])
def test_nodes_that_see_each_others_files_late_claim_each_input_once_all_the_same(
    tmp_path: Path, seconds: float
) -> None:
    claimed: list[Ticket] = []

    def claim(me: int) -> None:
        own = Folder(Late(f"file://{tmp_path}", seconds), KEY, 1)
        while (ticket := own.take(f"element {me}", 60, lambda left, _: 4, None)) is not None:
            claimed.append(ticket)

    everybody = [threading.Thread(target=claim, args=(me,)) for me in range(3)]
    for one in everybody:
        one.start()
    for one in everybody:
        one.join()
    assert sorted(i for ticket in claimed for i in range(ticket.start, ticket.stop)) == list(range(60))


class Counting(StorageFolder):
    """A folder that counts what it is asked."""

    asked: ClassVar[Counter[str]] = Counter()

    def exists(self, key: str) -> bool:
        self.asked["exists"] += 1
        return super().exists(key)

    def read(self, key: str) -> bytes:
        self.asked["read"] += 1
        return super().read(key)

    def create(self, key: str, data: bytes) -> bool:
        self.asked["create"] += 1
        return super().create(key, data)


def test_an_element_that_comes_late_finds_the_newest_of_many_claims_by_a_few_looks(tmp_path: Path) -> None:
    early = folder(tmp_path)
    for _ in range(700):
        early.take("early", 1000, lambda left, _: 1, None)
    Counting.asked.clear()

    ticket = Folder(Counting(f"file://{tmp_path}"), KEY, 1).take("late", 1000, lambda left, _: 1, None)
    assert ticket is not None
    assert ticket.start == 700
    assert Counting.asked["create"] == Counting.asked["read"] == 1
    assert Counting.asked["exists"] <= 24  # twice the bits of 700, and a few


def test_the_newest_claim_tells_the_next_element_how_long_an_input_takes(tmp_path: Path) -> None:
    folder(tmp_path).take("one", 100, lambda left, each: 10, 0.5)
    seen: list[tuple[int, float | None]] = []

    def size(left: int, each: float | None) -> int:
        seen.append((left, each))
        return 5

    ticket = folder(tmp_path).take("two", 100, size, None)
    assert seen == [(90, 0.5)]
    assert ticket == Ticket(1, 10, 15, "two", 0.5)


def test_what_a_dead_element_had_is_taken_by_one_of_those_who_want_it(tmp_path: Path) -> None:
    own = folder(tmp_path)
    first = own.take("dead", 10, lambda left, each: 4, None)
    assert first is not None
    (ticket,) = own.unfinished()

    assert [folder(tmp_path).retake(ticket, who) for who in ("one", "two")] == [True, False]
    (now,) = folder(tmp_path).unfinished()
    assert (now.element, now.start, now.stop) == ("one", 0, 4)
    assert folder(tmp_path).age(now) < 60  # of whom no beat is seen yet, the claim tells
    own.done(now)
    assert own.unfinished() == []


def test_an_input_is_blamed_for_what_may_be_its_fault_alone() -> None:
    gone = [
        Gone("a", "OUT_OF_MEMORY", [1, 2]),
        Gone("b", "PREEMPTED", [3]),
        Gone("c", "CANCELLED", [4]),
        Gone("d", "OUT_OF_MEMORY", [2], exact=True),
        Gone("e", "NODE_FAIL", [2], exact=True),
        Gone("f", "FAILED", [2], exact=True),
        Gone("g", "UNKNOWN", [2], exact=True),
        Gone("h", "UNKNOWN", [9], exact=True),
        Gone("i", "OUT_OF_MEMORY", [1]),  # others may have begun since it told
    ]

    assert suspects(gone, range(100)) == [1, 2, 9]
    assert suspects(gone, [1, 3, 4]) == [1]
    assert tried_alone(gone) == {2: 2}  # what nobody can tell the reason of is no try


def test_of_an_input_that_kills_each_try_counts_of_which_something_is_known() -> None:
    gone = [
        Gone("before it told", "OUT_OF_MEMORY", [], at=8.0),
        Gone("beside another", "OUT_OF_MEMORY", [6, 7], exact=True, since=[10.0, 0.0], at=12.0),
        Gone("alone", "OUT_OF_MEMORY", [7], exact=True, since=[20.0], at=23.5),
        Gone("alone again", "FAILED", [7], exact=True, since=[30.0], at=31.0),
        Gone("moved", "NODE_FAIL", [7], exact=True, since=[40.0], at=41.0),
        Gone("of the other", "OUT_OF_MEMORY", [9], since=[50.0], at=52.0),
        Gone("of the other, alone", "TIMEOUT", [9], exact=True, since=[60.0], at=61.0),
    ]
    names = [one.element for one in gone]
    assert condemned(gone, [1, 7, 9], retries=0) == {7, 9}
    assert condemned(gone, [1, 9], retries=1) == set()

    seven, nine = killers(gone, {7, 9}, {7: [*names[:5], "of the other"], 9: [*names[:1], *names[5:]]})
    assert [one.element for one in seven.ends] == ["before it told", "beside another", "alone", "alone again"]
    assert (seven.began, seven.seconds) == (20.0, 4.5)
    assert seven.told == "Slurm ended the job that ran it, again and again: FAILED"
    assert [one.element for one in nine.ends] == ["of the other", "of the other, alone"]
    assert (nine.began, nine.seconds) == (50.0, 3.0)


def test_all_who_have_had_an_input_are_known(tmp_path: Path) -> None:
    own = folder(tmp_path)
    for element in ("one", "two"):
        own.take(element, 8, lambda left, each: 4, None)
    second = next(ticket for ticket in own.unfinished() if ticket.start == 4)
    own.retake(second, "three")
    own.done(second)

    assert own.holders([1, 5]) == {1: ["one"], 5: ["two", "three"]}
    assert own.holders([]) == {}


def test_the_first_who_says_how_an_element_died_is_believed(tmp_path: Path) -> None:
    for state in ("TIMEOUT", "FAILED"):
        folder(tmp_path).bury(Gone("a", state, [1]))

    assert folder(tmp_path).gone() == [Gone("a", "TIMEOUT", [1])]


@pytest.mark.parametrize("ahead", [-300.0, 0.0, 300.0])
def test_a_store_with_another_clock_tells_the_living_from_the_dead(
    tmp_path: Path, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, shown in (("show", disk.show), ("show_new", disk.show_new)):

        def dated(staged: Path, target: Path, how: Any = shown) -> Any:
            then = time.time() + ahead
            os.utime(staged, (then, then))
            return how(staged, target)

        monkeypatch.setattr(disk, name, dated)
    kept = folder(tmp_path)
    kept.beat(Beat("7_0-0", "8", "7", 0, "n1"))
    assert folder(tmp_path).living() == 1
    assert folder(tmp_path).age(Ticket(0, 0, 1, "7_0-0")) < 5
    kept.objects.write(KEY.manifest, b"{}")
    monkeypatch.setattr(lease, "_BEAT_SECONDS", 0.05)
    with lease.Lease(kept.objects, KEY, "slurm", run="slurm 1", number=1, shared_by=("slurm", 7)):
        record = f"{KEY.attempts}/000001.json"
        first = kept.objects.read_dated(record)[1]
        for _ in range(400):
            if kept.objects.read_dated(record)[1] > first:
                break
            time.sleep(0.05)
        assert kept.objects.read_dated(record)[1] > first
        last = latest_attempt(kept.objects, KEY, exact=True)
        assert last is not None
        assert last.alive


def test_a_beat_tells_at_what_an_element_is(tmp_path: Path) -> None:
    beat = Beat("7_0-0", "8", "7", 0, "n1", [3, 4])
    folder(tmp_path).beat(beat)

    assert folder(tmp_path).beats() == [beat]
    assert folder(tmp_path).age(Ticket(0, 0, 1, "7_0-0")) < 60
    assert folder(tmp_path).living() == 1


def test_what_slurm_wrote_of_an_earlier_job_says_nothing_of_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = folder(tmp_path)
    monkeypatch.setattr(commands, "state", lambda job: "FAILED")  # pyright: ignore[reportUnknownLambdaType]
    kept.logs.mkdir(parents=True)
    log = kept.logs / "element-0.log"
    log.write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    first, second = Beat("7_0-0", "8", "7", 0, "n1"), Beat("9_0-0", "9", "9", 0, "n1", log_at=log.stat().st_size)
    kept.beat(first)
    kept.beat(second)
    with log.open("a") as file:
        file.write("printed\nslurmstepd: error: something else\n")
    assert [opened.state_of(kept, beat) for beat in (first, second)] == ["OUT_OF_MEMORY", "FAILED"]
    third = Beat("10_0-0", "10", "10", 0, "n1", log_at=log.stat().st_size)
    kept.beat(third)
    with log.open("a") as file:
        file.write("slurmstepd: error: Detected 1 oom_kill event\n")
    assert [opened.state_of(kept, beat) for beat in (second, third)] == ["FAILED", "OUT_OF_MEMORY"]


@pytest.mark.parametrize(
    ("stored", "counted"),
    [({"rows": 4, "errors": 1, "kinds": []}, (4, 1)), ({**NOTHING_STORED}, (0, 0)), ({}, (0, 0))],
    ids=["some of it", "nothing", "nothing, as earlier versions told it"],
)
def test_what_a_dead_element_has_not_stored_is_counted_by_who_runs_it_again(
    tmp_path: Path, stored: dict[str, Any], counted: tuple[int, int]
) -> None:
    kept = folder(tmp_path)
    account = f"{kept.run.progress}/000001-7_0-0.json"
    kept.objects.write(account, dump({"rows": 5, "errors": 3, "kinds": [], "news": [["E", "text"]], "stored": stored}))
    kept.bury(Gone("7_0-0", "NODE_FAIL", [1]))
    after = parse(kept.objects.read(account), account)
    assert ((after["rows"], after["errors"]), after["news"]) == (counted, [["E", "text"]])


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ("MaxArraySize            = 1001\nSchedulerParameters     = (null)\n", 1001),
        ("MaxArraySize            = 1001\nSchedulerParameters     = bf_interval=30,max_array_tasks=40\n", 40),
        ("SchedulerParameters     = max_array_tasks=40\nMaxArraySize            = 8\n", 8),
        ("", 1001),
    ],
)
def test_an_array_has_as_many_elements_as_the_cluster_says(
    config: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_run", lambda command: config)  # pyright: ignore[reportUnknownLambdaType]
    assert commands.largest_array() == most


LONG_AGO = dt.datetime(2000, 1, 1, 14, 20)


@pytest.mark.parametrize(
    ("jobs", "text"),
    [
        ([], None),
        ([Queued("1_0", "RUNNING", "None", LONG_AGO), Queued("1_[1-9]", "PENDING", "Resources", None)], None),
        ([Queued("1", "PENDING", "None", None)], "Slurm job 1 is pending"),
        ([Queued("1", "PENDING", "QOSGrpNodeLimit", None)], "Slurm job 1 is pending (QOSGrpNodeLimit)"),
        (
            [Queued("2", "PENDING", "Dependency", None), Queued("1_[0-3]", "PENDING", "PartitionDown", None)],
            "Slurm job 1_[0-3] is pending (PartitionDown), the partition is down",
        ),
        ([Queued("2", "PENDING", "Dependency", None)], "Slurm job 2 is pending (Dependency), it waits for the others"),
        (
            [Queued("1", "PENDING", "Priority", LONG_AGO)],
            "Slurm job 1 is pending (Priority), others are before it, starts about 2000-01-01 14:20",
        ),
    ],
)
def test_what_the_queue_says_is_told_in_words(jobs: list[Queued], text: str | None) -> None:
    assert told(jobs) == text


def test_a_start_of_today_is_told_by_its_hour() -> None:
    days = [dt.date.today()]
    begins = dt.datetime.combine(days[0], dt.time(14, 20))
    said = told([Queued("1", "PENDING", "Priority", begins)])
    days.append(dt.date.today())  # at midnight it is yesterday's
    assert said in [
        f"Slurm job 1 is pending (Priority), others are before it, starts about {one}"
        for one in (["14:20"] if days[0] == days[1] else ["14:20", f"{days[0]} 14:20"])
    ]


def test_options_are_told_to_sbatch_as_it_has_them() -> None:
    options = scythe.SlurmOptions(
        partition="short",
        mem="4G",
        gpus=1,
        time="01:00:00",
        sbatch={"exclude": "n[1-3]", "exclusive": True, "no_kill": False},
    )

    wanted = ["--partition=short", "--time=01:00:00", "--mem=4G", "--gpus=1", "--exclude=n[1-3]", "--exclusive"]
    assert flags(options) == wanted
    assert flags(options, devices=False) == [flag for flag in wanted if not flag.startswith("--gpus")]


@pytest.mark.parametrize(
    "name", ["dependency", "array", "output", "wait", "--wrap", "job_name", "arr", "outp", "wra", "version", "help"]
)
def test_what_scythe_tells_sbatch_itself_is_no_option(name: str) -> None:
    with pytest.raises(SettingsError, match="is what Scythe tells sbatch itself: leave it out"):
        flags(scythe.SlurmOptions(sbatch={name: "x"}))


@pytest.mark.parametrize(
    ("time", "enough"),
    [
        ("2", False),
        ("1:59", False),
        ("0:01:00", False),
        ("3", True),
        ("00:02:01", True),
        ("1-0", True),
        ("2:30", True),
        ("UNLIMITED", True),
    ],
)
def test_a_time_limit_leaves_time_to_work(time: str, enough: bool) -> None:
    with contextlib.nullcontext() if enough else pytest.raises(SettingsError, match="leaves an element nothing beside"):
        check_time(scythe.SlurmOptions(time=time))


@pytest.mark.parametrize(
    ("said", "too_many"),
    [
        ("sbatch: error: AssocMaxSubmitJobLimit", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        ("sbatch: error: AssocGrpSubmitJobsLimit", True),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit", False),
        ("sbatch: error: Invalid partition specified: fast", False),
    ],
)
def test_fewer_elements_help_against_a_limit_on_their_number_alone(said: str, too_many: bool) -> None:
    common = "; Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    assert commands.is_too_many(RunError(said + common)) is too_many

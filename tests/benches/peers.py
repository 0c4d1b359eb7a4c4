"""Training's input beside other loaders: `python tests/benches/peers.py NAME=PYTHON ... [--modes disk bucket] [--rounds 3]`.

How fast 6,000 samples of 35 KB are fed in shuffled batches of 64, by Scythe and by each peer that is given with an interpreter that has it
(litdata, mds, wds, hf, lance, torch): first each of its ways once, then the best of them in turn with the others. `disk`: from its own
format, in the machine's memory after an epoch that does not count. `bucket`: from an S3 server of which each request waits 20 ms, with
nothing cached. Each epoch is checked by its number of rows, the first one by a sum over them, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from folder_s3 import FolderS3, folder_s3
from peer import BATCH, FILES, HOURS, MARK
from training import IDLE, series, touch_memory

DELAY, LIMIT = 0.02, 120.0
#: Sides that run in this interpreter.
OWN = ("gather", "scythe")
Setting = dict[str, Any]
Found = dict[str, float]


@dataclass(frozen=True, eq=False)
class Side:
    """A row of the tables."""

    title: str
    #: Whose interpreter and functions.
    peer: str
    #: Among what a sample is shuffled.
    mixed: str
    #: The ways to read of which the best is kept; the shards' size and what else the data depend on are in them.
    disk: list[Setting] = field(default_factory=list)
    bucket: list[Setting] = field(default_factory=list)


def each(**given: list[Any]) -> list[Setting]:
    """All combinations."""
    found: list[Setting] = [{}]
    for name, values in given.items():
        found = [{**setting, name: value} for setting in found for value in values]
    return found


SIDES = [
    Side("gather from a memory map", "gather", "all rows", [{}]),
    Side("Scythe, files", "scythe", "all rows", each(name=["plain"], ahead=[0, 2]), [{"name": "plain", "ahead": 4}]),
    Side("Scythe, packed", "scythe", "all rows", each(name=["packed"], ahead=[0, 2]), [{"name": "packed", "ahead": 4}]),
    Side("Scythe, packed, memory=64 MB", "scythe", "1,920 rows", [], [{"name": "packed", "ahead": 4, "memory": 64 << 20}]),
    Side("PyTorch, one array", "torch", "all rows", each(name=["array"], workers=[0, 2])),
    Side(
        "PyTorch, files", "torch", "all rows", each(name=["files"], workers=[0, 2], at_once=[False, True]),
        each(name=["files"], workers=[2, 4]),
    ),
    Side(
        "litdata", "litdata", "256 rows of a shard", each(megabytes=[8, 64], workers=[0, 2]),
        [*each(megabytes=[8, 64], workers=[0, 2]), *each(megabytes=[8], workers=[0, 2], max_pre_download=[16])],
    ),
    Side(
        "MDS", "mds", "all rows", each(megabytes=[64], workers=[None, 0, 2]),
        each(megabytes=[8, 64], workers=[0, 2], predownload=[4096]),
    ),
    Side(
        "WebDataset", "wds", "1,000 rows", each(megabytes=[8], workers=[0, 2]),
        [*each(megabytes=[8, 64], workers=[2, 4]), {"megabytes": 8, "workers": 2, "keep": True}],
    ),
    Side(
        "Hugging Face, map", "hf", "all rows",
        [{"way": "arrow"}, {"way": "numpy"}, {"way": "torch"}, {"way": "DataLoader", "workers": 2}],
    ),
    Side("Hugging Face, iterable", "hf", "1,000 rows", [{"way": "iterable"}]),
    Side(
        "Lance, take", "lance", "all rows",
        [*each(way=["take"], threads=[0, 2, 4]), *each(way=["get_safe_loader"], workers=[0, 2])],
        [*each(way=["take"], threads=[4, 16]), {"way": "get_safe_loader", "workers": 2}],
    ),
    Side("Lance, blocks of 64", "lance", "1,920 rows", [{"way": "blocks"}], each(way=["blocks"], readahead=[16, 64])),
]  # fmt: skip
LEFT_OUT = {
    "disk": [],
    "bucket": [
        "Hugging Face: its map-style datasets are read from a disk; to stream from a bucket it needs s3fs, which is not installed with it.",
        "PyTorch, one array: it has no reader of buckets. Its files are asked for by hand, by 32 threads over plain HTTP.",
    ],
}


class Runs:
    """Runs sides in the interpreters that are given, over the data of one folder."""

    def __init__(self, folder: Path, pythons: dict[str, str]) -> None:
        self.folder, self.pythons = folder, pythons
        #: CPU seconds of writing, by what was written.
        self.written: dict[str, float] = {}

    def child(
        self,
        side: Side,
        mode: str,
        setting: Setting,
        server: FolderS3 | None,
        between: Callable[[], None] | None = None,
    ) -> list[Found]:
        """What a child tells; it waits after the first until `between` has been called."""
        cached = self.folder / "cache"
        shutil.rmtree(cached, ignore_errors=True)
        env = {
            **os.environ,
            "SCYTHE_CACHE_DIR": str(cached),
            "AWS_EC2_METADATA_DISABLED": "true",
            "HF_HUB_OFFLINE": "1",
        }
        if side.peer not in OWN:
            env.pop("PYTHONPATH", None)
        for name in ("SCYTHE_STORAGE_ROOT", "SCYTHE_STORAGE_BUCKET"):
            env.pop(name, None)
        if server:
            address = server.environment
            env |= {**address, "S3_ENDPOINT_URL": address["AWS_ENDPOINT_URL"], "SCYTHE_STORAGE_BUCKET": "bucket"}
        else:
            env["SCYTHE_STORAGE_ROOT"] = str(self.folder / "root")
        command = [
            self.pythons[side.peer], str(Path(__file__).with_name("peer.py")), side.peer, mode, str(self.folder),
            json.dumps(setting),
        ]  # fmt: skip
        touch_memory()
        found = list[Found]()
        with (self.folder / "errors").open("w+") as errors, subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            deadline = threading.Timer(LIMIT, os.killpg, (process.pid, signal.SIGKILL))
            deadline.start()
            for line in process.stdout:
                if line.startswith(MARK):
                    found.append(json.loads(line.removeprefix(MARK)))
                    if between and len(found) == 1:
                        between()
                        with suppress(BrokenPipeError):
                            process.stdin.write("\n")
                            process.stdin.flush()
            failed = process.wait()
            deadline.cancel()
            if failed:
                errors.seek(0)
                said = [line.strip() for line in errors if line.strip()]
                raise RuntimeError(said[-1][:200] if failed > 0 and said else f"stopped after {LIMIT:.0f} s")
        return found

    def write(self, side: Side, mode: str, setting: Setting) -> None:
        """Writes what a side reads, once."""
        key = self.key(side, mode, setting)
        if key in self.written or side.peer == "gather":
            return
        if side.peer == "scythe" and mode == "bucket":
            with folder_s3(self.folder / "s3") as server:
                found = self.child(side, "write", setting, server)
        else:
            found = self.child(side, "write", setting, None)
        os.sync()
        self.written[key] = found[0]["cpu"]

    @staticmethod
    def key(side: Side, mode: str, setting: Setting) -> str:
        return f"{side.peer} {setting.get('name')} {setting.get('megabytes')} {mode if side.peer == 'scythe' else ''}"

    def measure(self, side: Side, mode: str, setting: Setting) -> Found:
        self.write(side, mode, setting)
        if mode == "disk":
            return self.child(side, mode, setting, None)[0]
        with folder_s3(self.folder / "s3", DELAY) as server:
            counted = Counter[str]()
            first, second = self.child(side, mode, setting, server, lambda: counted.update(server.counted))
        size = counted.pop("bytes")
        return {**first, "requests": sum(counted.values()), "MB": size / 1e6, "again": second["wall"]}

    def tried(self, side: Side, mode: str, setting: Setting) -> Found | None:
        """What was measured, or nothing and a line that says why."""
        try:
            return self.measure(side, mode, setting)
        except RuntimeError as error:
            print(f"  {side.title}, {shown(setting)}: left out: {error}", flush=True)
            return None

    def best_ways(self, mode: str) -> dict[Side, tuple[Setting, Found]]:
        """The best way of each side whose interpreter was given, of one run of each of its ways."""
        best = dict[Side, tuple[Setting, Found]]()
        for side in SIDES:
            settings = side.disk if mode == "disk" else side.bucket
            for setting in settings if side.peer in self.pythons else []:
                if found := self.tried(side, mode, setting):
                    print(f"  {side.title}, {shown(setting)}: {FILES / found['wall']:,.0f} samples/s", flush=True)
                    if side not in best or found["wall"] < best[side][1]["wall"]:
                        best[side] = (setting, found)
        return best

    def compare(self, mode: str, rounds: int) -> None:
        print(f"\n{mode}: each way once", flush=True)
        best = self.best_ways(mode)
        for _ in range(rounds):
            for side, (setting, found) in best.items():
                if again := self.tried(side, mode, setting):
                    best[side] = (setting, {name: min(found[name], again[name]) for name in found})
        print(f"\n{mode}: the best of {rounds + 1} runs, load {os.getloadavg()[0]:.1f}\n")
        (self.disk_table if mode == "disk" else self.bucket_table)(best)
        for sentence in LEFT_OUT[mode]:
            print(f"\nLeft out: {sentence}")

    def disk_table(self, best: dict[Side, tuple[Setting, Found]]) -> None:
        print("| | samples/s | of the gather | wall s | CPU s | CPU s to write | shuffled among | way |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        gather = next(found["wall"] for side, (_, found) in best.items() if side.peer == "gather")
        for side, (setting, found) in best.items():
            wrote = self.written.get(self.key(side, "disk", setting))
            share = f"{gather / found['wall']:.2f}" if IDLE else ""
            print(
                f"| {side.title} | {FILES / found['wall']:,.0f} | {share} | {found['wall']:.3f} "
                f"| {found['cpu']:.3f} | {'' if wrote is None else f'{wrote:.1f}'} | {side.mixed} | {shown(setting)} |"
            )

    def bucket_table(self, best: dict[Side, tuple[Setting, Found]]) -> None:
        print(
            "| | samples/s | first batch s | opened s | wall s | CPU s | requests | MB | samples/s, 2nd epoch | shuffled among | way |"
        )
        print("| --- " * 11 + "|")
        for side, (setting, found) in best.items():
            print(
                f"| {side.title} | {FILES / found['wall']:,.0f} | {found['first']:.2f} | {found['opened']:.2f} | {found['wall']:.2f} "
                f"| {found['cpu']:.2f} | {found['requests']:,.0f} | {found['MB']:,.0f} | {FILES / found['again']:,.0f} "
                f"| {side.mixed} | {shown(setting)} |"
            )


def shown(setting: Setting) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items()) or "-"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peers", nargs="*", metavar="NAME=PYTHON")
    parser.add_argument("--modes", nargs="+", choices=["disk", "bucket"], default=["disk", "bucket"])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    pythons: dict[str, str] = dict.fromkeys(OWN, sys.executable)
    pythons.update(peer.split("=", 1) for peer in given.peers)
    if unknown := set(pythons) - {side.peer for side in SIDES}:
        parser.error(f"No such peer: {', '.join(sorted(unknown))}.")
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"{FILES:,} samples of {HOURS:,} float32, batches of {BATCH}; in a bucket each request waits {DELAY * 1e3:.0f} ms"
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        (Path(folder) / "s3" / "bucket").mkdir(parents=True)
        np.save(f"{folder}/all.npy", np.stack([series(x) for x in range(FILES)]))
        runs = Runs(Path(folder), pythons)
        for mode in given.modes:
            runs.compare(mode, given.rounds)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

"""One run, uploaded: its name is taken at the other root, its files follow, then it is made a run there.

The manifest goes last, so that half a run is none. What an earlier try of the same run has sent is not sent again.
Never replaces what is there, and never changes the source; what an earlier try has sent, and was packed or is gone here since, is removed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import polars as pl

from scythe.errors import TransferError
from scythe.gather.parts import number_of
from scythe.gather.status import status_of
from scythe.record import layout
from scythe.record.attempts import attempts, check_free
from scythe.record.find import reserved
from scythe.record.format import dump
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import read_manifest
from scythe.record.reserve import owner_of
from scythe.record.results import RunResult, read_result
from scythe.runs.rebuild import take_in
from scythe.settings import engine_settings
from scythe.terminal.transfer import TransferProgress
from scythe.transfer.agreement import check_agrees
from scythe.transfer.chosen import Asked, frame_of, listed, records_and_tables
from scythe.transfer.held import check_whole, lacking, unnamed
from scythe_catalog.storage.objects import Objects

#: Files that are sent together.
_BATCH = 64
_UPLOAD = "upload"
_ANEW = "nothing was sent. Allocate the run anew, under another version"
#: What of a manifest is not of the run, but of the root that it lies in.
_PLACES = ("input_artifacts", "io_spec", "specs_uri")


class Sending:
    """One run on its way from a folder to another root."""

    def __init__(self, source: Objects, target: Objects, key: RunKey) -> None:
        self.source, self.target, self.key = source, target, key

    def is_wanted(self) -> bool:
        """Whether the run is to be sent: not where it is there with the same content.

        Raises:
            TransferError: its name or its version is taken there by another content, or it is damaged here.
            RunError: somebody works on it here.
            RunDamaged: a record of it is damaged, here or there.
        """
        check_free(self.source, self.key)
        if status_of(self.source, self.key) == "damaged":
            raise TransferError(f"{self.source.uri(self.key.path)} is damaged: restore it, or delete it, then upload")
        ours = self._is_ours()
        if self.target.exists(self.key.manifest):
            here, there = (identity(objects, self.key) for objects in (self.source, self.target))
            if ours:  # what has become of it there since stays
                there["parts"] = here["parts"]
            if here != there:
                raise TransferError(
                    f"{self.target.uri(self.key.path)} is there with another content: nothing was sent. What is there "
                    "stays: delete the run here, or allocate it anew, which gives it a name of its own"
                )
            if ours:  # it came to no end, by which it is one of the other root
                check_free(self.target, self.key)
                return True
            if (less := lacking(self.source, self.target, self.key)) is not None:
                raise TransferError(
                    f"{self.target.uri(self.key.path)} is there without {less} of what is here: nothing was sent. What is "
                    "there stays, and here is more of it: keep it here, upload it to another root, or allocate it anew"
                )
            return False
        known = reserved(self.target, self.key.experiment, self.key.version)
        if self.key in known.deleted:
            raise TransferError(f"{self.key.path} was deleted in {self.target.root}: its name is not given again")
        if self.key in known.taken and not ours:
            raise TransferError(f"the name {self.key.path} is taken in {self.target.root} by {self._taker()}")
        result = read_result(self.source, self.key)
        tables = result.tables if result is not None else ()
        check_agrees(self.source, self.target, self.key, result, tables, way_out=_ANEW)
        check_whole(self.source, self.key)
        return True

    def send(self, progress: TransferProgress) -> tuple[int, int]:
        """Sends the run, which is one of the other root then; how many files were sent, and how large [bytes].

        Raises:
            TransferError: its name was taken meanwhile.
            RunDamaged: what was sent cannot be read there.
        """
        if not self.target.create(self.key.reservation, dump({_UPLOAD: self._name()})) and not self._is_ours():
            raise TransferError(f"the name {self.key.path} was taken in {self.target.root} meanwhile")
        count, size, left = (0, 0, list[str]()) if self._was_worked_on() else self._send_files(progress)
        take_in(self.target, catalog_of(self.target, engine_settings().catalog), [self.key])
        left = unnamed(self.target, self.key, left)
        self.target.delete(left)
        for file in {key.rpartition("/")[0]: key for key in left}.values():
            self.target.delete_empty_folders(file)
        self.target.write(self.key.reservation, dump({}))  # no upload has to go on with it
        return count, size

    def _send_files(self, progress: TransferProgress) -> tuple[int, int, list[str]]:
        """Sends what is not there of the run, its manifest last; gives as well the output files there that only an earlier try can have sent."""
        wanted = self._files()
        there = frame_of(self.target.found(self.key.path)).select("key", "size")
        same = wanted.join(there, on=["key", "size"], how="semi")
        missing = wanted.join(
            same.filter(pl.Series(map(self._is_same, same["key"]), dtype=pl.Boolean)), on="key", how="anti"
        )
        count, size = missing.height, int(missing["size"].sum())
        progress.expect(size)
        keys: list[str] = missing.filter(pl.col("key") != self.key.manifest)["key"].to_list()
        for batch in [keys[i : i + _BATCH] for i in range(0, len(keys), _BATCH)] + [[self.key.manifest]]:
            assert self.source.folder is not None
            pairs = [(self.source.folder / key, key) for key in batch]
            self.target.take_in(pairs)
            progress.came(sum(path.stat().st_size for path, _ in pairs))
        left = there.join(wanted, on="key", how="anti")["key"]
        return count, size, left.filter(left.str.starts_with(f"{self.key.path}/results/")).to_list()

    def _was_worked_on(self) -> bool:
        """Whether the run, sent by an earlier try, was gone on with, or packed, at the other root: what it is there stays."""
        own = self.source.files(self.key.attempts)
        return self.target.exists(self.key.manifest) and any(
            name not in own or not self._is_same(f"{self.key.attempts}/{name}")
            for name in self.target.files(self.key.attempts)
        )

    def _files(self) -> pl.DataFrame:
        result = read_result(self.source, self.key)
        base = records_and_tables(listed(self.source, self.key), self.key, result, Asked())
        inner = [f for folder in ("results", "artifacts") for f in self.source.found(f"{self.key.path}/{folder}")]
        return pl.concat([base, frame_of(inner)])

    def _is_same(self, key: str) -> bool:
        """Whether a file of the same size that an earlier try has sent is this one: more may have become of the run's records since."""
        if key.startswith((f"{self.key.path}/results/", f"{self.key.path}/artifacts/", f"{layout.gathers(self.key)}/")):
            return True  # nothing that these name ever changes
        assert self.source.folder is not None
        return self.target.holds(key, self.source.folder / key)

    def _name(self) -> str:
        return hashlib.sha256(json.dumps(identity(self.source, self.key), sort_keys=True).encode()).hexdigest()

    def _taker(self) -> str:
        """Who has taken the name there, though there is no run of it, and what to do, in words."""
        clearing = f"`scythe delete {self.key.path}` with that root clears up behind it"
        if _UPLOAD not in owner_of(self.target, self.key):
            return f"an allocation: wait for it, or, if it was cut short, {clearing}"
        return (
            "an upload of another content: of this run as it was before it was gone on with here, say. It goes on, or was cut "
            f"short, and cannot be gone on with: once nobody is at it, {clearing}, and the run can be uploaded as it is now"
        )

    def _is_ours(self) -> bool:
        """Whether the name was taken by an upload of this very run, which came to no end."""
        return owner_of(self.target, self.key).get(_UPLOAD) == self._name()


def identity(objects: Objects, key: RunKey) -> dict[str, Any]:
    """What tells a run, and what it has come to, from another one of the same name, wherever it lies."""
    manifest = {k: v for k, v in read_manifest(objects, key).items() if k not in _PLACES}
    result = read_result(objects, key)
    return {"manifest": manifest, "result": _outcome(result), "parts": _unended(objects, key, result)}


def _unended(objects: Objects, key: RunKey, result: RunResult | None) -> list[list[Any]]:
    """The parts that are in no end of the run yet, each with the attempt that wrote it: in a copy another may have used its name."""
    ended = result.attempt if result is not None else -1  # what is reused is a part of attempt 0
    names = sorted(name for name in objects.files(key.parts) if name.endswith(".json") and number_of(name) > ended)
    by = {one.number: [*one.origin] for one in (attempts(objects, key) if names else ())}
    return [[name, by.get(number_of(name))] for name in names]


def _outcome(result: RunResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    # Not by which attempt: to pack files is one, too.
    told = {"inputs": result.inputs, "rows": result.rows, "errors": result.errors}
    return {**told, "finished": result.finished.isoformat()}


__all__ = ["Sending", "identity"]

"""One run, downloaded: its records and tables, the files that are asked for, then it is made a run of the root that it came to.

The manifest is put in its place last, so that half a run is none. Never changes the source.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.errors import NotFoundError, RunDamaged, ScytheError, StorageError, TransferError
from scythe.gather.publish import is_unpublished, name_anew, settle
from scythe.record.attempts import Attempt, attempts, check_free
from scythe.record.format import parse_as
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, check_not_lost, parse_result
from scythe.runs.rebuild import take_in
from scythe.terminal.transfer import TransferProgress
from scythe.transfer.agreement import check_agrees
from scythe.transfer.arrived import Arrivals, Ended
from scythe.transfer.chosen import Asked, Places, check, files_of, listed, looked_up, records_and_tables, tables_of
from scythe.transfer.copied import bring
from scythe_catalog.storage.objects import Objects

_ELSEWHERE = "nothing was fetched. Download to another folder"


@dataclass(frozen=True)
class Got:
    """What one run's download has brought (or would bring), and what was there already."""

    files: int = 0
    bytes: int = 0
    present: int = 0

    def __add__(self, other: Got) -> Got:
        return Got(self.files + other.files, self.bytes + other.bytes, self.present + other.present)


class Receiving:
    """One run on its way from its root to another one, which is a folder."""

    def __init__(self, source: Objects, local: Objects, key: RunKey, asked: Asked) -> None:
        self.source, self.local, self.key, self.asked = source, local, key, asked
        self.arrivals = Arrivals(local, key)
        #: How the last download left it.
        self.before = self.arrivals.ended()
        #: The attempts that earlier downloads have brought.
        self._earlier: list[Attempt] = []

    def look(self) -> Got:
        """What would be fetched; nothing is.

        Raises:
            TransferError: it would be refused: other content is there.
            RunError: somebody works on the run here.
            RunDamaged: a record or a table of the run is gone, or damaged.
        """
        with self._reading():
            base, result = self._begin()
            files = pl.concat([base, self._files(result)], how="diagonal")
            return _got(files, self.arrivals.missing(files))

    def receive(self, progress: TransferProgress) -> Got:
        """Fetches what is asked for and not there yet, and makes the run one of this root.

        Raises:
            TransferError: a file of the source is gone, changed or cut short, or the run was worked on in both places; or
                what had arrived was removed again meanwhile.
            RunError: somebody works on the run here.
            RunDamaged: a record or a table of the run is gone, or damaged.
            StorageError: the source cannot be reached, or the folder not be written.
        """
        with self._reading(), self.arrivals.locked():
            self._end_deletion()
            self.before = self.arrivals.ended()
            base, result = self._begin()
            tables = self._tables_here(result)
            got = self._bring(base, progress)
            files = self._files(result)
            got += self._bring(files, progress, self._digests())
            as_before = self.before is not None and self.before.settled and self.before.tables == tables
            if not as_before or not self._is_here():
                self._check_arrived(pl.concat([base, files], how="diagonal"))
                self._settle(result, tables)
            return got

    def _end_deletion(self) -> None:
        """Brings a deletion of the run here to its end that was killed: whoever ends it later would take away what arrives now."""
        if not self._is_here() and is_unpublished(self.local, self.key):
            settle(self.local, catalog_of(self.local), self.key)

    def _check_arrived(self, files: pl.DataFrame) -> None:
        """Nothing where all of these files are here.

        Raises:
            TransferError: one was removed since it came, or since it was counted among those that are here.
        """
        gone = self.arrivals.missing(files)
        if gone.height:
            more = f" (and {gone.height - 1:,} more)" if gone.height > 1 else ""
            raise TransferError(
                f"{self.local.uri(gone['key'][0])}{more} was removed while {self.key.path} was downloaded: does a deletion of the "
                "run go on here? Do the same again"
            )

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except ScytheError:
            raise
        except (FileNotFoundError, pa.ArrowException) as error:
            if str(getattr(error, "filename", None)).startswith(f"{self.local.folder}/"):
                raise self._unwritten(error) from error
            raise RunDamaged(f"the run {self.key.path} cannot be read: {error}") from error
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Any) -> StorageError:
        where = error.filename or self.local.root
        what = f"{self.key.path} cannot be downloaded to {self.local.root}: {error.strerror or error} ({where})"
        return StorageError(f"{what}. What has arrived stays: do the same again")

    # --- what there is ------------------------------------------------------------------------------

    def _begin(self) -> tuple[pl.DataFrame, RunResult | None]:
        """The records and tables that are asked for, and the result, once all of it may come here."""
        there = self._listed()
        result = self._result(there)
        self._earlier = self._arrived()
        base = records_and_tables(there, self.key, result, self.asked)
        self._check_may_come(base, result)
        check(Places(self.source, self.local, self.key, result), self.asked)
        return base, result

    def _listed(self) -> pl.DataFrame:
        there = listed(self.source, self.key)
        if self.key.manifest not in there["key"]:
            raise NotFoundError(f"there is no run {self.key.path} in {self.source.root} any more")
        return there

    def _result(self, there: pl.DataFrame) -> RunResult | None:
        """The result as it is at the source; what is here of it is not fetched again.

        Raises:
            RunDamaged: it is gone, or no result any more, or another of the run's records is gone.
        """
        record = there.filter(pl.col("key") == self.key.result)
        if not record.height:
            check_not_lost(self.source, self.key)
            self._check_there(there, self.key.specs, self.key.plan)
            return None
        raw = self.arrivals.record(self.key.result) if not self.arrivals.missing(record).height else None
        raw = raw if raw is not None else self.source.read(self.key.result)
        result = parse_result(raw, self.source.uri(self.key.result))
        of_gather = [self.key.gathered_files(result.gather)] if result.gather is not None else []
        self._check_there(there, self.key.specs, self.key.plan, *of_gather)
        return result

    def _check_there(self, there: pl.DataFrame, *keys: str) -> None:
        for key in keys:
            if key not in there["key"]:
                raise RunDamaged(f"{self.source.uri(key)} is gone: put it back, or delete the run")

    def _files(self, result: RunResult | None) -> pl.DataFrame:
        files = files_of(Places(self.source, self.local, self.key, result), self.asked)
        return looked_up(self.source, self.key, files, result.inputs if result is not None else files.height)

    def _tables_here(self, result: RunResult | None) -> tuple[str, ...] | None:
        """The tables that will be here: those that came before stay."""
        if result is None:
            return None
        kept = {name for name in (self.before.tables or () if self.before else ()) if name in result.tables}
        return tuple(sorted({*kept, *tables_of(result, self.asked)}))

    def _bring(self, files: pl.DataFrame, progress: TransferProgress, sha256: Mapping[str, str] | None = None) -> Got:
        missing = self.arrivals.missing(files)
        got = _got(files, missing)
        if got.files:
            self._unsettle(missing)
            progress.expect(got.bytes)
            bring(self.source, missing, self.arrivals, sha256 or {}, progress.came)
        return got

    def _unsettle(self, coming: pl.DataFrame) -> None:
        """Notes that whoever comes next has to settle what comes now.

        Parts lie at once where those are that an attempt here would write: from now on nobody goes on with the run here.
        """
        if (before := self.before) is None:
            return
        parts = bool(coming["key"].str.starts_with(f"{self.key.parts}/").any())
        self.before = replace(before, settled=False, whole=before.whole and not parts)
        self.arrivals.note(self.before)
        try:
            self._check_here(fresh=parts)
        except ScytheError:  # somebody has begun before that was noted
            self.arrivals.note(before)
            raise

    def _digests(self) -> dict[str, str]:
        """What the input files of the run were at its allocation."""
        place = self.arrivals.place(self.key.artifact_record)
        if not place.exists():
            return {}
        table = pl.from_arrow(pq.read_table(io.BytesIO(place.read_bytes()), columns=["uri", "sha256"]))
        assert isinstance(table, pl.DataFrame)
        known = table.drop_nulls().filter(~pl.col("uri").str.contains("://"))
        return {f"{self.key.path}/{uri}": digest for uri, digest in known.iter_rows()}

    # --- the root -----------------------------------------------------------------------------------

    def _is_here(self) -> bool:
        return self.local.exists(self.key.manifest)

    def _arrived(self) -> list[Attempt]:
        """The attempts as they came, of those that the run has here."""
        came = (self.arrivals.attempt(one.number) for one in attempts(self.local, self.key))
        return [one for one in came if one is not None]

    def _is_as_it_came(self) -> bool:
        """Whether nobody has worked on the run here: each attempt on it came, with an earlier download or with this one.

        How many there are tells nothing: after the same ones, another may have gone on with it at the source.
        """
        came = [*self._earlier, *self._arrived()]
        return all(any(one.is_same(other) for other in came) for one in attempts(self.local, self.key))

    def _check_may_come(self, base: pl.DataFrame, result: RunResult | None) -> None:
        """Nothing where the run is as its last download left it here, and its version has the same columns here."""
        coming = self.arrivals.missing(base)
        self._check_here(fresh=coming.height > 0)
        if coming.height:  # what has come was held against them then
            keys = set(coming["key"])
            tables = [name for name, table in result.tables.items() if table.key in keys] if result is not None else []
            check_agrees(self.source, self.local, self.key, result, tables, way_out=_ELSEWHERE)

    def _check_here(self, *, fresh: bool) -> None:
        """Nothing where the run is not there yet, or is as its last download left it."""
        if not self._is_here():
            return
        check_free(self.local, self.key)
        if self.before is None:
            raise TransferError(
                f"{self.local.uri(self.key.path)} is there, and no download has put it there: name another folder"
            )
        if self.before.source != self.source.root:
            raise TransferError(f"{self.local.uri(self.key.path)} came from {self.before.source}: name another folder")
        if fresh and not self._is_as_it_came():
            raise TransferError(
                f"{self.key.path} was worked on in {self.local.root} since it was downloaded, and what is asked for now "
                "would replace that: name another folder, or delete the run there"
            )

    def _settle(self, result: RunResult | None, tables: tuple[str, ...] | None) -> None:
        """Makes what has arrived a run of this root; can be repeated."""
        is_new = not self._is_here()
        if self._is_as_it_came():
            # Should this process be killed now, the next one knows who has put the run there, and that it is not whole.
            self.arrivals.note(
                Ended(self.source.root, False, self.before.tables if self.before else None, settled=False)
            )
            self._put_records(result, tables)
        else:  # it stays; references to the files that came follow
            plan = RunPlan.load(self.local, self.key)
            self.local.write(self.key.plan, replace(plan, root=self.source.root).to_json())
        if not is_new:
            name_anew(self.local, self.key)
        self.local.delete([self.key.tombstone])  # it may have been deleted here, and is wanted again
        own = catalog_of(self.local)  # a catalog of the environment is that of another root
        take_in(self.local, own, [self.key])
        self.arrivals.end(Ended(self.source.root, tables=tables))

    def _put_records(self, result: RunResult | None, tables: tuple[str, ...] | None) -> None:
        """The records of the run, as they came; its result without what was left out."""
        records = self.arrivals.records()
        last = {self.key.result, self.key.manifest}
        for name in records:
            if name in last or (raw := self.arrivals.record(name)) is None:
                continue
            if name.startswith(f"{self.key.attempts}/"):  # nobody works on it here
                attempt = parse_as(Attempt, raw, name)
                raw = raw if attempt.ended else replace(attempt, ended=True).to_json()
            self.local.write(name, raw)
        if result is not None and tables is not None:
            left = {n: self.source.uri(t.key) for n, t in result.tables.items() if n not in tables}
            kept = {n: t for n, t in result.tables.items() if n in tables}
            uris = {n: self.local.uri(t.key) for n, t in kept.items()}
            shown = result.model_copy(update={"tables": kept, "uris": uris, "left_out": {**result.left_out, **left}})
            self.local.write(self.key.result, shown.model_dump_json(indent=1).encode())
        manifest = self.arrivals.record(self.key.manifest)
        assert manifest is not None
        self.local.write(self.key.manifest, manifest)


def _got(files: pl.DataFrame, missing: pl.DataFrame) -> Got:
    return Got(missing.height, int(missing["size"].sum()), files.height - missing.height)


__all__ = ["Got", "Receiving"]

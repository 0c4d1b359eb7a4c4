"""`scythe.download` and `scythe.upload`: which runs go from where to where. What is done with each is told beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scythe.define.typed import Named
from scythe.errors import NotFoundError, TransferError
from scythe.gather.status import check_manifest, check_unfinished
from scythe.names import CATALOG
from scythe.reader.many_runs import is_all, wanted_runs
from scythe.reader.shown import check_passed_over
from scythe.reader.verbs import AskedRun, AskedVersion
from scythe.record.find import experiment_names, find_run, known_runs, listed, name_of, resolve_version, run_keys
from scythe.record.layout import RunKey, reservations
from scythe.remote.forks import check_fork
from scythe.settings import storage
from scythe.terminal.transfer import TransferProgress
from scythe_catalog.iceberg.place import as_made
from scythe_catalog.storage.objects import Objects

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Downloaded:
    """What `scythe.download` has brought, or would bring.

    Attributes:
        to: The folder, a Scythe root.
        runs: The runs, as `experiment/version/datetime`.
        files: How many files were fetched.
        bytes: How large they were together [bytes].
        present: How many of those asked for were there already, and were not fetched again.
    """

    to: Path
    runs: tuple[str, ...]
    files: int
    bytes: int
    present: int


@dataclass(frozen=True)
class Uploaded:
    """What `scythe.upload` has sent.

    Attributes:
        to: The URI of the root that it was sent to.
        runs: The runs that are new there, as `experiment/version/datetime`.
        skipped: The runs that were there already, with the same content.
        files: How many files were sent.
        bytes: How large they were together [bytes].
    """

    to: str
    runs: tuple[str, ...]
    skipped: tuple[str, ...]
    files: int
    bytes: int


def download(
    experiment: Named,
    to: str | Path,
    version: AskedVersion = None,
    *,
    run: AskedRun = None,
    tables: Sequence[str] | Literal["all"] = "all",
    files: Sequence[str] | Literal["all", False] = "all",
    where: pl.Expr | str | None = None,
    dry_run: bool = False,
) -> Downloaded:
    """Copies runs from the root into a folder, which is a Scythe root then: with only the files of the rows that are asked for.

    Tables come whole. A reference to a file that does not come along keeps its address. What is there already with the same
    size and tag is not fetched again, so an interrupted download goes on where it was, and another call adds to the folder.
    Sizes are checked, and of input files the sha256.

    Args:
        experiment: A name (with or without `scythe_experiment_`) or the registered function.
        to: The folder; it is made where it is not there.
        version: `"v1.2.0"`, a SemVer, None for the latest, or `"all"`.
        run: None for the version's latest finished run, `"all"`, or one run, finished or not, as `read` takes it.
        tables: `"all"`, or the names of those that are to come; beside files comes `result_file_refs`, which names them.
        files: `"all"`, the names of the fields of input and output files that are to come, or False for none.
        where: Only the files of these rows: a Polars expression of the columns of `scalars`, or a condition of SQL as text.
            Inputs that failed are not among them.
        dry_run: Look how much it would be, and fetch nothing.

    Returns:
        The folder and its runs, how many files came, and how many were there.

    Raises:
        NotFoundError: there is no such experiment, version, run, table, field or column; the message lists what is.
        VersionError: `version` is none.
        ReadError: `tables`, `files` or `where` make no sense.
        TransferError: a file of the source is gone, changed or cut short; or another run, or other content, is there under the name.
        RunError: somebody works on the run in the folder.
        RunDamaged: a file of the run is damaged.
        StorageError: the root cannot be reached, or the folder not be written.
        ForkError: in a process that was forked beside running threads.

    Examples:
        >>> import scythe
        >>> scythe.download("simulate_energy", "few", files=["hourly"], where=pl.col("r_value") < 3).present
        0
        >>> len(list(Path("few").rglob("results/hourly/*")))
        1
    """
    from scythe.transfer.chosen import asked_of
    from scythe.transfer.received import Got, Receiving

    check_fork()
    source, folder, name = storage(), folder_at(to), name_of(experiment)
    local = as_made(Objects.at(folder), CATALOG)
    if source.folder is not None and source.folder.resolve() == folder.resolve():
        raise TransferError(f"{folder} is the root itself: name another folder")
    asked = asked_of(tables, files, where)
    keys = _runs(source, name, version, run)
    got = Got()
    if not dry_run:
        local.make()
    with TransferProgress(name) as progress:
        for key in keys:
            one = Receiving(source, local, key, asked)
            got += one.look() if dry_run else one.receive(progress)
    return Downloaded(folder, tuple(key.path for key in keys), got.files, got.bytes, got.present)


def _runs(source: Objects, name: str, version: AskedVersion, run: AskedRun) -> list[RunKey]:
    """The runs that are asked for, found by their names alone: none of their files is read."""
    if is_all(version) or is_all(run):
        keys = wanted_runs(source, name, version, run)
        for key in (missing := {key for key in keys if not source.exists(key.manifest)}):
            check_manifest(source, key)
        return [key for key in keys if key not in missing]
    if run is not None:
        return [find_run(source, name, version, run)]
    of = resolve_version(source, name, version)
    keys, known = known_runs(source, name, of)
    for key in reversed(keys):
        if source.exists(key.result) and source.exists(key.manifest):
            check_passed_over(source, key, known, source.folders(reservations(name)) if version is None else ())
            return [key]
        check_unfinished(source, key)
    raise NotFoundError(
        f"{name} {of} has no finished run; its runs: {listed([key.folder for key in keys])}. "
        "Name one with run= to download what it has so far"
    )


def folder_at(to: str | Path) -> Path:
    """Where something is to be downloaded to.

    Raises:
        TransferError: it is no folder, but a bucket, or an empty text: a variable of the shell that is not set, say.
    """
    if not str(to).strip():
        raise TransferError("an empty text is no folder to download to: name one, '.' for the working folder")
    objects = Objects.at(to)
    if objects.folder is None:
        raise TransferError(f"{objects.root} is no folder: download to one, then upload that")
    return objects.folder


def upload(here: str | Path) -> Uploaded:
    """Copies the runs of a folder, a Scythe root, to the root of the settings.

    A run of which all is there already is skipped. One whose name is taken there by another content, or of which less is there,
    is refused before anything is sent. An interrupted upload goes on where it was.

    Args:
        here: The folder, as `scythe.download` makes one, or a root of your own.

    Returns:
        The runs that are new there, those that were there, how many files were sent.

    Raises:
        NotFoundError: there is no run in the folder.
        TransferError: a run's name, or its version, is taken by another content, or by less of the run; or a file that it names is gone.
        RunError: somebody works on a run.
        RunDamaged: a file of a run is damaged.
        StorageError: the root cannot be reached or written.
        ForkError: in a process that was forked beside running threads.

    Examples:
        >>> import os, scythe
        >>> there = scythe.download("simulate_energy", "copy").to
        >>> os.environ["SCYTHE_STORAGE_ROOT"] = "shared"
        >>> sent = scythe.upload(there)
        >>> len(sent.runs), scythe.read("simulate_energy")["heating"].to_list()
        (1, [40.0, 20.0, 10.0])
        >>> scythe.upload(there).files
        0
    """
    from scythe.transfer.sent import Sending

    check_fork()
    if not str(here).strip():
        raise TransferError("an empty text is no folder to upload: name one, '.' for the working folder")
    source, target = as_made(Objects.at(here), CATALOG), storage()
    if source.folder is None:
        raise TransferError(f"{source.root} is no folder: upload takes one")
    if target.folder is not None and target.folder.resolve() == source.folder.resolve():
        raise TransferError(
            f"{source.folder} is the root itself: set SCYTHE_STORAGE_ROOT or SCYTHE_STORAGE_BUCKET to another"
        )
    there = (key for name in experiment_names(source) for key in run_keys(source, name))
    keys = [key for key in there if source.exists(key.manifest)]
    if not keys:
        raise NotFoundError(f"there is no run in {source.folder}: name a folder that scythe.download has made")
    all_ = [Sending(source, target, key) for key in keys]
    wanted = [one for one in all_ if one.is_wanted()]  # all are looked at before the first is sent
    target.make()
    files = size = 0
    with TransferProgress(target.root) as progress:
        for one in wanted:
            sent = one.send(progress)
            files, size = files + sent[0], size + sent[1]
    runs = tuple(one.key.path for one in wanted)
    return Uploaded(target.root, runs, tuple(k.path for k in keys if k.path not in runs), files, size)


__all__ = ["Downloaded", "Uploaded", "download", "upload"]

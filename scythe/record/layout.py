"""Where everything of a run lies: names in, keys out. Pure; nothing here reads or writes.

<experiment>/<version>/<datetime>/manifest.yml ...     the user's folder, as the specification draws it
_catalog/<experiment>/<table>/                         the Iceberg tables
_catalog/<experiment>/_versions/<version>.json         which versions are taken, and their schemas
_catalog/<experiment>/_dataframes/<name>/<version>     which columns the dataframes of a version have
_catalog/<experiment>/_runs/<version>/<datetime>       which run folders are taken
                                      <datetime>.n<N>  which run of its version it is
                                      <datetime>.deleted   that it was deleted: its name is never given to another
_catalog/<experiment>/_downloads/<version>~<datetime>/         what of a run has come from another root
_catalog/<experiment>/_keys/<hash>/<number>.json      which run was allocated with a caller's key
_catalog/<experiment>/_unpublished/<version>~<datetime>~<by>   whose newest result the catalog may not show yet
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from scythe.names import CATALOG
from scythe_catalog.names import composed

MANIFEST = "manifest.yml"
RESULT = "scatter-gather/output/result.json"
CANCELLED = "scatter-gather/output/cancelled.json"
DATETIME_FORMAT = "%Y-%m-%d_%H-%M-%S"

_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)_(\d\d)-(\d\d)-(\d\d)", re.ASCII)
#: How the folders of a run, that of its version and its own, look within an address.
FOLDERS = r"v[^/]+/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
#: Names in the folder of a version's reservations.
RESERVATION = re.compile(r"(?P<folder>[\d_-]+)(?:\.n(?P<number>\d+)|(?P<deleted>\.deleted))?", re.ASCII)


def folder_of(moment: dt.datetime) -> str:
    """A run's folder: its UTC start in whole seconds."""
    return moment.astimezone(dt.UTC).strftime(DATETIME_FORMAT)


def moment_of(folder: str) -> dt.datetime:
    """The UTC start that a run's folder names; raises ValueError for any other name."""
    found = _MOMENT.fullmatch(folder)
    if found is None:
        raise ValueError(f"{folder!r} is no moment such as 2026-01-31_08-15-00")
    year, month, day, hour, minute, second = map(int, found.groups())
    return dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)


def is_run_folder(name: str) -> bool:
    """Whether a folder's name is a run's, written as `folder_of` writes it."""
    try:
        moment_of(name)
    except ValueError:
        return False
    return True


def reservations(experiment: str) -> str:
    """The folder that tells which run folders of an experiment are taken, by version."""
    return f"{CATALOG}/{experiment}/_runs"


def version_records(experiment: str) -> str:
    """The folder that tells which versions are taken."""
    return f"{CATALOG}/{experiment}/_versions"


def version_record(experiment: str, version: str) -> str:
    """The key that reserves a version."""
    return f"{version_records(experiment)}/{version}.json"


def keyed(experiment: str, key: str, number: int) -> str:
    """The record of which run a caller's key names; the highest number counts."""
    hashed = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{CATALOG}/{experiment}/_keys/{hashed}/{number:06d}.json"


def unpublished_folder(experiment: str) -> str:
    """The folder that names the runs whose newest result the catalog may not show yet."""
    return f"{CATALOG}/{experiment}/_unpublished"


@dataclass(frozen=True, order=True)
class RunKey:
    """Which run: experiment, version (`v1.2.0`) and folder (`2025-07-23_12-59-51`)."""

    experiment: str
    version: str
    folder: str

    @property
    def path(self) -> str:
        """The run's folder below the root; also its `experiment_id`."""
        return f"{self.experiment}/{self.version}/{self.folder}"

    @property
    def moment(self) -> dt.datetime:
        """The run's UTC start."""
        return moment_of(self.folder)

    @property
    def partition(self) -> dict[str, object]:
        """The partition of this run in every table."""
        return {"version": self.version, "run_datetime": self.moment}

    @property
    def reservation(self) -> str:
        """The key that reserves the run's folder."""
        return f"{reservations(self.experiment)}/{self.version}/{self.folder}"

    @property
    def tombstone(self) -> str:
        """The key that says that the run was deleted."""
        return f"{self.reservation}.deleted"

    def numbered(self, number: int) -> str:
        """The key that says which run of its version it is: the order of runs that no clock decides."""
        return f"{self.reservation}.n{number:06d}"

    @property
    def manifest(self) -> str:
        return f"{self.path}/{MANIFEST}"

    def provenance(self, attempt: int) -> str:
        """Which code, packages and machine worked on the run in an attempt; 0 is its allocation."""
        return f"{self.path}/scatter-gather/input/provenance/{attempt:06d}.json"

    @property
    def io_spec(self) -> str:
        return f"{self.path}/experiment_io_spec.yml"

    @property
    def input_artifacts(self) -> str:
        return f"{self.path}/input_artifacts.yml"

    @property
    def artifact_record(self) -> str:
        """What each input file was at allocation: name, size, sha256, and where it came from."""
        return f"{self.path}/scatter-gather/input/artifacts.pq"

    @property
    def workflow_spec(self) -> str:
        return f"{self.path}/workflow_spec.yml"

    @property
    def specs(self) -> str:
        return f"{self.path}/specs.pq"

    @property
    def plan(self) -> str:
        """How the run is executed: written before its start, never changed."""
        return f"{self.path}/scatter-gather/input/plan.json"

    @property
    def result(self) -> str:
        """What the run came to: its existence says that it is finished."""
        return f"{self.path}/{RESULT}"

    @property
    def cancelled(self) -> str:
        return f"{self.path}/{CANCELLED}"

    @property
    def attempts(self) -> str:
        """The folder in which each process that worked on the run left its record."""
        return f"{self.path}/scatter-gather/input/attempts"

    @property
    def parts(self) -> str:
        """The folder of finished rows on their way to `final/`."""
        return f"{self.path}/scatter-gather/output/parts"

    def attempt_plan(self, number: int) -> str:
        """What an attempt on a cluster is to do: which inputs, with which code. The folder keeps its first name."""
        return f"{self.path}/scatter-gather/input/turns/{number:06d}.json"

    def shape(self, number: int) -> str:
        """How the inputs of an attempt on a cluster are spread: written before its nodes are triggered."""
        return f"{self.path}/scatter-gather/input/turns/{number:06d}-shape.json"

    def trigger(self, number: int) -> str:
        """Which run of the engine an attempt on a cluster was triggered as."""
        return f"{self.path}/scatter-gather/input/turns/{number:06d}-trigger.json"

    def alone(self, number: int, path: Iterable[int]) -> str:
        """Says of which nodes below it a node of an attempt on a cluster runs the leaves itself."""
        return f"{self.path}/scatter-gather/input/turns/{number:06d}-alone-{'_'.join(map(str, path))}.json"

    def begun(self, number: int) -> str:
        """The folder in which leaves of an attempt note what they begin, where their workers were lost before."""
        return f"{self.path}/scatter-gather/output/begun/{number:06d}"

    def failure(self, number: int) -> str:
        """Why an attempt on a cluster came to no end."""
        return f"{self.path}/scatter-gather/input/turns/{number:06d}-failure.json"

    @property
    def progress(self) -> str:
        """The folder in which scatter nodes tell how far they are."""
        return f"{self.path}/scatter-gather/output/progress"

    def artifact(self, field: str, name: str) -> str:
        return f"{self.path}/artifacts/{composed(field)}/{name}"

    def output_file(self, field: str, name: str) -> str:
        return f"{self.path}/results/{composed(field)}/{name}"

    def shard(self, name: str) -> str:
        """A file that holds many output files; no field is called as its folder is."""
        return f"{self.path}/results/_shards/{name}"

    def final(self, table: str) -> str:
        """The newest rows of a table, for people: another name of the newest gather's file."""
        return f"{self.path}/final/{table}.pq"

    def gathered(self, gather: str, table: str) -> str:
        """The rows of a table as one gather wrote them: never changed."""
        return f"{gathers(self)}/{gather}/{table}.pq"

    def gathered_files(self, gather: str) -> str:
        """What the catalog needs to know of the files of one gather."""
        return f"{gathers(self)}/{gather}/files.json"

    @property
    def arrivals(self) -> str:
        """The folder that says what of it has come from another root."""
        return f"{CATALOG}/{self.experiment}/_downloads/{self.version}~{self.folder}"

    @property
    def arrived(self) -> str:
        """Lists the files that have come, a line each."""
        return f"{self.arrivals}/arrived.tsv"

    @property
    def arrivals_ended(self) -> str:
        """There once all files of one download have come."""
        return f"{self.arrivals}/ended.json"

    def unpublished(self, by: str) -> str:
        """There from before something is done to a run that the catalog does not show yet, until it does: by whom."""
        return f"{unpublished_folder(self.experiment)}/{self.version}~{self.folder}~{by}"


def leaf_run_prefix(experiment_id: str) -> str:
    """What the `workflow_run_id`s of a run begin with; twelve or more digits of the sort index follow."""
    import uuid

    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"scythe:{experiment_id}"))[:24]


def gathers(key: RunKey) -> str:
    """The folder of all gathers of a run."""
    return f"{key.path}/scatter-gather/output/gathers"


def no_plan_left(key: RunKey) -> str:
    """What to do about a run whose plan nobody has any more: nothing can go on with it."""
    return f"allocate its inputs anew ({key.specs.rpartition('/')[2]} in its folder holds them), and delete it: `scythe delete {key.path}`"

"""Runs by their names: `open_run`, and a run from its key, whatever is wrong with it. Changes nothing."""

from __future__ import annotations

import datetime as dt

from scythe.define.typed import Named
from scythe.record.find import find_run, latest_run, name_of, split_name
from scythe.record.layout import RunKey
from scythe.record.manifest import label_of, manifest_told
from scythe.record.versions import SemVer
from scythe.runs.run import ExperimentRun
from scythe.settings import storage
from scythe_catalog.storage.objects import Objects


def load_run(objects: Objects, key: RunKey) -> ExperimentRun:
    """The run of a key, whatever is wrong with it: what its manifest does not tell is left out."""
    manifest = manifest_told(objects, key)
    inputs, (note, tags) = manifest.get("inputs"), label_of(manifest)
    run = ExperimentRun(
        experiment=key.experiment,
        experiment_id=key.path,
        version=key.version,
        run_datetime=key.moment,
        uri=objects.uri(key.path),
        workflow_run_id=manifest.get("workflow_run_id"),
        inputs=inputs if isinstance(inputs, int) else 0,
        note=note,
        tags=tags,
    )
    return run.below(objects)


def open_run(
    experiment: Named, version: str | SemVer | None = None, run: str | dt.datetime | ExperimentRun | None = None
) -> ExperimentRun:
    """A run by its name: the latest of the latest version, unless told otherwise. Finished or not.

    Args:
        experiment: A name (with or without `scythe_experiment_`), a registered function, `experiment/version`, or a whole
            `experiment/version/datetime`.
        version: As text or SemVer; None is the latest, or the one that has the run.
        run: Its folder's name, its datetime, or the whole name; None is the version's latest, finished or not.

    Returns:
        The run, as `allocate` gave it.

    Raises:
        NotFoundError: it is not there, or several versions have one of this name; the message lists what is.
        VersionError: the version is none.
        SettingsError: a setting makes no sense.
        StorageError: the root cannot be reached.

    Examples:
        >>> import scythe
        >>> run = scythe.open_run("simulate_energy", "v1.0.0")
        >>> scythe.open_run(run.experiment_id).status
        'finished'
    """
    if isinstance(experiment, str) and version is None and run is None and "/" in experiment:
        experiment, version, run = split_name(experiment)
    objects, name = storage(), name_of(experiment)
    if run is None:
        return load_run(objects, latest_run(objects, name, version))
    return load_run(objects, find_run(objects, name, version, run, whatever=True))

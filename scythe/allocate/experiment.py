"""`BaseExperiment`: what there is of an experiment, and `allocate`, which validates, reserves, stores and starts a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from scythe.allocate.allocation import allocated, use_client
from scythe.allocate.arguments import (
    check_arguments,
    checked_key,
    checked_note,
    checked_pack,
    checked_rename,
    checked_reuse,
    checked_tags,
)
from scythe.allocate.current import check_latest, tell_edited
from scythe.allocate.inputs import prepare_inputs
from scythe.allocate.store import Request
from scythe.allocate.trial import Trial
from scythe.allocate.try_out import try_out
from scythe.define.experiment import Experiment
from scythe.define.typed import Named
from scythe.engines.engine import RunRef
from scythe.engines.options import EngineName, EngineOptions
from scythe.engines.start import choose
from scythe.errors import AllocationError, NotFoundError
from scythe.names import check_experiment_name
from scythe.record import find
from scythe.record.plan import MaxErrors
from scythe.record.results import finished_result
from scythe.record.versions import SemVer, VersioningStrategy
from scythe.registry import experiment_of
from scythe.reuse.owners import files_elsewhere
from scythe.runs.open import load_run
from scythe.runs.run import ExperimentRun
from scythe.scatter_gather import RecursionMap
from scythe.settings import engine_settings, storage
from scythe.source import loading


class BaseExperiment:
    """An experiment that is ready to be allocated: what there is of it under the root, and `allocate`, which starts a run.

    Args:
        experiment: A registered function or class, or its name.
        runnable: The same, or a Hatchet runnable that was given to `ExperimentRegistry.Include`.
        run_name: Folder of its runs, in place of the experiment's name.

    Attributes:
        experiment: The registered `Experiment`.
        name: The folder of its runs, below the root.

    Raises:
        NotFoundError: it is not registered.
        AllocationError: neither or both of `experiment` and `runnable` are given, or `run_name` can be no folder, or begins with `scythe_experiment_`.

    Examples:
        >>> from scythe import BaseExperiment
        >>> experiment = BaseExperiment(simulate_energy)
        >>> run, ref = experiment.allocate(pl.DataFrame({"r_value": [2.0, 4.0]}), version="bumpminor")
        >>> ref.result().rows, run.version
        (2, 'v1.1.0')
    """

    def __init__(
        self, experiment: Named | None = None, *, runnable: Named | None = None, run_name: str | None = None
    ) -> None:
        if (experiment is None) == (runnable is None):
            raise AllocationError("give either experiment= or runnable=")
        self.experiment: Experiment = experiment_of(experiment if experiment is not None else runnable)
        self.name = (
            check_experiment_name(run_name, "a run", AllocationError) if run_name is not None else self.experiment.name
        )

    def __repr__(self) -> str:
        return f"<BaseExperiment {self.name}: {self.experiment.input_model.__name__} -> {self.experiment.output_model.__name__}>"

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Another of the same experiment, `deep` or not: the function is the same one, never a copy.

        Args:
            update: `run_name`, to give the copy's runs a folder of their own.
            deep: Changes nothing.

        Raises:
            AllocationError: `update` has anything else, or a `run_name` that is none.

        Examples:
            >>> from scythe import BaseExperiment
            >>> BaseExperiment(simulate_energy).model_copy(update={"run_name": "winter"}).name
            'winter'
        """
        given = {"run_name": self.name, **(update or {})}
        if unknown := given.keys() - {"run_name"}:
            raise AllocationError(f"model_copy(update=...) takes run_name alone, not {', '.join(sorted(unknown))}")
        return type(self)(self.experiment, run_name=given["run_name"])

    # --- what is there ------------------------------------------------------------------------------

    def list_versions(self) -> list[SemVer]:
        """All versions that have a folder, lowest first. One of which all runs were deleted has none.

        Raises:
            SettingsError: a setting makes no sense.
            StorageError: the root cannot be reached.

        Examples:
            >>> from scythe import BaseExperiment
            >>> [str(version) for version in BaseExperiment(simulate_energy).list_versions()]
            ['v1.0.0']
        """
        return find.version_names(storage(), self.name)

    def latest_version(self) -> SemVer | None:
        """The highest of `list_versions()`, None where there is none.

        Raises:
            SettingsError: a setting makes no sense.
            StorageError: the root cannot be reached.

        Examples:
            >>> from scythe import BaseExperiment
            >>> str(BaseExperiment(simulate_energy).latest_version())
            'v1.0.0'
        """
        versions = self.list_versions()
        return versions[-1] if versions else None

    def list_runs(self, version: str | SemVer | None = None, *, tag: str | None = None) -> list[ExperimentRun]:
        """The runs of a version (of all versions without one), oldest first; of several versions the lowest version first.

        Args:
            version: Text or SemVer; None for all.
            tag: Only those that were allocated with it.

        Returns:
            Finished or not; empty where there is no such version.

        Raises:
            VersionError: `version` is none.
            SettingsError: a setting makes no sense.
            StorageError: the root cannot be reached.

        Examples:
            >>> from scythe import BaseExperiment
            >>> [run.status for run in BaseExperiment(simulate_energy).list_runs("v1.0.0")]
            ['finished']
        """
        objects = storage()
        wanted = [SemVer.parse(version)] if version is not None else self.list_versions()
        keys = find.run_keys(objects, self.name, wanted)
        runs = [load_run(objects, key) for key in keys if objects.exists(key.manifest)]
        return [run for run in runs if tag is None or tag in run.tags]

    def latest_run(self, version: str | SemVer | None = None) -> ExperimentRun | None:
        """The latest run of a version (of the latest version without one), finished or not; None where there is none.

        Args:
            version: Text or SemVer; None for the highest that has a run.

        Raises:
            VersionError: `version` is none.
            SettingsError: a setting makes no sense.
            StorageError: the root cannot be reached.

        Examples:
            >>> from scythe import BaseExperiment
            >>> BaseExperiment(simulate_energy).latest_run().inputs
            3
        """
        objects = storage()
        try:
            return load_run(objects, find.latest_run(objects, self.name, version))
        except NotFoundError:
            return None

    def latest_results(self) -> dict[str, str]:
        """Table name -> URI of its Parquet file, of the latest finished run of the latest version that has one; empty where none has.

        Raises:
            RunDamaged: the result of a run is damaged.
            FormatError: it was written by a later Scythe.
            SettingsError: a setting makes no sense.
            StorageError: the root cannot be reached.

        Examples:
            >>> from scythe import BaseExperiment
            >>> sorted(BaseExperiment(simulate_energy).latest_results())
            ['errors', 'monthly', 'result_file_refs', 'scalars', 'tasks']
        """
        for version in reversed(self.list_versions()):
            found = self.latest_results_for_version(version)
            if found:
                return found
        return {}

    def latest_results_for_version(self, version: str | SemVer) -> dict[str, str]:
        """Table name -> URI of its Parquet file, of the latest finished run of a version; empty where there is none.

        Args:
            version: Text or SemVer.

        Raises:
            VersionError: `version` is none.
            RunDamaged: the result of a run is damaged.
            FormatError: it was written by a later Scythe.
            SettingsError: a setting makes no sense.
            StorageError: the root cannot be reached.

        Examples:
            >>> from scythe import BaseExperiment
            >>> BaseExperiment(simulate_energy).latest_results_for_version("v1.0.0")["scalars"].endswith("scalars.pq")
            True
        """
        objects, named = storage(), str(SemVer.parse(version))
        for key in reversed(find.run_keys(objects, self.name, [named])):
            result = finished_result(objects, key)
            if result is not None:
                return result.uris
        return {}

    def list_results_files(self, run: ExperimentRun | None = None) -> list[str]:
        """URIs of all output files of a run (of the latest without one).

        Args:
            run: What `allocate`, `list_runs` or `scythe.open_run` gave; None for `latest_run()`.

        Returns:
            One URI for each stored file, those in the folders of runs whose rows it has reused included; empty where there is no run. Which input a file belongs to is told by `scythe.files`.

        Raises:
            SettingsError: a setting makes no sense.
            StorageError: the root cannot be reached.

        Examples:
            >>> from scythe import BaseExperiment
            >>> len(BaseExperiment(simulate_energy).list_results_files())
            3
        """
        run = run or self.latest_run()
        if run is None:
            return []
        own = [run.objects.uri(k) for k in run.objects.keys(f"{run.key.path}/results")]
        return [*own, *files_elsewhere(run.objects, run.key)]

    def try_out(self, specs: Any, n: int = 3) -> Trial:
        """Runs a few of the inputs, spread over all, and shows what goes in, what comes out, and what all would cost.

        All specs are checked. Nothing is written below the root, no version is needed, and what the function raises is shown,
        not raised. The inputs run in worker processes of this machine, each once.

        Args:
            specs: As for `allocate`.
            n: How many to run.

        Returns:
            Inputs, outputs, tables, errors, time and memory of each input, and an estimate for all. Output files lie in a
            temporary folder, which is yours.

        Raises:
            InputError: inputs that do not fit.
            AllocationError: `n` is no number from 1 on, or the function runs on Hatchet alone or cannot be sent to other processes.
            RunError: the worker processes cannot be started.

        Examples:
            >>> from scythe import BaseExperiment
            >>> BaseExperiment(simulate_energy).try_out(pl.DataFrame({"r_value": [2.0, 4.0, 8.0]})).outputs["heating"].len()
            3
        """
        check_latest(self.experiment)
        return try_out(self.experiment, specs, n)

    # --- allocation ---------------------------------------------------------------------------------

    def allocate(
        self,
        specs: Any,
        version: VersioningStrategy | str | SemVer | None = None,
        *,
        overwrite_sort_index: bool = True,
        overwrite_experiment_id: bool = True,
        recursion_map: RecursionMap | None = None,
        s3_client: Any = None,
        engine: EngineName | str | EngineOptions | None = None,
        chunk: int | None = None,
        workers: int | None = None,
        copy_inputs: bool = False,
        seed: int = 0,
        max_errors: MaxErrors = "alike",
        note: str | None = None,
        tags: Sequence[str] = (),
        pack: bool | Sequence[str] | None = None,
        reuse: bool = False,
        any_code: bool = False,
        reuse_errors: bool = False,
        key: str | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> tuple[ExperimentRun, RunRef]:
        """Checks the inputs, stores a run whole, and starts it.

        Args:
            specs: Models of the experiment's input model, one model, a list of dicts of their fields, or a Polars, pandas or Arrow
                table with a column for each field. `experiment_id`, `sort_index` and fields with a default may be absent.
            version: `bumpmajor` (if not given), `bumpminor`, `bumppatch`, `keep`, `auto` (from what changed in the schema), or a
                SemVer. The first version is v1.0.0, whatever the strategy.
            overwrite_sort_index: Number the specs 0 to n - 1, rather than keep their own `sort_index`, which each must have, and
                which must be unique.
            overwrite_experiment_id: Set `experiment_id` to `experiment/version/datetime`.
            recursion_map: Shape of the scatter tree, on a cluster.
            s3_client: A boto3 S3 client, to reach the root's bucket with from now on in this process (and its workers);
                where the root is a folder, the buckets of inputs.
            engine: `inline`, `local` (default), `hatchet` or that of another package, or the options of one
                (`LocalOptions(workers=4)`); also `SCYTHE_ENGINE`.
            chunk: Inputs per task; chosen by their duration if not given.
            workers: Processes of the local engine; `SCYTHE_WORKERS`, else all cores, if not given.
            copy_inputs: Copy s3 and http inputs into the run too, not local files alone.
            seed: What the random numbers of all inputs derive from: `input_spec.seed`, `random` and `np.random`.
            max_errors: How many inputs may fail until the run stops, incomplete and resumable: a number, a share of all inputs
                (0.1), None for any number; "alike": it stops where the first 20 that finish all fail alike.
            note: A sentence for people, such as "masks fixed": kept in the manifest, and shown.
            tags: Words to find the run by: `scythe.list_runs(name, tag="paper")`.
            pack: Store output files in shards (all, or those named), rather than one by one; as `Register(pack=)`, if not given.
            reuse: Do not run inputs again of which the version has a row from the same code and `seed`: it is taken over. The
                version is `keep` if not given; a run that was begun with the same inputs goes on.
            any_code: Take over rows of other code, too.
            reuse_errors: Take over the errors of inputs that failed, rather than run these again.
            key: A name of your own: the same key gives the same run again, which goes on if it is not finished. For a caller that
                may be tried again, such as a task of a larger workflow.
            rename: Fields that had another name before: `{"r": "r_value"}`. Rows of earlier versions are read under the new one. The
                same as `Field(json_schema_extra={"renamed_from": "r"})` in the model.

        Returns:
            The run, and a reference to its result.

        Raises:
            InputError: inputs that do not fit; nothing was written.
            VersionError: a version that is malformed, or too small a step, or `rename` names no field; nothing was written.
            AllocationError: the root cannot be written, an argument makes no sense, the function cannot be sent to other
                processes, or was defined anew, or reads values that those would not have, no worker of the cluster has it, or rows
                to reuse are of other code. Nothing was started.
            SettingsError: there is no such engine, or it cannot be reached.
            RunError: this process was forked from one that had used Scythe.
            Exception: with `engine="inline"`, the first that the function raises.

        Examples:
            >>> from scythe import BaseExperiment
            >>> specs = pl.DataFrame({"r_value": [2.0, 4.0, 8.0], "setpoint": [19.0, 20.0, 21.0]})
            >>> run, ref = BaseExperiment(simulate_energy).allocate(specs, version="bumpminor")
            >>> ref.result().rows, run.version
            (3, 'v1.1.0')
        """
        if (script := loading.get()) is not None:
            raise AllocationError(
                f"{script} is only being loaded for its experiment, and would start another run: put its allocation under "
                '`if __name__ == "__main__":`. A run that is to be resumed is safe; resume it once that is done'
            )
        check_latest(self.experiment)
        check_arguments(chunk=chunk, workers=workers, seed=seed, max_errors=max_errors, recursion_map=recursion_map)
        note, tags = checked_note(note), checked_tags(tags)
        pack = checked_pack(pack, self.experiment)
        growth = checked_reuse(reuse, any_code=any_code, reuse_errors=reuse_errors)
        included = self.experiment.included
        chosen = choose(engine, self.experiment, workers=workers)
        inputs = prepare_inputs(specs, self.experiment, overwrite_sort_index=overwrite_sort_index)
        if included is not None and included.is_workflow and not inputs.single:
            raise AllocationError(f"{included.name!r} is a workflow, which runs one input at a time: give one model")
        chosen.check(self.experiment, inputs=inputs.table.num_rows, single=inputs.single, workers=workers)
        tell_edited(self.experiment, chosen.engine)
        objects = storage()
        if s3_client is not None:
            use_client(objects, s3_client)
        asked = Request(
            self.experiment, self.name, inputs, chosen, engine_settings().catalog, seed, max_errors, chunk=chunk,
            shape=recursion_map, copy_inputs=copy_inputs, overwrite_experiment_id=overwrite_experiment_id, note=note,
            tags=tags, pack=pack, key=checked_key(key), renames=checked_rename(rename),
        )  # fmt: skip
        return allocated(asked, objects, version, workers=workers, reuse=growth)


__all__ = ["BaseExperiment"]

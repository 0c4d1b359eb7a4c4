"""The commands that run or change something: `try`, `resume`, `cancel`, `delete`, `rebuild`, `gc`, `cache`, `worker`. Say what the library did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scythe
from scythe.cli.app import Name, app, names_like
from scythe.cli.shown import bytes_of, count_of, counted, say
from scythe.errors import RunError

if TYPE_CHECKING:
    from scythe.runs.run import ExperimentRun


def _max_errors(text: str) -> Any:
    if text in ("none", "alike"):
        return None if text == "none" else text
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no number, share, 'alike' or 'none'", param_hint="--max-errors"
        ) from None


@app.command("try")
def try_out(
    function: Annotated[str, typer.Argument(help="module:function (or file.py:function) of a registered experiment.")],
    specs: Annotated[Path, typer.Argument(help="A table of inputs: .parquet, .csv, .json, .ndjson or .jsonl.")],
    n: Annotated[int, typer.Option("-n", help="How many of the inputs to run.")] = 3,
) -> None:
    """Runs a few of the inputs and shows what comes out and what all would cost; writes nothing below the root."""
    from scythe.allocate import BaseExperiment
    from scythe.cli.inputs_file import read_inputs
    from scythe.source import load_experiments

    found = load_experiments([function])
    if not found:
        raise typer.BadParameter(f"name the function, too: {function}:FUNCTION", param_hint="function")
    say(str(BaseExperiment(found[0]).try_out(read_inputs(specs, found[0].schemas.input), n)))


@app.command("resume")
def resume(
    name: Name,
    module: Annotated[
        str | None,
        typer.Argument(help="The module or file that defines the function, where Scythe is not to look itself."),
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Run the inputs that failed once more, too.")] = False,
    max_errors: Annotated[
        str | None,
        typer.Option(
            help="How many may fail until it stops: a number, a share (0.1), alike, none; as allocated if not given."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Where it goes on: inline, local, hatchet, slurm, or the engine of a package; where it was allocated if not given."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; on Slurm elements of the job array.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the engine, mem=32G; one or more.")
    ] = None,
) -> None:
    """Goes on with a run: what has neither row nor error is run, then everything is gathered."""

    run = scythe.open_run(name)
    more: dict[str, Any] = {"engine": engine, "workers": workers}
    if engine is not None:
        from scythe.engines.start import engine_named

        engine_named(engine)  # a run that is finished asks none
    if max_errors is not None:
        more["max_errors"] = _max_errors(max_errors)
    if option:
        from scythe.engines.start import options_told
        from scythe.record.plan import RunPlan

        more["engine"] = options_told(engine or RunPlan.load(run.objects, run.key).engine, option)
    ref = run.retry_errors(module=module, **more) if errors else run.resume(module=module, **more)
    result = ref.result()
    say(f"{run.experiment_id}: {counted(result.rows, 'row')}, {counted(result.errors, 'error')}")


@app.command("watch")
def watch(name: Name) -> None:
    """Waits for a run that goes on elsewhere, on a cluster say, and shows how far it is; Ctrl-C leaves it alone."""

    run = scythe.open_run(name)
    result = run.wait()
    say(f"{run.experiment_id}: {counted(result.rows, 'row')}, {counted(result.errors, 'error')}")


@app.command("cancel")
def cancel(name: Name) -> None:
    """Stops a run wherever it is worked on; what is finished stays, and `resume` goes on with it."""

    run = scythe.open_run(name)
    run.cancel()
    told = {"finished": "had finished before it could be stopped", "running": "is told to stop"}
    say(f"{run.experiment_id} {told.get(run.status, 'is cancelled')}")


@app.command("delete")
def delete(
    name: Annotated[
        str,
        typer.Argument(
            help="experiment/version/datetime; with --keep an experiment, or experiment/version.",
            autocompletion=names_like,
        ),
    ],
    keep: Annotated[int | None, typer.Option(min=0, help="Delete all runs but the latest so many.")] = None,
    dependants: Annotated[
        bool, typer.Option("--with", help="Delete the runs, too, that have reused rows and name its output files.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Deletes a run, or all but the latest ones: from the catalog, and with all their files."""

    if keep is None and name.count("/") != 2:
        raise typer.BadParameter(
            "name the run in full: experiment/version/datetime (see `scythe runs`), or say how many to --keep"
        )
    if keep is not None and dependants:
        raise typer.BadParameter("--with is for one run: --keep leaves those whose output files a run that stays names")
    if keep is None:
        runs, busy = _with_dependants(name) if dependants else [scythe.open_run(name)], []
    else:
        runs, busy = _unneeded(*_but_the_latest(name, keep))
    for why in busy:
        say(f"{why}: it is left as it is")
    for run in runs if not yes else ():
        say(f"{run.experiment_id} ({run.status})")
    if runs and not yes:
        try:
            sure = typer.confirm("Delete all files of these runs?" if len(runs) > 1 else "Delete all its files?")
        except typer.Abort:  # there is no terminal, or Ctrl-C
            raise RunError("nobody has answered, and nothing is deleted: --yes deletes without asking") from None
        if not sure:
            raise typer.Abort
    for run in reversed(runs):  # a run may name output files of an older one
        run.delete()
        say(f"deleted {run.experiment_id}")
    if not runs and not busy:
        say(f"{name} has no more than {keep:,} runs: nothing is deleted")


def _but_the_latest(name: str, keep: int) -> tuple[list[ExperimentRun], list[str]]:
    """All runs of an experiment or a version but the latest, and which of those are being worked on."""
    from scythe.allocate import SemVer
    from scythe.record.find import resolve_version
    from scythe.settings import storage

    experiment, _, version = name.partition("/")
    runs = scythe.list_runs(experiment)
    if version:
        resolve_version(storage(), experiment, version)
        runs = runs.filter(runs["version"] == str(SemVer.parse(version)))
    older = runs.head(max(0, runs.height - keep))
    free, busy = (
        ["/".join(whole) for whole in found.select("name", "version", "run").rows()]
        for found in (older.filter(older["status"] != "running"), older.filter(older["status"] == "running"))
    )
    return [scythe.open_run(whole) for whole in free], [f"{path} is being worked on" for path in busy]


def _with_dependants(name: str) -> list[ExperimentRun]:
    """A run, and behind it those that name its output files, and theirs."""
    from scythe.reuse.owners import all_dependants_of

    run = scythe.open_run(name)
    return [run, *(scythe.open_run(key.path) for key in all_dependants_of(run.objects, run.key))]


def _unneeded(runs: list[ExperimentRun], busy: list[str]) -> tuple[list[ExperimentRun], list[str]]:
    """Those runs whose output files no run names that stays, and why the others stay."""
    from scythe.reuse.owners import all_dependants_of

    going, needed = {run.key for run in runs}, list[str]()
    for run in runs:
        stay = [key.path for key in all_dependants_of(run.objects, run.key) if key not in going]
        if stay:
            needed.append(f"{run.experiment_id} has output files that {', '.join(stay)} names")
            going.discard(run.key)
    kept = [run for run in runs if run.key in going]
    return (kept, [*busy, *needed]) if len(kept) == len(runs) else _unneeded(kept, [*busy, *needed])


@app.command("rebuild")
def rebuild() -> None:
    """Makes the catalog anew from the runs' folders: after a root was copied, moved or downloaded."""
    from scythe.runs.rebuild import rebuild as do_rebuild
    from scythe.settings import storage

    objects = storage()
    count = do_rebuild(objects, say)
    say(f"{counted(count, 'run')} {'is' if count == 1 else 'are'} in the catalog of {objects.root}")


@app.command("cache")
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove all files that no running process was handed.")
    ] = False,
) -> None:
    """Shows where fetched files lie and how many they are, or removes them."""
    from scythe.remote import cache as files
    from scythe.settings import fetch_settings

    if clear:
        say(f"removed {count_of(files.clear())}")
    say(f"{files.cache_folder()}: {count_of(files.usage())}, of {bytes_of(fetch_settings().cache_size)} at most")


@app.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only says what it would remove.")] = False,
) -> None:
    """Removes the files that nothing names any more: those of earlier gathers, and old metadata of tables."""
    from scythe.runs.garbage import collect
    from scythe.settings import storage

    objects = storage()
    found = collect(objects, say, dry_run=dry_run)
    say(
        f"{'would be ' if dry_run else ''}removed from {objects.root}: {counted(found.files, 'file')}, {bytes_of(found.bytes)}"
    )


@app.command("worker")
def worker(
    modules: Annotated[
        list[str],
        typer.Argument(help="Modules (or files) that register experiments; module:name serves that one alone."),
    ],
    fan_only: Annotated[bool, typer.Option("--fan-only", help="Serve scatter nodes alone.")] = False,
    leaf_only: Annotated[bool, typer.Option("--leaf-only", help="Serve leaves alone.")] = False,
    slots: Annotated[int | None, typer.Option(help="Functions at once, in place of SCYTHE_WORKER_SLOTS.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name, in place of SCYTHE_WORKER_NAME.")] = None,
) -> None:
    """Serves experiments to a Hatchet engine, until it is told to stop."""
    from scythe.source import load_experiments
    from scythe.worker import worker_config

    if fan_only and leaf_only:
        raise typer.BadParameter("--fan-only and --leaf-only exclude each other; without either it serves both")
    config = worker_config(
        slots=slots, name=name, does_leaf=False if fan_only else None, does_fan=False if leaf_only else None
    )
    config.start(load_experiments(modules))

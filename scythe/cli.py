"""The command line: `scythe ls | runs | show | errors | resume | cancel | delete | rebuild | gc | cache | worker`. Says what the library does; does nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import polars as pl

    from scythe.remote.cache import Usage
    from scythe.runs.run import ExperimentRun

app = typer.Typer(
    no_args_is_help=True, invoke_without_command=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Looks after experiments: what there is, how it went, and how to go on.",
)  # fmt: skip

_Name = Annotated[str, typer.Argument(help="An experiment, or experiment/version, or experiment/version/datetime.")]
_Json = Annotated[bool, typer.Option("--json", help="As JSON, a list of objects.")]
_SHOWN_ERRORS = _SHOWN_SLOWEST = 5


@app.callback()
def _options(  # pyright: ignore[reportUnusedFunction]
    root: Annotated[
        str | None, typer.Option(help="A folder or s3://bucket/prefix, in place of SCYTHE_STORAGE_*.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version, and end.")] = False,
) -> None:
    import os

    if version:
        import scythe

        typer.echo(scythe.__version__)
        raise typer.Exit
    if root is not None and root.startswith("s3://"):
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        os.environ |= {"SCYTHE_STORAGE_BUCKET": bucket, "SCYTHE_STORAGE_BUCKET_PREFIX": prefix}
    elif root is not None:
        os.environ["SCYTHE_STORAGE_ROOT"] = root
        os.environ.pop("SCYTHE_STORAGE_BUCKET", None)


@app.command("ls")
def list_experiments(json: _Json = False) -> None:
    """Lists the experiments of the root, which it names."""
    import scythe
    from scythe.errors import NotFoundError
    from scythe.settings import storage

    objects = storage()
    if objects.folder is not None and not objects.folder.is_dir():
        raise NotFoundError(
            f"there is no root at {objects.folder}: go where it lies, name it with scythe --root FOLDER ls, or set "
            "SCYTHE_STORAGE_ROOT (SCYTHE_STORAGE_BUCKET for a bucket)"
        )
    _say(objects.root, err=True)
    _table(scythe.list_experiments(), "no experiments yet", json=json)


@app.command("runs")
def list_runs(experiment: Annotated[str, typer.Argument(help="Name of the experiment.")], json: _Json = False) -> None:
    """Lists the runs of an experiment."""
    import scythe

    runs = scythe.list_runs(experiment)
    if json:
        _table(runs, "", json=True)
        return
    _table(runs.drop("name", "run_datetime", "problem"), "no runs yet")
    for status, problem in runs.select("status", "problem").drop_nulls("problem").rows():
        _say(f"{status}: {problem}")


@app.command("show")
def show(
    name: _Name,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where each kind of error was raised.")] = False,
) -> None:
    """Shows a run: status, counts, slowest inputs, errors by their kind."""
    import scythe
    from scythe.names import file_names
    from scythe.runs.status import counts_of, look_at

    run = scythe.open_run(name)
    look, counts = counts_of(run.objects, run.key, look_at(run.objects, run.key))
    result = look.result
    _say(run.experiment_id)
    _say(f"  status   {look.status}")
    if look.problem is not None:
        _say(f"  problem  {look.problem}")
    waits = run.outlook if look.status in ("allocated", "running", "incomplete") else None
    if waits is not None:
        _say(f"  waits    {waits}")
    if counts.inputs is not None:
        _say(f"  inputs   {counts.inputs:,}: {counts.rows or 0:,} rows, {counts.errors or 0:,} errors")
    if result is not None:
        _say(f"  seconds  {result.seconds:,.1f}")
    _say(f"  folder   {run.uri}")
    stems = file_names(result.tables) if result is not None else {}
    for table, found in result.tables.items() if result is not None else ():
        shown = run.key.final(stems[table]).removeprefix(f"{run.experiment_id}/")
        _say(f"  {shown:<32} {found.rows:>12,} rows {found.bytes / 1e6:>10,.2f} MB")
    tasks = _read(run, "tasks")
    _show_attempts(run, tasks)
    if tasks is not None and tasks.height:
        _say("\nSlowest inputs")
        _table(
            tasks.sort("seconds", descending=True)
            .select("sort_index", "seconds", "attempts", "worker")
            .head(_SHOWN_SLOWEST),
            "",
        )
    errors = _read(run, "errors")
    if errors is not None and errors.height:
        _say("\nErrors")
        _errors(errors, counts.inputs or errors.height, traceback)


@app.command("errors")
def errors(name: _Name, json: _Json = False) -> None:
    """Shows all kinds of errors of a run, the most frequent first, with the traceback of the first of each."""
    import scythe

    run = scythe.open_run(name)
    found = scythe.read(run.experiment, run.version, table="errors", run=run.key.folder)
    if json or not found.height:
        _table(found, "no errors", json=json)
    else:
        _errors(found, run.inputs, traceback=True, most=None)


def _errors(errors: pl.DataFrame, inputs: int, traceback: bool, most: int | None = _SHOWN_ERRORS) -> None:
    """An entry a kind: how many, which input was the first, what was wrong, and where."""
    from scythe.gather.error_kinds import ErrorKinds

    kinds = ErrorKinds()
    kinds.add(errors.to_arrow())
    for kind in kinds.all()[:most]:
        _say(f"  {kind.count:,} ({kind.count / inputs:.0%}), input {kind.first} the first: {kind.name}: {kind.message}")
        if kind.place:
            _say(f"    {kind.place}")
        if traceback:
            _say(errors.filter(errors["sort_index"] == kind.first)["traceback"][0])


def _show_attempts(run: ExperimentRun, tasks: pl.DataFrame | None) -> None:
    """A line an attempt: who did how many of the inputs, with which code."""
    import polars as pl

    from scythe.errors import ScytheError

    try:
        attempts = run.attempts
    except ScytheError as error:
        typer.echo(f"\n{_plain(str(error))}")
        return
    if not attempts:
        return
    done = dict(tasks.group_by("attempt").len().rows()) if tasks is not None and "attempt" in tasks.columns else {}
    rows = [
        (
            a.number, a.began, a.engine, a.host, done.get(a.number, 0),
            _short(a.provenance.described if a.provenance is not None else None),
            _short(a.provenance.code if a.provenance is not None else None),
        )
        for a in attempts
    ]  # fmt: skip
    schema = {
        "attempt": pl.Int64, "began": pl.Datetime("us", "UTC"), "engine": pl.String, "host": pl.String,
        "inputs": pl.Int64, "commit": pl.String, "code": pl.String,
    }  # fmt: skip
    typer.echo("\nAttempts")
    _table(pl.DataFrame(rows, schema=schema, orient="row"), "")


def _short(name: str | None) -> str | None:
    """The first digits of a commit or a hash, with what says that files differed."""
    return name and name[:12] + ("-dirty" if name.endswith("-dirty") else "")


def _max_errors(text: str) -> Any:
    if text in ("none", "alike"):
        return None if text == "none" else text
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no number, share, 'alike' or 'none'", param_hint="--max-errors"
        ) from None


@app.command("resume")
def resume(
    name: _Name,
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
) -> None:
    """Goes on with a run: what has neither row nor error is run, then everything is gathered."""
    import scythe

    run = scythe.open_run(name)
    more = {} if max_errors is None else {"max_errors": _max_errors(max_errors)}
    ref = run.retry_errors(module=module, **more) if errors else run.resume(module=module, **more)
    result = ref.result()
    _say(f"{run.experiment_id}: {result.rows:,} rows, {result.errors:,} errors")


@app.command("cancel")
def cancel(name: _Name) -> None:
    """Stops a run wherever it is worked on; what is finished stays, and `resume` goes on with it."""
    import scythe

    run = scythe.open_run(name)
    run.cancel()
    told = {"finished": "had finished before it could be stopped", "running": "is told to stop"}
    _say(f"{run.experiment_id} {told.get(run.status, 'is cancelled')}")


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


@app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(help="experiment/version/datetime.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Deletes a run: from the catalog, and with all its files."""
    import scythe

    if name.count("/") != 2:
        raise typer.BadParameter("name the run in full: experiment/version/datetime (see `scythe runs`)")
    run = scythe.open_run(name)
    if not yes:
        typer.confirm(f"Delete {run.experiment_id} ({run.status}) and all its files?", abort=True)
    run.delete()
    _say(f"deleted {run.experiment_id}")


@app.command("rebuild")
def rebuild() -> None:
    """Makes the catalog anew from the runs' folders: after a root was copied, moved or downloaded."""
    from scythe.runs.rebuild import rebuild as do_rebuild
    from scythe.settings import storage

    objects = storage()
    count = do_rebuild(objects, _say)
    _say(f"{count} runs are in the catalog of {objects.root}")


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
        _say(f"removed {_files(files.clear())}")
    _say(f"{files.cache_folder()}: {_files(files.usage())}, of {_bytes(fetch_settings().cache_size)} at most")


def _say(text: str, *, err: bool = False) -> None:
    """Shows a text: whatever a name or a message holds, it does nothing to the terminal."""
    typer.echo(_plain(text), err=err)


def _files(found: Usage) -> str:
    return f"{found.files:,} files, {_bytes(found.bytes)}"


def _bytes(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


@app.command("gc")
def gc() -> None:
    """Removes the files of earlier gathers that neither a run's result nor a snapshot of a table names any more."""
    from scythe.runs.garbage import collect
    from scythe.settings import storage

    objects = storage()
    found = collect(objects, lambda line: typer.echo(_plain(line)))
    typer.echo(f"{found.files} files, {found.bytes / 1e6:,.1f} MB, were removed from {objects.root}")


def _read(run: ExperimentRun, table: str) -> pl.DataFrame | None:
    import scythe
    from scythe.errors import ScytheError

    try:
        return scythe.read(run.experiment, run.version, table=table, run=run.key.folder)
    except ScytheError:  # it has no such table, or it is damaged: what there is is shown all the same
        return None


def _table(frame: pl.DataFrame, empty: str, *, json: bool = False) -> None:
    """A frame as aligned text, as wide as it needs to be: it can be piped; or as JSON."""
    if json:
        typer.echo(frame.write_json())
        return
    if frame.height == 0:
        _say(empty)
        return
    cells = [[_cell(v) for v in row] for row in frame.rows()]
    widths = [max(len(n), *(len(r[i]) for r in cells)) for i, n in enumerate(frame.columns)]
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    for line in (frame.columns, *cells):
        padded = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)]
        _say("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    import datetime as dt

    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
        case int():
            return f"{value:,}"
        case dt.datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case _:
            text = " ".join(_plain(str(value)).split())
            return text if len(text) <= 100 else text[:99] + "…"


def _plain(text: str) -> str:
    """A text without what a terminal would take as a command."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def main() -> None:
    """The entry point: an error of Scythe's is a sentence, not a traceback."""
    import sys

    from scythe.errors import ScytheError

    try:
        app()
    except ScytheError as error:
        _say(f"scythe: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

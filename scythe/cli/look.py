"""The commands that look and change nothing: `ls`, `runs`, `show`, `errors`, `logs`, `diff`, `du`, `report`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scythe
from scythe.cli.app import Json, Name, app, experiments_like, names_like
from scythe.cli.shown import bytes_of, counted, link_of, say, show_table
from scythe.errors import NotFoundError, ScytheError
from scythe.names import ID_LEVELS, file_names
from scythe.sampling.drawn import told
from scythe.terminal.console import plain

if TYPE_CHECKING:
    import polars as pl

    from scythe.runs.run import ExperimentRun

_SHOWN_ERRORS = _SHOWN_SLOWEST = 5


#: So many runs are named of those whose rows a run has reused.
_NAMED = 3


@app.command("ls")
def list_experiments(
    sizes: Annotated[
        bool, typer.Option("--sizes", help="What all files of each take, which are listed for it.")
    ] = False,
    json: Json = False,
) -> None:
    """Lists the experiments of the root, which it names."""
    from scythe.settings import storage

    objects = storage()
    if objects.folder is not None and not objects.folder.is_dir():
        raise NotFoundError(
            f"there is no root at {objects.folder}: go where it lies, name it with scythe --root FOLDER ls, or set "
            "SCYTHE_STORAGE_ROOT (SCYTHE_STORAGE_BUCKET for a bucket)"
        )
    say(link_of(objects.root), err=True)
    experiments = scythe.list_experiments()
    if sizes:
        import polars as pl

        from scythe.runs.usage import usage

        experiments = experiments.join(
            usage(objects).select("name", pl.col("total").alias("bytes")), on="name", how="left"
        )
        if not json:
            size = pl.col("bytes").map_elements(bytes_of, return_dtype=pl.String)
            experiments = experiments.with_columns(size.alias("size")).drop("bytes")
    show_table(experiments, "no experiments yet", json=json)


@app.command("runs")
def list_runs(
    experiment: Annotated[str, typer.Argument(help="Name of the experiment.", autocompletion=experiments_like)],
    tag: Annotated[str | None, typer.Option(help="Only the runs that were allocated with it.")] = None,
    json: Json = False,
) -> None:
    """Lists the runs of an experiment."""
    import polars as pl

    runs = scythe.list_runs(experiment, tag=tag)
    if json:
        show_table(runs, "", json=True)
        return
    name = pl.concat_str("name", "version", "run", separator="/").alias("name")
    size = pl.col("bytes").map_elements(bytes_of, return_dtype=pl.String).alias("tables")
    shown = runs.select(
        name, "status", "inputs", "rows", "errors", "seconds", size, pl.col("tags").list.join(" "), "note"
    )
    nothing = "no runs yet" if tag is None else f"no run has the tag {tag!r}"
    show_table(shown.drop([c for c in ("tags", "note") if not any(shown[c])]), nothing)
    for status, problem in runs.select("status", "problem").drop_nulls("problem").rows():
        say(f"{status}: {problem}")


@app.command("show")
def show(
    name: Name,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where each kind of error was raised.")] = False,
) -> None:
    """Shows a run: status, counts, slowest inputs, errors by their kind."""
    from scythe.gather.status import counts_of, look_at
    from scythe.record.attempt_plan import is_planned

    run = scythe.open_run(name)
    look, counts = counts_of(run.objects, run.key, look_at(run.objects, run.key))
    result = look.result
    say(run.experiment_id)
    say(f"  status   {look.status}")
    if look.problem is not None:
        say(f"  problem  {look.problem}")
    again = look.result is not None and is_planned(run.objects, run.key, look.result.attempt)  # in a queue, say
    waits = run.outlook if again or look.status in ("allocated", "running", "incomplete") else None
    if waits is not None and waits != look.problem:
        say(f"  waits    {waits}")
    if counts.inputs is not None:
        say(f"  inputs   {counts.inputs:,}: {counted(counts.rows or 0, 'row')}, {counted(counts.errors or 0, 'error')}")
    if result is not None:
        say(f"  seconds  {result.seconds:,.1f}")
    for what, text in _made_by(run, look.manifest):
        say(f"  {what:<8} {text}")
    say(f"  folder   {link_of(run.uri)}")
    stems = file_names(result.tables) if result is not None else {}
    for table, found in result.tables.items() if result is not None else ():
        shown = run.key.final(stems[table]).removeprefix(f"{run.experiment_id}/")
        say(f"  {shown:<32} {found.rows:>12,} rows {found.bytes / 1e6:>10,.2f} MB")
    tasks = _read(run, "tasks")
    _show_attempts(run, tasks, is_open=look.status == "incomplete")
    if tasks is not None and tasks.height:
        say("\nSlowest inputs")
        show_table(
            tasks.sort("seconds", descending=True)
            .select("sort_index", "seconds", "attempts", "worker")
            .head(_SHOWN_SLOWEST),
            "",
        )
    errors = _read(run, "errors")
    if errors is not None and errors.height:
        say("\nErrors")
        _errors(run, errors, counts.inputs or 0, traceback)


@app.command("errors")
def errors(name: Name, json: Json = False) -> None:
    """Shows all kinds of errors of a run, the most frequent first, with the traceback of the first of each."""

    run = scythe.open_run(name)
    found = scythe.read(run.experiment, run.version, table="errors", run=run.key.folder)
    if json or not found.height:
        show_table(found, f"{run.experiment_id}: no errors", json=json)
    else:
        say(run.experiment_id)
        _errors(run, found, run.inputs, traceback=True, most=None)


@app.command("logs")
def logs(
    name: Name,
    input: Annotated[int | None, typer.Argument(help="The sort_index of one input; all that printed, without.")] = None,
    element: Annotated[
        str | None, typer.Option(help="Of a run on Slurm: the number of an element of its job array, or 'gather'.")
    ] = None,
    json: Json = False,
) -> None:
    """Shows what the inputs of a finished run printed and logged: whole for one input, else the last line of each."""
    import polars as pl

    run = scythe.open_run(name)
    if element is not None:
        from scythe.engines.start import engine_of
        from scythe.record.plan import RunPlan

        plan = RunPlan.load(run.objects, run.key)
        say(engine_of(plan).printed(plan, element).rstrip())
        return
    nothing = (
        f"no input of {run.experiment_id} has printed anything"
        if run.status == "finished"
        else f"{run.experiment_id} is {run.status}: what its inputs print can be read when it has ended"
    )
    try:
        found = scythe.read(run.experiment, run.version, table="logs", run=run.key.folder)
    except NotFoundError:
        if input is not None:
            nothing = _silent(run, input) or nothing
        show_table(pl.DataFrame(), nothing, json=json)
        return
    if "stdout" not in found.columns:
        raise NotFoundError(
            f"the table logs of {run.experiment_id} is a dataframe of its function, made before there were logs: scythe.read reads it"
        )
    if input is not None:
        found = found.filter(found["sort_index"] == input)
    if json:
        show_table(found, "", json=True)
    elif input is None:
        last = [pl.col(n).str.strip_chars_end().str.split("\n").list.last() for n in ("stdout", "stderr", "log")]
        show_table(found.select("sort_index", "attempt", *last), nothing)  # where what printed has been run again since
    elif not found.height:
        say(_silent(run, input) or nothing)
    else:
        for part in ("stdout", "stderr", "log"):
            if (text := found[part][0]) is not None:
                say(f"--- {part}\n{text.rstrip()}")


def _silent(run: ExperimentRun, input: int) -> str | None:
    """What is said of an input of which nothing is kept; None where its run is not finished.

    Raises:
        NotFoundError: the run has no input of this number.
    """
    if run.status != "finished":
        return None
    tasks = _read(run, "tasks")
    if tasks is not None and tasks.height:
        if input not in tasks["sort_index"]:
            first, last = tasks["sort_index"].min(), tasks["sort_index"].max()
            raise NotFoundError(f"{run.experiment_id} has no input {input}: its inputs are {first} to {last}")
        (worker,) = tasks.filter(tasks["sort_index"] == input)["worker"].head(1)
        if (killed := re.fullmatch(r"element \w+_(\d+)-\d+", worker)) is not None:
            return (
                f"what input {input} of {run.experiment_id} printed, if it did, was lost with the job that Slurm ended; what came "
                f'through is in: scythe logs "{run.experiment_id}" --element {killed[1]}'
            )
    return f"input {input} of {run.experiment_id} has printed nothing"


def _made_by(run: ExperimentRun, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of a run beside its counts: what was said about it, how large it is, and what made it."""
    if run.note is not None:
        yield "note", run.note
    if run.tags:
        yield "tags", " ".join(run.tags)
    if isinstance(manifest.get("sampled"), dict):
        yield "sampled", told(manifest["sampled"])
    if manifest.get("reused"):
        by_run: dict[str, int] = {}
        for one in manifest["reused"]:
            by_run[one["run"]] = by_run.get(one["run"], 0) + one["inputs"]
        most = sorted(by_run.items(), key=lambda one: -one[1])
        named = ", ".join(f"{counted(n, 'input')} of {path}" for path, n in most[:_NAMED])
        rest = counted(len(most) - _NAMED, "run")
        yield "reused", named + (f", and of {rest} more" if len(most) > _NAMED else "")
    if manifest.get("key"):
        yield "key", str(manifest["key"])
    from scythe.runs.usage import parts_of

    found = run.objects.found(run.key.path)
    size = sum(parts_of(run.objects, run.key, found).values())
    yield "size", f"{bytes_of(size)} in {counted(len(found), 'file')}"
    if manifest.get("git_commit"):
        yield "commit", str(manifest["git_commit"])
    packages = manifest.get("packages")
    if isinstance(packages, dict):
        yield "python", ", ".join([str(manifest.get("python")), *(f"{n} {v}" for n, v in packages.items())])  # pyright: ignore[reportUnknownVariableType]


@app.command("diff")
def diff(one: Name, other: Name) -> None:
    """Shows what differs between two runs: models, code, packages, and for equal inputs the outputs."""
    from scythe.runs.compare import compare_runs, told

    found = compare_runs(scythe.open_run(one), scythe.open_run(other))
    for line in told(found):
        say(line)
    say("\nOutputs of equal inputs (floats that differ by less than a billionth count as equal)")
    show_table(found.values, "  none that both have")
    if found.units:
        say(f"not compared: {', '.join(found.units)}, which are in another unit, or mean something else")
    if found.left_out:
        say(f"not compared: {', '.join(found.left_out)} (files and dataframes)")


@app.command("du")
def du(
    name: Annotated[str | None, typer.Argument(help="An experiment.", autocompletion=experiments_like)] = None,
    json: Json = False,
) -> None:
    """Shows how much room each experiment takes, or each run of one."""
    import polars as pl

    from scythe.record.find import name_of, versions_of
    from scythe.runs.usage import usage
    from scythe.settings import storage

    objects = storage()
    if name is not None:
        versions_of(objects, name := name_of(name))  # which says so where there is none
    found = usage(objects, name)
    sizes = [column for column in found.columns if column != "name"]
    shown = found if json else found.with_columns(pl.col(sizes).map_elements(bytes_of, return_dtype=pl.String))
    show_table(shown, "no experiments yet", json=json)


@app.command("report")
def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME [OTHER]",
            help="A run, named as for show, or two to be seen side by side.",
            autocompletion=names_like,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write; by default it has the name of the run.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Makes a report of a run, one HTML file, and shows its path."""

    say(str(scythe.report(*names, to=output, open=open_)))


def _errors(
    run: ExperimentRun, errors: pl.DataFrame, inputs: int, traceback: bool, most: int | None = _SHOWN_ERRORS
) -> None:
    """An entry a kind: how many, which input was the first, what was wrong and where, and what these inputs have in common."""
    import polars as pl

    from scythe.define.bookkeeping import ErrorRow
    from scythe.gather.error_kinds import ErrorKinds, alike
    from scythe.runs.failing import in_common

    good = cache(lambda: scythe.scan(run.experiment, run.version, run=run.key.folder))
    fields = [name for name in errors.columns if name not in (*ID_LEVELS, *ErrorRow._fields)]
    rows, kinds = errors.to_arrow(), ErrorKinds()
    kinds.add(rows)
    for kind in kinds.all()[:most]:
        share = f" ({kind.count / inputs:.0%})" if inputs else ""  # of a run without its manifest it is not known
        say(f"  {kind.count:,}{share}, input {kind.first} the first: {kind.name}: {kind.message}")
        if kind.place:
            say(f"    {kind.place}")
        same = pl.DataFrame(alike(rows, kind.first))
        try:
            texts = in_common(same, good(), fields)
        except (ScytheError, OSError, pl.exceptions.PolarsError) as error:  # good rows are gone, damaged or elsewhere
            texts = [f"what they have in common cannot be told: {str(error).splitlines()[0]}"]
        for text in texts:
            say(f"    {text}")
        if traceback:
            say(errors.filter(errors["sort_index"] == kind.first)["traceback"][0])


def _show_attempts(run: ExperimentRun, tasks: pl.DataFrame | None, *, is_open: bool) -> None:
    """A line an attempt: who did how many of the inputs, with which code."""
    import polars as pl

    from scythe.record.provenance import short

    try:
        attempts = run.attempts
    except ScytheError as error:
        say(f"\n{error}")
        return
    if not attempts:
        return
    if tasks is not None and "reused_from" in tasks.columns:
        tasks = tasks.filter(pl.col("reused_from").is_null())
    done = dict(tasks.group_by("attempt").len().rows()) if tasks is not None and "attempt" in tasks.columns else None
    rows = [
        (
            a.number, a.began, a.engine, a.host, done.get(a.number, 0) if done is not None else None,
            short(a.provenance.described if a.provenance is not None else None),
            short(a.provenance.code if a.provenance is not None else None),
        )
        for a in attempts
    ]  # fmt: skip
    schema = {
        "attempt": pl.Int64, "began": pl.Datetime("us", "UTC"), "engine": pl.String, "host": pl.String,
        "inputs": pl.Int64, "commit": pl.String, "code": pl.String,
    }  # fmt: skip
    say("\nAttempts")
    show_table(pl.DataFrame(rows, schema=schema, orient="row"), "")
    for a in attempts:
        if a.stopped is not None:
            say(f"  attempt {a.number} stopped: {plain(a.stopped)}")
    if is_open:
        say(f'  go on with it by: scythe resume "{run.experiment_id}"')


def _read(run: ExperimentRun, table: str) -> pl.DataFrame | None:

    try:
        return scythe.read(run.experiment, run.version, table=table, run=run.key.folder)
    except NotFoundError:
        return None
    except ScytheError as error:  # what there is is shown all the same
        say(f"\n{error}")
        return None

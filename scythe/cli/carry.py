"""The commands that carry files: `download` and `upload` runs between roots, `pack` files into shards. Say what the library did."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scythe
from scythe.cli.app import Name, app
from scythe.cli.shown import bytes_of, counted, say

if TYPE_CHECKING:
    from scythe.transfer.sheets import Kind, Sheet

_Names = list[str] | None


@app.command("download")
def download(
    name: Name,
    to: Annotated[str, typer.Argument(help="The folder; it is a Scythe root afterwards.")],
    tables: Annotated[_Names, typer.Option("--table", help="A table that is to come; all without.")] = None,
    files: Annotated[
        _Names, typer.Option("--files", help="A field of input or output files that is to come; all without.")
    ] = None,
    no_files: Annotated[bool, typer.Option("--no-files", help="No input and output files.")] = False,
    where: Annotated[
        str | None,
        typer.Option(
            help="Only the files, or the rows of tables, of these inputs: a condition of SQL, as 'r_value < 3'."
        ),
    ] = None,
    csv: Annotated[_Names, typer.Option("--csv", help="Write this table as CSV, in place of a root.")] = None,
    xlsx: Annotated[_Names, typer.Option("--xlsx", help="Write this table for Excel, in place of a root.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much it would be, and fetch nothing.")] = False,
) -> None:
    """Copies a run into a folder, with only the files of the rows that are asked for; what is there is not fetched again."""
    from scythe.record.find import split_name

    if no_files and files:
        raise typer.BadParameter("--no-files and --files exclude each other")
    if (csv or xlsx) and (tables or files or no_files or dry_run):
        raise typer.BadParameter("--csv and --xlsx write one table each: only --where goes with them")
    experiment, version, run = split_name(name)
    if csv or xlsx:
        from scythe.transfer.sheets import write_sheets
        from scythe.transfer.verbs import folder_at

        wanted: list[tuple[str, Kind]] = [
            *((table, "csv") for table in csv or ()),
            *((table, "xlsx") for table in xlsx or ()),
        ]
        for sheet in write_sheets(experiment, folder_at(to), wanted, version, run=run, where=where):
            _told(sheet)
        return
    chosen: Any = False if no_files else files or "all"
    got = scythe.download(
        experiment, to, version, run=run, tables=tables or "all", files=chosen, where=where, dry_run=dry_run
    )
    present = f"; {got.present:,} files were there" if got.present else ""
    said = "would fetch" if dry_run else "fetched"
    for one in got.runs:
        say(one)
    say(f"{said} {counted(got.files, 'file')}, {bytes_of(got.bytes)}{present}")
    if not dry_run:
        say(f"{got.to} is a root: scythe --root {shlex.quote(str(got.to))} ls")


def _told(sheet: Sheet) -> None:
    say(f"{sheet.path}: {counted(sheet.rows, 'row')}")
    if sheet.zoned:
        say(f"  times are UTC, without a zone: {', '.join(sheet.zoned)}")
    if sheet.cut:
        say(f"  cut to milliseconds, which Excel keeps: {', '.join(sheet.cut)}")
    if sheet.left_out:
        say(f"  left out, as they have no cell: {', '.join(sheet.left_out)}")


@app.command("upload")
def upload(here: Annotated[str, typer.Argument(help="A folder that is a Scythe root.")]) -> None:
    """Copies the runs of a folder to the root of the settings; those that are there with the same content are skipped."""

    sent = scythe.upload(here)
    for run in sent.runs:
        say(f"{run} is new in {sent.to}")
    for run in sent.skipped:
        say(f"{run} is there already")
    say(f"sent {counted(sent.files, 'file')}, {bytes_of(sent.bytes)}")


@app.command("pack")
def pack(
    name: Name,
    fields: Annotated[list[str], typer.Argument(help="The file outputs.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the files by themselves afterwards.")] = False,
) -> None:
    """Stores the output files of a finished run many together, in shards: quick to train on. The files by themselves stay."""
    from scythe.runs.pack import pack as packed
    from scythe.settings import storage

    done = packed(storage(), scythe.open_run(name).key, fields, delete=delete)
    told = (
        f"packed {counted(done.files, 'file')}, {bytes_of(done.bytes)}"
        if done.files
        else "all files were in shards already"
    )
    say(told + ("; by themselves they are removed" if delete else ""))

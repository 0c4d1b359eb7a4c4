"""The application of the command line, and what holds for all its commands: the root, the version."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import scythe

#: The commands in the order in which a run meets them.
_ORDER = (
    "try", "ls", "runs", "show", "errors", "logs", "watch", "resume", "cancel", "delete", "report", "diff", "spec",
    "download", "upload", "pack", "worker", "du", "gc", "cache", "rebuild",
)  # fmt: skip


class _Commands(TyperGroup):
    """The commands with their whole first sentences, which typer cuts."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(
            super().list_commands(ctx), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)
        )

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(1000)) for name, c in commands.items() if c is not None])


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, invoke_without_command=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Looks after experiments: what there is, how it went, and how to go on.",
)  # fmt: skip


def experiments_like(incomplete: str) -> list[str]:
    """The experiments of the root whose names begin so, for the tab key."""
    with suppress(Exception):  # a prompt that is being completed is no place for an error
        return [name for name in scythe.list_experiments()["name"] if name.startswith(incomplete)]
    return []


def names_like(incomplete: str) -> list[str]:
    """The experiments, or where one is named the runs of it, whose names begin so, for the tab key."""
    if "/" not in incomplete:
        return experiments_like(incomplete)
    with suppress(Exception):
        runs = scythe.list_runs(incomplete.split("/", maxsplit=1)[0])
        return [name for name in map("/".join, runs["name", "version", "run"].rows()) if name.startswith(incomplete)]
    return []


#: What names an experiment or a run, for all commands that take one.
Name = Annotated[
    str,
    typer.Argument(
        help="An experiment, or experiment/version, or experiment/version/datetime.", autocompletion=names_like
    ),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON, a list of objects.")]


@app.callback()
def _options(  # pyright: ignore[reportUnusedFunction]
    root: Annotated[
        str | None, typer.Option(help="A folder or s3://bucket/prefix, in place of SCYTHE_STORAGE_*.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version, and end.")] = False,
) -> None:
    import os

    if version:
        typer.echo(scythe.__version__)
        raise typer.Exit
    if root is not None and not root.strip():
        raise typer.BadParameter("--root is empty: name a folder, or s3://bucket/prefix")
    if root is not None and root.startswith("s3://"):
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        if not bucket:
            raise typer.BadParameter(f"--root {root!r} names no bucket: s3://bucket/prefix")
        os.environ |= {"SCYTHE_STORAGE_BUCKET": bucket, "SCYTHE_STORAGE_BUCKET_PREFIX": prefix}
    elif root is not None:
        os.environ["SCYTHE_STORAGE_ROOT"] = root
        os.environ.pop("SCYTHE_STORAGE_BUCKET", None)

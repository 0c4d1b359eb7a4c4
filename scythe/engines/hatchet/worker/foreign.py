"""Calls of tasks that are not Scythe's: what would take the worker down, or be lost on its way to the engine, fails the task by name."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json

from scythe.engines.hatchet.connection import connect

#: What a message holds beside the output.
_ENVELOPE = 16 * 1024


class OutputTooLarge(Exception):
    """A task returned more than the engine takes."""


def guard(workflows: Iterable[Any]) -> None:
    """Has the tasks of workflows fail where their functions would end the worker, or return more than a message holds."""
    for workflow in workflows:
        for task in workflow.tasks:
            if not hasattr(task._fn, _GUARDED):
                task._fn = _asynchronous(task) if task._is_async_function else _synchronous(task)
                setattr(task._fn, _GUARDED, True)


_GUARDED = "_scythe_guarded"


def _synchronous(task: Any) -> Any:
    function = task._fn

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return _checked(task.name, function(*args, **kwargs))
        except SystemExit as error:  # which would end the event loop of the worker
            raise _left(error) from error

    return call


def _asynchronous(task: Any) -> Any:
    function = task._fn

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return _checked(task.name, await function(*args, **kwargs))
        except SystemExit as error:
            raise _left(error) from error

    return call


def _left(error: SystemExit) -> Exception:
    """The same as an exception, by the name of its class."""
    return type("SystemExit", (Exception,), {"__module__": "builtins"})(str(error))


def _checked(name: str, output: Any) -> Any:
    """An output that can be sent.

    Raises:
        OutputTooLarge: it is larger than a message may be.
    """
    most = connect().config.grpc_max_send_message_length - _ENVELOPE
    if output:
        size = len(to_json(output, fallback=str))
        if size > most:
            raise OutputTooLarge(
                f"{name} returned {size / 2**20:.1f} MiB, and a task of Hatchet's can return {most / 2**20:.1f}: write what is large "
                "into a file and return its path, or set HATCHET_CLIENT_GRPC_MAX_SEND_MESSAGE_LENGTH, and the limit of the engine"
            )
    return output


__all__ = ["OutputTooLarge", "guard"]

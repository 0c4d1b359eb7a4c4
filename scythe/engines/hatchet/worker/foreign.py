"""Calls of tasks that are not Scythe's: what would take the worker down, or be lost on its way to the engine, fails the task by name."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json

from scythe.engines.hatchet.exact import ExactOutput, message_bytes


class OutputTooLarge(Exception):
    """A task returned more than the engine takes."""


def guard(workflows: Iterable[Any]) -> None:
    """Has the tasks of workflows fail where their functions would end the worker, or return more than a message holds."""
    for workflow in workflows:
        for task in workflow.tasks:
            if not hasattr(task._fn, _GUARDED):
                task._fn = _asynchronous(task) if task._is_async_function else _synchronous(task)
                setattr(task._fn, _GUARDED, True)


def writes_exactly(standalone: Any) -> None:
    """Has an included task write numbers that JSON would lose as texts: its rows are made of what it returns."""
    validators = standalone._task._validators
    if not isinstance(validators.step_output, ExactOutput):
        validators.step_output = ExactOutput(validators.step_output)


_GUARDED = "_scythe_guarded"
#: So many characters of an exception's message travel.
_MOST_CHARACTERS = 8000


def _synchronous(task: Any) -> Any:
    function = task._fn

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return _checked(task.name, function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - whatever a function raises
            raise _sendable(error) from None

    return call


def _asynchronous(task: Any) -> Any:
    function = task._fn

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return _checked(task.name, await function(*args, **kwargs))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a function raises
            raise _sendable(error) from None

    return call


def _sendable(error: BaseException) -> BaseException:
    """An exception that the SDK tells of as it is; else one by the name of its class, with its message and traceback.

    Such as `SystemExit` would end the event loop of the worker, `StopIteration` never arrives, an empty message costs the class.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever a class of the user's does
        text = ""
    told = text.replace("\0", "\\0")
    if len(told) > _MOST_CHARACTERS:
        told = f"{told[: _MOST_CHARACTERS // 2]} ... {told[-_MOST_CHARACTERS // 2 :]}"
    if (
        isinstance(error, Exception)
        and not isinstance(error, StopIteration | StopAsyncIteration)
        and told
        and told == text
    ):
        return error
    kind = type(type(error).__name__, (_superclass(error),), {"__module__": type(error).__module__})
    return kind(told or "(without a message)").with_traceback(error.__traceback__)


def _superclass(error: BaseException) -> type[Exception]:
    """That by which the SDK knows that a task is not to be tried again."""
    from hatchet_sdk import NonRetryableException

    return NonRetryableException if isinstance(error, NonRetryableException) else Exception


def _checked(name: str, output: Any) -> Any:
    """An output that can be sent.

    Raises:
        OutputTooLarge: it is larger than a message may be.
    """
    most = message_bytes()
    if output:
        size = len(to_json(output, fallback=str))
        if size > most:
            raise OutputTooLarge(
                f"{name} returned {size / 2**20:.1f} MiB, and a task of Hatchet's can return {most / 2**20:.1f}: write what is large "
                "into a file and return its path, or set HATCHET_CLIENT_GRPC_MAX_SEND_MESSAGE_LENGTH, and the limit of the engine"
            )
    return output


__all__ = ["OutputTooLarge", "guard", "writes_exactly"]

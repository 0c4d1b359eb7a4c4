"""What the SDK raises for a failed task, as a sentence."""

from __future__ import annotations


def told(error: BaseException) -> str:
    """The message of the exception that a task failed with, without the SDK's wrapping and its traceback."""
    inner = getattr(error, "exceptions", None)
    if inner:
        return "; ".join(dict.fromkeys(told(e) for e in inner))
    return str(getattr(error, "exc", None) or error).strip() or type(error).__name__

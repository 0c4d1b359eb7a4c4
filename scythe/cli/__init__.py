"""The command line: says what the library does, and does nothing itself."""

from __future__ import annotations

from scythe.cli import carry as _carry
from scythe.cli import change as _change
from scythe.cli import look as _look
from scythe.cli import spec as _spec
from scythe.cli.app import app
from scythe.cli.shown import say

_COMMANDS = (_look, _change, _carry, _spec)  # imported so that the application has them


def main() -> None:
    """The entry point: an error of Scythe's is a sentence, not a traceback."""
    import contextlib
    import gc
    import sys

    from scythe.errors import ScytheError

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # of a program that has replaced them
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # of what it cannot show
    given, sys.argv[1:] = sys.argv[1:], []  # they are the command's, none of the modules that it loads
    try:
        app(given)
    except ScytheError as error:
        say(f"scythe: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # of a disk that is full, say, on which what is shown is to stand
        say(f"scythe: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # the process ends: nothing is looked for any more, which would take a tenth of a second


__all__ = ["app", "main"]

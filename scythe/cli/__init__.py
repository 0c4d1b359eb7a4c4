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
    import gc
    import sys

    from scythe.errors import ScytheError

    try:
        app()
    except ScytheError as error:
        say(f"scythe: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # the process ends: nothing is looked for any more, which would take a tenth of a second


__all__ = ["app", "main"]

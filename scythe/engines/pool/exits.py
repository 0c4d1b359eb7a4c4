"""The exit code of a script whose background run failed, where everything else of the script's end happens as ever.

Python has settled the exit code by the time that it waits for background work. Leaving at once with another one would
skip the script's exit hooks and leave what its files have buffered unwritten.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys


def leave_with(code: int) -> None:
    """Lets this process end with `code`, once Python and the libraries in it have ended as they always do."""
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        # A handler of the C library's, called after Python's end. `exit` within it goes on with the other handlers,
        # which glibc and macOS allow; elsewhere they are left out.
        ends = libc.exit if platform.libc_ver()[0] == "glibc" or sys.platform == "darwin" else libc._exit
        libc.__cxa_atexit(ctypes.cast(ends, ctypes.c_void_p), ctypes.c_void_p(code), None)
    except (ImportError, OSError, AttributeError):  # a Python without ctypes, or another C library
        _leave_now(code)


def _leave_now(code: int) -> None:
    try:
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - what the interpreter calls
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)

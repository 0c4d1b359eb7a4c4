"""What a process is like when an input starts: folder, umask, timer, signal handlers and random numbers.

Taken down before the first input and brought back after each, so that no input finds what an earlier one left, and a
caller finds its process as it was. Never looks at what a function computes.

Bringing all this back takes longer than the quickest functions do. Where many quick inputs in a row changed nothing,
they are trusted: looked at group by group. A group that did change something is run again, one input at a time, and
no input of this process is trusted after that. What an input may change and take back, or read, before anyone looks
is noticed when it is done.
"""

from __future__ import annotations

import _thread
import faulthandler
import functools
import os
import random
import signal
import sys
import threading
from _signal import getsignal  # pyright: ignore - `signal.getsignal` makes an enum of each answer, twenty times slower
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

#: What functions and the libraries under them set; the others of a process are left alone.
_SIGNALS = tuple(
    int(getattr(signal, name))
    for name in (
        "SIGALRM", "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2",
        "SIGCHLD", "SIGPIPE", "SIGVTALRM", "SIGPROF", "SIGXCPU",
    )
)  # fmt: skip
_TIMERS = tuple(int(timer) for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF))
#: As they are before `notice` counts them.
_set_umask, _set_timer, _set_handler = os.umask, signal.setitimer, signal.signal
_set_dump = faulthandler.dump_traceback_later


class _Seen:
    """What `notice` has seen in this process."""

    #: How often something was done that it is about; None where nothing is noticed.
    count: int | None = None
    #: Whether an input has a traceback written later, at which the process may end: nothing else tells.
    dumps = False


_seen = _Seen()
_EVENTS = frozenset(
    ("os.chdir", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen")
)
#: A handler that an input left may raise while it is being replaced; it is gone after that.
_CALMING_TRIES = 100

#: So many inputs must have changed nothing, most of them within so many seconds, before they are trusted.
_WATCHED = 64
QUICK_SECONDS = 200e-6
#: So many trusted inputs are looked at together.
GROUP = 64


@functools.cache
def notice() -> None:
    """Has this process, a worker's, count from now on what inputs do that could be gone, or have been read, when it is looked at.

    Folders that are changed and changed back, masks, handlers and timers, states of random numbers that are read, programs
    and threads that are started, and a traceback that is to be written later, or to end the process. To be called before the
    user's modules are imported: they may keep what they find.
    """
    import numpy.random as legacy

    def heard(event: str, _: object) -> None:
        if event in _EVENTS:
            count()

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(*arguments: Any, **named: Any) -> Any:
            count()
            return call(*arguments, **named)

        return counted

    def count() -> None:
        _seen.count = (_seen.count or 0) + 1

    count()
    sys.addaudithook(heard)
    faulthandler.dump_traceback_later = _dump_later
    for owner, names in (
        (os, ("umask",)), (signal, ("signal", "setitimer", "alarm")), (random, ("getstate",)), (random.Random, ("getstate",)),
        (legacy, ("get_state",)), (threading.Thread, ("start",)), (_thread, ("start_new_thread",)),
        (faulthandler, ("dump_traceback_later",)),
    ):  # fmt: skip
        for name in names:
            setattr(owner, name, counting(getattr(owner, name)))


@functools.wraps(faulthandler.dump_traceback_later)
def _dump_later(*arguments: Any, **named: Any) -> None:
    _seen.dumps = True
    _set_dump(*arguments, **named)


class Surroundings:
    """The state of this process that an input may change, as it was when this was made."""

    def __init__(self, *, trusting: bool = True) -> None:
        self._umask = umask()
        self._cwd = working_folder()
        #: Only the main thread can set handlers, so that in another there is nothing to bring back.
        self._handlers: tuple[Any, ...] | None = None
        if threading.current_thread() is threading.main_thread():
            self._handlers = tuple(map(getsignal, _SIGNALS))
        #: A timer that is running is the caller's: a profiler's, a test's limit.
        self._timers = tuple(timer for timer in _TIMERS if not any(signal.getitimer(timer)))
        self._noticed, _seen.dumps = _seen.count, False  # what was set before is the caller's
        self._random = _RandomState()
        #: Without being noticed an input could take back what another has seen.
        self._watching = trusting and _seen.count is not None
        self._seen = self._quick = 0
        #: Inputs are looked at in groups.
        self.trusted = False

    @contextmanager
    def kept(self) -> Generator[None]:
        """Gives the caller's own random numbers back at the end."""
        with self._random.kept():
            if self.trusted:
                self._random.throw_pairs(0)
            self._noticed = _seen.count
            yield

    def before(self, seed: Callable[[], int]) -> None:
        """Seeds the random numbers of an input that is not trusted."""
        if self._watching:
            self._random.throw_pairs(seed())
            self._noticed = _seen.count
        else:
            self._random.throw(seed())

    def after(self, seconds: float) -> None:
        """Brings everything back after an input that is not trusted, and took so long."""
        changed = self._watching and self.changed()
        self.restore()
        if not self._watching:
            return
        self._seen += 1
        self._quick += seconds <= QUICK_SECONDS
        if changed:
            self._watching = False
        elif self._seen == _WATCHED:
            self._watching, self.trusted = False, 2 * self._quick > _WATCHED

    def distrust(self) -> None:
        """From now on everything is brought back after each input."""
        self.trusted = self._watching = False
        self.restore()

    def changed(self) -> bool:
        """Whether something is not as it was, or random numbers were drawn."""
        try:
            return (
                _seen.count != self._noticed
                or any(any(signal.getitimer(timer)) for timer in self._timers)
                or _set_umask(self._umask) != self._umask
                or working_folder() != self._cwd
                or (self._handlers is not None and tuple(map(getsignal, _SIGNALS)) != self._handlers)
                or self._random.drawn()
            )
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - raised by a handler that an input left
            return True

    def restore(self) -> None:
        """Brings everything back but the random numbers; Ctrl-C passes, after that."""
        interrupt: KeyboardInterrupt | None = None
        for _ in range(_CALMING_TRIES):
            try:
                self._restore()
                break
            except KeyboardInterrupt as error:
                interrupt = error
            except BaseException:  # noqa: BLE001 - raised by a handler that the input left, after its end
                continue
        if interrupt is not None:
            raise interrupt

    def _restore(self) -> None:
        for timer in self._timers:
            _set_timer(timer, 0)
        if _seen.dumps:
            faulthandler.cancel_dump_traceback_later()
            _seen.dumps = False
        _set_umask(self._umask)
        if self._cwd is not None and working_folder() != self._cwd:
            with suppress(OSError):  # it was removed: the next input says so, if it needs it
                os.chdir(self._cwd)
        if self._handlers is not None and tuple(map(getsignal, _SIGNALS)) != self._handlers:
            for number, handler in zip(_SIGNALS, self._handlers, strict=True):
                if handler is not None and getsignal(number) != handler:
                    _set_handler(number, handler)


class _RandomState:
    """`random` and NumPy's legacy generator, seeded as `random.seed(n)` and `np.random.seed(n % 2**32)` do.

    A twin of each that is seeded with it tells whether numbers were drawn.
    """

    def __init__(self) -> None:
        import numpy.random as legacy  # loaded by its first use else, which may be within an input

        self._legacy: Any = legacy
        self._pairs = ((random, legacy), (random.Random(), legacy.RandomState()))

    @contextmanager
    def kept(self) -> Generator[None]:
        """Gives back at the end what was there."""
        state, legacy = random.getstate(), self._legacy.get_state()  # before what is noticed counts
        try:
            yield
        finally:
            random.setstate(state)
            self._legacy.set_state(legacy)

    def throw(self, seed: int) -> None:
        """Seeds both generators."""
        random.seed(seed)
        self._legacy.seed(seed & 0xFFFFFFFF)

    def throw_pairs(self, seed: int) -> None:
        """Seeds both generators and their twins."""
        for plain, legacy in self._pairs:
            plain.seed(seed)
            legacy.seed(seed & 0xFFFFFFFF)

    def drawn(self) -> bool:
        """Whether numbers were drawn since both were seeded together with their twins."""
        (plain, legacy), (twin, legacy_twin) = self._pairs
        return plain.random() != twin.random() or legacy.random_sample() != legacy_twin.random_sample()


def working_folder() -> str | None:
    """The working folder; None where it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - a text is compared after each input
    except OSError:
        return None


def umask() -> int:
    """The mask of new files' rights."""
    mask = _set_umask(0o077)  # the only way to ask
    _set_umask(mask)
    return mask

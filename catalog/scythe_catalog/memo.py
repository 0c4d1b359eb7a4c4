"""What is made once and then kept, with no lock that a forked process could find held by a thread that it does not have.

`functools.cached_property` of Python 3.11 holds one lock for all objects of a class: two threads that make two properties in
different orders wait for each other for ever.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801 - it stands where that of `functools` would
    """As that of `functools` from Python 3.12 on; of what two threads make at once the first is kept, and both have it."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make, self.__doc__, self._name = make, make.__doc__, make.__name__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Self | T:
        return self if instance is None else self.kept(instance)

    def kept(self, instance: object) -> T:
        """What the object has, made now where it has none yet."""
        return vars(instance).setdefault(self._name, self.make(instance))


class made_alone(cached_property[T]):  # noqa: N801 - likewise
    """The same of what is large: one thread makes it, others wait for that one. Objects with one are pickled without their `vars`."""

    def kept(self, instance: object) -> T:
        """The same; whoever waited for another finds what that one has made."""
        there = vars(instance)
        with there.setdefault(f"{self._name} is being made", ForkedLock()):
            return there[self._name] if self._name in there else super().kept(instance)


class ForkedLock:
    """A lock that a thread may take again, and that is free in a forked process: whoever held it is not there."""

    def __init__(self) -> None:
        #: By whoever has it, as often as he has.
        self._taken: list[Any] = []
        self.renew()
        _LOCKS.add(self)

    def renew(self) -> None:
        """Makes it free."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._taken.append(lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken.pop().release()  # the one that was taken: a thread that forks within goes on in the child


_LOCKS = weakref.WeakSet[ForkedLock]()


def _in_child() -> None:
    for lock in list(_LOCKS):
        lock.renew()


os.register_at_fork(after_in_child=_in_child)

__all__ = ["ForkedLock", "cached_property", "made_alone"]

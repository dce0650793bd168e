"""Connections that belong to one process, over any number of forks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar
from weakref import WeakSet

from softxent_client.errors import ForkError

T = TypeVar("T")

_INHERITED: list[object] = []
"""What a forked child holds of its parent's connections. The child neither uses nor collects them:
that may end a connection that the parent still uses, or wait for a lock whose thread the child does
not have."""


class PerProcess(Generic[T]):
    """A holder of connections, made anew in each process that uses it.

    Args:
        make: makes the holder, now and in each forked child at its first use.
        forks: whether a child may call `make`; a transport that the caller passed cannot be made.
    """

    def __init__(self, make: Callable[[], T], *, forks: bool = True) -> None:
        self._make = make
        self._forks = forks
        self._held: T | None = make()
        _HOLDERS.add(self)

    def get(self) -> T:
        """Return this process's holder.

        Raises:
            ForkError: this is a forked child, and a child may not make a holder.
        """
        if self._held is None:
            if not self._forks:
                raise ForkError(
                    "the transport passed to this client belongs to the process that made it;"
                    " make the transport and the client after the fork"
                )
            self._held = self._make()
        return self._held

    def existing(self) -> T | None:
        """Return the holder that this process has to close; a forked child begins without one."""
        return self._held

    def abandon(self) -> None:
        """Forget the parent's holder without closing it."""
        if self._held is not None:
            _INHERITED.append(self._held)
            self._held = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds connections and cannot be copied or sent to a process")


_HOLDERS: WeakSet[PerProcess[Any]] = WeakSet()


def _abandon_all() -> None:
    for holder in _HOLDERS:
        holder.abandon()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    # The hook runs before the child can start a thread, so no two threads each make a holder.
    os.register_at_fork(after_in_child=_abandon_all)

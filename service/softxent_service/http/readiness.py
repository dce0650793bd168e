"""Readiness: whether every kernel that a request can reach is compiled or loaded."""

from __future__ import annotations

from collections.abc import Callable
from traceback import format_exception_only
from typing import Any

from softxent_service.http.errors import NotReadyError

Evaluate = Callable[..., dict[str, Any]]


class KernelsError(Exception):
    """The kernels cannot be compiled or loaded here, in one line."""


class Readiness:
    """Holds the evaluation once it may be called.

    Attributes:
        reason: why evaluations are not answered yet; None once they are.
        stopping: whether the service was told to stop; it still evaluates what comes.
        threading_layer: what runs parallel kernels; None before the first has run.
        compilations: tells how many kernels had to be compiled.
    """

    def __init__(self) -> None:
        self.reason: str | None = "kernels are being compiled or loaded"
        self.stopping = False
        self.threading_layer: str | None = None
        self.compilations: Callable[[], int] = int
        self._evaluate: Evaluate | None = None

    @property
    def unready(self) -> str | None:
        """Return why no new requests should be sent here, None if they should."""
        return "the service stops" if self.stopping else self.reason

    def check(self) -> None:
        """Refuse what cannot be evaluated yet.

        Raises:
            NotReadyError: the warm-up has not finished.
        """
        if self._evaluate is None:
            raise NotReadyError(f"not ready: {self.reason}")

    @property
    def evaluate(self) -> Evaluate:
        """Return `softxent.serving.evaluate`.

        Raises:
            NotReadyError: the warm-up has not finished.
        """
        self.check()
        assert self._evaluate is not None
        return self._evaluate

    def warm_up(self, *, shared_memory: bool = False) -> None:
        """Import, compile or load everything, with what shared memory takes if it is allowed.

        Raises:
            KernelsError: something of it failed.
        """
        if shared_memory:
            prepare_mappings()
        self._evaluate, self.threading_layer = load_kernels()
        from softxent.serving import compilations

        self.compilations = compilations
        self.reason = None


def prepare_mappings() -> None:
    """Make this process survive what clients do to files that it has mapped.

    Raises:
        KernelsError: it cannot be made to.
    """
    from softxent.mmap_guard import watch_mappings

    try:
        watch_mappings()
    except OSError as error:
        raise KernelsError(f"shared memory cannot be used here: {error}") from error


def load_kernels() -> tuple[Evaluate, str]:
    """Return the evaluation with all its kernels, and the threading layer they run on.

    Raises:
        KernelsError: they cannot be compiled or loaded.
    """
    try:
        from softxent import serving

        serving.warm_up()
        return serving.evaluate, str(serving.threading_layer())
    except Exception as error:
        reason = " ".join("".join(format_exception_only(error)).split())
        raise KernelsError(f"the kernels cannot be compiled or loaded: {reason}") from error

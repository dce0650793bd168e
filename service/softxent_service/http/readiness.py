"""Says whether every kernel that a request can reach is compiled or loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio.to_thread

from softxent import CrossEntropyResult
from softxent_service.http.errors import NotReadyError

logger = logging.getLogger("softxent")

Evaluate = Callable[..., CrossEntropyResult]


class Readiness:
    """Holds the evaluation once it may be called.

    Attributes:
        reason: why evaluations are not answered yet; None once they are.
        threading_layer: what runs parallel kernels; None before the first has run.
    """

    def __init__(self) -> None:
        self.reason: str | None = "kernels are being compiled or loaded"
        self.threading_layer: str | None = None
        self._evaluate: Evaluate | None = None

    @property
    def evaluate(self) -> Evaluate:
        """Return `softxent.front.evaluate`.

        Raises:
            NotReadyError: the warm-up has not finished, or has failed.
        """
        if self._evaluate is None:
            raise NotReadyError(f"not ready: {self.reason}")
        return self._evaluate

    async def warm_up(self) -> None:
        """Import, compile or load everything in a thread, so that liveness answers meanwhile."""
        try:
            self._evaluate, self.threading_layer = await anyio.to_thread.run_sync(load_kernels)
        except Exception:
            self.reason = "warming up the kernels failed; the log says why"
            logger.exception(self.reason)
        else:
            self.reason = None


def load_kernels() -> tuple[Evaluate, str]:
    """Return the evaluation with all its kernels, and the threading layer they run on."""
    from softxent import front

    front.warm_up()
    return front.evaluate, str(front.threading_layer())

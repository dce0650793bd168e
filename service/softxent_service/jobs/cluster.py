"""Connection to what computes blocks: threads of this process, or a Dask scheduler."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self

import dask.config
import distributed
from distributed.utils import LoopRunner
from tornado.ioloop import IOLoop

logger = logging.getLogger("distributed")

CONNECT_SECONDS = 5
"""How long one try to reach a scheduler may take."""

WIDTH_SECONDS = 1.0
"""How long it is believed how many threads a cluster has; to ask costs as much as a small block."""

HERE = "127.0.0.1:0"
"""Dask opens an HTTP port for every scheduler and worker, by default to all the world."""

_NO_ROUTES: dict[str, Any] = {"routes": []}

QUIET = {
    "scheduler": {"http": _NO_ROUTES},
    "worker": {"http": _NO_ROUTES, "profile": {"enabled": False}},
    "admin": {"tick": {"interval": "1s"}, "system-monitor": {"interval": "10s"}},
}
"""Dask's own watching of itself, which nobody reads here, woke the process 100 times a second."""


class ClusterLostError(Exception):
    """The scheduler is gone, and with it every task; what was committed stays."""


@contextlib.contextmanager
def reached() -> Iterator[None]:
    """Make every word for a scheduler that is gone the same one."""
    try:
        yield
    except (OSError, TimeoutError, CancelledError) as error:
        raise ClusterLostError(f"{type(error).__name__}: {error}") from error


class Cluster:
    """A connection to what runs tasks, made when it is needed and again when it was lost."""

    def __init__(self, scheduler: str | None, threads: int) -> None:
        self._scheduler = scheduler
        self._threads = threads
        self._local: distributed.LocalCluster | None = None
        self._client: distributed.Client | None = None
        self._runner: LoopRunner | None = None
        self._loop: IOLoop | None = None
        self._width, self._look_at = 1, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def client(self) -> distributed.Client:
        """Return the connection.

        Raises:
            ClusterLostError: no scheduler answers.
        """
        if self._client is not None and self._client.status == "running":
            return self._client
        self._drop()
        logger.setLevel(logging.WARNING)
        try:
            address = self._scheduler or self._start()
            self._client = self._connect(address)
        except (OSError, TimeoutError) as error:
            self._drop()
            raise ClusterLostError(f"no scheduler answers at {self._scheduler}: {error}") from None
        return self._client

    def _connect(self, address: Any) -> distributed.Client:
        self._runner = runner = LoopRunner()
        runner.start()
        self._loop = runner.loop
        try:
            return distributed.Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False, loop=runner.loop
            )
        except BaseException:
            # A client that cannot connect still counts as a user of its loop, whose thread stayed.
            runner.loop.add_callback(runner.loop.stop)
            raise

    def width(self) -> int:
        """Return how many tasks run at a time, at least 1, as it was a moment ago.

        Raises:
            ClusterLostError: the scheduler is gone.
        """
        if not self._scheduler:
            return self._threads
        if time.monotonic() >= self._look_at:
            with reached():
                threads: dict[str, int] = self.client().nthreads()
            self._width = max(1, sum(threads.values()))
            self._look_at = time.monotonic() + WIDTH_SECONDS
        return self._width

    def close(self) -> None:
        """Let go of everything."""
        self._drop()
        if self._local is not None:
            _quieten(self._local.loop)
            self._local.close()
            self._local = None

    def _drop(self) -> None:
        client, self._client = self._client, None
        runner, self._runner = self._runner, None
        loop, self._loop = self._loop, None
        if loop is not None:
            _quieten(loop)
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(timeout=1)
        if runner is not None:
            runner.stop()

    def _start(self) -> Any:
        if self._local is None:
            with dask.config.set({"distributed": _merged(QUIET)}):
                self._local = distributed.LocalCluster(
                    processes=False,
                    n_workers=1,
                    threads_per_worker=self._threads,
                    protocol="inproc://",
                    memory_limit=None,
                    dashboard_address=HERE,
                    worker_dashboard_address=HERE,
                    silence_logs=logging.ERROR,
                )
        return self._local


def _quieten(loop: Any) -> None:
    """Let a loop that will stop say nothing of what Dask leaves in it.

    One close in 500 leaves a timer that ended after who waited for it: asyncio would write that its
    exception was never retrieved, after a job that succeeded.
    """
    loop.asyncio_loop.set_exception_handler(lambda _loop, _context: None)


def _merged(changed: dict[str, Any]) -> dict[str, Any]:
    known = dask.config.get("distributed")
    return dict(dask.config.merge(known, changed))

"""Server: the application under uvicorn, and the warm-up beside it."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread, current_thread
from types import FrameType

import uvicorn
from fastapi import FastAPI
from structlog.typing import Processor

from softxent_service.access import key_ring, refuse_exposure
from softxent_service.http.app import create_app
from softxent_service.http.readiness import KernelsError, Readiness
from softxent_service.http.response import PIECE_BYTES
from softxent_service.http.routes.jobs import Jobs
from softxent_service.http.transport.bulk import bulk_protocol
from softxent_service.http.transport.connection_limits import ConnectionLimits
from softxent_service.http.transport.protocol import plain_protocol
from softxent_service.http.workers import Supervisor
from softxent_service.runtime_tuning import give_freed_memory_back, leave_out_of_collections
from softxent_service.settings import Settings
from softxent_service.telemetry.logs import configure_logging
from softxent_service.telemetry.telemetry import Telemetry

logger = logging.getLogger("softxent")

BACKLOG = 2048

TICK_SECONDS = 0.05
"""How soon a process that is not ready yet sees that it is told to stop."""

LAST_SECONDS = 5.0
"""How long a stop waits for threads whose calls were refused: they look up between two pieces of
text or two turns, of milliseconds each."""

TICKS = 10
"""Tenths of a second after which this process's counts are left for others that share its port."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end with status 0; with 1 if the kernels fail."""
    render = configure_logging(settings)
    ring = key_ring(settings)
    listener = _listen_unix(settings.uds) if settings.uds else _listen(settings.host, settings.port)
    refuse_exposure(listener, settings, ring)
    logger.info(
        "softxent on %s, workers: %d, documentation under /docs",
        _url(listener, settings),
        settings.workers,
    )
    try:
        if settings.workers > 1:
            sys.exit(_supervise(settings, listener))
        end = _serve(settings, listener, render, _nothing, at_once=True)
    finally:
        if settings.uds:
            settings.uds.unlink(missing_ok=True)
    end()


def _supervise(settings: Settings, listener: socket.socket) -> int:
    """Let several processes serve, which leave their counts for each other; return the status."""
    with tempfile.TemporaryDirectory(prefix="softxent-") as counts:
        directory = settings.metrics_directory or Path(counts)
        shared = settings.model_copy(update={"metrics_directory": directory})
        return Supervisor(_work, shared, listener).run()


def _work(settings: Settings, listener: socket.socket, ready: Connection, at_once: bool) -> None:
    """Be one of several processes; see `workers.Work`."""
    _serve(settings, listener, configure_logging(settings), ready.close, at_once=at_once)()


def _serve(
    settings: Settings,
    listener: socket.socket,
    render: Processor,
    when_ready: Callable[[], None],
    *,
    at_once: bool,
) -> Callable[[], None]:
    """Serve until a signal; return what ends the process, and may do so at once."""
    give_freed_memory_back()
    readiness = Readiness()
    telemetry = Telemetry(settings, render)
    app = create_app(settings, readiness, telemetry, key_ring(settings))
    config = _config(settings, app, telemetry)
    server = _Server(config, readiness, telemetry, settings.drain_seconds)
    # uvicorn puts these back and raises the signal again once it has stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    jobs: Jobs = app.state.jobs

    def begin() -> None:
        jobs.resume()
        leave_out_of_collections()
        when_ready()

    warming = Thread(target=_warm_up, args=(readiness, server, settings, begin), daemon=True)
    warming.start()
    while not at_once and warming.is_alive() and not readiness.stopping:
        warming.join(TICK_SECONDS)
    try:
        server.run(sockets=[listener])
    finally:
        telemetry.close()
    if not warming.is_alive():
        jobs.close()
    return partial(_end, warming, readiness)


def _nothing() -> None:
    """Tell nobody."""


class _Server(uvicorn.Server):
    """Server that is not ready from the first signal on, and ends at once at a second one."""

    def __init__(
        self,
        config: uvicorn.Config,
        readiness: Readiness,
        telemetry: Telemetry,
        drain_seconds: float,
    ) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._telemetry = telemetry
        self._drain_seconds = drain_seconds
        self._stop_at = math.inf

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        if self._readiness.stopping:
            self.should_exit = self.force_exit = True
        self._readiness.stopping = True
        self._stop_at = min(self._stop_at, time.monotonic() + self._drain_seconds)

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        if counter % TICKS == 0:
            self._telemetry.write()
        return await super().on_tick(counter)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        sys.exit(f"softxent: cannot listen on {host} port {port}: {error}")
    # Connections inherit it; asyncio sets it only on those of sockets that it has made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _listen_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket() and not _answers(path):
            # Left behind by a process that was killed.
            path.unlink()
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        sys.exit(f"softxent: cannot listen on {path}: {error}")
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _url(listener: socket.socket, settings: Settings) -> str:
    if settings.uds:
        return f"unix:{settings.uds}"
    scheme = "https" if settings.tls_certificate else "http"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _config(settings: Settings, app: FastAPI, telemetry: Telemetry) -> uvicorn.Config:
    protocol = bulk_protocol if settings.transport == "bulk" else plain_protocol
    # As a body: silent for so long, or that much behind the least rate.
    answer_seconds = settings.body_idle_seconds + PIECE_BYTES / settings.body_bytes_per_second
    bounds = ConnectionLimits(
        settings.request_head_bytes, settings.connections, answer_seconds, telemetry.refused
    )
    return uvicorn.Config(
        app,
        http=protocol(bounds),  # type: ignore[arg-type]
        loop="auto",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def _warm_up(
    readiness: Readiness,
    server: uvicorn.Server,
    settings: Settings,
    when_ready: Callable[[], None],
) -> None:
    try:
        readiness.warm_up(shared_memory=settings.shared_memory)
    except KernelsError as error:
        logger.debug("", exc_info=True)
        logger.error("%s", error)
        server.should_exit = True
    else:
        threads, layer = settings.worker_threads, readiness.threading_layer
        logger.info("ready: %d kernel threads on the %s layer", threads, layer)
        when_ready()


def _end(warming: Thread, readiness: Readiness) -> None:
    if not warming.is_alive() and readiness.reason is not None:
        sys.exit(1)
    if warming.is_alive() or not _joined(LAST_SECONDS):
        # A thread inside the compiler does not survive the end of the interpreter, and it may
        # take half a minute to leave it. The interpreter would wait for any other for ever.
        logging.shutdown()
        os._exit(0)


def _joined(seconds: float) -> bool:
    """Tell whether all threads that the interpreter would wait for have ended in time."""
    until = time.monotonic() + seconds
    waited_for = [t for t in threading.enumerate() if t is not current_thread() and not t.daemon]
    for thread in waited_for:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in waited_for)

"""Runs the application under uvicorn, and the warm-up beside it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from threading import Thread

import uvicorn

from softxent_service.http.app import create_app
from softxent_service.http.protocol import bounded_protocol
from softxent_service.http.readiness import KernelsError, Readiness
from softxent_service.settings import Settings

logger = logging.getLogger("softxent")

BACKLOG = 2048


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end with status 0; with 1 if the kernels fail."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    listener = _listen(settings.host, settings.port)
    readiness = Readiness()
    server = uvicorn.Server(_config(settings, readiness))
    # uvicorn puts these back and raises the signal again once it has stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    logger.info(
        "softxent on %s, %d kernel threads, documentation under /docs",
        _url(listener),
        settings.threads,
    )
    warming = Thread(target=_warm_up, args=(readiness, server, settings.threads), daemon=True)
    warming.start()
    server.run(sockets=[listener])
    _end(warming, readiness)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        sys.exit(f"softxent: cannot listen on {host} port {port}: {error}")
    # Connections inherit it; asyncio sets it only on those of sockets that it has made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config(settings: Settings, readiness: Readiness) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, readiness),
        http=bounded_protocol(settings.request_head_bytes),
        loop="auto",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def _warm_up(readiness: Readiness, server: uvicorn.Server, threads: int) -> None:
    try:
        readiness.warm_up()
    except KernelsError as error:
        logger.debug("", exc_info=True)
        logger.error("%s", error)
        server.should_exit = True
    else:
        logger.info("ready: %d kernel threads on the %s layer", threads, readiness.threading_layer)


def _end(warming: Thread, readiness: Readiness) -> None:
    if warming.is_alive():
        # A thread inside the compiler does not survive the end of the interpreter, and it may
        # take half a minute to leave it.
        logging.shutdown()
        os._exit(0)
    if readiness.reason is not None:
        sys.exit(1)

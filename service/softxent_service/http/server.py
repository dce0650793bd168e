"""Runs the application under uvicorn."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

import uvicorn

from softxent_service.http.app import create_app
from softxent_service.http.protocol import bounded_protocol
from softxent_service.settings import Settings

logger = logging.getLogger("softxent")


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end with status 0."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    # uvicorn raises the signal again once it has stopped; unhandled it would be the exit status.
    signal.signal(signal.SIGTERM, _end)
    logger.info(
        "softxent on http://%s:%d, %d kernel threads, documentation under /docs",
        settings.host,
        settings.port,
        settings.threads,
    )
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        http=bounded_protocol(settings.request_head_bytes),
        loop="auto",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)

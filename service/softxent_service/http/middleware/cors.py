"""CORS: web pages of allowed origins may call."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

METHODS = ("GET", "HEAD", "POST")

TAKEN = ("Authorization", "Idempotency-Key", "Request-Timeout", "Traceparent", "X-Request-ID")
"""Headers that a page may send beside those that any may."""

SHOWN = ("Location", "Retry-After", "Server-Timing", "WWW-Authenticate", "X-Request-ID")
"""Headers of answers that a page may read beside those that any may."""


def add_cors(app: FastAPI, origins: str) -> None:
    """Let pages of `origins`, with commas between, call `app`; they send keys and no cookies.

    A browser asks before it sends a key, without one: that is answered before keys are looked at.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[origin.strip() for origin in origins.split(",")],
        allow_methods=METHODS,
        allow_headers=TAKEN,
        expose_headers=SHOWN,
    )

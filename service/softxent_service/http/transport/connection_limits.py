"""Limits of a connection, applied before any application sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(_status: int, _problem: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of a protocol: size of request heads, open connections, and slow readers.

    Attributes:
        answer_seconds: how long a client may take for what waits to be sent to it.
        refused: is told the status and the problem of each refusal that no application sees.
    """

    head_bytes: int
    connections: int
    answer_seconds: float
    refused: Callable[[int, str], None] = _ignore

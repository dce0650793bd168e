"""One line for each request, formatted and written beside the event loop."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

from structlog.typing import Processor

from softxent_service.telemetry.record import STAGES, Record

logger = logging.getLogger("softxent.requests")

GATHERED_SECONDS = 0.05
"""How long lines wait for more, so that a thousand of them cost 20 switches of threads."""

MOST_WAITING = 10_000
"""Lines kept while the log is not taken; further ones are dropped and counted."""

LONGEST_AGENT = 100
"""Characters of what a client calls itself that are logged."""


class Lines:
    """Takes records of requests that have ended, and writes their lines.

    Attributes:
        dropped: how many were not written.
    """

    def __init__(self, render: Processor) -> None:
        self._render = render
        self._waiting: deque[Record] = deque()
        self._some = Event()
        self._ends = False
        self.dropped = 0
        self._thread = Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Have a line written soon."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(record)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write what waits, unless nobody takes it for a second."""
        self._ends = True
        self._some.set()
        self._thread.join(timeout=1)

    def _write_all(self) -> None:
        while not self._ends:
            self._some.wait()
            if not self._ends:
                time.sleep(GATHERED_SECONDS)
            self._some.clear()
            self._write()

    def _write(self) -> None:
        lines = [self._line(self._waiting.popleft()) for _ in range(len(self._waiting))]
        if lines:
            sys.stderr.write("".join(lines))
            sys.stderr.flush()

    def _line(self, record: Record) -> str:
        return f"{self._render(None, '', event_of(record))!s}\n"


def event_of(record: Record) -> dict[str, Any]:
    """Return what is logged of a request: of its headers the id and the agent, never its query.

    Keys have names, which are logged; a path that is no route of ours may hold anything.
    """
    event: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.ended, UTC),
        "level": "error" if record.status == 500 else "info",
        "event": "request",
        "id": record.request_id,
        "method": record.scope.get("method", ""),
        "route": record.route,
        "status": record.status,
        "ms": round(record.whole * 1e3, 3),
        "received": record.received,
        "sent": record.sent,
        "client": (record.scope.get("client") or ("",))[0],
        "agent": _agent(record),
    }
    if record.dtype is not None:
        event |= {"rows": record.rows, "dtype": record.dtype}
        for stage, seconds in zip(STAGES, record.seconds, strict=True):
            event[f"{stage}_ms"] = round(seconds * 1e3, 3)
    optional = {"problem": record.problem, "key": record.key, "trace": record.trace_id}
    return event | {name: value for name, value in optional.items() if value is not None}


def _agent(record: Record) -> str:
    for name, value in record.scope.get("headers", ()):
        if name == b"user-agent":
            return str(value[:LONGEST_AGENT].decode("latin-1"))
    return ""

"""Request log: one line for each request, written beside the event loop."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

from structlog.typing import Processor

from softxent_service.telemetry.record import STAGES, Record

GATHERED_SECONDS = 0.05
"""How long lines wait for more, so that a thousand of them cost 20 switches of threads."""

MOST_WAITING = 10_000
"""Lines kept while the log is not taken; further ones are dropped and counted."""

_STAGE_FIELDS = [f"{stage}_ms" for stage in STAGES]

LONGEST_AGENT = 100
"""Characters of what a client calls itself that are logged."""


class Lines:
    """Log lines of requests that have ended; a thread writes them.

    It only writes: a thread that formatted as well held the interpreter for milliseconds whenever
    the event loop let go of it for a system call, and a third of the requests got through.

    Attributes:
        dropped: how many were not written.
    """

    def __init__(self, render: Processor) -> None:
        self._render = render
        self._waiting: list[str] = []
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
        self._waiting.append(f"{self._render(None, '', event_of(record))!s}\n")
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
            lines, self._waiting = self._waiting, []
            if lines:
                sys.stderr.write("".join(lines))
                sys.stderr.flush()


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
        event["rows"], event["dtype"] = record.rows, record.dtype
        for name, seconds in zip(_STAGE_FIELDS, record.seconds, strict=True):
            event[name] = round(seconds * 1e3, 3)
    if record.problem is not None:
        event["problem"] = record.problem
    if record.key is not None:
        event["key"] = record.key
    if record.trace_id is not None:
        event["trace"] = record.trace_id
    return event


def _agent(record: Record) -> str:
    for name, value in record.scope.get("headers", ()):
        if name == b"user-agent":
            return str(value[:LONGEST_AGENT].decode("latin-1"))
    return ""

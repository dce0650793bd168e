"""Record of one request, filled while it runs and reported when it has ended."""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol

from starlette.types import Scope

STAGES = ("read", "queue", "decode", "kernel", "encode")
READ, QUEUE, DECODE, KERNEL, ENCODE = range(len(STAGES))

_TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES).encode()

_KEY = "softxent.record"

ANSWER = "softxent.answer"
"""Stands in a scope for an `Answer`, where the connection tells of it."""

CUT_STATUS, CUT, GONE = 499, "answer-cut", "client-gone"
"""What is told of an answer that was not taken whole, or not at all; the status is the one that
nginx's logs have made known, and no client sees it."""

UNMATCHED = "unmatched"
"""The route of a request that reaches none."""


class Answer(Protocol):
    """Facts of an answer that only the connection knows."""

    disconnected: bool
    """Whether the connection ended before all of it was handed over."""


class _Whole:
    disconnected = False


class Record:
    """One request and its answer; what most requests lack stands on the class.

    Attributes:
        request_id: the client's own, or one that was made.
        route: the path as it was declared; a template where it has parameters.
        seconds: of each of `STAGES`, then of the whole once it has ended.
        received, sent: bytes of the body, and of the answer's that were handed over.
        answer: what the connection knows of it.
        problem: the word of the problem document that was sent, None if none was.
        key: the name of the key that the client has.
    """

    route = UNMATCHED
    status = 0
    rows = 0
    dtype: str | None = None
    received = 0
    sent = 0
    problem: str | None = None
    key: str | None = None
    trace_id: str | None = None
    whole = 0.0
    ended = 0.0

    def __init__(self, scope: Scope, request_id: str = "") -> None:
        self.scope = scope
        self.answer: Answer = scope.get(ANSWER, _Whole)
        self.request_id = request_id
        self.seconds = [0.0] * len(STAGES)
        self.began = self._since = perf_counter()

    def lap(self, stage: int) -> None:
        """Count what has passed since the last lap, or since the start, for `stage`."""
        now = perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now

    def waited(self, seconds: float) -> None:
        """Count as queueing what was counted for the kernel and was a wait for its turns."""
        self.seconds[KERNEL] -= seconds
        self.seconds[QUEUE] += seconds

    def batch(self, logits: Any) -> None:
        """Take note of the batch that is evaluated, logits [..., C]."""
        self.rows = logits.size // max(1, logits.shape[-1])
        self.dtype = _name(logits.dtype)

    def end(self) -> None:
        """Tell an answer that was broken off from a whole one."""
        if self.answer.disconnected and self.status < 500:
            self.status, self.problem = CUT_STATUS, CUT if self.sent else GONE

    def server_timing(self) -> bytes:
        """Return the header Server-Timing, in milliseconds."""
        return _TIMING % tuple([1e3 * seconds for seconds in self.seconds])


@lru_cache(maxsize=16)
def _name(dtype: Any) -> str:
    # NumPy takes 1 us to say it.
    return str(dtype.name)


def begin(scope: Scope, request_id: str) -> Record:
    """Return the record of the request that begins now; `record_of` finds it from now on."""
    record = scope[_KEY] = Record(scope, request_id)
    return record


def record_of(scope: Scope) -> Record:
    """Return the record of a request; one that nobody reads where none was begun."""
    record: Record | None = scope.get(_KEY)
    return Record(scope) if record is None else record

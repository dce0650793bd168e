"""`POST /v1/cross_entropy`: a batch in, loss and gradient out, in either form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.types import Receive, Scope, Send

from softxent_client.wire import JSON, MEDIA_TYPES, REQUEST, SAFETENSORS, Limits, result_tensors
from softxent_service.http.admission import Gate
from softxent_service.http.answers import Piece, send_answer
from softxent_service.http.body import Buffer, Ceiling, read_body
from softxent_service.http.negotiation import Head, read_head
from softxent_service.http.query import Query, read_query
from softxent_service.http.readiness import Evaluate, Readiness

PATH = "/v1/cross_entropy"

ON_LOOP_BYTES = {JSON: 16 << 10, SAFETENSORS: 64 << 10}
"""Bodies up to this size are evaluated on the event loop, by the serial kernel. Decoding,
evaluating and encoding took 115 us for 8 KiB of JSON, 155 us for 21 KiB, 105 us for 32 KiB of the
binary form, 125 us for 64 KiB and 155 us for 128 KiB, where a hop to a thread and back took
150 us (two shared cores, float32)."""


class CrossEntropyRoute:
    """A plain ASGI endpoint: no request model and no dependency stands before the kernel."""

    def __init__(
        self,
        readiness: Readiness,
        gate: Gate,
        limits: Limits,
        *,
        threads: int,
        body_idle_seconds: float,
    ) -> None:
        self._readiness = readiness
        self._gate = gate
        self._limits = limits
        self._ceilings = ceilings(limits)
        self._threads = threads
        self._body_idle_seconds = body_idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        evaluate = self._readiness.evaluate
        head = read_head(scope)
        query = read_query(scope["query_string"], head.form)
        body = await read_body(
            receive, head.content_length, self._ceilings[head.form], self._body_idle_seconds
        )
        if len(body) <= ON_LOOP_BYTES[head.form]:
            pieces = answer(evaluate, body, query, head, self._limits, 1)
        else:
            pieces = await self._gate.run(
                lambda: answer(evaluate, body, query, head, self._limits, self._threads)
            )
        await send_answer(send, head.answer_form.encode(), pieces)


def ceilings(limits: Limits) -> dict[str, Ceiling]:
    """Return the ceiling of each media type's body."""
    return {
        form: Ceiling("json_bytes", limits.json_bytes)
        if form == JSON
        else Ceiling("binary_bytes", limits.binary_bytes)
        for form in MEDIA_TYPES
    }


def answer(
    evaluate: Evaluate, body: Buffer, query: Query, head: Head, limits: Limits, threads: int
) -> Sequence[Piece]:
    """Decode, evaluate, encode; the gradient of a writable body takes its logits' place.

    Raises:
        SoftxentError: the body is malformed, too large in some respect, or has no meaning.
    """
    form = MEDIA_TYPES[head.form]
    tensors = form.decode(body, REQUEST(query.logits_dtype), limits)
    result = evaluate(tensors, query.options, out=_in_place(tensors, query), num_threads=threads)
    encoded: Sequence[Piece] = list(MEDIA_TYPES[head.answer_form].encode(result_tensors(result)))
    return encoded


def _in_place(
    tensors: dict[str, np.ndarray[Any, Any]], query: Query
) -> dict[str, np.ndarray[Any, Any]] | None:
    logits = tensors["logits"]
    if "gradient" in query.options.outputs and logits.flags.writeable:
        return {"gradient": logits}
    return None

"""`POST /v1/{evaluation}`: a batch in, its outputs out, in either form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from starlette.types import Receive, Scope, Send

from softxent import Options
from softxent.evaluations import IN_PLACE, Evaluation
from softxent_client.wire import JSON, MEDIA_TYPES, REQUEST, SAFETENSORS, Limits, result_tensors
from softxent_service.http.admission import Gate
from softxent_service.http.answers import Piece, send_answer
from softxent_service.http.body import Buffer, Ceiling, read_body
from softxent_service.http.negotiation import Head, read_head
from softxent_service.http.query import Query, read_query
from softxent_service.http.readiness import Evaluate, Readiness

Array = npt.NDArray[Any]

ON_LOOP_BYTES = {JSON: 16 << 10, SAFETENSORS: 64 << 10}
"""Bodies up to this size are evaluated on the event loop, by the serial kernel. Decoding,
evaluating and encoding took 115 us for 8 KiB of JSON, 155 us for 21 KiB, 105 us for 32 KiB of the
binary form, 125 us for 64 KiB and 155 us for 128 KiB, where a hop to a thread and back took
150 us (two shared cores, float32)."""


class EvaluationRoute:
    """A plain ASGI endpoint: no request model and no dependency stands before the kernel."""

    def __init__(
        self,
        evaluation: Evaluation,
        readiness: Readiness,
        gate: Gate,
        limits: Limits,
        *,
        threads: int,
        body_idle_seconds: float,
    ) -> None:
        self._evaluation = evaluation
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
        query = read_query(scope["query_string"], head.form, self._evaluation)
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
    """Decode, evaluate, encode; an output that may takes the place of a writable body's logits.

    Raises:
        SoftxentError: the body is malformed, too large in some respect, or has no meaning.
    """
    form = MEDIA_TYPES[head.form]
    tensors = form.decode(body, REQUEST(query.logits_dtype, query.evaluation), limits)
    results = evaluate(
        tensors,
        query.options,
        query.evaluation,
        out=_in_place(tensors["logits"], query.options),
        num_threads=threads,
    )
    encoded: Sequence[Piece] = list(MEDIA_TYPES[head.answer_form].encode(result_tensors(results)))
    return encoded


def _in_place(logits: Array, options: Options) -> dict[str, Array]:
    """Return what takes the logits' place."""
    if logits.flags.writeable and options.output_dtype in (None, logits.dtype.name):
        for name in IN_PLACE:
            if name in options.outputs:
                return {name: logits}
    return {}

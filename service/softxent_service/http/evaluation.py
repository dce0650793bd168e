"""`POST /v1/{evaluation}`: a batch in, its outputs out, in either form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy.typing as npt
from starlette.types import Receive, Scope, Send

from softxent import Options
from softxent.evaluations import IN_PLACE, PER_LOGIT, Evaluation
from softxent_client.wire import (
    JSON,
    MEDIA_TYPES,
    REQUEST,
    SAFETENSORS,
    Limits,
    json_form,
    result_tensors,
)
from softxent_service.http.admission import Gate, Patience
from softxent_service.http.answers import Piece, send_answer
from softxent_service.http.body import Buffer, Ceiling, Reader
from softxent_service.http.budget import Reservation
from softxent_service.http.bulk import bulk_of
from softxent_service.http.negotiation import Head, read_head, seconds_of
from softxent_service.http.query import Query, read_query
from softxent_service.http.readiness import Evaluate, Readiness
from softxent_service.settings import Settings
from softxent_service.telemetry.record import (
    DECODE,
    ENCODE,
    KERNEL,
    QUEUE,
    READ,
    Record,
    record_of,
)

Array = npt.NDArray[Any]

ON_LOOP_BYTES = {JSON: 16 << 10, SAFETENSORS: 64 << 10}
"""Bodies up to this size are evaluated on the event loop, by the serial kernel. Decoding,
evaluating and encoding took 115 us for 8 KiB of JSON, 155 us for 21 KiB, 105 us for 32 KiB of the
binary form, 125 us for 64 KiB and 155 us for 128 KiB, where a hop to a thread and back took
150 us (two shared cores, float32)."""


LONGEST_NUMBERS = {2: 15, 4: 15, 8: 24}
"""Characters of a number, by the bytes that it takes in memory."""

ITEMSIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


class EvaluationRoute:
    """A plain ASGI endpoint: no request model and no dependency stands before the kernel."""

    def __init__(
        self,
        evaluation: Evaluation,
        readiness: Readiness,
        gate: Gate,
        reader: Reader,
        settings: Settings,
    ) -> None:
        self._evaluation = evaluation
        self._readiness = readiness
        self._gate = gate
        self._reader = reader
        self._settings = settings
        self._limits = settings.limits
        self._ceilings = ceilings(settings.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        evaluate = self._readiness.evaluate
        settings, record = self._settings, record_of(scope)
        head = read_head(scope)
        query = read_query(scope["query_string"], head.form, self._evaluation)
        patience = Patience.of(
            seconds_of(head.timeout, settings.timeout_seconds, settings.longest_timeout_seconds)
        )
        with Reservation(self._reader.budget) as reservation:
            ceiling = self._ceilings[head.form]
            body = await self._reader.read(
                scope, receive, head.content_length, ceiling, reservation, patience
            )
            record.received = len(body)
            record.lap(READ)
            if len(body) <= ON_LOOP_BYTES[head.form]:
                alone = partial(evaluate, num_threads=1)
                pieces = answer(alone, body, query, head, self._limits, reservation, record)
            else:
                turn = partial(self._gate.turns.take, patience)
                shared = partial(evaluate, num_threads=settings.threads, turn=turn)

                def work() -> Sequence[Piece]:
                    record.lap(QUEUE)
                    return answer(shared, body, query, head, self._limits, reservation, record)

                pieces = await self._gate.run(work, patience, receive)
                record.waited(patience.waited)
            await send_answer(scope, send, head.answer_form.encode(), pieces)
            if bulk_of(scope) is not None:
                reservation.hand_back()


def ceilings(limits: Limits) -> dict[str, Ceiling]:
    """Return the ceiling of each media type's body."""
    return {
        form: Ceiling("json_bytes", limits.json_bytes)
        if form == JSON
        else Ceiling("binary_bytes", limits.binary_bytes)
        for form in MEDIA_TYPES
    }


def answer(
    evaluate: Evaluate,
    body: Buffer,
    query: Query,
    head: Head,
    limits: Limits,
    reservation: Reservation,
    record: Record,
) -> Sequence[Piece]:
    """Decode, evaluate, encode; an output that may takes the place of a writable body's logits.

    Raises:
        SoftxentError: the body is malformed, too large in some respect, or has no meaning; there
            is no memory for it, no time, or nobody who waits.
    """
    decoding = json_form.DECODING_BYTES * len(body) if head.form == JSON else 0
    reservation.add(decoding)
    form = MEDIA_TYPES[head.form]
    tensors = form.decode(body, REQUEST(query.logits_dtype, query.evaluation), limits)
    reservation.add(-decoding)
    record.batch(tensors["logits"])
    record.lap(DECODE)
    out = _in_place(tensors["logits"], query.options)
    held = sum(tensor.nbytes for tensor in tensors.values()) if head.form == JSON else 0
    reservation.add(held + answer_bytes(tensors["logits"], query.options, out, head.answer_form))
    results = evaluate(tensors, query.options, query.evaluation, out=out)
    record.lap(KERNEL)
    encoded: Sequence[Piece] = list(MEDIA_TYPES[head.answer_form].encode(result_tensors(results)))
    record.lap(ENCODE)
    return encoded


def answer_bytes(
    logits: Array, options: Options, out: Mapping[str, Array], answer_form: str
) -> int:
    """Return how many bytes outputs may take, and their text where they are sent as JSON."""
    itemsize = ITEMSIZES[str(options.output_dtype or logits.dtype.name)]
    text = 3 + LONGEST_NUMBERS[itemsize] if answer_form == JSON else 0
    size = 0
    for name in options.outputs:
        if name in PER_LOGIT:
            size += logits.size * ((0 if name in out else itemsize) + text)
        else:
            size += logits.size // max(1, logits.shape[-1]) * (8 + text)
    return size


def _in_place(logits: Array, options: Options) -> dict[str, Array]:
    """Return what takes the logits' place."""
    if logits.flags.writeable and options.output_dtype in (None, logits.dtype.name):
        for name in IN_PLACE:
            if name in options.outputs:
                return {name: logits}
    return {}

"""`POST /v1/{evaluation}`: a batch in, its outputs out, in either form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from softxent.evaluations import Evaluation
from softxent_client.wire import (
    JSON,
    MEDIA_TYPES,
    REQUEST,
    SAFETENSORS,
    Limits,
    json_form,
    result_tensors,
    safetensors_form,
)
from softxent_client.wire.json_blocks import Reserve
from softxent_service.http.admission import Patience
from softxent_service.http.answers import Piece, deliver
from softxent_service.http.arriving import Ceiling
from softxent_service.http.body import Body, Reader
from softxent_service.http.budget import Reservation
from softxent_service.http.evaluating import (
    ON_LOOP_BINARY,
    ON_LOOP_JSON,
    Evaluating,
    Form,
    Question,
)
from softxent_service.http.negotiation import Head, read_head, seconds_of
from softxent_service.http.query import Query, read_query
from softxent_service.settings import Settings
from softxent_service.telemetry.record import READ, record_of

ON_LOOP_BYTES = {JSON: ON_LOOP_JSON, SAFETENSORS: ON_LOOP_BINARY}


class EvaluationRoute:
    """A plain ASGI endpoint: no request model and no dependency stands before the kernel."""

    def __init__(
        self, evaluation: Evaluation, evaluating: Evaluating, reader: Reader, settings: Settings
    ) -> None:
        self._evaluation = evaluation
        self._evaluating = evaluating
        self._reader = reader
        self._settings = settings
        self._limits = settings.limits
        self._ceilings = ceilings(settings.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        self._evaluating.readiness.check()
        settings, record = self._settings, record_of(scope)
        head = read_head(scope)
        query = read_query(scope["query_string"], head.form, self._evaluation)
        patience = Patience.of(
            seconds_of(head.timeout, settings.timeout_seconds, settings.longest_timeout_seconds)
        )
        with Reservation(self._reader.budget) as reservation:
            ceiling = self._ceilings[head.form]
            body = await self._reader.read(scope, receive, head, ceiling, reservation, patience)
            record.received = len(body)
            record.lap(READ)
            form = form_of(body, query, head, self._limits)
            pieces = await self._evaluating.answer(form, reservation, patience, receive, record)
            media_type = head.answer_form.encode()
            await deliver(scope, send, media_type, pieces, reservation)


def ceilings(limits: Limits) -> dict[str, Ceiling]:
    """Return the ceiling of each media type's body."""
    return {
        form: Ceiling("json_bytes", limits.json_bytes)
        if form == JSON
        else Ceiling("binary_bytes", limits.binary_bytes)
        for form in MEDIA_TYPES
    }


def form_of(body: Body, query: Query, head: Head, limits: Limits) -> Form:
    """Return how a body of this media type is decoded, and its answer encoded."""
    schema = REQUEST(query.logits_dtype, query.evaluation)

    def decode(reserve: Reserve) -> Question:
        if head.form == JSON:
            tensors = json_form.decode(body.take(), schema, limits, reserve)
            body.free()
        else:
            tensors = safetensors_form.decode(body.take(), schema, limits)
        as_text = query.options.outputs if head.answer_form == JSON else ()
        return Question(query.evaluation, tensors, query.options, as_text=as_text)

    def encode(results: dict[str, Any]) -> Sequence[Piece]:
        return list(MEDIA_TYPES[head.answer_form].encode(result_tensors(results)))

    return Form(decode, encode, small=len(body) <= ON_LOOP_BYTES[head.form])

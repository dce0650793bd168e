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
from softxent_service.http.call import Call, CallLimits
from softxent_service.http.evaluator import (
    ON_LOOP_BINARY,
    ON_LOOP_JSON,
    Codec,
    EvaluationRequest,
    Evaluator,
)
from softxent_service.http.limits.body import Body
from softxent_service.http.limits.body_buffer import Ceiling
from softxent_service.http.negotiation import Head, read_head
from softxent_service.http.query import Query, read_query
from softxent_service.http.response import Piece

ON_LOOP_BYTES = {JSON: ON_LOOP_JSON, SAFETENSORS: ON_LOOP_BINARY}


class EvaluationRoute:
    """A plain ASGI endpoint: no request model and no dependency stands before the kernel."""

    def __init__(self, evaluation: Evaluation, evaluator: Evaluator, limits: CallLimits) -> None:
        self._evaluation = evaluation
        self._evaluator = evaluator
        self._limits = limits
        self._ceilings = ceilings(limits.settings.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        self._evaluator.readiness.check()
        head = read_head(scope)
        query = read_query(scope["query_string"], head.form, self._evaluation)
        with Call(self._limits, scope, receive, head.timeout) as call:
            body = await call.read(head, self._ceilings[head.form])
            codec = codec_of(body, query, head, self._limits.settings.limits)
            pieces = await self._evaluator.evaluate(codec, call)
            await call.respond(send, head.answer_form, pieces)


def ceilings(limits: Limits) -> dict[str, Ceiling]:
    """Return the ceiling of each media type's body."""
    return {
        form: Ceiling("json_bytes", limits.json_bytes)
        if form == JSON
        else Ceiling("binary_bytes", limits.binary_bytes)
        for form in MEDIA_TYPES
    }


def codec_of(body: Body, query: Query, head: Head, limits: Limits) -> Codec:
    """Return how a body of this media type is decoded, and its answer encoded."""
    schema = REQUEST(query.logits_dtype, query.evaluation)

    def decode(reserve: Reserve) -> EvaluationRequest:
        if head.form == JSON:
            tensors = json_form.decode(body.take(), schema, limits, reserve)
            body.free()
        else:
            tensors = safetensors_form.decode(body.take(), schema, limits)
        as_text = query.options.outputs if head.answer_form == JSON else ()
        return EvaluationRequest(query.evaluation, tensors, query.options, as_text=as_text)

    def encode(results: dict[str, Any]) -> Sequence[Piece]:
        return list(MEDIA_TYPES[head.answer_form].encode(result_tensors(results)))

    return Codec(decode, encode, small=len(body) <= ON_LOOP_BYTES[head.form])

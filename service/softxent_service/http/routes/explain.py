"""`POST /v1/explain`: the derivation of the gradient, step by step, on one small row."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from starlette.types import Receive, Scope, Send

from softxent import explain
from softxent.errors import as_json
from softxent.naive import NaiveForm
from softxent_client.wire import JSON, Limits, json_form
from softxent_client.wire.json_blocks import Reserve
from softxent_client.wire.schema import FLOATS, INTEGERS, Field, Schema
from softxent_service.http.call import Call, CallLimits
from softxent_service.http.limits.body import Body
from softxent_service.http.limits.body_buffer import Ceiling
from softxent_service.http.negotiation import read_head
from softxent_service.http.query import refuse_any

PATH = "/v1/explain"

_ROW = Field(FLOATS, np.dtype(np.float64), min_rank=1, max_rank=1)

EXPLAIN = Schema(
    fields={
        "logits": _ROW,
        "label": Field(INTEGERS, np.dtype(np.int64), max_rank=0),
        "target_probabilities": _ROW,
    },
    required=("logits",),
)
"""What a request for an explanation may hold; exactly one of the last two."""


class ExplainRoute:
    """A plain ASGI endpoint; it needs no compiled kernel and so is always ready."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._ceiling = Ceiling("json_bytes", limits.settings.json_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        refuse_any(scope["query_string"])
        head = read_head(scope, forms=(JSON,))
        with Call(self._limits, scope, receive, head.timeout) as call:
            body = await call.read(head, self._ceiling)
            limits = self._limits.settings.limits
            text = await call.run(lambda: answer(body, limits, call.reserve))
            await call.respond(send, JSON, [text])


def answer(body: Body, limits: Limits, reserve: Reserve) -> bytes:
    """Return the explanation as JSON; what is not defined is null.

    Every number is finite, but those of `naive`, which travel as words where they are not.

    Raises:
        SoftxentError: the body is malformed, too large in some respect, or has no meaning.
    """
    given: dict[str, Any] = dict(json_form.decode(body.take(), EXPLAIN, limits, reserve))
    if "label" in given:
        given["label"] = int(given["label"])
    steps = explain(**given)
    naive = {name: _in_words(form) for name, form in vars(steps.naive).items()}
    return orjson.dumps({**vars(steps), "naive": naive}, option=orjson.OPT_SERIALIZE_NUMPY)


def _in_words(form: NaiveForm) -> dict[str, Any]:
    return {
        name: [_in_word(number) for number in value] if value.ndim else _in_word(value)
        for name, value in vars(form).items()
    }


def _in_word(number: np.floating[Any]) -> np.floating[Any] | object:
    return number if np.isfinite(number) else as_json(float(number))

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
from softxent_service.http.admission import Gate, Patience
from softxent_service.http.answers import deliver
from softxent_service.http.arriving import Ceiling
from softxent_service.http.body import Body, Reader
from softxent_service.http.budget import Reservation
from softxent_service.http.evaluating import patient
from softxent_service.http.negotiation import read_head, seconds_of
from softxent_service.http.query import refuse_any
from softxent_service.settings import Settings
from softxent_service.telemetry.record import READ, record_of

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

    def __init__(self, gate: Gate, reader: Reader, settings: Settings) -> None:
        self._gate = gate
        self._reader = reader
        self._settings = settings
        self._ceiling = Ceiling("json_bytes", settings.json_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        refuse_any(scope["query_string"])
        settings, record = self._settings, record_of(scope)
        head = read_head(scope, forms=(JSON,))
        patience = Patience.of(
            seconds_of(head.timeout, settings.timeout_seconds, settings.longest_timeout_seconds)
        )
        with Reservation(self._reader.budget) as reservation:
            body = await self._reader.read(
                scope, receive, head, self._ceiling, reservation, patience
            )
            record.received = len(body)
            record.lap(READ)
            text = await self._gate.run(
                lambda: answer(body, settings.limits, patient(reservation.add, patience)),
                patience,
                receive,
            )
            await deliver(scope, send, JSON.encode(), [text], reservation)


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

"""`POST /v2/models/{model}/infer`: the protocol's request in, its outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.types import Receive, Scope, Send

from softxent.evaluations import PER_LOGIT, Evaluation
from softxent_client.wire import JSON, oip_form
from softxent_client.wire.json_blocks import Reserve
from softxent_client.wire.oip_form import Output, Placed, Request
from softxent_client.wire.schema import check_booleans
from softxent_service.http.call import Call, CallLimits
from softxent_service.http.errors import RegionError
from softxent_service.http.evaluator import (
    ON_LOOP_BINARY,
    ON_LOOP_JSON,
    Codec,
    EvaluationRequest,
    Evaluator,
)
from softxent_service.http.limits.body import Body
from softxent_service.http.limits.body_buffer import Ceiling
from softxent_service.http.response import Piece
from softxent_service.http.routes.oip.coding import coding_of, compressed
from softxent_service.http.routes.oip.head import HEADER_LENGTH, InferHead, read_infer_head
from softxent_service.http.routes.oip.models import VERSION
from softxent_service.http.routes.oip.parameters import Parameters, read_parameters
from softxent_service.http.routes.oip.regions import Lease, Regions
from softxent_service.http.routes.oip.statistics import ModelStatistics
from softxent_service.settings import Settings
from softxent_service.telemetry.record import record_of

Array = npt.NDArray[Any]

OCTETS = "application/octet-stream"

UNCOPIED = ("logits", "vectors", "target_probabilities")
"""Inputs that are evaluated where a client can change them meanwhile: floats, of which any will do.
All others are copied first, since what is checked of them is relied on."""


class InferRoute:
    """A plain ASGI endpoint of one model."""

    def __init__(
        self,
        evaluation: Evaluation,
        evaluator: Evaluator,
        limits: CallLimits,
        statistics: ModelStatistics,
        regions: Regions,
    ) -> None:
        self._evaluation = evaluation
        self._evaluator = evaluator
        self._limits = limits
        self._statistics = statistics
        self._regions = regions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        self._evaluator.readiness.check()
        with self._statistics.counting(record_of(scope)):
            head = read_infer_head(scope)
            with Call(self._limits, scope, receive, head.timeout) as call:
                body = await call.read(head, self._ceiling(head))
                with Lease(self._regions) as lease:
                    inference = _Inference(
                        self._evaluation, self._limits.settings, head, lease, call
                    )
                    pieces = await self._evaluator.evaluate(inference.codec(body), call)
                await call.respond(send, inference.media_type, pieces, inference.headers)

    def _ceiling(self, head: InferHead) -> Ceiling:
        limits = self._limits.settings.limits
        if head.header_length is None:
            return Ceiling("json_bytes", limits.json_bytes)
        return Ceiling("binary_bytes", limits.binary_bytes)


@dataclass
class _Inference:
    """An inference: how it is decoded, and its results encoded.

    Attributes:
        media_type, headers: of the answer, once it is encoded.
    """

    evaluation: Evaluation
    settings: Settings
    head: InferHead
    lease: Lease
    call: Call
    media_type: str = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()
    request: Request = field(init=False)
    parameters: Parameters = field(init=False)

    def codec(self, body: Body) -> Codec:
        """Return how `body` is evaluated; a small one is read here and now."""
        if self._text_bytes(body) > ON_LOOP_JSON or len(body) > ON_LOOP_BINARY:
            return Codec(lambda reserve: self._decode(body, reserve), self._encode, small=False)
        self._read(body, self.call.reserve)
        small = self.request.nbytes <= ON_LOOP_BINARY
        return Codec(self._request, self._encode, small=small)

    def _text_bytes(self, body: Body) -> int:
        length = self.head.header_length
        return len(body) if length is None else min(max(length, 0), len(body))

    def _decode(self, body: Body, reserve: Reserve) -> EvaluationRequest:
        self._read(body, reserve)
        return self._request(reserve)

    def _read(self, body: Body, reserve: Reserve) -> None:
        limits, length = self.settings.limits, self.head.header_length
        Ceiling("json_bytes", limits.json_bytes).check(self._text_bytes(body))
        self.request = oip_form.decode(body.take(), length, self.evaluation, limits, reserve)
        if len(body) == self._text_bytes(body):
            body.free()
        names = tuple(output.name for output in self.request.outputs)
        longest = self.settings.longest_timeout_seconds
        given = self.request.parameters
        self.parameters = read_parameters(given, names, self.evaluation, longest)
        if self.parameters.seconds is not None:
            self.call.deadline.grant(self.parameters.seconds)

    def _request(self, reserve: Reserve) -> EvaluationRequest:
        tensors = dict(self.request.tensors)
        for name, placed in self.request.placed.items():
            reserve(0 if name in UNCOPIED else placed.region.size)
            tensors[name] = self._input(name, placed)
        logits = tensors["logits"]
        return EvaluationRequest(
            self.evaluation,
            tensors,
            self.parameters.options,
            out=self._outputs(logits),
            as_text=[o.name for o in self.request.outputs if not (o.binary or o.region)],
        )

    def _input(self, name: str, placed: Placed) -> Array:
        view = self.lease.read(name, placed.region).toreadonly()
        array: Array = np.ndarray(placed.shape, placed.dtype, view)
        if name not in UNCOPIED:
            array = array.copy()
        if placed.dtype == np.bool_:
            check_booleans(name, array)
        return array

    def _outputs(self, logits: Array) -> dict[str, Array]:
        """Return the outputs that are written straight into shared memory."""
        dtype = np.dtype(self.parameters.options.output_dtype or logits.dtype)
        out: dict[str, Array] = {}
        for output in self.request.outputs:
            if output.region is not None and output.name in PER_LOGIT:
                view = self._room(output, logits.size * dtype.itemsize)
                out[output.name] = np.ndarray(logits.shape, dtype, view)
        return out

    def _room(self, output: Output, size: int) -> memoryview:
        assert output.region is not None
        if output.region.size < size:
            raise RegionError(
                f"shared_memory_byte_size of output {output.name!r} is {output.region.size}, "
                f"which has {size} bytes",
                field=output.name,
            )
        return self.lease.write(output.name, output.region, size)

    def _encode(self, results: dict[str, Any]) -> Sequence[Piece]:
        for output in self.request.outputs:
            if output.region is not None and output.name not in PER_LOGIT:
                data = np.asarray(results[output.name]).reshape(-1).view(np.uint8).data
                self._room(output, len(data))[: len(data)] = data
        self.lease.check()
        name, words = self.evaluation.name, self.parameters.non_finite
        encoded = oip_form.encode(results, self.request, name, VERSION, words)
        pieces = self._compress(encoded.pieces, is_text=encoded.header_length is None)
        if encoded.header_length is not None:
            self.media_type = OCTETS
            self.headers = [*self.headers, (HEADER_LENGTH, b"%d" % encoded.header_length)]
        return pieces

    def _compress(self, pieces: Sequence[Piece], *, is_text: bool) -> Sequence[Piece]:
        size = sum(map(len, pieces))
        coding = coding_of(self.head.accept_encoding, size, is_text=is_text)
        if coding is None:
            return pieces
        self.headers = [(b"content-encoding", coding.encode()), (b"vary", b"accept-encoding")]
        small: list[Piece] = []
        for piece in compressed(pieces, coding):
            self.call.reserve(len(piece))
            small.append(piece)
        return small

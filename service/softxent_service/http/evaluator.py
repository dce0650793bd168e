"""Evaluation of a call: its body is decoded, evaluated where it lies, and encoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy.typing as npt

from softxent import Options
from softxent.evaluations import IN_PLACE, PER_LOGIT, Evaluation
from softxent_client.wire.json_blocks import Reserve
from softxent_service.http.call import Call
from softxent_service.http.readiness import Evaluate, Readiness
from softxent_service.http.response import Piece
from softxent_service.telemetry.record import DECODE, ENCODE, KERNEL, QUEUE

Array = npt.NDArray[Any]

ON_LOOP_JSON, ON_LOOP_BINARY = 32 << 10, 256 << 10
"""Batches of up to this many bytes are evaluated on the event loop, by the serial kernel. Decoding,
evaluating and encoding took 115 us for 8 KiB of JSON, 155 us for 21 KiB, 105 us for 32 KiB of the
binary form, 125 us for 64 KiB and 155 us for 128 KiB, where a hop to a thread and back took
150 us (two shared cores, float32)."""

LONGEST_NUMBERS = {2: 15, 4: 15, 8: 24}
"""Characters of a number, by the bytes that it takes in memory."""

ITEMSIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class EvaluationRequest:
    """A batch, and what is to be evaluated of it.

    Attributes:
        out: outputs whose memory is given; others take the logits' place or new memory.
        as_text: the outputs that are sent as JSON.
    """

    evaluation: Evaluation
    tensors: Mapping[str, Array]
    options: Options
    out: Mapping[str, Array] = field(default_factory=dict)
    as_text: Collection[str] = ()


@dataclass(frozen=True)
class Codec:
    """Codec of one call: decoding of its body, encoding of its results.

    Attributes:
        decode: is given what reserves memory, and reserves what its arrays take beside the body.
        small: whether all of it is done sooner than a thread would have begun.
    """

    decode: Callable[[Reserve], EvaluationRequest]
    encode: Callable[[dict[str, Any]], Sequence[Piece]]
    small: bool


@dataclass(frozen=True)
class Evaluator:
    """Evaluation of calls: small ones on the event loop, others in a thread and in time slices."""

    readiness: Readiness
    threads: int

    async def evaluate(self, codec: Codec, call: Call) -> Sequence[Piece]:
        """Return the pieces of a call's answer.

        Raises:
            SoftxentError: the body is malformed, too large in some respect, or has no meaning;
                there is no memory for it, no time, or nobody who waits.
        """
        evaluate = self.readiness.evaluate
        if codec.small:
            return answer(partial(evaluate, num_threads=1), codec, call)
        shared = partial(evaluate, num_threads=self.threads, turn=call.time_slice)

        def work() -> Sequence[Piece]:
            call.record.lap(QUEUE)
            return answer(shared, codec, call)

        pieces = await call.run(work)
        call.record.waited(call.deadline.waited)
        return pieces


def answer(evaluate: Evaluate, codec: Codec, call: Call) -> Sequence[Piece]:
    """Decode, evaluate, encode; an output that may takes the place of writable logits.

    Decoding reserves memory for each piece, and so ends once the call's time is over, its client is
    gone or the service has stopped.
    """
    request, record = codec.decode(call.reserve), call.record
    record.batch(request.tensors["logits"])
    record.lap(DECODE)
    out = {**request.out, **_in_place(request)}
    call.memory.add(answer_bytes(request, out))
    results = evaluate(request.tensors, request.options, request.evaluation, out=out)
    record.lap(KERNEL)
    pieces = codec.encode(results)
    record.lap(ENCODE)
    return pieces


def answer_bytes(request: EvaluationRequest, out: Mapping[str, Array]) -> int:
    """Return how many bytes outputs may take, and their text where they are sent as JSON."""
    logits, options = request.tensors["logits"], request.options
    output_dtype = options.output_dtype
    itemsize = logits.dtype.itemsize if output_dtype is None else ITEMSIZES[output_dtype]
    size = 0
    for name in options.outputs:
        text = 3 + LONGEST_NUMBERS[itemsize] if name in request.as_text else 0
        if name in PER_LOGIT:
            size += logits.size * ((0 if name in out else itemsize) + text)
        else:
            size += logits.size // max(1, logits.shape[-1]) * (8 + text)
    return size


def _in_place(request: EvaluationRequest) -> dict[str, Array]:
    """Return what takes the logits' place."""
    logits, options = request.tensors["logits"], request.options
    if "log_probabilities" in options.outputs:
        # Whether one of -Infinity is a result or an overflow is seen from the logits.
        return {}
    if logits.flags.writeable and options.output_dtype in (None, logits.dtype.name):
        for name in IN_PLACE:
            if name in options.outputs:
                return {} if name in request.out else {name: logits}
    return {}

"""What every route that evaluates shares: a body decoded, evaluated where it lies, and encoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy.typing as npt
from starlette.types import Receive

from softxent import Options
from softxent.evaluations import IN_PLACE, PER_LOGIT, Evaluation
from softxent_client.wire.json_blocks import Reserve
from softxent_service.http.admission import Gate, Patience
from softxent_service.http.answers import Piece
from softxent_service.http.budget import Reservation
from softxent_service.http.readiness import Evaluate, Readiness
from softxent_service.telemetry.record import DECODE, ENCODE, KERNEL, QUEUE, Record

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
class Question:
    """A batch, and what is asked of it.

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
class Form:
    """How one call's body becomes a question, and results become its answer.

    Attributes:
        decode: is given what reserves memory, and reserves what its arrays take beside the body.
        small: whether all of it is done sooner than a thread would have begun.
    """

    decode: Callable[[Reserve], Question]
    encode: Callable[[dict[str, Any]], Sequence[Piece]]
    small: bool


@dataclass(frozen=True)
class Evaluating:
    """Where calls are evaluated: on the event loop, or in a thread and in turns."""

    readiness: Readiness
    gate: Gate
    threads: int

    async def answer(
        self,
        form: Form,
        reservation: Reservation,
        patience: Patience,
        receive: Receive,
        record: Record,
    ) -> Sequence[Piece]:
        """Return the pieces of a call's answer.

        Raises:
            SoftxentError: the body is malformed, too large in some respect, or has no meaning;
                there is no memory for it, no time, or nobody who waits.
        """
        evaluate = self.readiness.evaluate
        if form.small:
            serial = partial(evaluate, num_threads=1)
            return answer(serial, form, reservation, record, patience)
        turn = partial(self.gate.turns.take, patience)
        shared = partial(evaluate, num_threads=self.threads, turn=turn)

        def work() -> Sequence[Piece]:
            record.lap(QUEUE)
            return answer(shared, form, reservation, record, patience)

        pieces = await self.gate.run(work, patience, receive)
        record.waited(patience.waited)
        return pieces


def answer(
    evaluate: Evaluate, form: Form, reservation: Reservation, record: Record, patience: Patience
) -> Sequence[Piece]:
    """Decode, evaluate, encode; an output that may takes the place of writable logits.

    Decoding reserves memory for each piece, and so ends once the call's time is over, its client is
    gone or the service has stopped.
    """
    asked = form.decode(patient(reservation.add, patience))
    record.batch(asked.tensors["logits"])
    record.lap(DECODE)
    out = {**asked.out, **_in_place(asked)}
    reservation.add(answer_bytes(asked, out))
    results = evaluate(asked.tensors, asked.options, asked.evaluation, out=out)
    record.lap(KERNEL)
    pieces = form.encode(results)
    record.lap(ENCODE)
    return pieces


def patient(reserve: Reserve, patience: Patience) -> Reserve:
    """Return what reserves memory for a call that is still worth going on with."""

    def checked(size: int) -> None:
        patience.check()
        reserve(size)

    return checked


def answer_bytes(asked: Question, out: Mapping[str, Array]) -> int:
    """Return how many bytes outputs may take, and their text where they are sent as JSON."""
    logits, options = asked.tensors["logits"], asked.options
    output_dtype = options.output_dtype
    itemsize = logits.dtype.itemsize if output_dtype is None else ITEMSIZES[output_dtype]
    size = 0
    for name in options.outputs:
        text = 3 + LONGEST_NUMBERS[itemsize] if name in asked.as_text else 0
        if name in PER_LOGIT:
            size += logits.size * ((0 if name in out else itemsize) + text)
        else:
            size += logits.size // max(1, logits.shape[-1]) * (8 + text)
    return size


def _in_place(asked: Question) -> dict[str, Array]:
    """Return what takes the logits' place."""
    logits, options = asked.tensors["logits"], asked.options
    if "log_probabilities" in options.outputs:
        # Whether one of -Infinity is a result or an overflow is seen from the logits.
        return {}
    if logits.flags.writeable and options.output_dtype in (None, logits.dtype.name):
        for name in IN_PLACE:
            if name in options.outputs:
                return {} if name in asked.out else {name: logits}
    return {}

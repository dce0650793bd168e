"""Reader of requests of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from softxent.evaluations import Evaluation
from softxent_client.wire import json_blocks
from softxent_client.wire.errors import (
    MalformedBodyError,
    NotSupportedError,
    UnknownNameError,
    check_size,
)
from softxent_client.wire.json_blocks import Reserve, unbounded
from softxent_client.wire.limits import Limits
from softxent_client.wire.oip_data import Lifted
from softxent_client.wire.oip_document import (
    member,
    objects,
    read_document,
    refuse_unknown,
    required,
)
from softxent_client.wire.oip_inputs import Following, Input, Inputs, region_of
from softxent_client.wire.oip_types import PLACE, Output, Placed, Request
from softxent_client.wire.schema import SHOWN, Array, check_booleans

Buffer = bytes | bytearray | memoryview

KEPT_BYTES = 4 << 10
"""What JSON of up to this size says is kept if it holds no data: a client's next call says the
same, and reading it takes 40 us, as much as the kernel does for a row."""

_OF_OUTPUTS = ("binary_data", "classification", *PLACE, "content_type")


@dataclass(frozen=True)
class _Described:
    """Parsed JSON of a request."""

    inputs: Mapping[str, Input]
    outputs: tuple[Output, ...]
    parameters: Mapping[str, Any]
    given_id: str | None


def decode(
    buffer: Buffer,
    header_length: int | None,
    evaluation: Evaluation,
    limits: Limits,
    reserve: Reserve = unbounded,
) -> Request:
    """Read a request; `header_length` is how many bytes of it are JSON, None for all of them.

    `reserve` is told of memory before it is taken; in the end, of arrays that came as JSON.

    Raises:
        MalformedBodyError: the bytes break the protocol.
        LimitExceededError: the JSON, the inputs together or their number are over a limit.
        UnknownNameError: a parameter or an output is unknown.
        NotSupportedError: a classification is asked for.
        TensorError: an input is unknown, missing, or of an unexpected data type or rank.
        RowsError: JSON rows of different lengths, or values that the data type does not hold.
    """
    data = memoryview(buffer).cast("B")
    length = _json_length(data.nbytes, header_length)
    check_size(length, "json_bytes", limits.json_bytes, "the size of the JSON in bytes")
    text = bytes(data[:length])
    available = data.nbytes - length
    if length <= KEPT_BYTES and b'"data"' not in text:
        described = _described_before(text, available, evaluation, limits)
    else:
        described = _described(text, available, evaluation, limits, reserve)
    tensors, placed = {}, {}
    for name, one in described.inputs.items():
        if isinstance(one, Placed):
            placed[name] = one
        else:
            tensors[name] = _array(name, one, data, length)
    return Request(tensors, placed, described.outputs, described.parameters, described.given_id)


def _described(
    text: bytes,
    available: int,
    evaluation: Evaluation,
    limits: Limits,
    reserve: Reserve = unbounded,
) -> _Described:
    lifted = Lifted(text, limits, reserve) if len(text) > json_blocks.BLOCK_BYTES else None
    rest = text if lifted is None else lifted.rest
    parsing = json_blocks.PARSING_BYTES * len(rest)
    reserve(parsing)
    document = read_document(rest)
    inputs = Inputs(text, available, evaluation, limits, lifted).read(document)
    arrays = (one for one in inputs.values() if isinstance(one, np.ndarray))
    reserve((0 if lifted else sum(array.nbytes for array in arrays)) - parsing)
    parameters = member(document, "parameters", dict, "the request") or {}
    binary = bool(member(parameters, "binary_data_output", bool, "the request"))
    return _Described(
        inputs,
        _outputs(document, evaluation, binary=binary),
        {n: v for n, v in parameters.items() if n != "binary_data_output"},
        member(document, "id", str, "the request"),
    )


_described_before = lru_cache(maxsize=256)(_described)


def _array(name: str, one: Array | Following, data: memoryview, start: int) -> Array:
    if not isinstance(one, Following):
        return one
    array: Array = np.ndarray(one.shape, one.dtype, data, start + one.at)
    if one.dtype == np.bool_:
        check_booleans(name, array)
    return array


def _json_length(size: int, announced: int | None) -> int:
    if announced is None:
        return size
    if not 0 <= announced <= size:
        raise MalformedBodyError(
            f"inference header size should be in range (0, {size}), got: {announced}"
        )
    if not announced and size:
        raise MalformedBodyError(
            "a raw binary request (an inference header of size 0) needs a model with one input "
            "whose shape follows from its size; this one has inputs of two dimensions"
        )
    return announced


def _outputs(
    document: Mapping[str, Any], evaluation: Evaluation, *, binary: bool
) -> tuple[Output, ...]:
    entries = objects(document, "outputs", "the request")
    if not entries:
        return tuple(Output(name, binary) for name in evaluation.default_outputs)
    outputs = tuple(_output(entry, evaluation, binary=binary) for entry in entries)
    names = [output.name for output in outputs]
    for name in names:
        if names.count(name) > 1:
            raise MalformedBodyError(f"output {name!r} is asked for twice", field=name)
    return outputs


def _output(entry: Mapping[str, Any], evaluation: Evaluation, *, binary: bool) -> Output:
    name = required(entry, "name", str, "an output")
    if name not in evaluation.outputs:
        known = ", ".join(evaluation.outputs)
        raise UnknownNameError(
            f"unexpected inference output {name[:SHOWN]!r} for model {evaluation.name!r}; "
            f"known are {known}",
            field=name[:SHOWN],
        )
    owner = f"output {name!r}"
    parameters = member(entry, "parameters", dict, owner) or {}
    refuse_unknown(parameters, _OF_OUTPUTS, owner)
    if parameters.get("classification") is not None:
        raise NotSupportedError(
            "the classification extension is not served; ask for prediction or probabilities",
            field=name,
        )
    own = member(parameters, "binary_data", bool, owner)
    if parameters.get("shared_memory_region") is None:
        return Output(name, binary if own is None else own)
    if own:
        raise MalformedBodyError(
            f"{owner} cannot be both binary_data and in a shared_memory_region", field=name
        )
    return Output(name, binary=False, region=region_of(parameters, owner))

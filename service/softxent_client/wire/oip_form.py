"""The form of the Open Inference Protocol (KServe v2): JSON, then the bytes of binary tensors.

A request's inputs lie in its JSON, in the bytes behind it, or in a region of shared memory; so do
an answer's outputs. As with the other forms, what lies in bytes is never copied: `decode` gives
views into the buffer it was handed, `encode` views of the arrays it was handed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from softxent.errors import RowsError, TensorError, named_rows
from softxent.evaluations import Evaluation
from softxent_client.wire import json_reader
from softxent_client.wire.errors import (
    MalformedBodyError,
    NotSupportedError,
    UnknownNameError,
    check_size,
)
from softxent_client.wire.json_form import WORDS_AS, pieces
from softxent_client.wire.limits import Limits
from softxent_client.wire.oip_document import (
    member,
    natural,
    objects,
    read_document,
    refuse_unknown,
    required,
)
from softxent_client.wire.schema import (
    DTYPE_NAMES,
    DTYPES,
    MAX_BYTES,
    MAX_RANK,
    REQUEST,
    SHOWN,
    Array,
    Field,
    Schema,
    check_booleans,
)

Buffer = bytes | bytearray | memoryview

ALIGNMENT = 64

DATATYPES: Mapping[str, str] = {
    "FP64": "F64",
    "FP32": "F32",
    "FP16": "F16",
    "BF16": "BF16",
    "BOOL": "BOOL",
    **{f"INT{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
"""The protocol's names of data types, and those of the binary form."""

NAMES: Mapping[str, str] = {name: datatype for datatype, name in DATATYPES.items()}

_SOURCES = ("data", "binary_data_size", "shared_memory_region")
_PLACE = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")
_OF_INPUTS = ("binary_data_size", *_PLACE, "content_type")
_OF_OUTPUTS = ("binary_data", "classification", *_PLACE, "content_type")


@dataclass(frozen=True)
class Region:
    """A stretch of a region of shared memory, by the name it is registered under."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Placed:
    """An input that lies in shared memory."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    region: Region

    @property
    def ndim(self) -> int:
        """Return how many dimensions it has."""
        return len(self.shape)


@dataclass(frozen=True)
class Output:
    """One output that is asked for: as bytes, as JSON, or in shared memory."""

    name: str
    binary: bool
    region: Region | None = None


@dataclass(frozen=True)
class Request:
    """What a request says.

    Attributes:
        tensors: inputs that came with it, views into its body where they came as bytes.
        placed: inputs that lie in shared memory.
        outputs: what is asked for, in that order.
        parameters: all but those that say how outputs are sent.
        given_id: what the answer repeats.
    """

    tensors: Mapping[str, Array]
    placed: Mapping[str, Placed]
    outputs: tuple[Output, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    given_id: str | None = None

    @property
    def nbytes(self) -> int:
        """Return how many bytes all inputs take."""
        there = sum(placed.region.size for placed in self.placed.values())
        return there + sum(tensor.nbytes for tensor in self.tensors.values())


def decode(
    buffer: Buffer, header_length: int | None, evaluation: Evaluation, limits: Limits
) -> Request:
    """Read a request; `header_length` is how many bytes of it are JSON, None for all of them.

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
    document = read_document(text)
    inputs = _Inputs(text, data, length, evaluation, limits).read(document)
    parameters = member(document, "parameters", dict, "the request") or {}
    binary = bool(member(parameters, "binary_data_output", bool, "the request"))
    return Request(
        tensors={name: one for name, one in inputs.items() if not isinstance(one, Placed)},
        placed={name: one for name, one in inputs.items() if isinstance(one, Placed)},
        outputs=_outputs(document, evaluation, binary=binary),
        parameters={n: v for n, v in parameters.items() if n != "binary_data_output"},
        given_id=member(document, "id", str, "the request"),
    )


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


class _Inputs:
    """Reads the inputs in their order, those of bytes one after another."""

    def __init__(
        self, text: bytes, data: memoryview, start: int, evaluation: Evaluation, limits: Limits
    ) -> None:
        self._text = text
        self._data = data
        self._at = start
        self._model = evaluation.name
        self._schema: Schema = REQUEST(evaluation=evaluation)
        self._limits = limits

    def read(self, document: Mapping[str, Any]) -> dict[str, Array | Placed]:
        """Return the inputs by name."""
        entries = objects(document, "inputs", "the request")
        check_size(len(entries), "tensors", self._limits.tensors, "the number of inputs")
        plain = self._is_plain(document, entries)
        inputs: dict[str, Array | Placed] = {}
        for entry in entries:
            name = required(entry, "name", str, "an input")
            if name in inputs:
                raise MalformedBodyError(f"input {name[:SHOWN]!r} is given twice", field=name)
            inputs[name] = self._input(name, entry, plain=plain)
        if self._at != self._data.nbytes:
            raise MalformedBodyError(
                f"unexpected additional input data for model {self._model!r}: "
                f"{self._data.nbytes - self._at} bytes are left over"
            )
        self._check(inputs)
        return inputs

    def _is_plain(self, document: Mapping[str, Any], entries: list[dict[str, Any]]) -> bool:
        """Tell whether all brackets are those of shapes, so that none hides among numbers."""
        lists = sum(isinstance(e.get("shape"), list) for e in entries)
        lists += sum(isinstance(document.get(name), list) for name in ("inputs", "outputs"))
        for entry in entries:
            if entry.get("data") is not None:
                shape = json_reader.shape_of("data", entry["data"], self._limits)
                lists += json_reader.brackets(shape)
        return lists == self._text.count(b"[")

    def _check(self, inputs: Mapping[str, Array | Placed]) -> None:
        self._schema.check_names(inputs)
        self._schema.check_ranks(inputs)
        placed = sum(one.region.size for one in inputs.values() if isinstance(one, Placed))
        check_size(
            placed + self._data.nbytes,
            "binary_bytes",
            self._limits.binary_bytes,
            "the size of all inputs in bytes",
        )

    def _input(self, name: str, entry: Mapping[str, Any], *, plain: bool) -> Array | Placed:
        owner = f"input {name[:SHOWN]!r}"
        dtype = self._dtype(name, required(entry, "datatype", str, owner))
        shape = _shape(name, required(entry, "shape", list, owner), dtype.itemsize)
        parameters = member(entry, "parameters", dict, owner) or {}
        refuse_unknown(parameters, _OF_INPUTS, owner)
        source = _only_source(entry, parameters)
        if source == "data":
            return self._of_json(name, entry["data"], dtype, shape, plain=plain)
        if source == "binary_data_size":
            size = _sized(name, parameters, "binary_data_size", dtype, shape)
            return self._of_bytes(name, size, dtype, shape)
        _sized(name, parameters, "shared_memory_byte_size", dtype, shape)
        return Placed(dtype, shape, _region(parameters, owner))

    def _dtype(self, name: str, datatype: str) -> np.dtype[Any]:
        allowed = self._schema.field(name).dtypes
        if DATATYPES.get(datatype) not in allowed:
            known = ", ".join(NAMES[one] for one in allowed)
            raise TensorError(
                f"{name} has datatype {datatype[:SHOWN]!r}, expected one of {known}", field=name
            )
        return DTYPES[DATATYPES[datatype]]

    def _of_bytes(
        self, name: str, size: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Array:
        missing = self._at + size - self._data.nbytes
        if missing > 0:
            raise MalformedBodyError(
                f"unexpected size for input {name!r}, expecting {missing} additional bytes for "
                f"model {self._model!r}",
                field=name,
            )
        array: Array = np.ndarray(shape, dtype, self._data, self._at)
        self._at += size
        if dtype == np.bool_:
            check_booleans(name, array)
        return array

    def _of_json(
        self, name: str, data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], *, plain: bool
    ) -> Array:
        given = json_reader.shape_of(name, data, self._limits)
        if given != shape and given != (math.prod(shape),):
            raise MalformedBodyError(
                f"data of {name} has shape {list(given)}, neither flat nor the shape "
                f"{list(shape)} that is said",
                field=name,
            )
        wide = np.dtype(np.int64) if dtype.kind in "iu" else dtype
        array = json_reader.array_of(name, data, given, Field((), wide), plain=plain)
        return _narrowed(name, array, dtype).reshape(shape)


def _narrowed(name: str, wide: Array, dtype: np.dtype[Any]) -> Array:
    """Return integers in their own type; floats have theirs already."""
    if wide.dtype == dtype:
        return wide
    narrow = wide.astype(dtype)
    lost = narrow.reshape(-1) != wide.reshape(-1)
    if dtype.kind == "u":
        lost |= wide.reshape(-1) < 0
    if lost.any():
        raise RowsError(
            f"{name} holds integers that {dtype} cannot hold", field=name, **named_rows(lost, wide)
        )
    return narrow


def _shape(name: str, shape: list[Any], itemsize: int) -> tuple[int, ...]:
    # type() and not isinstance(): true is an int to Python.
    if not all(type(n) is int and n >= 0 for n in shape):
        raise MalformedBodyError(
            f"shape of {name} must be an array of integers that are not negative", field=name
        )
    if len(shape) > MAX_RANK:
        raise TensorError(f"{name} has {len(shape)} dimensions, at most {MAX_RANK}", field=name)
    if math.prod(n for n in shape if n) * itemsize > MAX_BYTES:
        raise MalformedBodyError(
            f"the shape of {name} causes total element count to exceed maximum size", field=name
        )
    return tuple(shape)


def _only_source(entry: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    given = [
        name for name in _SOURCES if (entry if name == "data" else parameters).get(name) is not None
    ]
    if len(given) != 1:
        found = "no field is set" if not given else f"set {' and '.join(map(repr, given))}"
        raise MalformedBodyError(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in "
            f"'parameters', 'shared_memory_region' in 'parameters'. But {found}",
            field=str(entry["name"]),
        )
    return given[0]


def _sized(
    name: str,
    parameters: Mapping[str, Any],
    which: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
) -> int:
    size = natural(parameters, which, f"input {name!r}")
    needed = math.prod(shape) * dtype.itemsize
    if size != needed:
        raise MalformedBodyError(
            f"{name} needs {needed} bytes by its shape and datatype; its {which} is {size}",
            field=name,
        )
    return needed


def _region(parameters: Mapping[str, Any], owner: str) -> Region:
    size = natural(parameters, "shared_memory_byte_size", owner)
    if size is None:
        raise MalformedBodyError(
            f"shared_memory_byte_size of {owner} is missing", field="shared_memory_byte_size"
        )
    offset = natural(parameters, "shared_memory_offset", owner)
    return Region(required(parameters, "shared_memory_region", str, owner), offset or 0, size)


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
    return Output(name, binary=False, region=_region(parameters, owner))


@dataclass(frozen=True)
class Encoded:
    """An answer as buffers to be sent one after another.

    Attributes:
        header_length: how many bytes of it are JSON; None if all are.
    """

    pieces: Sequence[bytes | memoryview]
    header_length: int | None


def encode(
    results: Mapping[str, Any],
    request: Request,
    model: str,
    version: str,
    non_finite: str = "string",
) -> Encoded:
    """Return the answer to `request`: its outputs in their order, and sums as parameters.

    `non_finite` is how numbers that JSON lacks are written, a key of `WORDS_AS`. The data of
    binary outputs begins at a multiple of 64 bytes of the body.
    """
    words = WORDS_AS[non_finite]
    text: list[bytes] = [_opening(results, request, model, version, words)]
    data: list[memoryview] = []
    for output in request.outputs:
        array = np.asarray(results[output.name], order="C")
        text.append(_described(output, array))
        if output.binary:
            data.append(array.reshape(-1).view(np.uint8).data)
        elif output.region is None:
            text += [b',"data":', *pieces(array.reshape(-1), words)]
        text.append(b"},")
    text[-1] = b"}]}"
    if not data:
        return Encoded(text, None)
    length = sum(map(len, text))
    padding = -length % ALIGNMENT
    text[-1] += b" " * padding
    return Encoded([*text, *(one for one in data if one.nbytes)], length + padding)


def _opening(
    results: Mapping[str, Any],
    request: Request,
    model: str,
    version: str,
    words: Mapping[str, bytes] | None,
) -> bytes:
    given = {} if request.given_id is None else {"id": request.given_id}
    text = orjson.dumps({**given, "model_name": model, "model_version": version})[:-1]
    asked = {output.name for output in request.outputs}
    sums = [
        orjson.dumps(name) + b":" + b"".join(pieces(np.asarray(value), words))
        for name, value in results.items()
        if name not in asked
    ]
    if sums:
        text += b',"parameters":{%s}' % b",".join(sums)
    return text + b',"outputs":['


def _described(output: Output, array: Array) -> bytes:
    """Return the JSON of an output, open for its data."""
    entry: dict[str, Any] = {
        "name": output.name,
        "datatype": NAMES[DTYPE_NAMES[array.dtype]],
        "shape": array.shape,
    }
    if output.binary:
        entry["parameters"] = {"binary_data_size": array.nbytes}
    elif output.region is not None:
        region = output.region
        place = (region.name, region.offset, region.size)
        entry["parameters"] = dict(zip(_PLACE, place, strict=True))
    return orjson.dumps(entry)[:-1]

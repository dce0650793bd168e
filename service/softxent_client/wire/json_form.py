"""The JSON form: an object of nested arrays of numbers.

Numbers that JSON lacks travel as the strings "NaN", "Infinity" and "-Infinity", both ways. The
encoder writes the shortest digits of each array's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import orjson

from softxent.errors import WORDS, as_json
from softxent_client.wire import json_blocks, json_reader
from softxent_client.wire.errors import check_size
from softxent_client.wire.json_blocks import Reserve, unbounded
from softxent_client.wire.limits import Limits
from softxent_client.wire.schema import Array, Schema

PIECE_NUMBERS = 20_000
"""Numbers in one piece of encoded text, about 256 KiB: orjson keeps the interpreter's lock."""

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

WORDS_AS: Mapping[str, Mapping[str, bytes] | None] = {
    "string": {word: orjson.dumps(word) for word in WORDS},
    "literal": {word: word.encode() for word in WORDS},
    "null": None,
}
"""How numbers that JSON lacks may be written. Literals are no JSON, and some readers' dialect."""


def decode(
    buffer: bytes | bytearray | memoryview,
    schema: Schema,
    limits: Limits,
    reserve: Reserve = unbounded,
) -> dict[str, Array]:
    """Return the tensors of a message as new arrays of the schema's JSON dtypes.

    `"logits": []` is a batch of no rows, [0, 0].

    Args:
        buffer: the message; no array refers to it.
        schema: which tensors it may hold.
        limits: ceilings of its size, depth and number of tensors.
        reserve: is told of memory before it is taken; in the end, of the arrays'.

    Raises:
        MalformedBodyError: not one JSON object in UTF-8, a key is repeated, or a number is beyond
            float64.
        LimitExceededError: the body or its number of tensors is over its limit.
        TensorError: a tensor is unknown, missing, or has the wrong number of dimensions.
        RowsError: rows of different lengths, something that is not a number, or a number that
            the dtype cannot hold.
    """
    check_size(len(buffer), "json_bytes", limits.json_bytes, "the body's size in bytes")
    large = len(buffer) > json_blocks.BLOCK_BYTES
    tensors = (json_blocks.read if large else _read_whole)(buffer, schema, limits, reserve)
    _widen_empty(tensors, schema)
    schema.check_ranks(tensors)
    return tensors


def _read_whole(
    buffer: bytes | bytearray | memoryview, schema: Schema, limits: Limits, reserve: Reserve
) -> dict[str, Array]:
    body = bytes(buffer)
    parsing = json_blocks.PARSING_BYTES * len(body)
    reserve(parsing)
    tensors = json_reader.read(body, schema, limits)
    reserve(sum(tensor.nbytes for tensor in tensors.values()) - parsing)
    return tensors


def _widen_empty(tensors: dict[str, Array], schema: Schema) -> None:
    """Give rows of no numbers the dimension that JSON cannot show: `[]` is [0, 0], not [0]."""
    rows_of = schema.rows_of or ""
    if rows_of not in tensors or tensors[rows_of].size:
        return
    shape = tensors[rows_of].shape
    below = {name: schema.fields[name].below for name in tensors if tensors[name].shape == shape}
    if len(shape) != 1 and 1 not in below.values():
        return
    for name in below:
        if name == rows_of or below[name] == 0:
            tensors[name] = tensors[name].reshape(*shape, 0)


def encode(tensors: Mapping[str, Array]) -> Iterator[bytes]:
    """Yield the message in pieces of at most about 256 KiB; 0-d arrays become numbers."""
    if sum(tensor.size for tensor in tensors.values()) <= PIECE_NUMBERS:
        whole = {name: _dumpable(tensor) for name, tensor in tensors.items()}
        text = orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY)
        if b"null" not in text:
            yield text
            return
    opening = b"{"
    for name, tensor in tensors.items():
        yield opening + orjson.dumps(name) + b":"
        yield from pieces(np.asarray(tensor))
        opening = b","
    yield b"}" if tensors else b"{}"


def pieces(array: Array, words: Mapping[str, bytes] | None = WORDS_AS["string"]) -> Iterator[bytes]:
    """Yield one array as JSON, in pieces of at most about 256 KiB; a 0-d one is a number.

    `words` say what stands for the numbers that JSON lacks; None leaves null.
    """
    if array.size <= PIECE_NUMBERS:
        yield _text(array, words)
        return
    row_numbers = array.size // len(array)
    step = max(1, PIECE_NUMBERS // row_numbers)
    opening = b"["
    for start in range(0, len(array), step):
        yield opening
        if row_numbers > PIECE_NUMBERS:
            yield from pieces(array[start], words)
        else:
            yield _text(array[start : start + step], words)[1:-1]
        opening = b","
    yield b"]"


def _dumpable(array: Array) -> Any:
    """Return what orjson takes: a native, aligned, contiguous array, or a number for a 0-d one.

    It does not know bfloat16, which is written as the float32 of the same value.
    """
    if array.dtype == _BFLOAT16:
        return _dumpable(array.astype(np.float32))
    if array.ndim == 0:
        return array[()]
    if array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative:
        return array
    return np.require(array, array.dtype.newbyteorder("="), ["C_CONTIGUOUS", "ALIGNED"])


def _text(array: Array, words: Mapping[str, bytes] | None) -> bytes:
    """Return one block as JSON."""
    if array.ndim == 0:
        return _text(array.reshape(1), words)[1:-1]
    block = _dumpable(array)
    text = orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)
    if words is None or block.dtype.kind != "f" or np.isfinite(block).all():
        return text
    # orjson writes null for each number that JSON lacks; put the words there, in order.
    given = [words[str(as_json(float(value)))] for value in block[~np.isfinite(block)]]
    gaps = text.split(b"null")
    return b"".join(part for pair in zip(gaps, given, strict=False) for part in pair) + gaps[-1]

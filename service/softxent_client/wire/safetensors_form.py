"""The binary form: named tensors in the layout of Hugging Face's safetensors.

    8 bytes    length n of the header, unsigned, little-endian
    n bytes    JSON: name -> {"dtype", "shape", "data_offsets": [begin, end]}, and optionally
               "__metadata__" -> {string: string}; padded with spaces
    the rest   the tensors' bytes, little-endian, C order, without hole or overlap

`decode` gives views into the buffer it was handed, `encode` views of the arrays it was handed: no
element is copied in either direction, which is why this module exists beside the library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from softxent.errors import TensorError
from softxent_client.wire.errors import MalformedBodyError, check_size
from softxent_client.wire.limits import Limits
from softxent_client.wire.schema import (
    DTYPE_NAMES,
    DTYPES,
    MAX_BYTES,
    MAX_RANK,
    SHOWN,
    Array,
    Schema,
    check_booleans,
)

LENGTH_BYTES = 8
ALIGNMENT = 64
MAX_DIGITS = 20
"""Digits of the largest unsigned 64-bit integer; Python refuses 4,300 in words of its own."""

METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}

Buffer = bytes | bytearray | memoryview


def decode(buffer: Buffer, schema: Schema, limits: Limits) -> dict[str, Array]:
    """Return the tensors of a message as views into `buffer`.

    The views may be unaligned and are writable exactly if the buffer is.

    Raises:
        MalformedBodyError: the bytes break the layout.
        LimitExceededError: the header or the number of tensors is over its limit.
        TensorError: a tensor is unknown, missing, or of an unexpected dtype or rank.
        RowsError: a byte of a boolean tensor is neither 0 nor 1.
    """
    data = memoryview(buffer).cast("B")
    check_size(data.nbytes, "binary_bytes", limits.binary_bytes, "the body's size in bytes")
    entries, start = _read_header(data, limits)
    schema.check_names(entries)
    spans = {name: _check_entry(name, entry, schema) for name, entry in entries.items()}
    _check_contiguous(spans, data.nbytes - start)
    tensors = {
        name: np.ndarray(
            tuple(entries[name]["shape"]), DTYPES[entries[name]["dtype"]], data, start + begin
        )
        for name, (begin, _) in spans.items()
    }
    schema.check_ranks(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype == np.bool_:
            check_booleans(name, tensor)
    return tensors


def encode(tensors: Mapping[str, Array]) -> list[memoryview]:
    """Return the message as buffers to be sent one after another: the header, then each array.

    The array buffers are the arrays' own memory unless an array is not C-contiguous
    little-endian. The data begins at a multiple of 64 bytes of the message.

    Raises:
        TensorError: an array has a dtype that the form does not carry.
    """
    arrays = {name: _sendable(name, array) for name, array in tensors.items()}
    header: dict[str, Any] = {}
    begin = 0
    for name in _order(arrays):
        end = begin + arrays[name].nbytes
        header[name] = {
            "dtype": DTYPE_NAMES[arrays[name].dtype],
            "shape": list(arrays[name].shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    head = len(text).to_bytes(LENGTH_BYTES, "little") + text
    parts = [arrays[name].reshape(-1).view(np.uint8).data for name in header]
    return [memoryview(head), *(part for part in parts if part.nbytes)]


def _sendable(name: str, array: Array) -> Array:
    array = np.asarray(array, order="C")
    little = array.dtype.newbyteorder("<")
    if little not in DTYPE_NAMES:
        raise TensorError(f"{name} has dtype {array.dtype}, which cannot be sent", field=name)
    return array.astype(little, copy=False)


def _order(arrays: Mapping[str, Array]) -> list[str]:
    """Return the names, the largest array first so that it begins on a 64-byte boundary.

    Where that would leave a later array off the multiples of its own item size, wide dtypes go
    first instead, which never does.
    """
    by_size = sorted(arrays, key=lambda name: -arrays[name].nbytes)
    begin = 0
    for name in by_size:
        if begin % arrays[name].itemsize:
            return sorted(by_size, key=lambda name: -arrays[name].itemsize)
        begin += arrays[name].nbytes
    return by_size


def _read_header(data: memoryview, limits: Limits) -> tuple[dict[str, Any], int]:
    if data.nbytes < LENGTH_BYTES:
        raise MalformedBodyError(
            f"a safetensors body begins with 8 bytes of header length; this one has {data.nbytes}"
        )
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    check_size(length, "header_bytes", limits.header_bytes, "the header's length")
    start = LENGTH_BYTES + length
    if start > data.nbytes:
        raise MalformedBodyError(
            f"the header is said to be {length} bytes, but only {data.nbytes - LENGTH_BYTES} follow"
        )
    header = _parse_header(bytes(data[LENGTH_BYTES:start]))
    _check_metadata(header.pop(METADATA, {}))
    check_size(len(header), "tensors", limits.tensors, "the number of tensors")
    return header, start


def _parse_header(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise MalformedBodyError("the header does not begin with '{'")
    try:
        header = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
    except RecursionError:
        raise MalformedBodyError("the header is nested too deeply") from None
    except ValueError as error:
        raise MalformedBodyError(f"the header is not UTF-8 JSON: {error}") from None
    if not isinstance(header, dict):  # pragma: no cover - json gives no other type for '{'
        raise MalformedBodyError("the header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedBodyError(f"the header names {twice[:SHOWN]!r} twice")
    "".join(result).encode()  # A lone surrogate is a ValueError here, and no problem later.
    return result


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise MalformedBodyError(f"the header holds an integer of {len(digits)} digits")
    return int(digits)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise MalformedBodyError(f"{METADATA} is not an object of strings", field=METADATA)


def _check_entry(name: str, entry: Any, schema: Schema) -> tuple[int, int]:
    """Check one tensor's description by itself and return where its bytes begin and end."""
    if not isinstance(entry, dict) or set(entry) != _ENTRY:
        raise MalformedBodyError(
            f"tensor {name} must be described by exactly dtype, shape, data_offsets", field=name
        )
    if not isinstance(entry["dtype"], str):
        raise MalformedBodyError(f"the dtype of {name} is not a string", field=name)
    shape = _naturals(entry["shape"], name, "shape")
    offsets = _naturals(entry["data_offsets"], name, "data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise MalformedBodyError(
            f"data_offsets of {name} must be [begin, end] with begin <= end, not {offsets}",
            field=name,
        )
    itemsize = _itemsize(name, entry["dtype"])
    _check_shape(name, shape, itemsize, offsets[1] - offsets[0])
    if entry["dtype"] not in schema.field(name).dtypes:
        allowed = ", ".join(schema.field(name).dtypes)
        raise TensorError(
            f"{name} has dtype {entry['dtype']}, expected one of {allowed}", field=name
        )
    return offsets[0], offsets[1]


def _naturals(value: object, name: str, what: str) -> list[int]:
    # type() and not isinstance(): true is an int to Python.
    if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
        raise MalformedBodyError(
            f"{what} of {name} must be an array of integers that are not negative", field=name
        )
    return value


def _itemsize(name: str, dtype: str) -> int:
    if dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise TensorError(f"{name} has unknown dtype {dtype!r}; known are {known}", field=name)
    return DTYPES[dtype].itemsize


def _check_shape(name: str, shape: list[int], itemsize: int, nbytes: int) -> None:
    if len(shape) > MAX_RANK:
        raise TensorError(f"{name} has {len(shape)} dimensions, at most {MAX_RANK}", field=name)
    if math.prod(n for n in shape if n) * itemsize > MAX_BYTES:
        raise MalformedBodyError(f"the shape of {name} is too large to exist", field=name)
    needed = math.prod(shape) * itemsize
    if needed != nbytes:
        raise MalformedBodyError(
            f"{name} needs {needed} bytes by its shape and dtype, its data_offsets span {nbytes}",
            field=name,
        )


def _check_contiguous(spans: Mapping[str, tuple[int, int]], available: int) -> None:
    """Refuse a hole or an overlap between tensors, and bytes missing or left over at the end."""
    position = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != position:
            what = "a hole before" if begin > position else "an overlap with"
            raise MalformedBodyError(
                f"the data has {what} {name}: it begins at {begin}, expected {position}",
                field=name,
            )
        position = end
    if position != available:
        raise MalformedBodyError(
            f"the tensors take {position} bytes, the body holds {available} after its header"
        )

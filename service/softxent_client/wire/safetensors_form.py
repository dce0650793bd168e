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
from functools import lru_cache
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
    repeated,
)

LENGTH_BYTES = 8
ALIGNMENT = 64
MAX_DIGITS = 20
"""Digits of the largest unsigned 64-bit integer; Python refuses 4,300 in words of its own."""

METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}

Buffer = bytes | bytearray | memoryview
Names = tuple[str, ...]
Placed = tuple[str, tuple[int, ...], np.dtype[Any], int, int]
"""A tensor's name, shape and dtype, and where its data begins and ends."""

Layout = tuple[Placed, ...]

KEPT_BYTES = 1 << 10
"""What a header of up to this size says is kept: a client's next call often says the same, and
reading it took a sixth of a small call."""


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
    header = _header(data, limits)
    lay_out = _layout_before if len(header) <= KEPT_BYTES else _layout
    layout = lay_out(header, schema, limits)
    start = LENGTH_BYTES + len(header)
    _check_whole(layout, data.nbytes - start)
    tensors = {
        name: np.ndarray(shape, dtype, data, start + begin)
        for name, shape, dtype, begin, _ in layout
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
    head, names = _head(tuple((name, a.dtype, a.shape) for name, a in arrays.items()))
    parts = [arrays[name].reshape(-1).view(np.uint8).data for name in names]
    return [memoryview(head), *(part for part in parts if part.nbytes)]


@lru_cache(maxsize=256)
def _head(described: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> tuple[bytes, Names]:
    """Return what stands before the data, and the names in the order of their data."""
    sizes = {name: math.prod(shape) * dtype.itemsize for name, dtype, shape in described}
    entries = {name: (dtype, shape) for name, dtype, shape in described}
    names = _order(sizes, {name: dtype.itemsize for name, dtype, _ in described})
    header: dict[str, Any] = {}
    begin = 0
    for name in names:
        dtype, shape = entries[name]
        end = begin + sizes[name]
        header[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, names


def _sendable(name: str, array: Array) -> Array:
    if array.flags.c_contiguous and array.dtype in DTYPE_NAMES:
        return array
    array = np.asarray(array, order="C")
    little = array.dtype.newbyteorder("<")
    if little not in DTYPE_NAMES:
        raise TensorError(f"{name} has dtype {array.dtype}, which cannot be sent", field=name)
    return array.astype(little, copy=False)


def _order(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Names:
    """Return the names, the largest array first so that it begins on a 64-byte boundary.

    Where that would leave a later array off the multiples of its own item size, wide dtypes go
    first instead, which never does.
    """
    by_size = sorted(sizes, key=lambda name: -sizes[name])
    begin = 0
    for name in by_size:
        if begin % itemsizes[name]:
            return tuple(sorted(by_size, key=lambda name: -itemsizes[name]))
        begin += sizes[name]
    return tuple(by_size)


def _header(data: memoryview, limits: Limits) -> bytes:
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
    return bytes(data[LENGTH_BYTES:start])


def _layout(text: bytes, schema: Schema, limits: Limits) -> Layout:
    """Return where the tensors lie that a header tells of, in the order of their data."""
    header = _parse_header(text)
    _check_metadata(header.pop(METADATA, {}))
    check_size(len(header), "tensors", limits.tensors, "the number of tensors")
    schema.check_names(header)
    entries = (_checked_entry(name, entry, schema) for name, entry in header.items())
    layout = tuple(sorted(entries, key=lambda placed: placed[-2:]))
    _check_contiguous(layout)
    return layout


_layout_before = lru_cache(maxsize=256)(_layout)


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
        twice = repeated(name for name, _ in pairs) or ""
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


def _checked_entry(name: str, entry: Any, schema: Schema) -> Placed:
    """Check one tensor's description by itself and return what it says."""
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
    return name, tuple(shape), DTYPES[entry["dtype"]], offsets[0], offsets[1]


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


def _check_contiguous(layout: Layout) -> None:
    """Refuse a hole or an overlap between tensors."""
    position = 0
    for name, _, _, begin, end in layout:
        if begin != position:
            what = "a hole before" if begin > position else "an overlap with"
            raise MalformedBodyError(
                f"the data has {what} {name}: it begins at {begin}, expected {position}",
                field=name,
            )
        position = end


def _check_whole(layout: Layout, available: int) -> None:
    """Refuse bytes that are missing or left over at the end."""
    needed = layout[-1][-1] if layout else 0
    if needed != available:
        raise MalformedBodyError(
            f"the tensors take {needed} bytes, the body holds {available} after its header"
        )

"""Numbers and booleans out of a small JSON document, straight into arrays, on top of simdjson.

simdjson flattens nested arrays without a look at their lengths, refuses strings among numbers and
keeps the first of duplicate keys. So every row's length is
compared, arrays in the place of numbers are found by counting brackets, and rows that are not
plain numbers are read element by element.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import quote

import numpy as np
import simdjson

from softxent.errors import ROWS_NAMED, WORDS, RowsError, TensorError
from softxent_client.wire import json_digits
from softxent_client.wire.errors import MalformedBodyError, check_size
from softxent_client.wire.json_digits import Digits, digits_of_document, rounded
from softxent_client.wire.json_values import Kind, kind_of, shown
from softxent_client.wire.limits import MIB, Limits
from softxent_client.wire.schema import SHOWN, Array, Field, Schema, repeated

KEPT_BYTES = MIB
"""A parser keeps 7 times the largest body it saw (resident, measured): after larger, a new one."""

OPEN = ord("[")

SHORT_TEXT = 4 << 10
"""Of a longer text NumPy counts characters faster, of 256 KiB in 30 us instead of 150."""

_BIG_INTEGER_CODES = {"BIGINT_ERROR", "NUMBER_ERROR"}
_BARE_WORD = re.compile(rb"[\[,:\s]-?(?:NaN|nan|Infinity|inf)\s*[\],}]")
_WORD = "the JSON holds a word that is not true, false or null"
_REASONS = {
    "EMPTY": "the body is empty",
    "DEPTH_ERROR": "the JSON is nested too deeply",
    "NUMBER_ERROR": "the JSON holds a number that is malformed or beyond float64",
    "BIGINT_ERROR": "the JSON holds a number that is malformed or beyond float64",
    "STRING_ERROR": "the JSON holds a string with a malformed escape",
    "UNCLOSED_STRING": "the JSON holds a string that does not end",
    "UNESCAPED_CHARS": "the JSON holds a string with a control character that is not escaped",
    "T_ATOM_ERROR": _WORD,
    "F_ATOM_ERROR": _WORD,
    "N_ATOM_ERROR": _WORD,
    "TAPE_ERROR": "the body is not JSON: a bracket, comma, colon or value is missing or too many",
}
BOM = b"\xef\xbb\xbf"
BOM_FORBIDDEN = "the body begins with a byte order mark, which JSON forbids"

_local = threading.local()


def read(body: bytes, schema: Schema, limits: Limits) -> dict[str, Array]:
    """Return the arrays of the JSON object `body`, lone numbers as 0-d ones.

    A parser refuses its next document while a proxy of the last one lives. When this raises,
    traceback frames may hold proxies, so this thread's parser is kept only after a success.

    Raises:
        MalformedBodyError: not one JSON object in UTF-8, or a key is repeated.
        LimitExceededError: there are more tensors than the limit.
        TensorError: a tensor is unknown or missing.
        RowsError: ragged rows, or something that is not a number the dtype holds.
    """
    parser = take_parser()
    document = _members(parse(parser, body), limits)
    if not document.keys() <= schema.fields.keys():
        for name, value in document.items():
            refuse_option(name, value, schema)
    schema.check_names(document)
    shapes = {name: shape_of(name, value, limits) for name, value in document.items()}
    # An array where a number should be adds a bracket and is otherwise invisible.
    plain = opened(body) == sum(map(brackets, shapes.values()))
    tensors = {
        name: array_of(
            name,
            value,
            shapes[name],
            schema.fields[name],
            partial(digits_of_document, body, name),
            plain=plain,
        )
        for name, value in document.items()
    }
    del document
    if len(body) <= KEPT_BYTES:
        keep_parser(parser)
    return tensors


def take_parser() -> Any:
    """Return this thread's parser, a new one where it has none."""
    return _local.__dict__.pop("parser", None) or simdjson.Parser()


def keep_parser(parser: Any) -> None:
    """Keep a parser for this thread's next document; no proxy of its last one may live."""
    _local.parser = parser


def opened(text: bytes) -> int:
    """Return how many brackets open in a text."""
    if len(text) <= SHORT_TEXT:
        return text.count(b"[")
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == OPEN))


def parse(parser: Any, body: bytes) -> Any:
    """Return simdjson's view of a document.

    Raises:
        MalformedBodyError: it is not JSON in UTF-8.
    """
    if body.startswith(BOM):
        raise MalformedBodyError(BOM_FORBIDDEN)
    try:
        return parser.parse(json_digits.shortened(body))
    except UnicodeDecodeError:
        raise MalformedBodyError("the body is not UTF-8") from None
    except (ValueError, RuntimeError) as error:
        code = str(error).partition(":")[0]
    # simdjson refuses integers beyond 64 bits, and JavaScript writes 1e20 as one.
    rewritten = json_digits.rewritten(body) if code in _BIG_INTEGER_CODES else body
    if rewritten != body:
        return parse(parser, rewritten)
    if _BARE_WORD.search(body):
        words = ", ".join(f'"{word}"' for word in WORDS)
        raise MalformedBodyError(f"JSON has no bare NaN or Infinity; write the strings {words}")
    raise MalformedBodyError(_REASONS.get(code, "the body is not JSON"))


def _members(root: Any, limits: Limits) -> dict[str, Any]:
    if not isinstance(root, simdjson.Object):
        raise MalformedBodyError("the JSON is not an object of named tensors")
    check_size(len(root), "tensors", limits.tensors, "the number of tensors")
    names = list(root)
    if len(set(names)) != len(names):
        twice = repeated(names) or ""
        raise MalformedBodyError(f"the JSON names {twice[:SHOWN]!r} twice")
    # simdjson looks keys up as C strings, so one with a NUL inside is listed but not found.
    return {name: root.get(name) for name in names}


def refuse_option(name: str, value: Any, schema: Schema) -> None:
    """Refuse an option in the place of a tensor, and say what to write instead.

    Raises:
        TensorError: it is one.
    """
    if name in schema.fields or name not in schema.options:
        return
    given = ",".join(map(str, value)) if isinstance(value, simdjson.Array) else shown(value)
    text = quote(str(given).strip('"').replace("null", "none")[:SHOWN], safe=",")
    raise TensorError(
        f"{name} is an option, and options are query parameters: leave it out of the body and "
        f"write ?{name}={text} behind the path",
        field=name,
    )


def shape_of(name: str, array: Any, limits: Limits) -> tuple[int, ...]:
    """Return the shape that the first element of each level shows, every level checked.

    Raises:
        MalformedBodyError: it is nested too deeply.
        RowsError: it is ragged.
    """
    lengths: list[int] = []
    value = array
    while type(value) is simdjson.Array:
        if len(lengths) == limits.json_depth - 1:
            raise too_deep(name, limits)
        lengths.append(len(value))
        if not lengths[-1]:
            break
        value = value[0]
    if len(lengths) > 1:
        _check_lengths(name, array, lengths[1:])
    return tuple(lengths)


def too_deep(name: str, limits: Limits) -> MalformedBodyError:
    """Return the error of a tensor with more brackets than `json_depth` allows."""
    return MalformedBodyError(f"the JSON is nested deeper than {limits.json_depth}", field=name)


def brackets(shape: tuple[int, ...]) -> int:
    """Return how many brackets an array of this shape opens where its rows hold plain values."""
    count, arrays = 0, 1
    for length in shape:
        count += arrays
        arrays *= length
    return count


def _check_lengths(name: str, array: Any, lengths: list[int]) -> None:
    parents = [array]
    for length in lengths:
        children = list(chain.from_iterable(parents))
        if not _uniform(children, length):
            _refuse_ragged(name, parents, length)
        parents = children


def _uniform(children: list[Any], length: int) -> bool:
    """Tell whether each child has `length` elements; strings pass here and are refused later."""
    try:
        return set(map(len, children)) == {length}
    except TypeError:
        return False


def _refuse_ragged(name: str, parents: list[Any], length: int) -> None:
    found = (
        len(child) if type(child) is simdjson.Array else shown(child)
        for parent in parents
        for child in parent
    )
    wrong = [(row, value) for row, value in enumerate(found) if value != length]
    raise ragged(name, length, wrong[:ROWS_NAMED], len(wrong))


def ragged(name: str, length: int, wrong: Sequence[tuple[int, Any]], total: int) -> RowsError:
    """Return the error of rows of other lengths than the first, or that are none."""
    return RowsError(
        f"{name} is ragged: row 0 has {length} elements; these rows have another number",
        field=name,
        rows=[row for row, _ in wrong],
        values=[value for _, value in wrong],
        total=total,
    )


def array_of(
    name: str,
    value: Any,
    shape: tuple[int, ...],
    field: Field,
    digits: Digits,
    *,
    plain: bool,
) -> Array:
    """Return the array whose `shape_of` is `shape`, in the dtype that the field has in JSON.

    Where `plain` is true, the document is known to open as many brackets as its shapes say.
    `digits` are asked for where the float64 of a number does not say which way to round it.

    Raises:
        TensorError: an array or a value stands in the place of the other.
        RowsError: something that is not a value of the dtype's kind, or that it cannot hold.
    """
    kind = kind_of(field.json_dtype)
    if not shape:
        return _scalar(name, value, field, kind)
    flat = fast(value, kind) if plain else None
    if flat is None:
        flat = _slow(name, value, shape, kind)
    return _cast(name, flat.reshape(shape), field.json_dtype, digits)


def fast(array: Any, kind: Kind) -> Array | None:
    """Return all numbers below `array`, or None if not all are numbers of the kind."""
    if kind.buffer_type is None:
        return None
    try:
        buffer = array.as_buffer(of_type=kind.buffer_type)
    except (TypeError, ValueError):
        return None
    return np.frombuffer(buffer, kind.dtype)


def _slow(name: str, array: Any, shape: tuple[int, ...], kind: Kind) -> Array:
    """Read row by row, words included, and refuse what is not of the kind by name."""
    flat = np.empty(math.prod(shape), kind.dtype)
    width, lone = shape[-1], len(shape) == 1
    faults: list[tuple[int, object]] = []
    for index, row in enumerate(_rows(name, array, len(shape))):
        values = kind.convert_all(row)
        if None not in values:
            flat[index * width : (index + 1) * width] = values
            continue
        wrong = [at for at, value in enumerate(values) if value is None]
        faults += [(at, row[at]) for at in wrong] if lone else [(index, row[wrong[0]])]
    if faults:
        named = [(row, shown(value)) for row, value in faults[:ROWS_NAMED]]
        raise wrong_values(name, named, len(faults), kind)
    return flat


def _rows(name: str, array: Any, rank: int) -> Iterator[list[Any]]:
    if rank == 1:
        yield list(array)
        return
    for child in array:
        if type(child) is not simdjson.Array:
            raise TensorError(f"{name} holds {shown(child)} in the place of a row", field=name)
        yield from _rows(name, child, rank - 1)


def wrong_values(
    name: str, faults: Sequence[tuple[int, str | int | float]], total: int, kind: Kind
) -> RowsError:
    """Return the error of values that are not of the kind, as shown, by their rows."""
    return RowsError(
        f"{name} must hold {kind.either}, but row {faults[0][0]} holds {faults[0][1]}",
        field=name,
        rows=[row for row, _ in faults],
        values=[value for _, value in faults],
        total=total,
    )


def _scalar(name: str, value: Any, field: Field, kind: Kind) -> Array:
    """Return a lone value as a 0-d array; floats in double precision, as reductions are."""
    number = kind.convert(value)
    if number is None:
        expected = kind.many if field.max_rank else kind.one
        raise TensorError(f"{name} must be {expected}, not {shown(value)}", field=name)
    return np.asarray(number, kind.dtype)


def _cast(name: str, wide: Array, dtype: np.dtype[Any], digits: Digits) -> Array:
    if wide.dtype == dtype:
        return wide
    cast = rounded(wide, dtype, digits)
    if not np.isfinite(cast).all():
        _refuse_overflow(name, wide, cast)
    return cast


def _refuse_overflow(name: str, wide: Array, cast: Array) -> None:
    places = np.flatnonzero(np.isinf(cast) & np.isfinite(wide))
    if not places.size:
        return
    width = wide.shape[-1] if wide.ndim > 1 else 1
    rows, first = np.unique(places // width, return_index=True)
    values = wide.reshape(-1)[places[first]].tolist()
    named = list(zip(rows.tolist(), values, strict=True))[:ROWS_NAMED]
    raise overflow(name, cast.dtype, named, len(rows))


def overflow(
    name: str, dtype: np.dtype[Any], named: Sequence[tuple[int, float]], total: int
) -> RowsError:
    """Return the error of numbers that are beyond `dtype`, the first ones by their rows."""
    return RowsError(
        f"{name} holds numbers that {dtype} cannot hold",
        field=name,
        rows=[row for row, _ in named],
        values=[value for _, value in named],
        total=total,
    )

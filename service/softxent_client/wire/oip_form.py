"""The form of the Open Inference Protocol (KServe v2): JSON, then the bytes of binary tensors.

A request's inputs lie in its JSON, in the bytes behind it, or in a region of shared memory; so do
an answer's outputs. As with the other forms, what lies in bytes is never copied: `decode` gives
views into the buffer it was handed, `encode` views of the arrays it was handed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from softxent_client.wire.json_form import WORDS_AS, pieces
from softxent_client.wire.oip_reader import decode
from softxent_client.wire.oip_types import DATATYPES, NAMES, PLACE, Output, Placed, Region, Request
from softxent_client.wire.schema import DTYPE_NAMES

__all__ = [
    "DATATYPES",
    "NAMES",
    "Encoded",
    "Output",
    "Placed",
    "Region",
    "Request",
    "decode",
    "encode",
]

ALIGNMENT = 64
"""Of binary data within an answer, so that it keeps it in a buffer of that alignment."""


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
        text.append(_described(output, array.dtype, array.shape))
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
    sums = {name: value for name, value in results.items() if name not in asked}
    if sums:
        text += b',"parameters":' + _numbers(sums, words)
    return text + b',"outputs":['


def _numbers(named: Mapping[str, Any], words: Mapping[str, bytes] | None) -> bytes:
    if all(map(math.isfinite, named.values())):
        return orjson.dumps(named)
    texts = ((name, b"".join(pieces(np.asarray(v), words))) for name, v in named.items())
    return b"{%s}" % b",".join(orjson.dumps(name) + b":" + text for name, text in texts)


@lru_cache(maxsize=256)
def _described(output: Output, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the JSON of an output, open for its data."""
    entry: dict[str, Any] = {
        "name": output.name,
        "datatype": NAMES[DTYPE_NAMES[dtype]],
        "shape": shape,
    }
    if output.binary:
        entry["parameters"] = {"binary_data_size": math.prod(shape) * dtype.itemsize}
    elif output.region is not None:
        region = output.region
        place = (region.name, region.offset, region.size)
        entry["parameters"] = dict(zip(PLACE, place, strict=True))
    return orjson.dumps(entry)[:-1]

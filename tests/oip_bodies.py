"""Requests and answers of the Open Inference Protocol, put together by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Json = dict[str, Any]

HEADER_LENGTH = "inference-header-content-length"

DATATYPES = {
    np.dtype(np.float64): "FP64",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float16): "FP16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.bool_): "BOOL",
    **{np.dtype(f"i{n}"): f"INT{8 * n}" for n in (1, 2, 4, 8)},
    **{np.dtype(f"u{n}"): f"UINT{8 * n}" for n in (1, 2, 4, 8)},
}
_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}


def described(name: str, array: Array, **members: Any) -> Json:
    return {
        "name": name,
        "datatype": DATATYPES[array.dtype],
        "shape": list(array.shape),
        **members,
    }


def as_json(name: str, array: Array, *, flat: bool = True) -> Json:
    data = array.reshape(-1) if flat else array
    wide = data.astype(np.float32) if data.dtype.kind == "V" else data
    return described(name, array, data=wide.tolist())


def as_bytes(name: str, array: Array) -> Json:
    return described(name, array, parameters={"binary_data_size": array.nbytes})


def message(document: Any, *blobs: bytes | Array) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request with bytes behind its JSON."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    tail = b"".join(blob if isinstance(blob, bytes) else blob.tobytes() for blob in blobs)
    return text + tail, {HEADER_LENGTH: str(len(text))}


def binary(
    tensors: Mapping[str, Array], outputs: Sequence[Any] = (), **parameters: Any
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request whose tensors all come as bytes, and go so."""
    document = {
        "inputs": [as_bytes(name, array) for name, array in tensors.items()],
        "outputs": [{"name": o} if isinstance(o, str) else o for o in outputs],
        "parameters": {"binary_data_output": True, **parameters},
    }
    return message(document, *tensors.values())


def answered(body: bytes, header_length: str | None) -> tuple[Json, dict[str, Array]]:
    """Return the JSON of an answer and its outputs as arrays, whichever way they came."""
    length = len(body) if header_length is None else int(header_length)
    document = json.loads(body[:length])
    position, outputs = length, {}
    for entry in document["outputs"]:
        dtype, shape = _DTYPES[entry["datatype"]], entry["shape"]
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is not None:
            part = np.frombuffer(body[position : position + size], dtype)
            outputs[entry["name"]] = part.reshape(shape)
            position += size
        elif "data" in entry:
            wide = np.array([float(value) for value in entry["data"]])
            outputs[entry["name"]] = wide.astype(dtype).reshape(shape)
    assert position == len(body)
    return document, outputs

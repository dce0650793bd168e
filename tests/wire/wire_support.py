"""Bodies of both forms that the tests of the wire write and read."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from softxent_client.wire import REQUEST, Limits, json_form, safetensors_form

Array = npt.NDArray[Any]
LIMITS = Limits()

LOGITS = '"logits":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}'
LABELS = '"labels":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}'
DATA = bytes(16)


def read(body: str | bytes, dtype: str = "float32", limits: Limits = LIMITS) -> dict[str, Array]:
    """Read a request in JSON."""
    text = body if isinstance(body, bytes) else body.encode()
    return json_form.decode(text, REQUEST(dtype), limits)


def batch(logits: str, labels: str) -> str:
    return f'{{"logits":{logits},"labels":{labels}}}'


def body(header: str | bytes, data: bytes = DATA) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + data


def request(logits: str = LOGITS, labels: str = LABELS, data: bytes = DATA) -> dict[str, Array]:
    """Read a request in safetensors."""
    sent = body(f"{{{logits},{labels}}}", data)
    return safetensors_form.decode(sent, REQUEST(), LIMITS)

"""Both forms with Python's standard library alone: `python examples/plain_http.py [URL]`.

What is done here by hand can be done in any language: a body in binary is the length of a header
in 8 bytes, the header in JSON, and the numbers as they lie in memory. SOFTXENT_KEY is the key, if
one is needed.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any
from urllib.request import Request, urlopen

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

logits = [[2.0, 1.0, 0.1], [0.5, 2.5, 0.3]]
labels = [0, 2]


def post(media_type: str, body: bytes) -> bytes:
    """Return the answer to a batch; urlopen raises HTTPError where the service refuses it."""
    headers = {"Content-Type": media_type}
    if key := os.environ.get("SOFTXENT_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = Request(f"{url}/v1/cross_entropy", body, headers)
    with urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def to_safetensors(rows: list[list[float]], labels: list[int]) -> bytes:
    """Return float32 logits, then int64 labels, in the safetensors layout."""
    numbers = [number for row in rows for number in row]
    end = 4 * len(numbers)
    header = {
        "logits": {"dtype": "F32", "shape": [len(rows), len(rows[0])], "data_offsets": [0, end]},
        "labels": {
            "dtype": "I64",
            "shape": [len(labels)],
            "data_offsets": [end, end + 8 * len(labels)],
        },
    }
    text = json.dumps(header).encode()
    data = struct.pack(f"<{len(numbers)}f{len(labels)}q", *numbers, *labels)
    return struct.pack("<Q", len(text)) + text + data


def from_safetensors(body: bytes) -> dict[str, list[Any]]:
    """Return each tensor's numbers, flat."""
    (size,) = struct.unpack_from("<Q", body)
    codes = {"F32": "f", "F64": "d", "I64": "q"}
    tensors = {}
    for name, tensor in json.loads(body[8 : 8 + size]).items():
        begin, end = tensor["data_offsets"]
        code = codes[tensor["dtype"]]
        count = (end - begin) // struct.calcsize(code)
        tensors[name] = list(struct.unpack_from(f"<{count}{code}", body, 8 + size + begin))
    return tensors


def check(form: str, loss: list[float], gradient: list[list[float]]) -> None:
    """Print an answer; end with status 1 if a row of the gradient does not sum to 0."""
    print(f"{form}: loss {loss}, gradient {gradient}")
    if any(abs(sum(row)) > 1e-6 for row in gradient):
        sys.exit("a row of the gradient does not sum to 0")


answer = json.loads(
    post("application/json", json.dumps({"logits": logits, "labels": labels}).encode())
)
check("JSON", answer["loss"], answer["gradient"])

tensors = from_safetensors(post("application/vnd.safetensors", to_safetensors(logits, labels)))
flat = tensors["gradient"]
check("binary", tensors["loss"], [flat[start : start + 3] for start in range(0, len(flat), 3)])

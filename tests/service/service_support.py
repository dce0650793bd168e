"""Requests that the tests of the service send."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

JSON = "application/json"
BINARY = "application/vnd.safetensors"
PATH = "/v1/cross_entropy"

GOOD = b'{"logits": [[20, 0]], "labels": [0]}'


def post(
    url: str, body: bytes, content_type: str | None = JSON, query: str = "", **headers: str
) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        given["content-type"] = content_type
    # Without verify=False each call loads certificates that plain HTTP has no use for: 20 ms.
    return httpx.post(f"{url}{PATH}{query}", content=body, headers=given, timeout=60, verify=False)


def assert_problem(
    answer: httpx.Response, status: int, slug: str, field: str | None = None
) -> dict[str, Any]:
    """Check that the answer is this problem document, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:softxent:problem:{slug}"
    assert document["status"] == status
    assert document["title"]
    assert document["error"] == document["detail"]
    assert document.get("field") == field
    return document


def assert_alive(url: str) -> None:
    answer = post(url, GOOD)
    assert answer.status_code == 200, answer.text


def binary(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    return bytes(save(dict(tensors)))


def raw_binary(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a binary body with this header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def batch(rows: int = 3, classes: int = 5, dtype: type = np.float32) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(7)
    return {
        "logits": (random.normal(size=(rows, classes)) * 9).astype(dtype),
        "labels": random.integers(0, classes, rows),
    }


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)


def head(length: int | str | None, content_type: str = JSON, path: str = PATH) -> bytes:
    announced = "" if length is None else f"content-length: {length}\r\n"
    return (
        f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\n{announced}"
        "connection: close\r\n\r\n"
    ).encode()


def status_and_body(connection: socket.socket) -> tuple[int, bytes]:
    """Return the answer of a connection that the server closes."""
    text = b""
    while piece := connection.recv(1 << 16):
        text += piece
    first, _, rest = text.partition(b"\r\n")
    return int(first.split()[1]), rest.partition(b"\r\n\r\n")[2]


def read_answer(stream: BinaryIO) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next answer of a connection that goes on."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    return status, headers, stream.read(int(headers["content-length"]))


def slug(body: bytes) -> str:
    """Return the word of a problem document."""
    document = json.loads(body)
    assert document["error"] == document["detail"]
    return str(document["type"]).rpartition(":")[2]

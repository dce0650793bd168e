"""Buffers are kept between calls: no answer may show what another call has left in one.

Each is filled with what no answer may hold, then a call follows whose every bit is known.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from service_support import BINARY, JSON, connect, head, post, slug, status_and_body

from conftest import running_service
from softxent import cross_entropy
from softxent_client.wire import safetensors_form

Array = npt.NDArray[Any]

MIB = 1 << 20
ROWS = 3_000
OUTPUTS = ("loss", "gradient", "probabilities", "log_probabilities")

DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


@pytest.fixture(scope="module", params=["bulk", "plain"])
def any_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with running_service(f"--transport={request.param}") as url:
        yield url


def written(tensors: dict[str, Array]) -> bytes:
    return b"".join(safetensors_form.encode(tensors))


def poison(dtype: Any) -> bytes:
    logits = np.full((ROWS, 1_000), 12_345.0, dtype)
    return written({"logits": logits, "labels": np.zeros(ROWS, np.int64)})


def called(dtype: Any, rows: int, seed: int) -> tuple[bytes, dict[str, Array]]:
    """Return the body of a batch and what the library answers."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=9, size=(rows, 1_000)).astype(dtype)
    labels = random.integers(0, 1_000, rows)
    result = cross_entropy(logits, labels, outputs=OUTPUTS)
    return written({"logits": logits, "labels": labels}), {
        name: np.asarray(getattr(result, name)) for name in OUTPUTS
    }


def assert_bits(body: bytes, expected: dict[str, Array]) -> None:
    for name, array in expected.items():
        assert array.tobytes() in body, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_byte_of_any_type_is_left_from_another_call(any_url: str, dtype: str) -> None:
    for turn, rows in enumerate((ROWS, ROWS - 1, 2_000, 1_600)):
        body, expected = called(DTYPES[dtype], rows, turn)
        for names in (("loss", "gradient"), OUTPUTS):
            assert post(any_url, poison(DTYPES[dtype]), BINARY).status_code == 200
            answer = post(any_url, body, BINARY, f"?outputs={','.join(names)}")
            assert answer.status_code == 200
            assert_bits(answer.content, {name: expected[name] for name in names})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_no_digit_of_json_is_left_from_another_call(any_url: str, dtype: str) -> None:
    body, expected = called(DTYPES[dtype], 1_500, 1)
    for _ in range(2):
        assert post(any_url, poison(DTYPES[dtype]), BINARY).status_code == 200
        answer = post(any_url, body, BINARY, accept=JSON)
        assert answer.status_code == 200
        for name in ("loss", "gradient"):
            got = np.array(json.loads(answer.content)[name], expected[name].dtype)
            assert got.tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("ending", ["refused", "reset", "malformed"])
def test_no_byte_is_left_from_a_call_that_failed(any_url: str, ending: str) -> None:
    """The buffer of a body that was cut, or had no meaning, is not lent half filled."""
    body, expected = called(np.float32, 2_900, 2)
    for _ in range(3):
        assert post(any_url, poison(np.float32), BINARY).status_code == 200
        fail(any_url, poison(np.float32), ending)
        answer = post(any_url, body, BINARY)
        assert answer.status_code == 200
        assert_bits(answer.content, {name: expected[name] for name in ("loss", "gradient")})


def fail(url: str, body: bytes, ending: str) -> None:
    if ending == "malformed":
        assert post(url, b"\xff" * 8 + body[8:], BINARY).status_code == 413
        return
    late = head(len(body), BINARY).replace(b"host: test", b"host: test\r\nrequest-timeout: 0.3")
    with connect(url) as client:
        client.sendall(late + body[: 3 * MIB])
        if ending == "refused":
            status, answer = status_and_body(client)
            assert (status, slug(answer)) == (504, "deadline-exceeded")
        else:
            client.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))


def test_an_answer_that_waits_to_be_read_is_not_overwritten(any_url: str) -> None:
    body, expected = called(np.float32, ROWS, 3)
    with connect(any_url) as client:
        client.sendall(head(len(body), BINARY) + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        for _ in range(3):
            assert post(any_url, poison(np.float32), BINARY).status_code == 200
        answer = b"".join(iter(lambda: client.recv(MIB), b""))
    assert_bits(answer, {name: expected[name] for name in ("loss", "gradient")})

"""Bulk bodies: received into their own memory, whose pages other calls have written before."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load
from service_support import (
    BINARY,
    GOOD,
    JSON,
    assert_alive,
    binary,
    connect,
    head,
    post,
    read_answer,
    slug,
    status_and_body,
)

from conftest import running_service
from softxent import cross_entropy

MIB = 1 << 20


@pytest.fixture(scope="module", params=["bulk", "plain"])
def any_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with running_service(f"--transport={request.param}") as url:
        yield url


@pytest.fixture(scope="module")
def impatient_url() -> Iterator[str]:
    """A service that waits half a second for a byte, and wants 4 MiB a second."""
    flags = ("--body-idle-seconds=0.5", f"--body-bytes-per-second={4 * MIB}")
    with running_service(*flags) as url:
        yield url


def called(rows: int, seed: int = 0) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
    """Return the body of a batch of 4 KB a row, and its answer by the library."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=9, size=(rows, 1_000)).astype(np.float32)
    labels = random.integers(0, 1_000, rows)
    result = cross_entropy(logits, labels)
    return binary({"logits": logits, "labels": labels}), {
        "loss": np.asarray(result.loss),
        "gradient": np.asarray(result.gradient),
    }


def assert_answer(body: bytes, expected: dict[str, npt.NDArray[Any]]) -> None:
    answered = load(body)
    for name, array in expected.items():
        assert answered[name].tobytes() == array.tobytes()


def keep_alive(body: bytes, media_type: str = BINARY) -> bytes:
    return head(len(body), media_type).replace(b"connection: close\r\n", b"") + body


def test_no_byte_of_an_answer_is_left_from_another_call(any_url: str) -> None:
    """Buffers are kept between calls: each is filled with what no answer may show, then reused."""
    poison = np.full((3_000, 1_000), 12_345.0, np.float32)
    poison[:, 0] = 12_346.0
    poisoned = binary({"logits": poison, "labels": np.zeros(3_000, np.int64)})
    for turn, rows in enumerate((3_000, 2_999, 2_000, 1_600, 3_000)):
        body, expected = called(rows, turn)
        assert post(any_url, poisoned, BINARY).status_code == 200
        for query in ("", "?outputs=loss,gradient,probabilities", "?outputs=loss"):
            answer = post(any_url, body, BINARY, query)
            wanted = {name: expected[name] for name in load(answer.content) if name in expected}
            assert wanted
            assert_answer(answer.content, wanted)


def test_many_large_calls_at_once_keep_to_their_own_memory(any_url: str) -> None:
    calls = [called(rows, rows) for rows in (500, 1_000, 1_500, 2_000)]

    def many(which: int) -> None:
        for turn in range(8):
            body, expected = calls[(which + turn) % len(calls)]
            answer = post(any_url, body, BINARY)
            assert answer.status_code == 200
            assert_answer(answer.content, expected)

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(many, range(4)))


@pytest.mark.parametrize("cut", [1, 100_000, 300_000, 2 * MIB])
def test_requests_on_one_connection_follow_each_other(any_url: str, cut: int) -> None:
    """The parser is left out of large bodies: what follows them is parsed again, at any cut."""
    body, expected = called(1_000)
    small = keep_alive(GOOD, JSON)
    sent = keep_alive(body) + small + keep_alive(body) + small
    with (
        connect(any_url) as connection,
        connection.makefile("rb") as stream,
        ThreadPoolExecutor(1) as sender,
    ):
        done = sender.submit(send_in_pieces, connection, sent, cut if cut > 1 else len(sent))
        for kind in ("large", "small", "large", "small"):
            status, _, answer = read_answer(stream)
            assert status == 200
            if kind == "large":
                assert_answer(answer, expected)
            else:
                assert json.loads(answer)["gradient"]
        done.result()


def send_in_pieces(connection: socket.socket, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        connection.sendall(data[start : start + size])
        if size < MIB:
            time.sleep(0.001)


def test_a_large_body_in_chunks_of_unknown_length(any_url: str) -> None:
    body, expected = called(1_000)
    with connect(any_url) as connection:
        opening = head(None, BINARY).replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
        connection.sendall(opening)
        for start in range(0, len(body), 100_000):
            piece = body[start : start + 100_000]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        status, answer = status_and_body(connection)
    assert status == 200
    assert_answer(answer, expected)


@pytest.mark.parametrize("sent", [1, 100_000, 700_000, 3 * MIB])
def test_a_client_that_goes_away_in_a_large_body_harms_nobody(any_url: str, sent: int) -> None:
    body, expected = called(1_000)
    for _ in range(5):
        with connect(any_url) as connection:
            connection.sendall((head(len(body), BINARY) + body)[:sent])
    assert_answer(post(any_url, body, BINARY).content, expected)


def test_a_client_that_goes_away_in_a_large_answer_harms_nobody(any_url: str) -> None:
    body, expected = called(3_000)
    for _ in range(5):
        with connect(any_url) as connection:
            connection.sendall(head(len(body), BINARY) + body)
            assert connection.recv(100_000).startswith(b"HTTP/1.1 200 ")
    assert_answer(post(any_url, body, BINARY).content, expected)


def test_a_refusal_in_mid_body_reaches_the_client(any_url: str) -> None:
    late = head(8 * MIB, BINARY).replace(b"host: test", b"host: test\r\nrequest-timeout: 0.3")
    with connect(any_url) as connection:
        connection.sendall(late + bytes(MIB))
        status, answer = status_and_body(connection)
    assert (status, slug(answer)) == (504, "deadline-exceeded")
    assert_alive(any_url)


@pytest.mark.parametrize("pieces", [0, 30])
def test_a_body_that_stops_or_trickles_is_cut(impatient_url: str, pieces: int) -> None:
    """A piece of 64 KiB each 50 ms is never silent, and a third of the least rate."""
    began = time.monotonic()
    with connect(impatient_url) as connection:
        connection.sendall(head(200 * MIB, BINARY) + bytes(MIB))
        try:
            for _ in range(pieces):
                connection.sendall(bytes(64 << 10))
                time.sleep(0.05)
        except ConnectionError:
            assert pieces
        else:
            status, answer = status_and_body(connection)
            assert (status, slug(answer)) == (408, "body-timeout")
    assert time.monotonic() - began < 10
    assert_alive(impatient_url)


def test_a_body_as_fast_as_the_least_rate_is_read(impatient_url: str) -> None:
    body, expected = called(2_000)
    with connect(impatient_url) as connection:
        connection.sendall(head(len(body), BINARY))
        send_in_pieces(connection, body, MIB)
        status, answer = status_and_body(connection)
    assert status == 200
    assert_answer(answer, expected)


@pytest.mark.parametrize("transport", ["bulk", "plain"])
def test_a_client_that_does_not_read_its_answer_is_cut_off(transport: str) -> None:
    flags = ("--body-idle-seconds=0.5", f"--body-bytes-per-second={4 * MIB}")
    body, expected = called(8_000)
    with running_service(f"--transport={transport}", *flags) as url:
        with connect(url) as connection:
            connection.sendall(head(len(body), BINARY) + body)
            time.sleep(4)
            assert len(status_and_body(connection)[1]) < len(body)
        assert_answer(post(url, body, BINARY).content, expected)


@pytest.mark.parametrize("transport", ["bulk", "plain"])
def test_more_connections_than_allowed_are_refused(transport: str) -> None:
    with running_service(f"--transport={transport}", "--connections=3") as url:
        with contextlib.ExitStack() as held:
            for _ in range(3):
                held.enter_context(connect(url))
            time.sleep(0.3)
            status, answer = status_and_body(held.enter_context(connect(url)))
            assert (status, slug(answer)) == (429, "overloaded")
        time.sleep(0.3)
        assert_alive(url)


@pytest.mark.parametrize("transport", ["bulk", "plain"])
def test_a_client_that_sends_all_before_it_reads_learns_why_it_is_refused(transport: str) -> None:
    body = b"x" * (64 * MIB)
    with running_service(f"--transport={transport}", "--connections=1") as url:
        with connect(url), connect(url) as connection:
            connection.sendall(head(len(body), BINARY))
            connection.sendall(body)
            status, answer = status_and_body(connection)
            assert (status, slug(answer)) == (429, "overloaded")
        time.sleep(0.3)
        assert_alive(url)


@pytest.mark.parametrize("transport", ["bulk", "plain"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_asked_twice_and_went_away_fails_nothing(
    transport: str, *, reset: bool
) -> None:
    body, _ = called(80)
    request = head(len(body), BINARY).replace(b"connection: close\r\n", b"") + body
    # Its end is clean only if no failure was logged.
    with running_service(f"--transport={transport}") as url:
        for _ in range(30):
            with connect(url) as connection:
                connection.sendall(request + request)
                time.sleep(0.005)
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert_alive(url)

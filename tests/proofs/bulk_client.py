"""A client of bulk calls that hears a refusal while it still sends, and checks every byte."""

from __future__ import annotations

import json
import select
import socket
import time
from dataclasses import dataclass

import numpy as np
from proof_support import MIB, kept_alive
from safetensors.numpy import load
from service_support import BINARY, JSON, batch, binary, connect, post

from softxent import cross_entropy

Connection = socket.socket


@dataclass(frozen=True)
class BulkCall:
    """A request, and the answer that it must get to the last bit."""

    request: bytes
    answer: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of one call."""

    status: int
    headers: dict[str, str]
    refusal: str
    sent: int
    seconds: float


def bulk_call(url: str, rows: int, classes: int = 1_000) -> BulkCall:
    """Return a call whose answer has been compared with the library's once."""
    tensors = batch(rows, classes)
    body = binary(tensors)
    answer = post(url, body, BINARY).content
    result = cross_entropy(tensors["logits"], tensors["labels"])
    answered = load(answer)
    for name in ("loss", "gradient"):
        assert answered[name].tobytes() == np.asarray(getattr(result, name)).tobytes()
    return BulkCall(kept_alive(len(body), BINARY) + body, answer)


def small_call(url: str, body: bytes, media_type: str = JSON) -> BulkCall:
    """Return a small call with what it was answered, which must be 200."""
    answer = post(url, body, media_type)
    assert answer.status_code == 200
    return BulkCall(kept_alive(len(body), media_type) + body, answer.content)


class BulkClient:
    """One client: a kept connection at a time, one call after another."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._scratch = memoryview(bytearray(MIB))

    def call(self, call: BulkCall) -> Outcome:
        """Send a request and check its answer; the connection goes on if both are whole."""
        connection, self._connection = self.connect(), None
        began = time.monotonic()
        try:
            sent = _send(connection, memoryview(call.request))
            status, headers, start = _read_head(connection)
            length = int(headers["content-length"])
            refusal = ""
            if status == 200:
                assert length == len(call.answer)
                self._compare(connection, start, memoryview(call.answer))
            else:
                refusal = json.loads(_read_rest(connection, start, length))["detail"]
            outcome = Outcome(status, headers, refusal, sent, time.monotonic() - began)
        except BaseException:
            connection.close()
            raise
        if sent == len(call.request) and headers.get("connection") != "close":
            self._connection = connection
        else:
            connection.close()
        return outcome

    def connect(self) -> Connection:
        """Return the connection for the next call."""
        if self._connection is None:
            self._connection = connect(self._url)
        return self._connection

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _compare(self, connection: Connection, start: bytes, answer: memoryview) -> None:
        assert start == answer[: len(start)]
        got = len(start)
        while got < len(answer):
            size = connection.recv_into(self._scratch[: len(answer) - got])
            assert size, f"the answer ends after {got} of {len(answer)} bytes"
            assert self._scratch[:size] == answer[got : got + size]
            got += size


def _send(connection: Connection, request: memoryview) -> int:
    """Send until all is sent or an answer comes; return how much was sent."""
    sent = 0
    connection.setblocking(False)
    waiting = select.poll()
    waiting.register(connection, select.POLLIN | select.POLLOUT)
    while sent < len(request):
        ready = waiting.poll(90_000)
        assert ready, "neither taken nor answered for 90 s"
        if ready[0][1] & ~select.POLLOUT:
            break
        try:
            sent += connection.send(request[sent : sent + MIB])
        except BlockingIOError:
            continue
    connection.settimeout(90)
    return sent


def _read_head(connection: Connection) -> tuple[int, dict[str, str], bytes]:
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(4096)
        assert piece, f"the connection ended in a head: {text!r}"
        text += piece
    first, *lines = text.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, text.partition(b"\r\n\r\n")[2]


def _read_rest(connection: Connection, start: bytes, length: int) -> bytes:
    while len(start) < length:
        piece = connection.recv(length - len(start))
        assert piece
        start += piece
    return start

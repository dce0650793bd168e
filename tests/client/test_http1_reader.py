"""Answers of HTTP/1.1 as literal bytes, cut at any place: what each means, and what is refused."""

from __future__ import annotations

import httpx
import pytest

from softxent_client.http1 import HEAD_BYTES, LINE_BYTES, ResponseReader
from softxent_client.messages import PROBLEM_BYTES

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(
    answer: bytes, step: int, method: str = "POST", *, end: bool = False
) -> tuple[ResponseReader, int]:
    """Return the reader and the bytes it took, handed over at most `step` at a time."""
    reader = ResponseReader(method, memoryview(bytearray(HEAD_BYTES)))
    at = 0
    while at < len(answer) and not reader.done:
        room = reader.buffer()
        piece = answer[at : at + min(step, len(room))]
        room[: len(piece)] = piece
        reader.received(len(piece))
        at += len(piece)
    if end and not reader.done:
        reader.ended()
    return reader, at


STEPS = (1, 2, 3, 7, 1 << 20)

WHOLE: dict[str, tuple[bytes, int, bytes]] = {
    "a length": (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello"),
    "no bytes": (OK + b"content-length:0\r\n\r\n", 200, b""),
    "one length twice": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
    "blanks around": (OK + b"Content-Length: \t 2 \t\r\nX:\r\n\r\nhi", 200, b"hi"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
    "an empty reason": (b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
    "a reason in Latin-1": (b"HTTP/1.1 200 \xe9t\xe9\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
    "chunks": (CHUNKED + b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", 200, b"abc0123456789"),
    "no chunk": (CHUNKED + b"0\r\n\r\n", 200, b""),
    "extensions and trailers": (
        CHUNKED + b'2 ;a="b"\r\nhi\r\n0;x\r\nDigest: 1\r\nY: 2\r\n\r\n',
        200,
        b"hi",
    ),
    "lines within a chunk": (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", 200, b"\r\n\r\n"),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\nhi",
        200,
        b"hi",
    ),
    "an error": (b"HTTP/1.1 429 Busy\r\nContent-Length: 2\r\n\r\n{}", 429, b"{}"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", WHOLE)
def test_answers_are_read_and_the_connection_is_kept(what: str, step: int) -> None:
    answer, status, body = WHOLE[what]
    reader, taken = read(answer, step)
    assert (reader.done, reader.reusable, taken) == (True, True, len(answer))
    assert (reader.status, bytes(reader.body)) == (status, body)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", WHOLE)
def test_an_answer_that_ends_early_is_refused(what: str, step: int) -> None:
    answer = WHOLE[what][0]
    for length in range(0, len(answer), 5):
        with pytest.raises(httpx.RemoteProtocolError, match=r"the answer ended|without an answer"):
            read(answer[:length], step, end=True)


CLOSED: dict[str, tuple[bytes, bytes]] = {
    "up to the end": (OK + b"X: 1\r\n\r\nall of it", b"all of it"),
    "nothing up to the end": (OK + b"\r\n", b""),
    "the word close": (OK + b"Connection: x, Close\r\nContent-Length: 1\r\n\r\nx", b"x"),
    "the word close in chunks": (
        CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        b"x",
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", CLOSED)
def test_connections_that_end_with_their_answer(what: str, step: int) -> None:
    answer, body = CLOSED[what]
    reader, _ = read(answer, step, end=True)
    assert (reader.done, reader.reusable, bytes(reader.body)) == (True, False, body)


@pytest.mark.parametrize("what", ["a length", "no bytes", "chunks", "no content"])
def test_bytes_after_an_answer_spoil_the_connection(what: str) -> None:
    answer, _, body = WHOLE[what]
    reader, _ = read(answer + b"HTTP/1.1 200 OK\r\n", 1 << 20)
    assert (reader.done, reader.reusable, bytes(reader.body)) == (True, False, body)


def test_head_has_no_body_whatever_it_says() -> None:
    for headers in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""):
        reader, _ = read(OK + headers + b"\r\n", 1, "HEAD")
        assert (reader.done, reader.reusable, bytes(reader.body)) == (True, True, b"")


REFUSED: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\n\r\n",
    "a blank before": b" HTTP/1.1 200 OK\r\n\r\n",
    "two blanks": b"HTTP/1.1  200 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "an unknown class": b"HTTP/1.1 600 OK\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a blank before the colon": OK + b"Content-Length : 1\r\n\r\nx",
    "no colon": OK + b"Content-Length\r\n\r\n",
    "no name": OK + b": 1\r\n\r\n",
    "a folded header": OK + b"X: 1\r\n 2\r\n\r\n",
    "a bare LF": OK + b"X: 1\nContent-Length: 1\r\n\r\nx",
    "a bare CR": OK + b"X: 1\rY: 2\r\n\r\n",
    "a NUL": OK + b"X: \x00\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a list of lengths": OK + b"Content-Length: 1, 1\r\n\r\nx",
    "a sign": OK + b"Content-Length: +1\r\n\r\nx",
    "a length of letters": OK + b"Content-Length: 0x1\r\n\r\nx",
    "no length": OK + b"Content-Length:\r\n\r\n",
    "a length of 19 digits": OK + b"Content-Length: 1000000000000000000\r\n\r\n",
    "a length and chunks": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no size of a chunk": CHUNKED + b"\r\nx\r\n",
    "a size with a sign": CHUNKED + b"-1\r\nx\r\n",
    "a size in hexadecimal's prefix": CHUNKED + b"0x1\r\nx\r\n",
    "a blank before a size": CHUNKED + b" 1\r\nx\r\n",
    "a size over 60 bits": CHUNKED + b"1" + b"0" * 15 + b"\r\n",
    "a size that ends in LF": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "a chunk over its size": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "a long size": CHUNKED + b"1;" + b"x" * LINE_BYTES + b"\r\nx\r\n",
    "long trailers": CHUNKED + b"0\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 70,
    "a long head": OK + b"X: " + b"y" * HEAD_BYTES,
    "long interim answers": b"HTTP/1.1 103 Early\r\n\r\n" * 4000,
}


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("what", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(what: str, step: int) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match=r"the server's answer is not HTTP/1\.1: "):
        read(REFUSED[what], step)


@pytest.mark.parametrize(
    "framed",
    [
        lambda body: b"Content-Length: %d\r\n\r\n" % len(body) + body,
        lambda body: b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n",
        lambda body: b"\r\n" + body,
    ],
)
def test_of_what_is_no_result_only_the_beginning_is_read(framed: object) -> None:
    answer = b"HTTP/1.1 500 No\r\n" + framed(b"x" * 1_000_000)  # type: ignore[operator]
    reader, taken = read(answer, 1000)
    assert (reader.done, reader.reusable) == (True, False)
    assert PROBLEM_BYTES < len(reader.body) < PROBLEM_BYTES + 1001
    assert taken < PROBLEM_BYTES + 3000


def test_a_long_answer_grows_with_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softxent_client.http1.TRUSTED_BYTES", 1000)
    body = bytes(range(256)) * 20
    reader, _ = read(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body[:1500], 700)
    assert not reader.done
    assert len(reader.body) == 2000
    reader, _ = read(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body, 700)
    assert (reader.done, bytes(reader.body)) == (True, body)

"""Heads that are odd, too large or too slow, and what follows an early answer: raw sockets."""

from __future__ import annotations

import socket
import time
from itertools import pairwise

import pytest
from service_support import (
    BINARY,
    GOOD,
    JSON,
    PATH,
    assert_alive,
    batch,
    binary,
    connect,
    post,
    read_answer,
    slug,
    status_and_body,
)

OFFERS = {
    "h2c": "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk",
    "websocket": "connection: upgrade\r\nUpgrade: websocket\r\nsec-websocket-version: 13",
    "none": "connection: keep-alive",
}
BODIES = {JSON: GOOD, BINARY: binary(batch(40, 100))}


def request(body: bytes, *lines: str, form: str = JSON) -> bytes:
    """A request on a connection that goes on."""
    given = (f"content-type: {form}", f"content-length: {len(body)}", *lines)
    return f"POST {PATH} HTTP/1.1\r\nhost: test\r\n".encode() + (
        "".join(f"{line}\r\n" for line in given).encode() + b"\r\n" + body
    )


@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize("offer", OFFERS)
def test_offers_of_another_protocol_are_ignored(service_url: str, offer: str, form: str) -> None:
    sent = request(BODIES[form], OFFERS[offer], form=form)
    wanted = post(service_url, BODIES[form], form).content
    head_end = len(sent) - len(BODIES[form])
    whole, in_head, at_body, in_body = (), (50,), (head_end,), (head_end + 7,)
    with connect(service_url) as connection, connection.makefile("rb") as answers:
        for cuts in (whole, in_head, at_body, in_body, (50, head_end, head_end + 7)):
            for begin, end in pairwise((0, *cuts, len(sent))):
                connection.sendall(sent[begin:end])
                time.sleep(0.03)
            status, headers, body = read_answer(answers)
            assert (status, headers["content-type"]) == (200, form)
            assert body == wanted


def test_offers_one_behind_the_other(service_url: str) -> None:
    sent = request(GOOD, OFFERS["h2c"])
    with connect(service_url) as connection, connection.makefile("rb") as answers:
        connection.sendall(sent + sent + request(GOOD))
        assert [read_answer(answers)[0] for _ in range(3)] == [200, 200, 200]


TARGETS = {
    "http://test": (405, "method-not-allowed"),
    "http://test?a=b": (405, "method-not-allowed"),
    f"http://test{PATH}?a=b": (422, "invalid-option"),
    "http://test#a": (400, "malformed-request"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_that_are_no_path(service_url: str, target: str) -> None:
    with connect(service_url) as connection, connection.makefile("rb") as answers:
        connection.sendall(request(GOOD).replace(PATH.encode(), target.encode()))
        status, _, body = read_answer(answers)
    assert (status, slug(body)) == TARGETS[target]
    assert b"callback" not in body


def test_tunnels_are_refused(service_url: str) -> None:
    with connect(service_url) as connection:
        connection.sendall(b"CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\nhello")
        status, body = status_and_body(connection)
    assert (status, slug(body)) == (400, "malformed-request")
    assert_alive(service_url)


HEADS = {
    "long address": b"POST /" + b"a" * 2100 + b" HTTP/1.1\r\nhost: test\r\n\r\n",
    "long line": b"POST / HTTP/1.1\r\nhost: test\r\nx: " + b"a" * 2100 + b"\r\n\r\n",
    "many lines": b"POST / HTTP/1.1\r\nhost: test\r\n" + b"x: a\r\n" * 400 + b"\r\n",
    "offer": b"POST / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\nx: %s\r\n\r\n"
    % (b"a" * 2100),
    "no end": b"POST / HTTP/1.1\r\nx: " + b"a" * 2100,
    "empty lines": b"\r\n" * 1100,
    "trailers": b"POST %s HTTP/1.1\r\nhost: test\r\ncontent-type: %s\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n" % (PATH.encode(), JSON.encode()) + b"x: a\r\n" * 400,
    "trailer without end": b"POST %s HTTP/1.1\r\nhost: test\r\ncontent-type: %s\r\n"
    b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx: " % (PATH.encode(), JSON.encode()),
}


@pytest.mark.parametrize("case", HEADS)
def test_heads_over_their_limit_are_refused(small_service_url: str, case: str) -> None:
    with connect(small_service_url) as connection:
        connection.sendall(HEADS[case])
        if case == "trailer without end":
            time.sleep(0.05)
            connection.sendall(b"a" * 2100)
        status, body = status_and_body(connection)
    assert (status, slug(body)) == (431, "head-too-large")
    assert_alive(small_service_url)


def test_head_under_its_limit_is_read_beside_a_body_over_it(small_service_url: str) -> None:
    body = BODIES[BINARY]
    with connect(small_service_url) as connection, connection.makefile("rb") as answers:
        connection.sendall(request(GOOD, "x: " + "a" * 1800))
        assert read_answer(answers)[0] == 200
        connection.sendall(request(body, form=BINARY))
        assert read_answer(answers)[0] == 413


FAULTS = {"not HTTP": b"nonsense\r\n\r\n", "head too large": HEADS["long line"]}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_behind_a_whole_request_leaves_its_answer_whole(
    small_service_url: str, fault: str
) -> None:
    wanted = post(small_service_url, GOOD).content
    with connect(small_service_url) as connection, connection.makefile("rb") as answers:
        connection.sendall(request(GOOD) + FAULTS[fault])
        status, _, body = read_answer(answers)
        assert (status, body) == (200, wanted)
        assert answers.read() == b""


CHUNKED = request(b"", "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
FAULTY_BODIES = {
    "chunk size": (b"zz\r\n", 400, "malformed-request"),
    "trailers": (b"0\r\n" + b"x: a\r\n" * 400, 431, "head-too-large"),
}


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("fault", FAULTY_BODIES)
def test_faulty_body_behind_whole_requests_is_refused_after_their_answers(
    small_service_url: str, fault: str, before: int
) -> None:
    sent, refused, word = FAULTY_BODIES[fault]
    with connect(small_service_url) as connection, connection.makefile("rb") as answers:
        connection.sendall(request(GOOD) * before + CHUNKED + sent)
        assert [read_answer(answers)[0] for _ in range(before)] == [200] * before
        status, headers, body = read_answer(answers)
        assert (status, slug(body), headers["connection"]) == (refused, word, "close")
        assert answers.read() == b""


@pytest.mark.parametrize("trailer", ["content-type: text/plain", "content-encoding: gzip"])
def test_trailers_do_not_change_the_head(service_url: str, trailer: str) -> None:
    body = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(GOOD), GOOD, trailer.encode())
    with connect(service_url) as connection, connection.makefile("rb") as answers:
        for cut in (0, len(CHUNKED), len(CHUNKED) + 7):
            for piece in filter(None, ((CHUNKED + body)[:cut], (CHUNKED + body)[cut:])):
                connection.sendall(piece)
                time.sleep(0.03)
            assert read_answer(answers)[0] == 200


def test_head_that_stops_arriving_is_answered_and_closed(small_service_url: str) -> None:
    for first in (b"", request(GOOD)):
        with connect(small_service_url) as connection, connection.makefile("rb") as answers:
            connection.sendall(first)
            if first:
                assert read_answer(answers)[0] == 200
            connection.sendall(b"POST / HTTP/1.1\r\nhost: te")
            status, headers, body = read_answer(answers)
            assert (status, slug(body)) == (408, "head-timeout")
            assert headers["connection"] == "close"
            assert answers.read() == b""


def test_head_that_trickles_in_is_answered_and_closed(small_service_url: str) -> None:
    with connect(small_service_url) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"POST / HTTP/1.1\r\nx: ")
        connection.settimeout(0.1)
        for _ in range(200):
            try:
                connection.sendall(b"a")
                assert connection.recv(1, socket.MSG_PEEK) == b"H"
                break
            except TimeoutError:
                continue
        connection.settimeout(30)
        status, _, body = read_answer(answers)
    assert (status, slug(body)) == (408, "head-timeout")


def test_connection_that_says_nothing_is_closed(small_service_url: str) -> None:
    with connect(small_service_url) as connection:
        assert connection.recv(100) == b""


def trickle(connection: socket.socket) -> None:
    for _ in range(400):
        connection.sendall(b" ")
        time.sleep(0.05)


def test_body_of_an_early_answer_is_thrown_away_for_a_while(small_service_url: str) -> None:
    with connect(small_service_url) as connection, connection.makefile("rb") as answers:
        connection.sendall(request(b" " * 10_000))
        assert read_answer(answers)[0] == 413
        connection.sendall(request(GOOD))
        assert read_answer(answers)[0] == 200
        connection.sendall(request(GOOD).replace(b"length: ", b"length: 10000"))
        assert read_answer(answers)[0] == 413
        with pytest.raises(ConnectionError):
            trickle(connection)
    assert_alive(small_service_url)

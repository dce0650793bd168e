"""Headers, lengths, limits and connections that break: over raw sockets where httpx is too kind."""

from __future__ import annotations

import json
import struct

import httpx
import numpy as np
import pytest
from service_support import (
    BINARY,
    GOOD,
    JSON,
    PATH,
    assert_alive,
    assert_problem,
    batch,
    binary,
    connect,
    head,
    post,
    slug,
    status_and_body,
)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/octet-stream", "application/json; charset=latin-1"],
)
def test_content_types_that_are_refused(service_url: str, content_type: str | None) -> None:
    answer = post(service_url, GOOD, content_type)
    assert_problem(answer, 415, "unsupported-media-type", "content-type")
    assert_alive(service_url)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_content_types_that_are_read(service_url: str, content_type: str) -> None:
    assert post(service_url, GOOD, content_type).status_code == 200


def test_transfer_coding_other_than_chunked_is_refused(service_url: str) -> None:
    with connect(service_url) as connection:
        lines = b"\r\ntransfer-encoding: gzip, chunked\r\n\r\n"
        connection.sendall(head(None).replace(b"\r\n\r\n", lines))
        status, body = status_and_body(connection)
    document = json.loads(body)
    assert (status, document["field"]) == (415, "transfer-encoding")
    assert document["type"] == "urn:softxent:problem:unsupported-media-type"


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_content_encoding_that_is_none_is_read(service_url: str, coding: str) -> None:
    assert post(service_url, GOOD, content_encoding=coding).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "chunked, gzip"])
def test_transfer_encoding_that_does_not_end_in_chunked_is_no_request(
    service_url: str, coding: str
) -> None:
    with connect(service_url) as connection:
        lines = f"\r\ntransfer-encoding: {coding}\r\n\r\n".encode()
        connection.sendall(head(None).replace(b"\r\n\r\n", lines) + GOOD)
        status, body = status_and_body(connection)
    assert (status, slug(body)) == (400, "malformed-request")


@pytest.mark.parametrize("second", [JSON, "text/plain"])
def test_repeated_content_type_is_refused(service_url: str, second: str) -> None:
    answer = httpx.post(
        service_url + PATH,
        content=GOOD,
        headers=[("content-type", f"{JSON}; a=b"), ("content-type", second)],
    )
    assert_problem(answer, 415, "unsupported-media-type", "content-type")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", JSON),
        ("application/*", JSON),
        (BINARY, BINARY),
        (f"{JSON};q=0.5, {BINARY}", BINARY),
        (f"{BINARY};q=0.1, */*;q=0.5", JSON),
        (f"{JSON};q=0, */*", BINARY),
        ("text/html, */*;q=0.1", JSON),
    ],
)
def test_accept_chooses_the_form_of_the_answer(service_url: str, accept: str, form: str) -> None:
    answer = post(service_url, GOOD, accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, form)


@pytest.mark.parametrize("accept", ["text/html", "image/*", "*/*;q=0", f"{JSON};q=0", "nonsense"])
def test_accept_that_leaves_no_form_is_refused(service_url: str, accept: str) -> None:
    assert_problem(post(service_url, GOOD, accept=accept), 406, "not-acceptable", "accept")


def test_paths_and_methods_that_do_not_exist(service_url: str) -> None:
    for path in ("//", "/v1/cross_entropy/", "/v1/nothing"):
        assert_problem(httpx.post(service_url + path), 404, "not-found")
    answer = httpx.get(service_url + PATH)
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("length", ["ten", "-1", "0x10", "9" * 30])
def test_content_length_that_is_no_length_is_refused(service_url: str, length: str) -> None:
    with connect(service_url) as connection:
        connection.sendall(head(length) + GOOD)
        status, body = status_and_body(connection)
    assert status == 400
    assert json.loads(body)["error"]
    assert_alive(service_url)


def test_more_bytes_than_announced_do_not_become_the_batch(service_url: str) -> None:
    with connect(service_url) as connection:
        connection.sendall(head(len(GOOD)) + GOOD + b"surplus that is no request\r\n\r\n")
        status, body = status_and_body(connection)
    assert status == 200
    assert body == post(service_url, GOOD).content


def test_body_announced_over_the_limit_is_refused_before_it_is_sent(small_service_url: str) -> None:
    for content_type, name, limit in ((JSON, "json_bytes", 200), (BINARY, "binary_bytes", 400)):
        with connect(small_service_url) as connection:
            connection.sendall(head(10**15, content_type))
            status, body = status_and_body(connection)
        document = json.loads(body)
        assert (status, document["limit_name"]) == (413, name)
        assert document["limit"] == limit
        assert str(limit) in document["detail"]
    assert_alive(small_service_url)


def test_chunked_body_is_read_up_to_the_limit(small_service_url: str) -> None:
    padded = GOOD + b" " * 100
    whole = httpx.post(
        small_service_url + PATH,
        content=(padded[i : i + 7] for i in range(0, len(padded), 7)),
        headers={"content-type": JSON},
    )
    assert whole.status_code == 200
    endless = httpx.post(
        small_service_url + PATH,
        content=(b" " * 50 for _ in range(100)),
        headers={"content-type": JSON},
    )
    assert_problem(endless, 413, "limit-exceeded")
    assert_alive(small_service_url)


def test_chunked_bulk_body_gives_the_same_answer(service_url: str) -> None:
    body = binary(batch(400, 1000))
    pieces = (body[i : i + 100_003] for i in range(0, len(body), 100_003))
    url = service_url + PATH
    chunked = httpx.post(url, content=pieces, headers={"content-type": BINARY})
    assert chunked.status_code == 200
    assert chunked.content == post(service_url, body, BINARY).content


def test_too_many_tensors_and_too_large_a_header_name_their_limit(small_service_url: str) -> None:
    three = {"logits": np.zeros((1, 2)), "labels": np.zeros(1, int), "row_weights": np.ones(1)}
    document = post(small_service_url, binary(three), BINARY).json()
    assert (document["status"], document["limit_name"]) == (413, "tensors")
    long = struct.pack("<Q", 300) + b" " * 300
    document = post(small_service_url, long, BINARY).json()
    assert (document["status"], document["limit_name"]) == (413, "header_bytes")


def test_body_that_stops_arriving_is_answered_and_closed(small_service_url: str) -> None:
    for sent in (b"", GOOD[:10]):
        with connect(small_service_url) as connection:
            connection.sendall(head(len(GOOD)) + sent)
            status, body = status_and_body(connection)
        assert status == 408
        assert json.loads(body)["type"] == "urn:softxent:problem:body-timeout"
    assert_alive(small_service_url)


def test_head_without_end_is_refused(small_service_url: str) -> None:
    with connect(small_service_url) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nx-long: " + b"a" * 5000)
        status, body = status_and_body(connection)
    assert status == 431
    assert json.loads(body)["error"]
    assert_alive(small_service_url)


def test_what_is_not_http_gets_a_problem_document(service_url: str) -> None:
    with connect(service_url) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, body = status_and_body(connection)
    assert status == 400
    assert json.loads(body)["error"]


@pytest.mark.parametrize("sent", [0, 100, 900_000])
def test_client_gone_in_mid_upload(service_url: str, sent: int) -> None:
    body = binary(batch(400, 1000))
    for _ in range(5):
        with connect(service_url) as connection:
            connection.sendall(head(len(body), BINARY) + body[:sent])
    assert_alive(service_url)


def test_client_gone_in_mid_answer(service_url: str) -> None:
    body = binary(batch(4000, 1000))
    for _ in range(3):
        with connect(service_url) as connection:
            connection.sendall(head(len(body), BINARY) + body)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert_alive(service_url)


def test_connection_goes_on_after_a_refusal(service_url: str) -> None:
    with httpx.Client(base_url=service_url) as client:
        headers = {"content-type": JSON}
        for _ in range(3):
            assert client.post(PATH, content=b"{", headers=headers).status_code == 400
            assert client.post(PATH, content=GOOD, headers=headers).status_code == 200

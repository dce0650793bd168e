"""Bodies that come compressed: unpacked to the same bits, and never to more than is allowed."""

from __future__ import annotations

import gzip
import select
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load
from service_support import (
    BINARY,
    GOOD,
    JSON,
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

from conftest import running_service

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
coded = pytest.mark.parametrize("coding", PACKERS)


@coded
@pytest.mark.parametrize(("rows", "form"), [(1, JSON), (30, BINARY), (2_000, BINARY)])
def test_a_packed_body_gives_the_bits_of_the_plain_one(
    service_url: str, coding: str, rows: int, form: str
) -> None:
    body = GOOD if form == JSON else binary(batch(rows, 1_000))
    plain = post(service_url, body, form)
    packed = post(service_url, PACKERS[coding](body), form, content_encoding=coding.upper())
    assert plain.status_code == packed.status_code == 200
    assert plain.content == packed.content


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_packed_in_several_members(service_url: str, coding: str) -> None:
    body = binary(batch(500, 1_000))
    pieces = [PACKERS[coding](body[i : i + 300_000]) for i in range(0, len(body), 300_000)]
    answer = post(service_url, b"".join(pieces), BINARY, content_encoding=coding)
    assert answer.content == post(service_url, body, BINARY).content


@coded
def test_a_packed_body_in_chunks_and_at_any_cut(service_url: str, coding: str) -> None:
    body = PACKERS[coding](GOOD)
    opening = head(None).replace(
        b"\r\n\r\n",
        b"\r\ntransfer-encoding: chunked\r\ncontent-encoding: %s\r\n\r\n" % coding.encode(),
    )
    with connect(service_url) as connection:
        connection.sendall(opening)
        for byte in body:
            connection.sendall(b"1\r\n%c\r\n" % byte)
        connection.sendall(b"0\r\n\r\n")
        status, answer = status_and_body(connection)
    assert (status, answer) == (200, post(service_url, GOOD).content)


@coded
def test_what_unpacks_to_more_than_the_limit_is_refused(service_url: str, coding: str) -> None:
    """1 GiB out of 1 MB or less; and packed twice it is not even a message."""
    bomb = PACKERS[coding](bytes(1 << 30))
    assert len(bomb) < 2 * MIB
    document = assert_problem(
        post(service_url, bomb, BINARY, content_encoding=coding), 413, "limit-exceeded"
    )
    assert document["limit_name"] == "binary_bytes"
    twice = post(service_url, PACKERS[coding](bomb), BINARY, content_encoding=coding)
    assert 400 <= twice.status_code < 500
    assert_alive(service_url)


@coded
def test_what_unpacks_to_exactly_the_limit_is_read(small_service_url: str, coding: str) -> None:
    full = GOOD.ljust(200)
    assert post(small_service_url, PACKERS[coding](full), content_encoding=coding).is_success
    over = post(small_service_url, PACKERS[coding](full + b" "), content_encoding=coding)
    assert_problem(over, 413, "limit-exceeded")


@coded
@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:0],
        lambda packed: packed + b"tail",
        lambda packed: b"\0" + packed,
        lambda packed: packed[-1:] + GOOD,
    ],
    ids=["last byte missing", "half", "nothing", "more after it", "more before it", "not coded"],
)
def test_a_body_that_is_not_coded_as_said(
    service_url: str, coding: str, spoil: Callable[[bytes], bytes]
) -> None:
    answer = post(service_url, spoil(PACKERS[coding](GOOD)), content_encoding=coding)
    assert_problem(answer, 400, "malformed-body", "content-encoding")
    assert_alive(service_url)


def test_a_window_of_zstd_larger_than_decoders_need_is_refused(service_url: str) -> None:
    options = {int(zstd.CompressionParameter.window_log): 27}
    body = zstd.compress(bytes(200 * MIB), options=options)
    refused = post(service_url, body, BINARY, content_encoding="zstd")
    assert_problem(refused, 400, "malformed-body", "content-encoding")


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "gzip,gzip", "identity, gzip", "zip"])
def test_codings_that_are_not_read(service_url: str, coding: str) -> None:
    answer = post(service_url, GOOD, content_encoding=coding)
    assert_problem(answer, 415, "unsupported-media-type", "content-encoding")
    assert answer.headers["accept-encoding"] == "gzip, x-gzip, deflate, zstd"


def test_unpacking_counts_as_memory(strained_service_url: str) -> None:
    """12 MiB in all: a batch that fits plain does not where the decoder holds it too."""
    tensors = batch(1_200, 1_000)
    tensors["logits"] = np.round(tensors["logits"])
    body = binary(tensors)
    assert post(strained_service_url, body, BINARY).is_success
    packed = post(strained_service_url, gzip.compress(body), BINARY, content_encoding="gzip")
    assert load(packed.content).keys() == {"loss", "gradient", "loss_sum", "weight_sum", "count"}
    large = binary(
        {
            **tensors,
            "logits": np.zeros((2_800, 1_000), np.float32),
            "labels": np.zeros(2_800, np.int64),
        }
    )
    assert_problem(
        post(strained_service_url, zstd.compress(large), BINARY, content_encoding="zstd"),
        413,
        "limit-exceeded",
    )


def test_a_packed_body_that_trickles_is_cut() -> None:
    """It is measured by what comes, not by what that unpacks to."""
    flags = ("--body-idle-seconds=0.5", f"--body-bytes-per-second={MIB}")
    packed = gzip.compress(bytes(200 * MIB))
    opening = head(len(packed), BINARY).replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    with running_service(*flags) as url, connect(url) as connection:
        connection.sendall(opening)
        for start in range(0, len(packed), 4_000):
            connection.sendall(packed[start : start + 4_000])
            if select.select([connection], [], [], 0.05)[0]:
                break
        status, answer = status_and_body(connection)
    assert (status, slug(answer)) == (408, "body-timeout")

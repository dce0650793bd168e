"""What reading hostile bodies costs grows with their length, and no faster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hostile import JSON_BODIES, OIP_BODIES, SAFETENSORS_BODIES

from softxent.errors import SoftxentError
from softxent.evaluations import CROSS_ENTROPY
from softxent_client.wire import REQUEST, Limits, json_blocks, json_form, oip_form, safetensors_form

SHORT = 300 << 10
"""More than a document that is read whole, and less than a second for the slowest body."""

LIMITS = Limits(header_bytes=8 << 20)

MOST_GROWTH = 10.0
"""Four times the bytes take four times as long; the square would be sixteen."""


def seconds(read: Callable[[bytes], object], body: bytes) -> float:
    """Return the least processor time of two tries, at least what the clock can tell."""
    times = []
    for _ in range(2):
        began = time.process_time()
        with contextlib.suppress(SoftxentError):
            read(body)
        times.append(time.process_time() - began)
    return max(min(times), 2e-3)


def check(read: Callable[[bytes], object], body: Callable[[int], bytes]) -> None:
    short, long = seconds(read, body(SHORT)), seconds(read, body(4 * SHORT))
    assert long < MOST_GROWTH * short


@pytest.mark.parametrize("shape", JSON_BODIES)
def test_json(shape: str) -> None:
    check(lambda body: json_form.decode(body, REQUEST(), LIMITS), JSON_BODIES[shape])


@pytest.mark.parametrize("shape", OIP_BODIES)
def test_inference_requests(shape: str) -> None:
    check(lambda body: oip_form.decode(body, None, CROSS_ENTROPY, LIMITS), OIP_BODIES[shape])


@pytest.mark.parametrize("shape", SAFETENSORS_BODIES)
def test_safetensors_headers(shape: str) -> None:
    check(lambda body: safetensors_form.decode(body, REQUEST(), LIMITS), SAFETENSORS_BODIES[shape])


class StoppedError(Exception):
    """What `reserve` raises to end reading."""


@pytest.mark.parametrize("shape", ["ones", "rows of one", "words", "rows 62 deep"])
def test_who_reads_is_asked_before_each_piece(shape: str) -> None:
    asked = 0

    def reserve(size: int) -> None:
        nonlocal asked
        asked += size > 0
        if asked == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        json_form.decode(JSON_BODIES[shape](4 * SHORT), REQUEST(), LIMITS, reserve)


def test_a_value_longer_than_a_piece_is_refused_by_name() -> None:
    body = JSON_BODIES["one digit after another"](2 * json_blocks.BLOCK_BYTES)
    with pytest.raises(SoftxentError, match="logits holds a value, or white space, of more than"):
        json_form.decode(body, REQUEST(), LIMITS)

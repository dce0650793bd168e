"""Hostile bodies are refused in time; neither a deadline nor a stop waits for their reading."""

from __future__ import annotations

import gzip
import re
import signal
import threading
from collections.abc import Callable

import httpx
import pytest
from hostile import CODED_BODIES, JSON_BODIES, OIP_BODIES
from service_support import assert_alive, assert_problem, post

from service_process import Service

INFER = "/v2/models/cross_entropy/infer"
MIB = 1 << 20

REPORTED = {
    "33 million brackets after 63": (b"[" * 63 + b"1", b"]" * 33_000_000, "is missing or too many"),
    "300,000 brackets": (b"[" * 300_000, b"", "nested deeper than 64"),
    "rank 1,000": (b"[" * 1_000 + b"1", b"]" * MIB, "nested deeper than 64"),
}


@pytest.mark.parametrize("shape", REPORTED)
def test_brackets_are_refused(service_url: str, shape: str) -> None:
    opened, closed, reason = REPORTED[shape]
    body = gzip.compress(b'{"logits":' + opened + closed + b"}", 9)
    assert len(body) < 40_000
    answer = post(service_url, body, content_encoding="gzip")
    slug_field = None if shape.startswith("33") else "logits"
    assert reason in assert_problem(answer, 400, "malformed-body", slug_field)["detail"]
    assert_alive(service_url)


@pytest.mark.parametrize("shape", ["words", "rows 62 deep", "true"])
def test_a_deadline_ends_reading(service_url: str, shape: str) -> None:
    body = JSON_BODIES[shape](16 * MIB)
    answer = post(service_url, body, request_timeout="0.25")
    assert_problem(answer, 504, "deadline-exceeded")


def test_a_deadline_ends_the_reading_of_inference_requests(service_url: str) -> None:
    body = OIP_BODIES["bare words"](16 * MIB)
    answer = httpx.post(
        service_url + INFER, content=body, headers={"request-timeout": "0.25"}, timeout=60
    )
    assert_problem(answer, 504, "deadline-exceeded")


def test_a_stop_ends_reading(start: Callable[..., Service]) -> None:
    service = start("--shutdown-seconds=0", "--max-concurrent-calls=2")
    url = service.ready_url()
    body = JSON_BODIES["words"](31 * MIB)
    callers = [threading.Thread(target=_post_and_forget, args=(url, body)) for _ in range(2)]
    for caller in callers:
        caller.start()
    running = re.compile("^softxent_calls_in_progress [12]", re.MULTILINE)
    while not running.search(httpx.get(f"{url}/metrics", timeout=60).text):
        assert any(caller.is_alive() for caller in callers)
    assert service.end(signal.SIGTERM) == 0
    for caller in callers:
        caller.join()
    assert "Traceback" not in service.log()


def _post_and_forget(url: str, body: bytes) -> None:
    try:
        post(url, body)
    except httpx.HTTPError:
        return


@pytest.mark.parametrize(
    ("coding", "shape"),
    [(coding, shape) for coding in CODED_BODIES for shape in CODED_BODIES[coding]],
)
def test_bodies_of_many_coded_parts_are_refused(
    service_url: str, coding: bytes, shape: str
) -> None:
    body = CODED_BODIES[coding][shape](200_000)
    answer = post(service_url, body, content_encoding=coding.decode())
    field = None if shape == "spaces" else "content-encoding"
    assert_problem(answer, 400, "malformed-body", field)


@pytest.mark.parametrize("name", ["accept", "content-type"])
def test_long_lists_of_media_types_are_refused(service_url: str, name: str) -> None:
    headers = {"content-type": "application/json", name: "a/b," * 2_000}
    answer = httpx.post(f"{service_url}/v1/cross_entropy", content=b"{}", headers=headers)
    assert "4096" in assert_problem(answer, 431, "head-too-large")["detail"]

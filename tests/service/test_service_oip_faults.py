"""What is wrong with requests of the protocol, as its clients see it: a status, and an `error`."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
from typing import Any

import httpx
import numpy as np
import pytest
from service_support import assert_alive, assert_problem, batch, connect, slug, status_and_body
from test_service_oip import INFER, infer, post

from conftest import running_service
from oip_bodies import HEADER_LENGTH, as_json, binary, message
from softxent_service.http.app import create_app
from softxent_service.http.readiness import Readiness
from softxent_service.settings import Settings

GOOD = {"inputs": [as_json(name, array) for name, array in batch(3, 5).items()]}
TEXT = json.dumps(GOOD).encode()


def changed(**members: Any) -> bytes:
    return json.dumps({**GOOD, **members}).encode()


def test_unknown_models_and_versions(service_url: str) -> None:
    for path in ("", "/infer", "/ready", "/config", "/stats"):
        for model in (
            "nope",
            "nope/versions/1",
            "cross_entropy/versions/2",
            "a%20b",
            "%F0%9F%98%80",
        ):
            call = httpx.post if path == "/infer" else httpx.get
            answer = call(f"{service_url}/v2/models/{model}{path}", verify=False)
            field = "version" if model.endswith("2") else "model"
            assert_problem(answer, 404, "unknown-model", field)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/cross_entropy/load"),
        ("POST", "/v2/repository/models/cross_entropy/unload"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/models/softmax/trace/setting"),
        ("POST", "/v2/cudasharedmemory/region/r/register"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
    ],
)
def test_what_is_not_served(service_url: str, method: str, path: str) -> None:
    answer = httpx.request(method, service_url + path, content=b"{}", verify=False)
    field = "r" if "cuda" in path else None
    assert_problem(answer, 501, "not-supported", field)


def test_clients_may_ask_for_cuda_regions_and_forget_them(service_url: str) -> None:
    path = f"{service_url}/v2/cudasharedmemory"
    assert httpx.get(path + "/status", verify=False).json() == []
    assert httpx.post(path + "/unregister", verify=False).status_code == 200
    assert httpx.post(path + "/region/r/unregister", verify=False).status_code == 200


def test_wrong_methods_and_paths(service_url: str) -> None:
    assert_problem(httpx.get(service_url + INFER, verify=False), 405, "method-not-allowed")
    assert_problem(httpx.post(f"{service_url}/v2", verify=False), 405, "method-not-allowed")
    for path in ("/v2/", "/v2/models/", "/v2/models/softmax/nope", "/v2/nope"):
        assert_problem(httpx.get(service_url + path, verify=False), 404, "not-found")


@pytest.mark.parametrize("length", ["-1", "9999", "x", "", "1.5", str(2**63), "9" * 30, "0"])
def test_header_lengths(service_url: str, length: str) -> None:
    answer = post(service_url, TEXT, **{HEADER_LENGTH: length})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_two_header_lengths(service_url: str) -> None:
    headers = [(HEADER_LENGTH, str(len(TEXT))), (HEADER_LENGTH, "3")]
    answer = httpx.post(service_url + INFER, content=TEXT, headers=headers, verify=False)
    assert_problem(answer, 400, "malformed-body", HEADER_LENGTH)


@pytest.mark.parametrize(
    ("body", "status", "word", "field"),
    [
        (b"{", 400, "malformed-body", None),
        (changed(inputs=[*GOOD["inputs"], GOOD["inputs"][0]]), 400, "malformed-body", "logits"),
        (changed(outputs=[{"name": "nope"}]), 400, "unknown-name", "nope"),
        (changed(parameters={"tempreature": 1}), 400, "unknown-name", "tempreature"),
        (changed(parameters={"priority": 1}), 400, "unknown-name", "priority"),
        (changed(parameters={"outputs": "loss"}), 400, "unknown-name", "outputs"),
        (changed(parameters={"reduction": "total"}), 422, "invalid-option", "reduction"),
        (changed(parameters={"z_loss": True}), 422, "invalid-option", "z_loss"),
        (changed(parameters={"z_loss": [1]}), 422, "invalid-option", "z_loss"),
        (changed(parameters={"z_loss": "1_0"}), 422, "invalid-option", "z_loss"),
        (changed(parameters={"non_finite_json": 3}), 422, "invalid-option", "non_finite_json"),
        (changed(parameters={"timeout": 0}), 400, "malformed-request", "timeout"),
        (changed(parameters={"timeout": "9"}), 400, "malformed-request", "timeout"),
        (changed(parameters={"timeout": 10**18}), 400, "malformed-request", "timeout"),
        (changed(inputs=GOOD["inputs"][:1]), 422, "invalid-tensor", "labels"),
        (
            changed(inputs=[{**GOOD["inputs"][0], "datatype": "BYTES"}]),
            422,
            "invalid-tensor",
            "logits",
        ),
        (
            changed(inputs=[GOOD["inputs"][0], {**GOOD["inputs"][1], "data": [0, 9, 1]}]),
            422,
            "label-out-of-range",
            "labels",
        ),
        (
            changed(outputs=[{"name": "loss", "parameters": {"classification": 3}}]),
            501,
            "not-supported",
            "loss",
        ),
    ],
)
def test_refusals(service_url: str, body: bytes, status: int, word: str, field: str | None) -> None:
    assert_problem(post(service_url, body), status, word, field)


def test_unknown_parameters_are_told_the_known_ones(service_url: str) -> None:
    error = post(service_url, changed(parameters={"tempreature": 1})).json()["error"]
    for name in ("temperature", "label_smoothing", "timeout", "non_finite_json"):
        assert name in error


def test_a_region_that_nobody_registered(service_url: str) -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 60}
    logits = {k: v for k, v in GOOD["inputs"][0].items() if k != "data"}
    body = changed(inputs=[{**logits, "parameters": place}, GOOD["inputs"][1]])
    assert_problem(post(service_url, body), 404, "unknown-region", "r")
    body = changed(outputs=[{"name": "gradient", "parameters": place}])
    assert_problem(post(service_url, body), 404, "unknown-region", "r")


def test_bytes_too_few_and_too_many(service_url: str) -> None:
    for rows in (3, 3_000):
        body, headers = binary(batch(rows, 50))
        short = post(service_url, body[:-1], **headers)
        assert_problem(short, 400, "malformed-body", "labels")
        assert_problem(post(service_url, body + b"x", **headers), 400, "malformed-body")


def test_codings_that_are_not_read(service_url: str) -> None:
    answer = post(service_url, TEXT, content_encoding="br")
    assert_problem(answer, 415, "unsupported-media-type", "content-encoding")
    assert "gzip, " in answer.headers["accept-encoding"]
    assert_problem(
        post(service_url, b"no gzip", content_encoding="gzip"),
        400,
        "malformed-body",
        "content-encoding",
    )


def test_a_body_that_unpacks_to_more_than_its_limit(small_service_url: str) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    answer = post(small_service_url, bomb[:200], content_encoding="gzip", **{HEADER_LENGTH: "10"})
    assert_problem(answer, 413, "limit-exceeded")
    answer = post(small_service_url, gzip.compress(TEXT + b" " * 1_000), content_encoding="gzip")
    assert_problem(answer, 413, "limit-exceeded")


@pytest.mark.parametrize("size", [10**9, 2**31, 2**63 - 1, 10**20])
def test_sizes_that_are_announced_and_never_sent(service_url: str, size: int) -> None:
    with connect(service_url) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: {size}\r\n"
        connection.sendall(f"{head}{HEADER_LENGTH}: 9\r\nconnection: close\r\n\r\n".encode())
        status, body = status_and_body(connection)
    assert (status, slug(body)) in ((413, "limit-exceeded"), (400, "malformed-request"))
    assert_alive(service_url)


def test_a_shape_beyond_all_memory(service_url: str) -> None:
    for shape, size in (([2**40, 2**20], 2**62), ([2**61, 1], 2**63), ([2**70, 0], 0)):
        entry = {
            "name": "logits",
            "datatype": "FP32",
            "shape": shape,
            "parameters": {"binary_data_size": size},
        }
        body, headers = message({"inputs": [entry, GOOD["inputs"][1]]})
        answer = post(service_url, body, **headers)
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["error"]


def test_a_timeout_of_microseconds(service_url: str) -> None:
    body, headers = binary(batch(2_000, 2_000), timeout=3_000)
    assert_problem(post(service_url, body, **headers), 504, "deadline-exceeded")
    infer(service_url, batch(3, 5), timeout=30_000_000)


def test_a_service_that_is_not_ready_says_so() -> None:
    asyncio.run(ask_unready())


async def ask_unready() -> None:
    app = httpx.ASGITransport(create_app(Settings(), Readiness()))
    async with httpx.AsyncClient(transport=app, base_url="http://s") as client:
        for answer in (
            await client.post(INFER, content=TEXT),
            await client.get("/v2/models/softmax/ready"),
        ):
            assert_problem(answer, 503, "not-ready")
        index = (await client.post("/v2/repository/index")).json()
        assert {one["state"] for one in index} == {"UNAVAILABLE"}
        asked = await client.post("/v2/repository/index", content=b'{"ready": true}')
        assert asked.json() == []
        for text in (b'{"ready": {}}', b'{"ready": 1}', b'{"ready": null}'):
            answer = await client.post("/v2/repository/index", content=text)
            assert_problem(answer, 400, "malformed-body", "ready")


@pytest.mark.parametrize(
    "flags", [("--shared-memory", "--host=0.0.0.0"), ("--shared-memory", "--workers=2")]
)
def test_shared_memory_is_for_one_process_of_this_machine(flags: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "softxent_service.cli", "info", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "shared_memory" in ended.stderr


def test_any_bytes_are_refused_and_never_a_fault(service_url: str) -> None:
    random = np.random.default_rng(11)
    body, headers = binary(batch(3, 5), ["loss", {"name": "gradient", "parameters": {}}])
    length = int(headers[HEADER_LENGTH])
    with httpx.Client(verify=False) as client:
        for _ in range(400):
            wrong = bytearray(body)
            for place in random.integers(0, length, random.integers(1, 4)):
                wrong[place] = random.integers(0, 256)
            answer = client.post(service_url + INFER, content=bytes(wrong), headers=headers)
            assert answer.status_code in (200, 400, 404, 413, 422, 501), (wrong, answer.text)
            if answer.status_code != 200:
                assert answer.json()["error"]


def test_a_running_service_answers_after_all_of_this(service_url: str) -> None:
    assert_alive(service_url)
    with running_service("--binary-bytes=100000") as url:
        body, headers = binary(batch(100, 300))
        assert_problem(post(url, body, **headers), 413, "limit-exceeded")


def test_json_is_held_against_its_own_limit_also_before_bytes(small_service_url: str) -> None:
    for spaces in (0, 150):
        body, headers = message(TEXT[:100] + b" " * spaces)
        answer = post(small_service_url, body, **headers)
        word = "limit-exceeded" if spaces else "malformed-body"
        assert answer.json()["type"] == f"urn:softxent:problem:{word}"

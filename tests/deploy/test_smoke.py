"""Through the balancer: each form of a call, a job over an object store, and who is let in."""

from __future__ import annotations

import time

import httpx
import numpy as np
from calls import JSON, PATH, Arrays, same
from figures import figure
from stack import Stack

import softxent
from oip_bodies import as_json
from softxent_client import Client

LOGITS = np.array([[2.0, 1.0, 0.1], [20.0, 0.0, 0.0]], np.float32)
LABELS = np.array([0, 0])
WANTED = softxent.cross_entropy(LOGITS, LABELS)


def bearer(stack: Stack) -> dict[str, str]:
    return {"authorization": f"Bearer {stack.secret('client.key')}"}


def test_every_form_and_a_job(stack: Stack) -> None:
    began = time.monotonic()
    body = {"logits": LOGITS.tolist(), "labels": LABELS.tolist()}
    told = httpx.post(stack.url + PATH, json=body, headers=bearer(stack)).json()
    assert same(told["loss"], WANTED.loss)

    with Client(stack.url, key=stack.secret("client.key")) as client:
        result = client.cross_entropy(LOGITS, LABELS)
    assert same(result.gradient, WANTED.gradient)

    tensors = {"inputs": [as_json("logits", LOGITS), as_json("labels", LABELS)]}
    url = f"{stack.url}/v2/models/cross_entropy/infer"
    outputs = httpx.post(url, json=tensors, headers=bearer(stack)).json()["outputs"]
    by_name = {output["name"]: output["data"] for output in outputs}
    assert same(by_name["loss"], WANTED.loss)

    arrays = Arrays(stack, rows=200)
    arrays.check(arrays.submit("smoke"), "smoke")
    figure("Smoke test: JSON, binary, OIP, a job to S3", f"{time.monotonic() - began:.1f} s")


def test_bodies_of_64_mib_stream_through(stack: Stack) -> None:
    logits = np.random.default_rng(0).normal(size=(256, 65536)).astype(np.float32)
    labels = np.zeros(256, np.int64)
    with Client(stack.url, key=stack.secret("client.key")) as client:
        result = client.cross_entropy(logits, labels)
    assert same(result.gradient, softxent.cross_entropy(logits, labels).gradient)


def test_both_replicas_answer(stack: Stack) -> None:
    for _ in range(20):
        httpx.post(
            stack.url + PATH,
            content=JSON,
            headers={**bearer(stack), "content-type": "application/json"},
        )
    for name in ("api-1", "api-2"):
        assert '"route":"/v1/cross_entropy","status":200' in stack.logs(name)


def test_only_keys_are_let_in_and_counts_stay_inside(stack: Stack) -> None:
    assert httpx.post(stack.url + PATH, json={}).status_code == 401
    assert httpx.get(f"{stack.url}/metrics", headers=bearer(stack)).status_code == 404


def test_no_log_shows_a_secret(stack: Stack) -> None:
    secrets = [stack.secret(name) for name in ("client.key", "database-password", "s3-secret")]
    for name in stack.services:
        assert not any(secret in stack.logs(name) for secret in secrets), name

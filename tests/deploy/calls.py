"""What clients of the stack do: calls without end, and jobs over its object store."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import zarr
from obstore.store import S3Store
from parts_support import wait_for
from stack import Stack

import softxent

JOB_SECONDS = 180
PATH = "/v1/cross_entropy"
JSON = b'{"logits": [[20, 0], [0, 1]], "labels": [0, 0]}'
"""One small call; it is sent again by the balancer where a replica dies under it."""


def same(found: Any, wanted: Any) -> bool:
    """Tell whether two arrays, or what becomes one, have the same bits."""
    return np.array_equal(np.asarray(found, np.float32), np.asarray(wanted, np.float32))


class Traffic:
    """Clients that call as fast as they are answered, each over one connection, without retries."""

    def __init__(self, stack: Stack, clients: int = 4, url: str = "", body: bytes = JSON) -> None:
        self.answers: Counter[int | str] = Counter()
        self._url = (url or stack.url) + PATH
        self._body = body
        self._headers = {
            "authorization": f"Bearer {stack.secret('client.key')}",
            "content-type": "application/json"
            if body[:1] == b"{"
            else "application/vnd.safetensors",
        }
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(clients)]

    def __enter__(self) -> Traffic:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.rate = self.answers[200] / (time.monotonic() - self._began)

    @property
    def lost(self) -> dict[int | str, int]:
        """Return how many calls had another answer than 200, or none."""
        return {what: count for what, count in self.answers.items() if what != 200}

    def _call(self) -> None:
        with httpx.Client(timeout=60, headers=self._headers) as client:
            while not self._over.is_set():
                try:
                    answer: int | str = client.post(self._url, content=self._body).status_code
                except httpx.TransportError as error:
                    answer = type(error).__name__
                self.answers[answer] += 1


class Arrays:
    """Logits and labels in the object store, and what a job over them must come to."""

    def __init__(self, stack: Stack, rows: int = 4000, classes: int = 500) -> None:
        self._stack = stack
        generator = np.random.default_rng(7)
        logits = (generator.normal(size=(rows, classes)) * 5).astype(np.float32)
        labels = generator.integers(0, classes, rows)
        for name, data in (("logits", logits), ("labels", labels)):
            chunks = (20, classes) if data.ndim == 2 else (rows,)
            zarr.create_array(self._at(f"in/{name}"), data=data, chunks=chunks, overwrite=True)
        whole = softxent.cross_entropy(logits, labels, reduction="mean")
        self._gradient, self._sum = whole.gradient, whole.loss_sum

    def _at(self, path: str) -> Any:
        store = S3Store(
            "arrays",
            prefix=path,
            endpoint=f"http://127.0.0.1:{self._stack.ports['S3']}",
            secret_access_key=self._stack.secret("s3-secret"),
            access_key_id=self._stack.secret("s3-id"),
            region="us-east-1",
            client_options={"allow_http": True},
        )
        return zarr.storage.ObjectStore(store)

    def submit(self, output: str) -> str:
        """Submit a job over the arrays through the balancer."""
        asked = {name: f"s3://arrays/in/{name}" for name in ("logits", "labels")}
        asked |= {"output": f"s3://arrays/out/{output}", "reduction": "mean"}
        with self._client() as client:
            job = {**asked, "outputs": ["loss", "gradient"]}
            answer = client.post("/v1/jobs", json=job, headers={"idempotency-key": output})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def check(self, job_id: str, output: str) -> None:
        """Wait for a job's end: it succeeded, with the bits of one call."""
        told = wait_for(lambda: self._ended(job_id), f"job {job_id}", JOB_SECONDS)
        assert told["state"] == "succeeded", told
        assert told["result"]["loss_sum"] == self._sum
        gradient = zarr.open_group(self._at(f"out/{output}"), mode="r")["gradient"]
        assert isinstance(gradient, zarr.Array)
        assert same(gradient[:], self._gradient)

    def _ended(self, job_id: str) -> dict[str, Any] | None:
        with contextlib.suppress(httpx.TransportError), self._client() as client:
            told = dict(client.get(f"/v1/jobs/{job_id}").json())
            return told if told.get("state") in ("succeeded", "failed", "cancelled") else None
        return None

    @contextlib.contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        key = {"authorization": f"Bearer {self._stack.secret('client.key')}"}
        with httpx.Client(base_url=self._stack.url, headers=key, timeout=60) as client:
            yield client

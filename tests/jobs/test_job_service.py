"""Jobs over HTTP: taken, shown, listed, watched, cancelled, and run by the service itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from job_http import HTTP, ended, job, refused, until
from job_support import batch, read, save

import softxent
from service_process import Service
from softxent_client.jobs import Jobs
from softxent_service.jobs.errors import (
    IdempotencyError,
    InputChangedError,
    JobsUnavailableError,
    LocationError,
    NumericsError,
    OutputInUseError,
    QueueFullError,
    SpecificationError,
    StorageError,
    TransitionError,
    UnknownJobError,
)

ROWS, CLASSES = 3000, 50


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    (folder / "arrays").mkdir()
    save(folder / "arrays", batch(ROWS, CLASSES))
    labels = np.load(folder / "arrays" / "labels.npy")
    labels[1501] = CLASSES
    np.save(folder / "arrays" / "bad.npy", labels)
    # Long enough to be cancelled.
    np.save(folder / "arrays" / "slow.npy", np.zeros((30_000, 300), np.float32))
    np.save(folder / "arrays" / "slow_labels.npy", np.zeros(30_000, np.int64))
    return folder


@pytest.fixture(scope="module")
def url(data: Path) -> Iterator[str]:
    service = Service(f"--data={data}", "--block-bytes=20000", "--running-jobs=1")
    try:
        yield service.ready_url()
        assert service.end() == 0
    finally:
        service.clear()


@pytest.fixture(scope="module")
def arrays(data: Path) -> Path:
    return data / "arrays"


def slow(arrays: Path, output: str) -> dict[str, Any]:
    logits, labels = f"file://{arrays}/slow.npy", f"file://{arrays}/slow_labels.npy"
    return job(arrays, output, logits=logits, labels=labels)


def test_a_job_is_recorded_run_and_its_bits_are_those_of_the_call(url: str, arrays: Path) -> None:
    asked = job(arrays, "first", outputs=["loss", "gradient"], reduction="mean")
    answer = HTTP.post(f"{url}/v1/jobs", json=asked)
    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{told['id']}"
    assert told["job"] == asked
    done = ended(url, told["id"])
    assert done["state"] == "succeeded", done
    tensors: Any = {n: np.load(arrays / f"{n}.npy") for n in ("logits", "labels")}
    want = softxent.cross_entropy(**tensors, reduction="mean")
    assert read(arrays, "gradient", "first").tobytes() == want.gradient.tobytes()  # type: ignore[union-attr]
    assert done["result"]["loss_sum"] == want.loss_sum
    assert done["progress"]["rows_done"] == done["progress"]["rows"] == ROWS
    assert done["created"] <= done["started"] <= done["finished"]
    assert done["error"] is None
    counted = done["result"]["loss_histogram"]
    assert len(counted["edges"]) == len(counted["counts"]) + 1
    losses: Any = softxent.cross_entropy(**tensors, outputs="loss").loss
    taken = losses[tensors["labels"] >= 0]
    assert counted["counts"] == np.histogram(taken, counted["edges"])[0].tolist()
    assert sum(counted["counts"]) == done["result"]["count"]
    assert done["progress"]["rates"][-1]["rows_a_second"] > 0
    again = HTTP.post(f"{url}/v1/jobs", json=asked)
    assert "finished already" in refused(again, 409, "output-in-use", "output")


def test_a_failure_is_told_as_a_problem(url: str, arrays: Path) -> None:
    asked = job(arrays, "failing", labels=f"file://{arrays}/bad.npy")
    done = ended(url, HTTP.post(f"{url}/v1/jobs", json=asked).json()["id"])
    assert (done["state"], done["result"]) == ("failed", None)
    error = done["error"]
    assert error["type"] == "urn:softxent:problem:label-out-of-range"
    assert (error["field"], error["rows"], error["values"]) == ("labels", [1501], [CLASSES])
    first, last = error["block_rows"]
    assert first <= 1501 < last


@pytest.mark.parametrize(
    ("changed", "status", "slug", "field"),
    [
        ({"logits": "file:///etc/passwd"}, 422, "location-refused", "logits"),
        ({"logits": "http://127.0.0.1/x"}, 422, "location-refused", "logits"),
        ({"logits": "{root}%2flogits.npy"}, 422, "location-refused", "logits"),
        ({"output": "{root}/a%2Fb"}, 422, "location-refused", "output"),
        ({"labels": "{root}/%ff.npy"}, 422, "location-refused", "labels"),
        ({"labels": "{root}/nothing.npy"}, 422, "storage-failed", "labels"),
        ({"labels": "{root}/logits.npy"}, 422, "invalid-tensor", "labels"),
        ({"temperature": 0}, 422, "invalid-option", "temperature"),
        ({"temprature": 1}, 422, "invalid-job", "temprature"),
        ({"tail": "bucket"}, 422, "invalid-option", "tail"),
        ({"output": "{root}/logits.npy"}, 422, "location-refused", "output"),
    ],
)
def test_what_is_wrong_is_refused_before_it_is_recorded(
    url: str, arrays: Path, changed: dict[str, Any], status: int, slug: str, field: str
) -> None:
    before = HTTP.get(f"{url}/v1/jobs").json()["jobs"]
    texts = {
        name: value.replace("{root}", f"file://{arrays}") if isinstance(value, str) else value
        for name, value in changed.items()
    }
    answer = HTTP.post(f"{url}/v1/jobs", json={**job(arrays, "refused"), **texts})
    refused(answer, status, slug, field)
    assert HTTP.get(f"{url}/v1/jobs").json()["jobs"] == before


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        (b"", 400, "malformed-body", None),
        (b"{", 400, "malformed-body", None),
        (b'{"a": NaN}', 400, "malformed-body", None),
        (b"\xff", 400, "malformed-body", None),
        (b"[" * 60_000, 400, "malformed-body", None),
        (b"\xef\xbb\xbf{}", 400, "malformed-body", None),
        (b"\xff\xfe{\x00}\x00", 400, "malformed-body", None),
        ("{}".encode("utf-16-be"), 400, "malformed-body", None),
        ("{}".encode("utf-16-le"), 400, "malformed-body", None),
        ("{}".encode("utf-32"), 400, "malformed-body", None),
        (b'{"output": "\xed\xa0\x80"}', 400, "malformed-body", None),
        (b"[]", 422, "invalid-job", None),
        (
            b'{"logits": "file:///\\ud800", "output": "file:///a"}',
            422,
            "location-refused",
            "logits",
        ),
        (b'{"output": "a", "output": "b"}', 422, "invalid-job", "output"),
        (b'{"logits": "file:///a/b"}', 422, "invalid-job", "output"),
        (b'{"a": "' + b"x" * 70_000 + b'"}', 413, "limit-exceeded", None),
    ],
)
def test_what_is_no_job_is_refused(
    url: str, body: bytes, status: int, slug: str, field: str | None
) -> None:
    headers = {"content-type": "application/json"}
    refused(HTTP.post(f"{url}/v1/jobs", content=body, headers=headers), status, slug, field)


def test_a_body_that_is_too_long_is_told_what_to_do(url: str) -> None:
    answer = HTTP.post(f"{url}/v1/jobs", json={"logits": "x" * 65_536})
    refused(answer, 413, "limit-exceeded")
    assert answer.json()["detail"] == (
        "the body is over the limit job_bytes of 65536 bytes; a job names its arrays by URL and"
        " holds no values; shorten it"
    )


def test_a_key_finds_its_job_when_the_inputs_are_gone(url: str, arrays: Path) -> None:
    folder, key_field = arrays / "removed_later", "idempotency-key"
    folder.mkdir()
    save(folder, batch(40, 10))
    asked, key = job(folder, "out"), {"idempotency-key": "removed-later"}
    first = HTTP.post(f"{url}/v1/jobs", json=asked, headers=key).json()["id"]
    assert ended(url, first)["state"] == "succeeded"
    (folder / "logits.npy").unlink()
    again = HTTP.post(f"{url}/v1/jobs", json=asked, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first)
    # What is left must be as it was.
    np.save(folder / "labels.npy", np.zeros(40, np.int64))
    answer = HTTP.post(f"{url}/v1/jobs", json=asked, headers=key)
    assert "labels changed since" in refused(answer, 422, "idempotency-key-reused", key_field)
    (folder / "labels.npy").unlink()
    again = HTTP.post(f"{url}/v1/jobs", json=asked, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first)
    refused(HTTP.post(f"{url}/v1/jobs", json=asked), 422, "storage-failed", "logits")


def test_other_forms_and_options_in_the_query_are_refused(url: str) -> None:
    headers = {"content-type": "application/vnd.safetensors"}
    answer = HTTP.post(f"{url}/v1/jobs", content=b"{}", headers=headers)
    refused(answer, 415, "unsupported-media-type", "content-type")
    refused(HTTP.post(f"{url}/v1/jobs?a=1", json={}), 422, "invalid-option", "a")


def test_one_key_is_one_job_whoever_comes_first(url: str, arrays: Path) -> None:
    asked, key = job(arrays, "keyed"), {"idempotency-key": "one"}

    def submit(_: int) -> httpx.Response:
        return HTTP.post(f"{url}/v1/jobs", json=asked, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    job_id = answers[0].json()["id"]
    assert ended(url, job_id)["state"] == "succeeded"
    assert submit(0).json()["id"] == job_id
    other = HTTP.post(f"{url}/v1/jobs", json=job(arrays, "other"), headers=key)
    refused(other, 422, "idempotency-key-reused", "idempotency-key")
    for wrong in ("", "a b", "x" * 256):
        answer = HTTP.post(f"{url}/v1/jobs", json=asked, headers={"idempotency-key": wrong})
        refused(answer, 400, "malformed-request", "idempotency-key")


def test_cancelling_while_running_queued_and_afterwards(url: str, arrays: Path) -> None:
    running = HTTP.post(f"{url}/v1/jobs", json=slow(arrays, "slow")).json()["id"]
    queued = HTTP.post(f"{url}/v1/jobs", json=job(arrays, "queued")).json()["id"]
    refused(HTTP.post(f"{url}/v1/jobs", json=job(arrays, "queued")), 409, "output-in-use", "output")
    while not (until(url, running, ("running",))["progress"] or {}).get("rows_done"):
        time.sleep(0.05)
    assert HTTP.get(f"{url}/v1/jobs/{queued}").json()["state"] == "queued"
    for job_id in (queued, running):
        answer = HTTP.post(f"{url}/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        refused(HTTP.post(f"{url}/v1/jobs/{job_id}/cancel"), 409, "job-state", "state")
    # What was half done is kept, and another job gets its place.
    next_one = HTTP.post(f"{url}/v1/jobs", json=job(arrays, "after")).json()["id"]
    assert ended(url, next_one)["state"] == "succeeded"
    assert any((arrays / "slow" / ".softxent" / "blocks").iterdir())
    assert not (arrays / "queued").exists()
    assert HTTP.get(f"{url}/v1/jobs/{running}").json()["state"] == "cancelled"


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    event = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            event = line[4:]
        elif line.startswith("data: "):
            yield event, json.loads(line[6:])


def test_events_tell_all_news_and_go_on_where_they_were_cut(url: str, arrays: Path) -> None:
    job_id = HTTP.post(f"{url}/v1/jobs", json=slow(arrays, "watched")).json()["id"]
    path = f"{url}/v1/jobs/{job_id}/events"
    with HTTP.stream("GET", path) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        news = events(response)
        last, told = next(news)
        while not (told["state"] == "running" and told["progress"]):
            last, told = next(news)
    HTTP.post(f"{url}/v1/jobs/{job_id}/cancel")
    with HTTP.stream("GET", path, headers={"last-event-id": last}) as response:
        rest = list(events(response))
    assert last not in [event for event, _ in rest]
    assert rest[-1][1]["state"] == "cancelled"
    end = {"last-event-id": rest[-1][0]}
    assert HTTP.get(path, headers=end).text == ""


@pytest.mark.parametrize("last", ["", "0", "f" * 16, "f" * 5000, "\x7f", "é"])
def test_any_last_event_id_is_taken(url: str, last: str) -> None:
    job_id = HTTP.get(f"{url}/v1/jobs?limit=1").json()["jobs"][0]["id"]
    headers = {b"last-event-id": last.encode("latin-1")}
    with HTTP.stream("GET", f"{url}/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code in (200, 400)


@pytest.mark.parametrize(
    "job_id", ["nothing", "%00", "%ff", "%ed%a0%80", "%E2%82%AC", "a" * 2000, "..%2f.."]
)
def test_no_such_job(url: str, job_id: str) -> None:
    for path in ("", "/events"):
        answer = HTTP.get(f"{url}/v1/jobs/{job_id}{path}")
        assert answer.status_code == 404, answer.text
    assert HTTP.post(f"{url}/v1/jobs/{job_id}/cancel").status_code == 404


def test_the_client_submits_watches_lists_and_cancels(url: str, arrays: Path) -> None:
    with Jobs(url) as jobs:
        told = jobs.submit(job(arrays, "client"), key="client")
        news = list(jobs.watch(told["id"]))
        assert news[-1]["state"] == "succeeded"
        assert jobs.show(told["id"]) == news[-1]
        assert told["id"] in [one["id"] for one in jobs.list(states="succeeded")["jobs"]]
        with pytest.raises(softxent.SoftxentError, match="cannot cancel"):
            jobs.cancel(told["id"])
        with pytest.raises(softxent.TensorError) as caught:
            jobs.submit(job(arrays, "x", labels=f"file://{arrays}/slow_labels.npy"))
        assert caught.value.field == "labels"


def test_a_stop_ends_watching_and_gives_running_jobs_back(
    arrays: Path, start: Callable[..., Service], tmp_path: Path
) -> None:
    flags = (f"--data={tmp_path}", f"--roots=file://{arrays}", "--block-bytes=12000")
    first = start(*flags)
    url = first.ready_url()
    job_id = HTTP.post(f"{url}/v1/jobs", json=slow(arrays, "given_back")).json()["id"]
    while not (until(url, job_id, ("running",))["progress"] or {}).get("rows_done"):
        time.sleep(0.05)
    lines: list[str] = []

    def follow() -> None:
        with HTTP.stream("GET", f"{url}/v1/jobs/{job_id}/events") as response:
            lines.extend(response.iter_lines())

    watching = threading.Thread(target=follow)
    watching.start()
    time.sleep(0.5)
    assert first.end() == 0
    watching.join(10)
    assert not watching.is_alive()
    done = len(list((arrays / "given_back" / ".softxent" / "blocks").iterdir()))
    second = start(*flags)
    url = second.ready_url()
    told = until(url, job_id, ("running", "succeeded"))
    while told["progress"]["rows_done"] <= done:
        time.sleep(0.05)
        told = until(url, job_id, ("running", "succeeded"))
    assert told["progress"]["rows_done"] >= done
    HTTP.post(f"{url}/v1/jobs/{job_id}/cancel")
    assert second.end() == 0


def test_every_error_of_jobs_has_a_status() -> None:
    from softxent_service.http.problems import status_of

    errors = {
        SpecificationError: 422,
        LocationError: 422,
        IdempotencyError: 422,
        StorageError: 422,
        InputChangedError: 409,
        OutputInUseError: 409,
        NumericsError: 409,
        QueueFullError: 429,
        UnknownJobError: 404,
        TransitionError: 409,
        JobsUnavailableError: 503,
    }
    assert {error: status_of(error) for error in errors} == errors

"""What is counted: after known requests the numbers are known, in one process and in several."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from service_support import (
    BINARY,
    GOOD,
    JSON,
    PATH,
    assert_problem,
    batch,
    binary,
    connect,
    head,
    post,
)

from conftest import running_service
from service_process import Service
from softxent_service.http.app import create_app
from softxent_service.http.readiness import Readiness
from softxent_service.settings import Settings
from softxent_service.telemetry.metrics import BOUNDS, METRICS, Counts
from softxent_service.telemetry.snapshots import Snapshots

Start = Callable[..., Service]
Values = dict[tuple[str, ...], float]


def scrape(url: str) -> Values:
    """Return each sample by its name and the values of its labels."""
    answer = httpx.get(f"{url}/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.fixture
def url() -> Iterator[str]:
    """A service of the test's own, whose numbers nobody else changes."""
    with running_service("--request-head-bytes=2048") as own:
        yield own


def test_what_was_sent_is_counted(url: str) -> None:
    large = binary(batch(1_000, 100))
    for _ in range(3):
        assert post(url, GOOD).status_code == 200
    assert post(url, large, BINARY).status_code == 200
    assert post(url, b'{"logits": [[1, 2]], "labels": [9]}').status_code == 422
    assert httpx.get(f"{url}/nowhere/{'x' * 20}").status_code == 404
    with connect(url) as connection:
        connection.sendall(head(5).replace(b"host", b"x: " + b"x" * 4000 + b"\r\nhost"))
        assert b" 431 " in connection.recv(4096)
    found = scrape(url)
    assert found["softxent_requests_total", PATH, "200"] == 4
    assert found["softxent_requests_total", PATH, "422"] == 1
    assert found["softxent_requests_total", "unmatched", "404"] == 1
    assert found["softxent_requests_total", "unmatched", "431"] == 1
    for reason in ("label-out-of-range", "not-found", "head-too-large"):
        assert found["softxent_refusals_total", reason] == 1
    assert found["softxent_rows_total", PATH] == 1_004
    assert found["softxent_received_bytes_total", PATH] == 3 * len(GOOD) + len(large) + 35
    assert found["softxent_sent_bytes_total", PATH] > 1_000 * 100 * 4
    assert found["softxent_kernel_seconds_total", "float32"] > 0
    assert found["softxent_request_seconds_count", PATH] == 5
    assert found["softxent_request_seconds_bucket", "+Inf", PATH] == 5
    assert found["softxent_request_seconds_sum", PATH] > 0
    assert found["softxent_queue_seconds_count",] == 1
    assert found["softxent_compilations_total",] == 0
    assert found["softxent_ready",] == found["softxent_processes",] == 1
    # The scrape itself.
    assert found["softxent_requests_in_progress",] == 1
    assert found["softxent_bytes_in_flight",] == found["softxent_queue_depth",] == 0
    assert found["process_open_fds",] > 3


def test_a_call_in_progress_holds_bytes(url: str) -> None:
    with connect(url) as slow:
        slow.sendall(head(500_000, BINARY) + bytes(200_000))
        deadline = time.monotonic() + 10
        while scrape(url)["softxent_bytes_in_flight",] < 200_000:
            assert time.monotonic() < deadline
    while scrape(url)["softxent_bytes_in_flight",]:
        assert time.monotonic() < deadline


def test_every_metric_is_shown_with_its_text(service_url: str) -> None:
    text = httpx.get(f"{service_url}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, metric in METRICS.items():
        assert (families[name].type, families[name].documentation) == (metric.kind, metric.text)


def test_openmetrics_is_spoken_too(service_url: str) -> None:
    asked = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = httpx.get(f"{service_url}/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = openmetrics.text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
    assert "softxent_requests" in {family.name for family in families}


def test_processes_add_up_and_a_dead_one_counts_on(start: Start, tmp_path: Path) -> None:
    flags = ("--metrics-directory", str(tmp_path))
    first, second = start(*flags), start(*flags)
    urls = [first.ready_url(), second.ready_url()]
    for url, times in zip(urls, (3, 5), strict=True):
        for _ in range(times):
            assert post(url, GOOD).status_code == 200

    def both(url: str, wanted: float) -> Values:
        deadline = time.monotonic() + 10
        while (found := scrape(url)).get(("softxent_requests_total", PATH, "200")) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found

    for url in urls:
        found = both(url, 8)
        assert found["softxent_request_seconds_count", PATH] == 8
        assert found["softxent_rows_total", PATH] == 8
    deadline = time.monotonic() + 10
    while scrape(urls[0])["softxent_ready",] != 2:
        assert time.monotonic() < deadline
    assert post(urls[1], GOOD).status_code == 200
    assert second.end() == 0
    found = both(urls[0], 9)
    assert found["softxent_processes",] == 1


def test_a_directory_that_is_not_there_is_told_and_stops_nothing(
    start: Start, tmp_path: Path
) -> None:
    service = start("--metrics-directory", str(tmp_path / "missing"))
    url = service.ready_url()
    service.wait_for("counts cannot be left for other processes")
    assert post(url, GOOD).status_code == 200
    assert scrape(url)["softxent_requests_total", PATH, "200"] == 1
    assert service.end() == 0


def test_a_process_that_was_killed_has_no_gauges(tmp_path: Path) -> None:
    counts = Counts()
    counts.counters["softxent_rows", PATH] = 7
    counts.gauges["softxent_ready",] = 1
    counts.observe(("softxent_queue_seconds",), 0.3)
    dead = tmp_path / f"{2**22 + 1}-1.json"
    Snapshots(tmp_path).write(counts)
    (written,) = tmp_path.glob("*.json")
    written.rename(dead)
    (other,) = Snapshots(tmp_path).others()
    assert other.counters == counts.counters
    assert other.histograms == counts.histograms
    assert not other.gauges


@pytest.mark.parametrize("seconds", [0.0, 0.00025, 0.0003, 59.0, 60.0, 61.0, 1e9])
def test_a_time_lies_in_the_bucket_that_reaches_it(seconds: float) -> None:
    counts = Counts()
    counts.observe(("h",), seconds)
    total, *row = counts.histograms["h",]
    assert (total, sum(row)) == (seconds, 1)
    place = row.index(1)
    assert all(bound < seconds for bound in BOUNDS[:place])
    assert all(bound >= seconds for bound in BOUNDS[place : place + 1])


def test_an_answer_says_where_its_time_went(service_url: str) -> None:
    for body, form in ((GOOD, JSON), (binary(batch(2_000, 100)), BINARY)):
        told = post(service_url, body, form).headers["server-timing"]
        parts = dict(part.split(";dur=") for part in told.split(", "))
        assert list(parts) == ["read", "queue", "decode", "kernel", "encode"]
        assert all(float(value) >= 0 for value in parts.values())
        assert float(parts["kernel"]) > 0
    assert "server-timing" not in post(service_url, b"{").headers


def test_a_fault_is_counted_and_has_an_id(tmp_path: Path) -> None:
    # With a data directory that has jobs of before, who counts them would start their runner here.
    readiness = Readiness()
    readiness.threading_layer = object()  # type: ignore[assignment]  # no text, so /v1/info fails
    app = create_app(Settings(data=tmp_path), readiness)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def ask() -> tuple[httpx.Response, str]:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"x-request-id": "faulty"}
            return await client.get("/v1/info", headers=headers), (
                await client.get("/metrics")
            ).text

    answer, counted = asyncio.run(ask())
    assert_problem(answer, 500, "internal-error")
    assert answer.headers["x-request-id"] == "faulty"
    assert 'softxent_requests_total{route="/v1/info",status="500"} 1.0' in counted
    assert 'softxent_refusals_total{reason="internal-error"} 1.0' in counted

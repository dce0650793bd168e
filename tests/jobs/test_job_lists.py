"""Lists of jobs and of arrays over HTTP: pages, cursors, filters, and what makes no sense."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from job_http import HTTP, ended, job, refused
from job_support import batch, save

from service_process import Service
from softxent_client.jobs import Jobs

ROWS, CLASSES = 3000, 50


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists") / "arrays"
    folder.mkdir()
    save(folder, batch(ROWS, CLASSES))
    labels = np.load(folder / "labels.npy")
    labels[1501] = CLASSES
    np.save(folder / "bad.npy", labels)
    return folder


@pytest.fixture(scope="module")
def url(arrays: Path) -> Iterator[str]:
    service = Service(f"--data={arrays.parent}")
    try:
        yield service.ready_url()
        assert service.end() == 0
    finally:
        service.clear()


def test_the_list_is_cut_into_pages_and_filtered(url: str, arrays: Path) -> None:
    for i in range(5):
        HTTP.post(f"{url}/v1/jobs", json=job(arrays, f"page{i}"))
    failed = HTTP.post(f"{url}/v1/jobs", json=job(arrays, "bad", labels=f"file://{arrays}/bad.npy"))
    assert ended(url, failed.json()["id"])["state"] == "failed"
    whole = HTTP.get(f"{url}/v1/jobs?limit=500").json()
    assert whole["next"] is None
    assert len(whole["jobs"]) == 6
    ids: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = HTTP.get(f"{url}/v1/jobs?limit=2{f'&cursor={cursor}' if cursor else ''}").json()
        assert len(page["jobs"]) <= 2
        ids += [one["id"] for one in page["jobs"]]
        cursor = page["next"]
    assert sorted(ids) == sorted(one["id"] for one in whole["jobs"])
    found = HTTP.get(f"{url}/v1/jobs?state=cancelled,failed&limit=500").json()["jobs"]
    assert [one["id"] for one in found] == [failed.json()["id"]]
    times = [one["created"] for one in whole["jobs"]]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=done", "state"),
        ("state=", "state"),
        ("state=queued,", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=2&limit=3", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=" + "f" * 100 + "-0", "cursor"),
        ("cursor=ffffffffffff-ffffffff", "cursor"),
        ("cursor=e677d21fdc00-0", "cursor"),
        ("cursor=01-1", "cursor"),
        ("cursor=1-01", "cursor"),
        ("cursor=1-1-1", "cursor"),
        ("cursor=-1-1", "cursor"),
        ("cursor=1-1%0a", "cursor"),
        ("cursor=%D9%A1-1", "cursor"),
        ("cursor=1-1&cursor=1-1", "cursor"),
        ("limit=%D9%A1", "limit"),
        ("state=%E2%82%AC", "state"),
        ("%E2%82%AC=1", "€"),
        ("page=2", "page"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(url: str, query: str, field: str) -> None:
    refused(HTTP.get(f"{url}/v1/jobs?{query}"), 422, "invalid-job", field)


@pytest.mark.parametrize("cursor", ["0-0", "1-1", "e677d21fdbff-ffffffff", "fffffff-ffffffff"])
def test_a_cursor_of_any_time_is_answered(url: str, cursor: str) -> None:
    """The last time is that of 9999-12-31T23:59:59.999Z."""
    answer = HTTP.get(f"{url}/v1/jobs?cursor={cursor}")
    assert (answer.status_code, answer.json()) == (200, {"jobs": [], "next": None})


@pytest.mark.parametrize("query", [b"cursor=\xe2\x82\xac", b"cursor=\xff", b"cursor=\xed\xa0\x80"])
def test_a_query_of_bare_bytes_is_no_fault_of_the_service(url: str, query: bytes) -> None:
    address = httpx.URL(url)
    context = ssl._create_unverified_context() if address.scheme == "https" else None
    with socket.create_connection((address.host, address.port or 80), timeout=60) as plain:
        stream = context.wrap_socket(plain) if context else plain
        stream.sendall(
            b"GET /v1/jobs?" + query + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        status = stream.recv(4096).split()[1]
    assert status in (b"400", b"422")


def test_the_arrays_below_the_roots_are_listed_in_pages(url: str, arrays: Path) -> None:
    np.save(arrays / "0 <b>.npy", np.zeros((2, 3), np.float32))
    whole = HTTP.get(f"{url}/v1/arrays?limit=500").json()
    assert (whole["next"], whole["truncated"]) == (None, False)
    assert whole["arrays"][0] == {
        "url": f"file://{arrays}/0%20%3Cb%3E.npy",
        "format": "npy",
        "shape": [2, 3],
        "dtype": "float32",
        "problem": None,
    }
    forms = {one["url"]: (one["shape"], one["dtype"]) for one in whole["arrays"]}
    assert forms[f"file://{arrays}/logits.npy"] == ([ROWS, CLASSES], "float32")
    assert forms[f"file://{arrays}/labels.npy"] == ([ROWS], "int64")
    with Jobs(url) as jobs:
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = jobs.arrays(limit=1, cursor=cursor)
            found += page["arrays"]
            cursor = page["next"]
    assert found == whole["arrays"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=1&limit=1", "limit"),
        ("cursor=", "cursor"),
        ("cursor=/etc/passwd", "cursor"),
        ("cursor=0", "cursor"),
        ("state=queued", "state"),
        ("below=/etc", "below"),
    ],
)
def test_a_list_of_arrays_that_makes_no_sense_is_refused(url: str, query: str, field: str) -> None:
    refused(HTTP.get(f"{url}/v1/arrays?{query}"), 422, "invalid-job", field)


@pytest.mark.parametrize("cursor", ["0/../../etc", "0/%2e%2e/%2fetc", "7/a", "0/%00", "0//"])
def test_a_cursor_leads_nowhere_else(url: str, arrays: Path, cursor: str) -> None:
    answer = HTTP.get(f"{url}/v1/arrays", params={"cursor": cursor, "limit": "500"})
    assert answer.status_code == 200
    assert all(one["url"].startswith(f"file://{arrays}/") for one in answer.json()["arrays"])


def test_a_root_that_cannot_be_listed_is_a_problem(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    service = start(f"--data={tmp_path}", f"--roots=file://{tmp_path}/loop/x")
    answer = HTTP.get(f"{service.ready_url()}/v1/arrays")
    assert "cannot be listed" in refused(answer, 422, "storage-failed")


def test_info_names_the_roots(url: str, arrays: Path) -> None:
    assert HTTP.get(f"{url}/v1/info").json()["roots"] == [f"file://{arrays}"]

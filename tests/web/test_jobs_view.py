"""Jobs submitted, followed and cancelled on the page, by a real runner over real arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from chromium import Open
from playwright.sync_api import Page, expect
from web_support import assert_accessible, plain

import softxent
from conftest import free_port
from service_process import Service
from softxent_service.keys import new_key

Start = Callable[..., Service]

VIEW = "/#jobs"
QUEUED = "--job-runner=elsewhere"
"""Nobody runs the jobs of such a service, so they stay queued."""


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    folder = tmp_path / "arrays"
    folder.mkdir()
    random = np.random.default_rng(5)
    np.save(folder / "logits.npy", random.normal(size=(1000, 20)).astype(np.float32))
    np.save(folder / "labels.npy", random.integers(0, 20, 1000))
    return folder


def submit(page: Page, folder: Path, output: str = "result.zarr") -> None:
    page.get_by_text("Submit a job", exact=True).click()
    expect(page.get_by_text("below this root")).to_be_visible()
    for name, file in (("logits", "logits.npy"), ("labels", "labels.npy"), ("output", output)):
        page.locator(f"input[name={name}]").fill(f"file://{folder}/{file}")
    page.get_by_role("button", name="Submit", exact=True).click()


def test_a_job_is_submitted_and_followed_to_its_sums(
    open_page: Open, start: Start, arrays: Path
) -> None:
    url = start(f"--data={arrays.parent}").ready_url()
    page = open_page(url, VIEW).page
    expect(page.get_by_text("No job yet.")).to_be_visible()
    submit(page, arrays)
    expect(page.locator("[data-state=succeeded]")).to_be_visible(timeout=120_000)
    logits, labels = np.load(arrays / "logits.npy"), np.load(arrays / "labels.npy")
    wanted = softxent.cross_entropy(logits, labels)
    assert plain(page.locator("[data-member=loss_sum]").inner_text()) == repr(wanted.loss_sum)
    expect(page.locator("[data-member=count]")).to_have_text("1000")
    page.get_by_role("button", name="failed", exact=True).click()
    expect(page.get_by_text("No job in these states.")).to_be_visible()
    page.get_by_role("button", name="succeeded", exact=True).click()
    expect(page.get_by_role("row", name="succeeded")).to_have_count(1)
    assert_accessible(page)


def test_a_job_is_cancelled_after_it_was_confirmed(
    open_page: Open, start: Start, arrays: Path
) -> None:
    url = start(f"--data={arrays.parent}", QUEUED).ready_url()
    page = open_page(url, VIEW).page
    submit(page, arrays, "<b onclick=alert(1)>.zarr")
    expect(page.locator("[data-state=queued]")).to_be_visible()
    expect(page.locator("[data-member=output]")).to_contain_text("<b onclick=alert(1)>.zarr")
    page.get_by_role("button", name="Cancel this job").click()
    page.get_by_role("button", name="Let it run").click()
    expect(page.locator("[data-state=queued]")).to_be_visible()
    page.get_by_role("button", name="Cancel this job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator("[data-state=cancelled]")).to_be_visible()


def test_events_go_on_when_the_service_is_back(open_page: Open, start: Start, arrays: Path) -> None:
    port = free_port()
    flags = (f"--data={arrays.parent}", f"--port={port}", QUEUED)
    first = start(*flags)
    watched = open_page(first.ready_url(), VIEW)
    watched.refusals_expected = True
    page = watched.page
    submit(page, arrays)
    expect(page.locator("[data-state=queued]")).to_be_visible()
    first.process.kill()
    first.process.wait()
    expect(page.get_by_text("The service does not answer.").first).to_be_visible()
    url = start(*flags).ready_url()
    job = httpx.get(f"{url}/v1/jobs", timeout=60).json()["jobs"][0]
    httpx.post(f"{url}/v1/jobs/{job['id']}/cancel", timeout=60)
    expect(page.locator("[data-state=cancelled]")).to_be_visible(timeout=30_000)


def test_what_is_refused_is_told(open_page: Open, start: Start, arrays: Path) -> None:
    watched = open_page(start(f"--data={arrays.parent}", QUEUED).ready_url(), VIEW)
    watched.refusals_expected = True
    submit(watched.page, arrays.parent)
    expect(watched.page.get_by_role("alert")).to_contain_text("logits")
    expect(watched.page.get_by_text("No job yet.")).to_be_visible()


def test_a_key_without_the_scope_is_told(open_page: Open, start: Start) -> None:
    text, kept = new_key("small", ["evaluate"])
    watched = open_page(start(SOFTXENT_KEYS=kept.line()).ready_url(), VIEW)
    watched.refusals_expected = True
    dialog = watched.page.get_by_role("dialog")
    dialog.get_by_label("Key", exact=True).fill(text)
    dialog.get_by_role("button", name="Use this key").click()
    expect(watched.page.get_by_role("alert")).to_contain_text(
        "This view needs a key with the scope jobs"
    )

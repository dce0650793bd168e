"""The state of the service as the page tells it, beside what /metrics says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from chromium import Open
from playwright.sync_api import expect
from web_support import assert_accessible

from service_process import Service

Start = Callable[..., Service]

VIEW = "/#service"
GOOD: dict[str, Any] = {"logits": [[1, 2]], "labels": [0]}
BAD: dict[str, Any] = {"logits": [[1, 2]], "labels": [7]}


def send(url: str, body: dict[str, Any]) -> None:
    httpx.post(f"{url}/v1/cross_entropy", json=body)


def test_refusals_come_with_the_runbook_s_words(open_page: Open, start: Start) -> None:
    url = start().ready_url()
    for _ in range(3):
        send(url, BAD)
    page = open_page(url, VIEW).page
    expect(page.locator("[data-refusals=label-out-of-range]")).to_have_text("3")
    row = page.get_by_role("row", name="label-out-of-range")
    expect(row.locator("td").last).to_have_text("nothing")
    expect(page.locator("[data-now=ready]")).to_have_text("1 of 1")
    expect(page.locator("[data-now=memory]")).to_have_text("0 bytes of 2.1 GB")
    # Every figure is of the time between two readings.
    expect(page.locator("[data-now=rate]")).not_to_have_text("…")
    send(url, BAD)
    expect(page.locator("[data-refusals=label-out-of-range]")).to_have_text("4")
    expect(page.locator("canvas")).to_have_count(2)


def test_several_workers_are_added_up_and_said(open_page: Open, start: Start) -> None:
    url = start("--workers=2").ready_url()
    page = open_page(url, VIEW).page
    expect(page.locator("[data-now=ready]")).to_have_text("2 of 2")
    expect(page.locator("[data-now=memory]")).to_have_text("0 bytes of 4.3 GB")
    expect(page.get_by_text("2 processes share the address")).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 400)])
def test_axe_finds_nothing(open_page: Open, service_url: str, scheme: str, width: int) -> None:
    send(service_url, BAD)
    viewport = {"width": width, "height": 900}
    page = open_page(service_url, VIEW, color_scheme=scheme, viewport=viewport).page
    expect(page.locator("[data-now=rate]")).not_to_have_text("…")
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width

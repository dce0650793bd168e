"""The page below a base path: found with and without the slash, and whole in every view."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from chromium import Open
from playwright.sync_api import expect

from service_process import Service
from softxent_service.http.routes.page import POLICY


@pytest.fixture(scope="module")
def based() -> Iterator[str]:
    service = Service("--base-path=/softxent")
    yield service.ready_url()
    service.clear()


def test_the_base_path_without_a_slash_leads_to_the_page(open_page: Open, based: str) -> None:
    page = open_page(based, "/softxent#derivation?logits=3,1&label=0").page
    assert page.url.startswith(f"{based}/softxent/#derivation")
    expect(page.locator("[data-loss]")).to_be_visible()
    answer = httpx.get(f"{based}/softxent")
    assert (answer.status_code, answer.headers["location"]) == (308, "/softxent/")


SIGNS = {"playground": "textarea", "jobs": "text=No job", "service": "[data-now=ready]"}


@pytest.mark.parametrize("view", SIGNS)
def test_every_view_asks_below_the_base_path_alone(open_page: Open, based: str, view: str) -> None:
    page = open_page(based, f"/softxent/#{view}").page
    expect(page.locator(SIGNS[view]).first).to_be_visible()
    names = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert names
    assert all(name.startswith(f"{based}/softxent/") for name in names), names


def test_the_page_s_policy_comes_with_it(open_page: Open, based: str) -> None:
    page = open_page(based, "/softxent/").page
    answer = page.reload()
    assert answer is not None
    assert answer.headers["content-security-policy"] == POLICY

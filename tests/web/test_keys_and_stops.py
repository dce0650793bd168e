"""Keys, missing scopes, a service that is gone or compiles: each is a sentence on the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chromium import Open, Watched
from playwright.sync_api import Page, expect
from web_support import assert_accessible

import softxent
import softxent_service
from conftest import free_port
from service_process import Service
from softxent_service.keys import SCOPES, new_key

Start = Callable[..., Service]

SAYS_NOTHING = "The service does not answer. This page goes on as soon as it does."


@dataclass(frozen=True)
class Guarded:
    """A service with a key for each scope."""

    url: str
    keys: dict[str, str]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    made = {scope: new_key(scope, [scope]) for scope in SCOPES}
    service = Service(SOFTXENT_KEYS=";".join(kept.line() for _, kept in made.values()))
    yield Guarded(service.ready_url(), {scope: text for scope, (text, _) in made.items()})
    service.clear()


def opened(open_page: Open, url: str, path: str = "/") -> Watched:
    watched = open_page(url, path)
    watched.refusals_expected = True
    return watched


def give(page: Page, key: str, keep: bool = False) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key", exact=True).fill(key)
    dialog.get_by_label("keep it").set_checked(keep)
    dialog.get_by_role("button", name="Use this key").click()


def test_a_key_is_asked_for_and_kept_in_memory_alone(open_page: Open, guarded: Guarded) -> None:
    watched = opened(open_page, guarded.url)
    page = watched.page
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This service lets in only those who have a key.")
    assert_accessible(page)
    give(page, "softxent-wrong")
    expect(dialog).to_contain_text("The service does not know this key.")
    give(page, guarded.keys["evaluate"])
    expect(page.locator("[data-loss]")).to_have_text(str(softxent.explain([2, 1, 0.1], 0).loss))
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    assert not [url for url in urls if guarded.keys["evaluate"] in url]
    page.reload()
    expect(dialog).to_be_visible()
    give(page, guarded.keys["evaluate"], keep=True)
    page.reload()
    expect(page.locator("[data-loss]")).to_be_visible()


def test_a_key_without_the_scope_is_told_which(open_page: Open, guarded: Guarded) -> None:
    page = opened(open_page, guarded.url, "/#service").page
    give(page, guarded.keys["evaluate"])
    expect(page.get_by_role("alert")).to_contain_text(
        "This view needs a key with the scope metrics"
    )
    page.get_by_role("link", name="Derivation").click()
    expect(page.locator("[data-loss]")).to_be_visible()
    page.get_by_role("button", name="Key in use").click()
    give(page, guarded.keys["metrics"])
    expect(page.get_by_role("alert")).to_contain_text("lacks the scope evaluate")


def test_the_copied_call_names_no_key(open_page: Open, guarded: Guarded) -> None:
    page = opened(open_page, guarded.url, "/#playground").page
    page.get_by_role("button", name="Key", exact=True).click()
    give(page, guarded.keys["evaluate"])
    page.get_by_role("button", name="Run").click()
    shown = page.locator("pre")
    expect(shown).to_contain_text('"Authorization: Bearer $SOFTXENT_KEY"')
    assert guarded.keys["evaluate"] not in shown.inner_text()


def of_a_killed_service(open_page: Open, start: Start) -> tuple[Page, int]:
    """Return a page whose service was killed after its first view was there, and the port."""
    port = free_port()
    first = start(f"--port={port}")
    page = opened(open_page, first.ready_url()).page
    expect(page.locator("[data-loss]")).to_be_visible()
    first.process.kill()
    first.process.wait()
    return page, port


def test_a_service_that_was_killed_is_said_and_the_page_recovers(
    open_page: Open, start: Start
) -> None:
    page, port = of_a_killed_service(open_page, start)
    page.get_by_label("Logit of class 0", exact=True).fill("5")
    expect(page.get_by_role("status").filter(has_text=SAYS_NOTHING)).to_be_visible()
    start(f"--port={port}").url()
    expect(page.locator("[data-loss]")).to_have_text(
        str(softxent.explain([5, 1, 0.1], 0).loss), timeout=30_000
    )
    expect(page.get_by_text(SAYS_NOTHING)).to_have_count(0)


def test_a_view_that_cannot_be_loaded_is_said_and_comes_later(
    open_page: Open, start: Start
) -> None:
    page, port = of_a_killed_service(open_page, start)
    page.get_by_role("link", name="Playground").click()
    expect(page.get_by_role("alert")).to_have_text(SAYS_NOTHING)
    start(f"--port={port}").url()
    expect(page.locator("textarea")).to_be_visible(timeout=30_000)
    expect(page.get_by_text(SAYS_NOTHING)).to_have_count(0)


def test_a_view_of_another_release_is_said(open_page: Open, service_url: str) -> None:
    page = opened(open_page, service_url).page
    # What a service answers whose files have other names.
    page.route("**/web/view-*", lambda route: route.fulfill(status=404))
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("alert")).to_contain_text("Load the page again.")


def test_a_service_that_compiles_says_so_and_derives_already(
    open_page: Open, start: Start, tmp_path: Path
) -> None:
    # Machine code is kept beside the sources: a copy of them has none.
    source = Path(softxent.__file__).parent
    shutil.copytree(source, tmp_path / "softxent", ignore=shutil.ignore_patterns("__pycache__"))
    service_root = Path(softxent_service.__file__).parents[1]
    service = start(PYTHONPATH=f"{tmp_path}{os.pathsep}{service_root}")
    page = opened(open_page, service.url()).page
    expect(page.locator("[data-loss]")).to_be_visible()
    page.get_by_role("link", name="Playground").click()
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("compiled")
    # A signal ends the compiler too; it would outlive a service that is killed.
    service.end()

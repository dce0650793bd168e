"""Chromium on the real service; a policy violation, a console error or a foreign request fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ARGUMENTS = [
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]

# The first job of a service imports what jobs need, for seconds on a busy machine.
expect.set_options(timeout=60_000)

REFUSED = "Failed to load resource: the server responded with a status of"
LOST = "net::ERR_"
"""What Chromium itself logs of an answer over 399, and of none: a test may expect them."""

WATCH_POLICY = (
    "document.addEventListener('securitypolicyviolation',"
    " e => console.error('policy: ' + e.violatedDirective + ' ' + e.blockedURI))"
)


@dataclass
class Watched:
    """A page and what it must not do."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)
    refusals_expected: bool = False

    def watch(self) -> None:
        self.page.add_init_script(WATCH_POLICY)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        expected = self.refusals_expected and (REFUSED in message.text or LOST in message.text)
        if message.type in ("error", "warning") and not expected:
            self.faults.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and f"{url.scheme}://{url.netloc}" != self.origin:
            self.faults.append(f"request: {request.url}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", chromium_sandbox=False, args=ARGUMENTS
        )
        yield found
        found.close()


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens pages, and fails the test if one of them did what it must not."""
    opened: list[Watched] = []
    contexts: list[BrowserContext] = []

    def one_more(url: str, path: str = "/", **options: Any) -> Watched:
        contexts.append(browser.new_context(**options))
        contexts[-1].grant_permissions(["clipboard-read", "clipboard-write"])
        parts = urlsplit(url)
        watched = Watched(contexts[-1].new_page(), f"{parts.scheme}://{parts.netloc}")
        watched.watch()
        watched.page.goto(url + path)
        opened.append(watched)
        return watched

    yield one_more
    faults = [fault for watched in opened for fault in watched.faults]
    for context in contexts:
        context.close()
    assert faults == []

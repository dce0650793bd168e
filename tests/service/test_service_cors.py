"""Web pages of other origins: which may call, and that what a browser asks first needs no key."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from service_support import GOOD, JSON, PATH

from conftest import running_service
from softxent_service.http.middleware.cors import SHOWN, TAKEN
from softxent_service.keys import new_key

PAGE = "https://page.example"


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, str]]:
    text, kept = new_key("page", ["evaluate"])
    with running_service(f"--keys={kept.line()}", f"--cors-origins={PAGE}, null") as url:
        yield url, text


def preflight(url: str, origin: str, **headers: str) -> httpx.Response:
    asked = {"origin": origin, "access-control-request-method": "POST"}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request("OPTIONS", url + PATH, headers=asked | more)


def test_a_browser_may_ask_without_a_key(guarded: tuple[str, str]) -> None:
    url, _ = guarded
    wanted = ", ".join(["content-type", *TAKEN]).lower()
    allowed = preflight(url, PAGE, access_control_request_headers=wanted)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert set(TAKEN) <= set(allowed.headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-credentials" not in allowed.headers


def test_other_pages_and_headers_are_refused(guarded: tuple[str, str]) -> None:
    url, _ = guarded
    elsewhere = preflight(url, "https://elsewhere.example")
    assert elsewhere.status_code == 400
    assert "access-control-allow-origin" not in elsewhere.headers
    assert preflight(url, PAGE, access_control_request_headers="x-odd").status_code == 400


@pytest.mark.parametrize("known", [True, False])
def test_a_page_reads_answers_and_refusals(guarded: tuple[str, str], known: bool) -> None:
    url, key = guarded
    headers = {"origin": PAGE, "content-type": JSON}
    headers |= {"authorization": f"Bearer {key}"} if known else {}
    answer = httpx.post(url + PATH, content=GOOD, headers=headers)
    assert answer.status_code == (200 if known else 401)
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == ", ".join(SHOWN)


def test_without_the_setting_no_page_is_let_in(service_url: str) -> None:
    assert preflight(service_url, PAGE).status_code == 405
    answer = httpx.post(
        service_url + PATH, content=GOOD, headers={"origin": PAGE, "content-type": JSON}
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]

"""Every example of /docs is sent as it stands, and succeeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from service_process import Service
from softxent_service.keys import SCOPES, new_key

Json = dict[str, Any]

FIRST = ("/register", "/v1/jobs")
LAST = ("/cancel", "/region/{name}/unregister", "/systemsharedmemory/unregister")
"""How paths end that make what others ask for, and that take it away."""


@pytest.fixture(scope="module")
def documented() -> Iterator[tuple[str, str, Json]]:
    """URL, key and document of a service with keys, where what examples presuppose is there."""
    text, kept = new_key("docs", SCOPES)
    service = Service("--shared-memory", "--base-path=/base", SOFTXENT_KEYS=kept.line())
    shared = Path("/dev/shm/softxent-example")
    shared.write_bytes(bytes(64))
    try:
        url = service.ready_url()
        document = httpx.get(f"{url}/openapi.json").json()
        job = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
        example = job["application/json"]["example"]
        for name, array in (("logits", np.zeros((2, 3), np.float32)), ("labels", np.zeros(2, int))):
            file = Path(urlsplit(example[name]).path)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, array)
        yield url, text, document
        assert service.end() == 0
    finally:
        shared.unlink()
        service.clear()


def operations(document: Json) -> list[tuple[str, str, Json]]:
    found = [(p, m, o) for p, item in document["paths"].items() for m, o in item.items()]
    return sorted(
        found, key=lambda o: o[0].endswith(LAST) - (o[0].endswith(FIRST) and o[1] == "post")
    )


def request(url: str, path: str, method: str, operation: Json, job: str) -> httpx.Request:
    """Return what a page sends that shows this operation: its examples and defaults."""
    names, query = {"id": job}, {}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            names |= {parameter["name"]: parameter["example"]} if parameter["name"] != "id" else {}
        elif "default" in parameter["schema"]:
            value = parameter["schema"]["default"]
            query[parameter["name"]] = ",".join(value) if isinstance(value, list) else str(value)
    accept = next(iter(operation["responses"].get("200", {}).get("content", {})), "*/*")
    content = operation.get("requestBody", {}).get("content", {})
    body = {"json": content["application/json"]["example"]} if content else {}
    target = f"{url}/base{path.format(**names)}"
    return httpx.Request(method.upper(), target, params=query, headers={"accept": accept}, **body)


def test_every_example_succeeds_untouched(documented: tuple[str, str, Json]) -> None:
    url, key, document = documented
    job, done = "", []
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=120) as client:
        for path, method, operation in operations(document):
            asked = request(url, path, method, operation, job)
            asked.headers["authorization"] = f"Bearer {key}"
            answer = client.send(asked)
            # A job of two rows may be done before it is cancelled.
            ended = path.endswith("/cancel") and answer.status_code == 409
            assert answer.is_success or ended, (method, path, answer.text)
            if (method, path) == ("post", "/v1/jobs"):
                job = answer.json()["id"]
                assert answer.headers["location"] == f"/base/v1/jobs/{job}"
            done.append((method, path))
    assert len(done) == len({*done}) >= 34


def test_every_operation_that_takes_something_has_an_example(
    documented: tuple[str, str, Json],
) -> None:
    for path, _, operation in operations(documented[2]):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path" and parameter["name"] != "id":
                assert parameter["example"]
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            assert "example" in content or media_type != "application/json", path


def test_a_key_can_be_given(documented: tuple[str, str, Json], service_url: str) -> None:
    _, _, document = documented
    assert document["servers"] == [{"url": "/base"}]
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    paths = document["paths"]
    assert paths["/v1/info"]["get"]["security"] == [{"key": []}]
    assert paths["/v2/health/live"]["get"]["security"] == []
    assert "`metrics`" in paths["/metrics"]["get"]["description"]
    # Without keys none is asked for.
    without = httpx.get(f"{service_url}/openapi.json").json()
    assert "securitySchemes" not in without["components"]
    assert "security" not in without["paths"]["/v1/info"]["get"]


def test_the_first_page_leads_to_the_documents(
    documented: tuple[str, str, Json], service_url: str
) -> None:
    url = documented[0]
    for page in (f"{service_url}/", f"{url}/", f"{url}/base", f"{url}/base/"):
        answer = httpx.get(page, follow_redirects=True)
        assert (answer.status_code, answer.headers["content-type"]) == (
            200,
            "text/html; charset=utf-8",
        )
        # A proxy hands on what is below the base path alone, so no link may lead out of it.
        assert answer.url.path in ("/", "/base/")
        links = re.findall('<a href="([^"]+)"', answer.text)
        # Others lead to views of the page itself.
        assert {link for link in links if not link.startswith("#")} == {
            "docs",
            "web/third-party-notices.txt",
        }
        linked = httpx.get(answer.url.join("docs"))
        assert linked.status_code == 200
        assert linked.url.path == f"{answer.url.path}docs"
        assert "SwaggerUIBundle" in linked.text

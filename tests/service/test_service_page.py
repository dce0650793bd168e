"""The page as it is served: which files, under which policy, to whom."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable

import httpx
import pytest

from service_process import Service
from softxent_service.http.routes.page import FOLDER, INDEX, POLICY, accepts_gzip, page_files

PLAIN = {"accept-encoding": "identity"}
ZIPPED = {"accept-encoding": "gzip"}

FILES = sorted(f"/web/{name}" for name in page_files().keys() - {INDEX})


def test_the_index_names_its_files_by_relative_urls() -> None:
    index = (FOLDER / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', index))
    assert named <= {path.removeprefix("/") for path in FILES} | {"docs"}
    assert {name.rpartition(".")[2] for name in named} == {"docs", "css", "js", "txt"}
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", index)


def first_scripts() -> set[str]:
    """Return the scripts that the index names: those that the first view needs."""
    index = (FOLDER / "index.html").read_text(encoding="utf-8")
    return set(re.findall(r'="web/([^"]+\.js)"', index))


def test_the_index_names_every_script_that_the_first_view_imports() -> None:
    """A script that only another one names is asked for a round trip later."""
    imports = re.compile(r'(?:from|import) ?"\./([^"]+)"')
    found = {
        name
        for script in first_scripts()
        for name in imports.findall((FOLDER / script).read_text(encoding="utf-8"))
    }
    assert found
    assert found < first_scripts()


@pytest.mark.parametrize(
    ("scripts", "size", "compressed_size"),
    [(first_scripts(), 50_000, 20_000), ({p.name for p in FOLDER.glob("*.js")}, 155_000, 64_000)],
    ids=["first view", "all"],
)
def test_scripts_stay_small(scripts: set[str], size: int, compressed_size: int) -> None:
    files = [page_files()[name] for name in scripts]
    assert sum(len(file.content) for file in files) < size
    assert sum(len(file.compressed) for file in files) < compressed_size


def test_the_manifest_names_what_is_there() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert {file.name for file in FOLDER.iterdir()} == {*manifest, "manifest.json"}


def test_no_file_loads_from_another_host() -> None:
    for file in FOLDER.glob("*.css"):
        assert not re.search(r"@import|url\(", file.read_text(encoding="utf-8")), file
    for file in FOLDER.glob("*.js"):
        hosts = set(re.findall(r"https?://([a-z0-9.-]+)", file.read_text(encoding="utf-8")))
        # Names of XML namespaces; nothing is asked there.
        assert hosts <= {"www.w3.org"}, file


def test_the_notices_name_every_package_with_its_licence() -> None:
    text = (FOLDER / "third-party-notices.txt").read_text(encoding="utf-8")
    assert "preact 11.2.0 (MIT)" in text
    assert "Permission is hereby granted" in text


@pytest.mark.parametrize("path", ["/", *FILES])
def test_every_file_is_served_under_the_policy(service_url: str, path: str) -> None:
    answer = httpx.get(service_url + path, headers=PLAIN)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    lasting = "immutable" in answer.headers["cache-control"]
    assert lasting == (path != "/")


@pytest.mark.parametrize("path", ["/", *FILES])
def test_files_are_compressed_and_known_by_their_etag(service_url: str, path: str) -> None:
    plain = httpx.get(service_url + path, headers=PLAIN)
    assert "content-encoding" not in plain.headers
    with httpx.stream("GET", service_url + path, headers=ZIPPED) as zipped:
        body = b"".join(zipped.iter_raw())
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == plain.content
    assert zipped.headers["etag"] != plain.headers["etag"]
    for first, headers in ((plain, PLAIN), (zipped, ZIPPED)):
        known = {**headers, "if-none-match": first.headers["etag"]}
        again = httpx.get(service_url + path, headers=known)
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/web/manifest.json", "/web/index.html", "/web/", "/web/../settings.py", "/index.html"]
)
def test_nothing_else_is_served(service_url: str, path: str) -> None:
    assert httpx.get(service_url + path).status_code == 404


def test_metrics_count_files_as_one_route(service_url: str) -> None:
    for path in ("/", *FILES):
        httpx.get(service_url + path)
    text = httpx.get(f"{service_url}/metrics").text
    routes = set(re.findall(r'softxent_requests_total\{route="([^"]*)"', text))
    assert {"/", "/web/{name}"} <= routes
    assert not set(FILES) & routes


def test_the_page_stands_below_a_base_path_too(shared_memory_url: str) -> None:
    assert httpx.get(f"{shared_memory_url}/base/").status_code == 200
    assert httpx.get(f"{shared_memory_url}/base{FILES[0]}").status_code == 200


def test_the_page_can_be_left_out(start: Callable[..., Service]) -> None:
    url = start("--no-page").url()
    assert {httpx.get(url + path).status_code for path in ("/", *FILES)} == {404}


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True),
        ("br, GZIP ; q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0, br", False),
        ("gzipped", False),
    ],
)
def test_accept_encoding_is_read_as_written(accepted: str, taken: bool) -> None:
    assert accepts_gzip(accepted) is taken

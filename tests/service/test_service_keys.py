"""Who is let in: keys on every route, what is said to those without, and what a log never shows."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from service_support import GOOD, JSON, PATH, assert_problem, connect

from service_process import Service
from softxent.evaluations import EVALUATIONS
from softxent_service.keys import SCOPES, KeyRing, KeysError, digest_of, new_key, read_keys

Start = Callable[..., Service]

ANY, OPEN = "any", "open"

MODEL, VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
REGIONS, REGION = "/v2/systemsharedmemory", "/v2/systemsharedmemory/region/{name}"

NEEDED = {
    "/v1/cross_entropy": "evaluate",
    "/v1/softmax": "evaluate",
    "/v1/hessian_vector_product": "evaluate",
    "/v1/explain": "evaluate",
    "/v1/fixtures": ANY,
    "/v1/fixtures/{name}": ANY,
    "/v1/info": ANY,
    "/v1/arrays": "jobs",
    "/v1/jobs": "jobs",
    "/v1/jobs/{id}": "jobs",
    "/v1/jobs/{id}/events": "jobs",
    "/v1/jobs/{id}/cancel": "jobs",
    "/metrics": "metrics",
    "/v2/health/live": OPEN,
    "/v2/health/ready": OPEN,
    "/v2": ANY,
    "/v2/models": "evaluate",
    "/v2/models/stats": "evaluate",
    "/v2/repository/index": "evaluate",
    **{
        f"{path}{which}": "evaluate"
        for path in (MODEL, VERSION)
        for which in ("", "/infer", "/ready", "/config", "/stats")
    },
    f"{REGIONS}/status": "evaluate",
    f"{REGIONS}/unregister": "evaluate",
    **{f"{REGION}/{what}": "evaluate" for what in ("status", "register", "unregister")},
}
"""What each route needs; a new one has to be thought about here."""

POSTED = ("/infer", "/index", "/register", "/unregister", "/cancel", "/explain")
"""How paths end that are posted to, besides evaluations."""

NO_ROUTES = {"/web": ANY, "/v1": ANY, "/v1/jobs/7/other": ANY, "/v3/any": ANY}


@dataclass(frozen=True)
class Guarded:
    """A service with keys: one for each scope, one for all of them."""

    url: str
    keys: dict[str, str]
    file: Path
    service: Service


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = {scope: new_key(scope, [scope]) for scope in SCOPES} | {"all": new_key("all", SCOPES)}
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    lines = [kept.line() for _, kept in made.values()]
    file.write_text("\n".join(["# who may call", "", *lines]))
    service = Service("--keys-file", str(file))
    try:
        keys = {name: text for name, (text, _) in made.items()}
        yield Guarded(service.ready_url(), keys, file, service)
        assert service.end() == 0
    finally:
        service.clear()


def ask(guarded: Guarded, path: str, authorization: str | None = None) -> httpx.Response:
    """Ask as its route is asked, with a body that is well-formed for some of them."""
    headers = {"content-type": JSON}
    if authorization is not None:
        headers["authorization"] = authorization
    names = {"name": "labels-float32", "model": "cross_entropy", "version": "1", "id": "7"}
    url = guarded.url + path.format(**names)
    if path.endswith(POSTED) or path in {f"/v1/{name}" for name in EVALUATIONS}:
        return httpx.post(url, content=GOOD, headers=headers, timeout=60)
    # The first that asks for jobs waits for the imports of what keeps their records.
    return httpx.get(url, headers=headers, timeout=60)


def test_every_route_is_thought_about(guarded: Guarded) -> None:
    paths = httpx.get(f"{guarded.url}/openapi.json").json()["paths"]
    assert set(paths) == set(NEEDED)


ALL_PATHS = {**NEEDED, **NO_ROUTES}


@pytest.mark.parametrize("path", [path for path in ALL_PATHS if ALL_PATHS[path] != OPEN])
def test_who_has_no_known_key_is_told_so(guarded: Guarded, path: str) -> None:
    key = guarded.keys["all"]
    missing = (None, "", "Bearer", f"Basic {key}", key, f"Bearer {'x' * 300}")
    wrong = ("Bearer wrong", f"Bearer {key[:-1]}", f"Bearer {key}x", f"Bearer {key.upper()}")
    for authorization in missing + wrong:
        refused = ask(guarded, path, authorization)
        assert_problem(refused, 401, "unauthorized")
        told = 'Bearer error="invalid_token"' if authorization in wrong else "Bearer"
        assert refused.headers["www-authenticate"] == told


@pytest.mark.parametrize("path", [path for path in ALL_PATHS if ALL_PATHS[path] != OPEN])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_is_good_for_its_scopes_alone(guarded: Guarded, path: str, scope: str) -> None:
    answer = ask(guarded, path, f"bearer  {guarded.keys[scope]}")
    needed = ALL_PATHS[path]
    if needed in (scope, ANY):
        assert answer.status_code not in (401, 403)
        return
    assert_problem(answer, 403, "forbidden")
    assert answer.headers["www-authenticate"] == (
        f'Bearer error="insufficient_scope", scope="{needed}"'
    )


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_key_of_every_scope_opens_every_route(guarded: Guarded, path: str) -> None:
    answer = ask(guarded, path, f"Bearer {guarded.keys['all']}")
    # What is sent is not always what a route takes, but all let it through.
    assert answer.status_code not in (401, 403, 405)
    assert answer.status_code == 404 or path in NEEDED


OPEN_DOCUMENTS = (
    "/",
    "/docs",
    "/docs/swagger-ui.css",
    "/docs/swagger-ui-bundle.js",
    "/openapi.json",
)


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", *OPEN_DOCUMENTS])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
def test_health_and_documents_are_open(
    guarded: Guarded, path: str, authorization: str | None
) -> None:
    assert ask(guarded, path, authorization).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v2/health/../../v1/info", "/v2/health/%2e%2e/x", "//v1/info", "/V1/jobs", "/docs/x"]
)
def test_no_spelling_of_a_path_goes_round_keys(guarded: Guarded, path: str) -> None:
    with connect(guarded.url) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        status = connection.recv(4096).split()[1]
    assert status in (b"401", b"404")


def test_two_keys_are_none(guarded: Guarded) -> None:
    key = f"Bearer {guarded.keys['all']}"
    headers = [("authorization", key), ("authorization", key)]
    assert_problem(httpx.get(f"{guarded.url}/v1/info", headers=headers), 401, "unauthorized")


def test_a_refusal_comes_before_the_body(guarded: Guarded) -> None:
    with connect(guarded.url) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\n"
        connection.sendall(f"{head}content-length: 1000000\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def changed(guarded: Guarded, text: str, wanted: Callable[[], bool]) -> None:
    """Write the file, and wait until the service knows."""
    guarded.file.write_text(text)
    deadline = time.monotonic() + 10
    while not wanted() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert wanted()


def test_keys_come_and_go_without_a_restart(guarded: Guarded) -> None:
    before = guarded.file.read_text()
    text, kept = new_key("late", ["evaluate"])

    def status() -> int:
        return ask(guarded, PATH, f"Bearer {text}").status_code

    assert status() == 401
    changed(guarded, f"{before}\n{kept.line()}\n", lambda: status() == 200)
    changed(guarded, before, lambda: status() == 401)
    assert ask(guarded, PATH, f"Bearer {guarded.keys['all']}").status_code == 200


def test_a_file_that_breaks_lets_in_whom_it_did(guarded: Guarded) -> None:
    before = guarded.file.read_text()
    key = guarded.keys["all"]

    def log_says(words: str) -> bool:
        return ask(guarded, PATH, f"Bearer {key}").status_code == 200 and (
            words in guarded.service.log()
        )

    changed(guarded, f"someone evaluate {key}", lambda: log_says("line 1: what comes last"))
    assert key not in guarded.service.log()
    changed(guarded, before, lambda: log_says("now holds 4"))


def test_the_log_names_a_key_and_shows_none(guarded: Guarded) -> None:
    number = "1.2345678901"
    body = f'{{"logits": [[{number}, 0]], "labels": [0]}}'
    headers = {"content-type": JSON, "authorization": f"Bearer {guarded.keys['all']}"}
    query = f"?key={guarded.keys['all']}"
    assert httpx.post(f"{guarded.url}{PATH}{query}", content=body, headers=headers).is_error
    assert httpx.post(f"{guarded.url}{PATH}", content=body, headers=headers).is_success
    httpx.get(f"{guarded.url}/{guarded.keys['all']}")
    guarded.service.wait_for(r'"key":"all"')
    time.sleep(0.2)
    log = guarded.service.log()
    assert number not in log
    assert not any(key in log for key in guarded.keys.values())


def test_keys_of_the_environment() -> None:
    first, second = new_key("first", ["evaluate"]), new_key("second", ["jobs"])
    lines = f"{first[1].line()}; {second[1].line()}"
    service = Service(SOFTXENT_KEYS=lines)
    try:
        url = service.url()
        for text, status in ((first[0], 200), (second[0], 200), ("none", 401)):
            headers = {"authorization": f"Bearer {text}"}
            assert httpx.get(f"{url}/v1/info", headers=headers).status_code == status
        assert service.end() == 0
    finally:
        service.clear()


def test_the_command_makes_a_key_and_its_line() -> None:
    command = [sys.executable, "-m", "softxent_service.cli", "key", "ci"]
    done = subprocess.run(
        [*command, "--scopes", "jobs,evaluate"], capture_output=True, text=True, check=True
    )
    found = re.fullmatch(r"key   (softxent-\S{43})\nline  (.*)\n", done.stdout)
    assert found is not None
    (kept,) = read_keys(found[2])
    assert (kept.name, kept.scopes) == ("ci", frozenset({"evaluate", "jobs"}))
    assert kept.digest == digest_of(found[1].encode())
    assert KeyRing(found[2]).find(found[1].encode()) == kept
    refused = subprocess.run([*command, "--scopes", "all"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "scopes are some of evaluate, jobs, metrics" in refused.stderr


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("ci evaluate", "it is not a name"),
        ("ci evaluate SECRET", "what comes last"),
        ("ci evaluate sha256:SECRET", "what comes last"),
        ("ci everything sha256:" + "0" * 64, "scopes are some of"),
        ("ci evaluate,, sha256:" + "0" * 64, "scopes are some of"),
        ('c"i evaluate sha256:' + "0" * 64, "a name has up to 64"),
        ("a evaluate sha256:" + "0" * 64, "the name a stands twice"),
    ],
)
def test_a_line_that_is_no_key_is_named_and_not_shown(line: str, wrong: str) -> None:
    with pytest.raises(KeysError, match=f"line 2: .*{wrong}") as refused:
        list(read_keys(f"a jobs sha256:{'1' * 64}\n{line}"))
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("content", ["nonsense", None])
def test_keys_that_cannot_be_read_end_the_start(
    start: Start, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_text(content)
    service = start("--keys-file", str(file))
    assert service.status() == 1
    assert service.log().startswith(f"softxent: {file}: ")
    assert len(service.log().splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_nobody_listens_to_everyone_by_accident(start: Start, host: str) -> None:
    service = start(f"--host={host}")
    assert service.status() == 1
    assert "--insecure" in service.log()
    assert len(service.log().splitlines()) == 1

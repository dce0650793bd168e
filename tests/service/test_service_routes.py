"""Which route a request reaches: router, keys, metrics and log agree on every spelling."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from service_support import connect

from service_process import Service
from softxent_service.keys import SCOPES, new_key

BASE = "/softxent"
PREFIXES = {"": True, BASE: True, BASE * 2: False, "/other": False, BASE.upper(): False, "/": False}
"""What stands before a path, and whether a route can still be reached."""

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "preflight")

EVERY = int(os.environ.get("PROOF_ROUTES_EVERY", 5))
"""One request of so many is sent: 1 sends all 19,548. It divides no table's length."""

AHEAD = 50
"""Requests that are sent before their answers are read."""

OPEN, ANY = "open", "any"
KEYS = ("none", "unknown", *SCOPES, "all")


@dataclass(frozen=True)
class Known:
    """What is expected of a path: its route, who may use it, and the status by method."""

    path: str
    needs: str
    statuses: dict[str, int]
    route: str = ""
    ends_in_name: bool = False


def got(path: str, needs: str, status: int = 200, **rest: str) -> Known:
    return Known(path, needs, {"GET": status, "HEAD": status}, **rest)  # type: ignore[arg-type]


def posted(path: str, needs: str, status: int = 415) -> Known:
    # Nothing is sent, not even a Content-Type.
    return Known(path, needs, {"POST": status})


ROUTES = (
    got("/", OPEN),
    got("/docs", OPEN),
    got("/openapi.json", OPEN),
    got("/v2/health/live", OPEN),
    got("/v1/info", ANY),
    got("/v2", ANY),
    got("/v1/fixtures", ANY),
    Known(
        "/v1/fixtures/labels-float32",
        ANY,
        {"GET": 200, "HEAD": 200},
        "/v1/fixtures/{name}",
        ends_in_name=True,
    ),
    got("/metrics", "metrics"),
    got("/v1/arrays", "jobs"),
    Known("/v1/jobs", "jobs", {"GET": 200, "HEAD": 200, "POST": 415}),
    Known("/v1/jobs/7", "jobs", {"GET": 404, "HEAD": 404}, "/v1/jobs/{id}", ends_in_name=True),
    Known("/v1/jobs/7/cancel", "jobs", {"POST": 404}, "/v1/jobs/{id}/cancel"),
    posted("/v1/cross_entropy", "evaluate"),
    posted("/v1/explain", "evaluate"),
    posted("/v2/models/softmax/infer", "evaluate", 400),
    got("/v2/models", "evaluate"),
    Known(
        "/v2/models/softmax",
        "evaluate",
        {"GET": 200, "HEAD": 200},
        "/v2/models/{model}",
        ends_in_name=True,
    ),
    got("/v2/models/softmax/ready", "evaluate", route="/v2/models/{model}/ready"),
    got("/v2/systemsharedmemory/status", "evaluate"),
)


def encoded(path: str) -> str:
    return "".join(c if c == "/" else f"%{ord(c):02x}" for c in path)


SAME: dict[str, Callable[[str], str]] = {
    "as it is": lambda path: path,
    "empty query": lambda path: f"{path}?",
    "encoded": encoded,
    "ENCODED": lambda path: encoded(path).upper().replace("X", "x"),
    "first letter encoded": lambda path: f"/{encoded(path[1:2])}{path[2:]}",
    "absolute": lambda path: f"http://elsewhere:81{path}",
    "absolute https": lambda path: f"HTTPS://elsewhere{path}",
}
"""Spellings that are the same path."""

OTHER: dict[str, Callable[[str], str]] = {
    "slash behind": lambda path: f"{path}/",
    "slash before": lambda path: f"/{path}",
    "slash inside": lambda path: path[0] + path[1:].replace("/", "//") + "//",
    "upper case": lambda path: path.upper(),
    "dot segment": lambda path: f"/.{path}",
    "dots behind": lambda path: f"{path}/x/..",
    "dots before": lambda path: f"/v2/health/..{path}",
    "encoded dots": lambda path: f"/v2/health/%2e%2e{path}",
    "encoded slash": lambda path: f"/%2f{path[1:]}",
    "encoded slash behind": lambda path: f"{path}%2F",
    "double encoding": lambda path: f"/%25{ord(path[1]):02x}{path[2:]}",
    "backslash": lambda path: f"/\\{path[1:]}",
}
"""Spellings that are another path, which is none."""

BEHIND: dict[str, Callable[[str], str]] = {
    "newline": lambda path: f"{path}%0a",
    "NUL": lambda path: f"{path}%00",
    "parameter": lambda path: f"{path};a=b",
    "not UTF-8": lambda path: f"{path}%ff",
    "blank": lambda path: f"{path}%20",
}
"""Spellings that are another path, or another name where the path ends in one."""


@dataclass(frozen=True)
class Asked:
    """One request, and what must come of it."""

    target: str
    method: str
    key: str
    route: str
    status: int


def asked(known: Known, prefix: str, method: str, key: str, spelling: str) -> Asked:
    """Return the request and, from the tables above alone, its answer."""
    target, route, statuses = f"{prefix}{known.path}", known.route or known.path, known.statuses
    if spelling in SAME:
        spelled = SAME[spelling](known.path if spelling.startswith("absolute") else target)
        reached = PREFIXES[prefix] or (spelling.startswith("absolute"))
    elif spelling in BEHIND:
        spelled, reached = BEHIND[spelling](target), PREFIXES[prefix] and known.ends_in_name
        statuses = dict.fromkeys(statuses, 404)
    else:
        spelled, reached = OTHER[spelling](target), False
    needs = known.needs if reached else ANY
    if method == "preflight":
        status = 200
    elif needs != OPEN and key in ("none", "unknown"):
        status = 401
    elif needs not in (OPEN, ANY, key) and key != "all":
        status = 403
    elif not reached:
        status = 404
    else:
        status = statuses.get(method, 405)
    return Asked(spelled, method, key, route if reached else "unmatched", status)


def matrix() -> Iterator[Asked]:
    for known in ROUTES:
        own = [*known.statuses, "preflight"]
        for prefix, method, key in itertools.product(PREFIXES, METHODS, KEYS):
            yield asked(known, prefix, method, key, "as it is")
        spellings = [*SAME, *OTHER, *BEHIND] if known.path != "/" else ["absolute", "empty query"]
        for prefix, method, key, spelling in itertools.product(("", BASE), own, KEYS, spellings):
            yield asked(known, prefix, method, key, spelling)


def head(one: Asked, keys: dict[str, str]) -> bytes:
    method = "OPTIONS" if one.method == "preflight" else one.method
    lines = [f"{method} {one.target} HTTP/1.1", "host: test"]
    if one.key != "none":
        lines.append(f"authorization: Bearer {keys[one.key]}")
    if one.method == "preflight":
        lines += ["origin: https://page.example", "access-control-request-method: POST"]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    """A key for each scope, one for all and an unknown one, each with its line."""
    scopes = {scope: [scope] for scope in SCOPES} | {"all": list(SCOPES)}
    made = {name: new_key(name, given) for name, given in scopes.items()}
    lines = {name: (text, kept.line()) for name, (text, kept) in made.items()}
    return lines | {"unknown": (new_key("unknown", ["jobs"])[0], "")}


@pytest.fixture(scope="module")
def service(
    keys: dict[str, tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    file: Path = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text("\n".join(line for _, line in keys.values()))
    flags = (f"--base-path={BASE}", "--cors-origins=https://page.example", "--log-format=json")
    service = Service("--keys-file", str(file), *flags)
    try:
        service.ready_url()
        yield service
        assert service.end() == 0
    finally:
        service.clear()


def statuses(url: str, requests: list[Asked], keys: dict[str, str]) -> list[int]:
    """Send requests ahead, some at a time, and return the status of each answer."""
    found = []
    with connect(url) as connection, connection.makefile("rb") as answers:
        for few in (requests[i : i + AHEAD] for i in range(0, len(requests), AHEAD)):
            connection.sendall(b"".join(head(one, keys) for one in few))
            for one in few:
                found.append(int(answers.readline().split()[1]))
                size = 0
                while line := answers.readline().strip():
                    name, _, value = line.partition(b": ")
                    size = int(value) if name == b"content-length" else size
                if one.method != "HEAD":
                    answers.read(size)
    return found


def counted(url: str, key: str) -> Counter[tuple[str, str]]:
    text = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {key}"}).text
    found = re.findall(r'softxent_requests_total{route="(.*)",status="(\d+)"} (\S+)', text)
    return Counter({(route, status): int(float(count)) for route, status, count in found})


def test_every_spelling_means_one_route_to_all_who_ask(
    service: Service, keys: dict[str, tuple[str, str]]
) -> None:
    url = service.url()
    texts = {name: text for name, (text, _) in keys.items()}
    requests = list(matrix())[::EVERY]
    assert len(requests) >= 3_000
    marked(service, "first")
    lines_before, before = logged(service), counted(url, texts["all"])
    found = statuses(url, requests, texts)
    both = zip(requests, found, strict=True)
    wrong = [(one, status) for one, status in both if one.status != status]
    assert not wrong, f"{len(wrong)} of {len(requests)}, such as {wrong[:5]}"
    wanted = Counter((one.route, str(one.status)) for one in requests)
    # The count of the request that asks for counts comes with the next one.
    assert counted(url, texts["all"]) - before == wanted + Counter({("/metrics", "200"): 1})
    marked(service, "last")
    more = Counter({("/metrics", "200"): 2, ("/v2/health/live", "200"): 1})
    assert logged(service) - lines_before == wanted + more


def marked(service: Service, agent: str) -> None:
    """Wait until every request that was answered so far has its line in the log."""
    httpx.get(f"{service.url()}/v2/health/live", headers={"user-agent": agent})
    service.wait_for(rf'"agent":"{agent}"')


def logged(service: Service) -> Counter[tuple[str, str]]:
    lines = [json.loads(line) for line in service.log().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    return Counter((line["route"], str(line["status"])) for line in requests)

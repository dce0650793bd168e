"""Exceptions of the client: true of what came, printable, and able to travel."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from relay import Relay, relay_before
from starlette.responses import Response

import softxent.errors
import softxent_client.errors
import softxent_client.wire.errors
from softxent.errors import LabelError, SoftxentError
from softxent_client import AsyncClient, Client, ServiceError, ServiceUnavailableError
from softxent_client.jobs import Jobs
from softxent_client.messages import FIELD_CHECKS

PROBLEM = "application/problem+json"
LABEL = "urn:softxent:problem:label-out-of-range"
MODULES = (softxent.errors, softxent_client.errors, softxent_client.wire.errors)
ERRORS = sorted(
    {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, SoftxentError)
    },
    key=lambda cls: cls.__name__,
)
FIELDS: dict[str, Any] = {
    "field": "labels",
    "rows": [3, 5],
    "values": [7, "NaN"],
    "total": 12,
    "limit_name": "binary_bytes",
    "limit": 400,
    "status": 502,
    "problem_slug": "bad-gateway",
    "members": {"detail": "no", "nested": [{"a": 1}]},
}


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with relay_before("http://127.0.0.1:1") as relay:
        yield relay


def call(client: Client) -> Any:
    return client.cross_entropy(np.zeros((1, 2), np.float32), [0])


def call_asynchronously(url: str) -> Any:
    async def run() -> Any:
        async with AsyncClient(url) as client:
            return await client.cross_entropy(np.zeros((1, 2), np.float32), [0])

    return asyncio.run(run())


def with_client(ask: Callable[[Client], Any]) -> Callable[[str], Any]:
    def run(url: str) -> Any:
        with Client(url) as client:
            return ask(client)

    return run


def with_jobs(ask: Callable[[Jobs], Any]) -> Callable[[str], Any]:
    def run(url: str) -> Any:
        with Jobs(url) as jobs:
            return ask(jobs)

    return run


METHODS: dict[str, Callable[[str], Any]] = {
    "cross_entropy": with_client(call),
    "explain": with_client(lambda client: client.explain([1.0, 2.0], 0)),
    "info": with_client(lambda client: client.info()),
    "asynchronous": call_asynchronously,
    "submit": with_jobs(lambda jobs: jobs.submit({"logits": "file:///x"})),
    "show": with_jobs(lambda jobs: jobs.show("1")),
    "list": with_jobs(lambda jobs: jobs.list()),
    "cancel": with_jobs(lambda jobs: jobs.cancel("1")),
    "watch": with_jobs(lambda jobs: list(jobs.watch("1"))),
}


def assert_travels(error: SoftxentError) -> None:
    """Check that an exception prints, and is the same after each way of copying it."""
    for text in (str(error), repr(error)):
        assert text.isprintable()
        assert len(text) < 70_000
    sent = pickle.loads(pickle.dumps(error))  # noqa: S301
    for again in (sent, copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (str(again), repr(again)) == (str(error), repr(error))
        assert again.details() == error.details()


@pytest.mark.parametrize("cls", ERRORS)
def test_every_exception_prints_pickles_and_copies(cls: type[SoftxentError]) -> None:
    names = [name for name in inspect.signature(cls).parameters if name != "message"]
    error = cls("something is wrong", **{name: FIELDS[name] for name in names})
    assert "something is wrong" in str(error)
    assert_travels(error)


@pytest.mark.parametrize("module", [softxent.errors, softxent_client.wire.errors])
def test_every_field_that_crosses_the_wire_is_checked(module: Any) -> None:
    for cls in vars(module).values():
        if isinstance(cls, type) and issubclass(cls, SoftxentError):
            assert {*inspect.signature(cls).parameters} <= {"message", *FIELD_CHECKS}


def document(**members: Any) -> str:
    return json.dumps({"type": LABEL, "detail": "labels are wrong", **members})


WRONG_FIELDS: dict[str, dict[str, Any]] = {
    "total is text": {"total": "5", "rows": [1], "values": [2]},
    "total is a float": {"total": 5.5},
    "total is true": {"total": True},
    "total is null": {"total": None},
    "total is over 64 bits": {"total": 1 << 70},
    "rows is a number": {"rows": 5},
    "rows is text": {"rows": "123", "values": "123"},
    "rows holds text": {"rows": ["1"], "values": [1]},
    "rows is an object": {"rows": {"1": 1}},
    "values holds lists": {"rows": [1], "values": [[1]]},
    "values holds null": {"rows": [1], "values": [None]},
    "field is a list": {"field": ["labels"]},
}


@pytest.mark.parametrize("method", ["cross_entropy", "asynchronous", "submit"])
@pytest.mark.parametrize("what", WRONG_FIELDS)
def test_fields_of_a_wrong_type_keep_their_document(relay: Relay, what: str, method: str) -> None:
    text = document(**WRONG_FIELDS[what])
    relay.next_answers = [Response(text, 422, media_type=PROBLEM)]
    with pytest.raises(ServiceError, match="labels are wrong") as caught:
        METHODS[method](relay.url)
    error = caught.value
    assert (error.status, error.problem_slug) == (422, "label-out-of-range")
    for name, value in WRONG_FIELDS[what].items():
        assert error.members[name] == value
    assert_travels(error)


DEEP = "[" * 500 + "]" * 500
HOSTILE: dict[str, tuple[str, str]] = {
    "no members": ("{}", "the service answered with status 422 and a problem without detail"),
    "a detail of numbers": ('{"detail": [1, 2], "title": 7}', "a problem without detail"),
    "a type of numbers": ('{"type": 7, "detail": "seven"}', "seven"),
    "null": ("null", "the problem document is not a JSON object"),
    "text": ("label out of range", "the problem document is not a JSON object"),
    "nothing": ("", "the problem document is not a JSON object"),
    "not UTF-8": ("\udcff", "the problem document is not a JSON object"),
    "half a surrogate": ('{"detail": "\\ud800"}', "the problem document is not a JSON object"),
    "deep": (document(extra=json.loads(DEEP)), "nested over 16 levels deep"),
    "deeper": ("[" * 30_000, "the problem document is not a JSON object"),
    "huge": (document(detail="x" * 3_000_000), "is longer than 65536 bytes"),
    "a terminal's control characters": (
        document(type="x", detail="\x1b[2J\x9b\r\nred"),
        "\\x1b[2J\\x9b\\r\\nred",
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_problem_documents_are_service_errors(relay: Relay, what: str, method: str) -> None:
    text, message = HOSTILE[what]
    body = text.encode("utf-8", "surrogateescape")
    relay.next_answers = [Response(body, 422, media_type=f"{PROBLEM.upper()} ; charset=utf-8")]
    with pytest.raises(ServiceError) as caught:
        METHODS[method](relay.url)
    assert type(caught.value) is ServiceError
    assert message in str(caught.value)
    assert caught.value.status == 422
    assert_travels(caught.value)


HTML = Response("<html><h1>502 Bad Gateway</h1>", 502, media_type="text/html")
STRANGE = {
    "a balancer's page": HTML,
    "a page that says all is well": Response("<html>", 200, media_type="text/html"),
    "a login elsewhere": Response("", 307, headers={"location": "http://127.0.0.1:1/"}),
    "nothing": Response(status_code=204),
    "a list": Response("[]", 200, media_type="application/json"),
    "half a document": Response("{", 200, media_type="application/json"),
    "no JSON": Response("NaN", 200, media_type="application/json"),
    "a long page": Response(b"x" * 3_000_000, 500, media_type="text/html"),
    "a strange type": Response("", 200, headers={"content-type": "\x9btext/" + "x" * 2000}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", STRANGE)
def test_answers_of_another_make_are_service_errors(relay: Relay, what: str, method: str) -> None:
    relay.next_answers = [STRANGE[what]]
    with pytest.raises(ServiceError) as caught:
        METHODS[method](relay.url)
    assert caught.value.status == STRANGE[what].status_code
    assert len(str(caught.value)) < 300
    assert_travels(caught.value)


@pytest.mark.parametrize("method", ["cross_entropy", "asynchronous"])
def test_a_compressed_answer_says_that_nobody_asked_for_it(relay: Relay, method: str) -> None:
    headers = {"content-encoding": "gzip"}
    relay.next_answers = [Response(b"\x1f\x8b", 200, headers, "application/vnd.safetensors")]
    with pytest.raises(ServiceError, match="encoded as gzip, which was not asked for"):
        METHODS[method](relay.url)


def test_an_answer_that_cannot_be_unpacked_is_service_unavailable(relay: Relay) -> None:
    headers = {"content-encoding": "gzip"}
    relay.next_answers = [Response(b"not gzip", 200, headers, "application/json")]
    with pytest.raises(ServiceUnavailableError, match="no complete answer"):
        METHODS["show"](relay.url)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("data: {", "an event of a job is not a JSON object"),
        ("data: []", "an event of a job is not a JSON object"),
        ("data: {}", "an event of a job has no state"),
        ('data: {"state": 1}', "an event of a job has no state"),
    ],
)
def test_events_that_are_no_jobs_are_service_errors(relay: Relay, event: str, message: str) -> None:
    relay.next_answers = [Response(f"id: 1\n{event}\n\n", 200, media_type="text/event-stream")]
    with pytest.raises(ServiceError, match=message):
        METHODS["watch"](relay.url)


def test_a_stream_without_events_ends_after_reconnect_seconds(relay: Relay) -> None:
    relay.next_answers = [Response("", 200, media_type="text/event-stream")]
    with Jobs(relay.url) as jobs, pytest.raises(ServiceUnavailableError, match="no events"):
        list(jobs.watch("1", reconnect_seconds=0))


@pytest.mark.parametrize("method", ["show", "cancel", "watch"])
def test_the_id_of_a_job_is_no_path(relay: Relay, method: str) -> None:
    relay.next_answers, relay.paths = [HTML], []
    with Jobs(relay.url) as jobs, pytest.raises(ServiceError):
        list(getattr(jobs, method)("../info?x=1"))
    assert relay.paths[0].startswith("/v1/jobs/..")


def test_a_known_problem_is_still_the_librarys_exception(relay: Relay) -> None:
    text = document(field="labels", rows=[1], values=[5], total=3)
    relay.next_answers = [Response(text, 422, media_type=PROBLEM)]
    with pytest.raises(LabelError) as caught:
        METHODS["info"](relay.url)
    assert str(caught.value) == "labels are wrong; rows 1 (5), ..."
    assert_travels(caught.value)

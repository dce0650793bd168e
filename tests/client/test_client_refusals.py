"""What is refused, by whom, and which exception it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from client_support import ENCODINGS, batch
from relay import Relay, problem, relay_before
from starlette.responses import Response

import softxent
from softxent.errors import LabelError, NonFiniteError, OptionError, SoftxentError, TensorError
from softxent_client import Client, ServiceError
from softxent_client.wire import JSON, MalformedBodyError


@pytest.fixture(params=ENCODINGS)
def client(request: pytest.FixtureRequest, service_url: str) -> Iterator[Client]:
    with Client(service_url, encoding=request.param) as client:
        yield client


@pytest.fixture
def relay(service_url: str) -> Iterator[Relay]:
    with relay_before(service_url) as relay:
        yield relay


def test_the_services_refusals_are_the_librarys_exceptions(client: Client) -> None:
    call: Any = {"logits": np.zeros((3, 2), np.float32), "labels": [0, 5, -1]}
    with pytest.raises(LabelError) as theirs:
        client.cross_entropy(**call)
    with pytest.raises(LabelError) as ours:
        softxent.cross_entropy(**call)
    assert theirs.value.details() == ours.value.details()
    assert str(theirs.value) == str(ours.value)


def test_non_finite_rows_are_named(client: Client) -> None:
    with pytest.raises(NonFiniteError) as caught:
        client.cross_entropy(np.array([[0, 1], [np.nan, 1]], np.float32), [0, 0])
    assert caught.value.rows == (1,)


@pytest.mark.parametrize(("label", "shown"), [(0.0, "0.0"), (True, "true")])
def test_labels_to_explain_are_integers(client: Client, label: Any, shown: str) -> None:
    with pytest.raises(TensorError) as caught:
        client.explain([1.0, 2.0], label)
    assert str(caught.value) == f"label must be an integer, not {shown}"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"logits": np.zeros((1, 2), np.bool_), "labels": [0]}, TensorError),
        ({"logits": np.zeros((1, 2), np.complex64), "labels": [0]}, TensorError),
        ({"logits": np.zeros((1, 2)), "labels": [0.5]}, TensorError),
        ({"logits": np.zeros((1, 2)), "labels": [0, 1]}, TensorError),
        ({"logits": np.zeros((1, 2)), "labels": [0], "reduction": "median"}, OptionError),
        ({"logits": np.zeros((1, 2)), "labels": [0], "colour": 1}, OptionError),
        ({"logits": np.zeros(2), "labels": [0.5], "scale": "big"}, OptionError),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_sent(
    relay: Relay, call: Any, error: type[SoftxentError]
) -> None:
    with pytest.raises(error) as ours:
        softxent.cross_entropy(**call)
    with Client(relay.url) as client, pytest.raises(error) as theirs:
        client.cross_entropy(**call)
    assert str(theirs.value) == str(ours.value)
    assert relay.paths == []


def test_refusals_are_not_sent_again(relay: Relay) -> None:
    with Client(relay.url) as client, pytest.raises(LabelError):
        client.cross_entropy(np.zeros((1, 2), np.float32), [5])
    assert len(relay.bodies) == 1


def test_problems_of_ours_that_only_others_meet_are_typed(relay: Relay) -> None:
    relay.next_answers = [problem(400, "malformed-body", "no JSON")]
    with Client(relay.url) as client, pytest.raises(MalformedBodyError, match="no JSON"):
        client.cross_entropy(**batch(2))


def test_unknown_problems_keep_their_document(relay: Relay) -> None:
    relay.next_answers = [problem(418, "teapot", "short and stout", spout=True)]
    with (
        Client(relay.url) as client,
        pytest.raises(ServiceError, match="short and stout") as caught,
    ):
        client.cross_entropy(**batch(2))
    assert (caught.value.status, caught.value.problem_slug) == (418, "teapot")
    assert caught.value.members["spout"] is True


BINARY = "application/vnd.safetensors"
PROBLEM = "application/problem+json"
STRANGE = {
    "another server": (
        Response("gateway says no", 502, media_type="text/html"),
        "the service answered with status 502 and text/html, expected " + BINARY,
    ),
    "text": (Response("hi", 200, media_type="text/plain"), "status 200 and text/plain"),
    "the other form": (Response("{}", 200, media_type=JSON), "status 200 and application/json"),
    "no type": (Response(b"hi", 200), "status 200 and no type"),
    "not the form it says": (
        Response(b"\x00" * 9, 200, media_type=BINARY),
        "the answer cannot be read: the header does not begin with '{'",
    ),
    "a problem that is a list": (Response("[1]", 400, media_type=PROBLEM), "not a JSON object"),
    "a problem cut short": (Response("{", 400, media_type=PROBLEM), "not a JSON object"),
    "a problem of another make": (
        problem(422, "label-out-of-range", "odd fields", rows=5),
        "odd fields",
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_answers_of_another_kind_are_service_errors(relay: Relay, what: str) -> None:
    answer, message = STRANGE[what]
    relay.next_answers = [answer]
    with Client(relay.url) as client, pytest.raises(ServiceError) as caught:
        client.cross_entropy(**batch(2))
    assert type(caught.value) is ServiceError
    assert message in str(caught.value)
    assert caught.value.status == answer.status_code

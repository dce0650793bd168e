"""Connections that fail, services that are busy or gone, answers that lie or end early."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from client_support import ENCODINGS, assert_same, batch
from relay import Relay, problem, relay_before
from starlette.responses import Response

import softxent
from conftest import free_port
from softxent.errors import LabelError
from softxent.results import CrossEntropyResult
from softxent_client import AsyncClient, Client, ServiceError, ServiceUnavailableError

ANSWER = b'{"version":"1"}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


@pytest.fixture
def relay(service_url: str) -> Iterator[Relay]:
    with relay_before(service_url) as relay:
        yield relay


@pytest.fixture(params=ENCODINGS)
def client(request: pytest.FixtureRequest, relay: Relay) -> Iterator[Client]:
    with Client(relay.url, encoding=request.param) as client:
        yield client


def test_a_connection_is_used_again(client: Client, relay: Relay) -> None:
    for _ in range(3):
        client.cross_entropy(**batch(4))
    assert len(relay.clients) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_busy_services_are_asked_again_with_the_whole_body(
    client: Client, relay: Relay, status: int
) -> None:
    relay.next_answers = [Response(status_code=status, headers={"retry-after": "0"})] * 2
    call = batch(3_000)
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))
    assert len(relay.bodies) == 3
    assert len(set(relay.bodies)) == 1


def test_the_async_client_asks_busy_services_again(relay: Relay) -> None:
    call = batch(40)

    async def run() -> CrossEntropyResult:
        async with AsyncClient(relay.url) as client:
            relay.next_answers = [Response(status_code=503)]
            with pytest.raises(LabelError):
                await client.cross_entropy(np.zeros((1, 2), np.float32), [7])
            return await client.cross_entropy(**call)

    assert_same(asyncio.run(run()), softxent.cross_entropy(**call))
    assert len(relay.bodies) == 3


def test_a_service_that_stays_busy_is_an_error_with_its_status(relay: Relay) -> None:
    relay.next_answers = [problem(503, "draining", "later") for _ in range(2)]
    with Client(relay.url, retries=1) as client, pytest.raises(ServiceError) as caught:
        client.cross_entropy(**batch(2))
    assert (caught.value.status, caught.value.problem_slug) == (503, "draining")
    assert relay.next_answers == []


def test_health_is_asked_once(client: Client, relay: Relay) -> None:
    relay.next_answers = [Response(status_code=503)]
    assert (client.health(), client.health()) == (False, True)
    assert relay.paths == ["/v2/health/ready"] * 2


def test_nobody_listening_is_service_unavailable_and_not_healthy() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    async def healthy() -> bool:
        async with AsyncClient(url) as client:
            return await client.health()

    assert asyncio.run(healthy()) is False
    with Client(url, retries=1) as client:
        assert client.health() is False
        with pytest.raises(ServiceUnavailableError):
            client.info()


WRONG_URLS = (
    "",
    "127.0.0.1:8000",
    "localhost:8000",
    "ftp://localhost",
    "http://",
    "http:///v1",
    "http://localhost:port",
    "http://localhost:65536",
    "http://a..b",
    "http://" + "a" * 64,
    "http://local\nhost",
)


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize("url", WRONG_URLS)
def test_what_is_no_address_is_refused_at_once(make: Any, url: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(url)
    assert str(caught.value) == f'base_url must be like "http://127.0.0.1:8000", not {url!r}'


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="binary, json"):
        Client("http://127.0.0.1", encoding="xml")  # type: ignore[arg-type]


@contextmanager
def hanging_up(*answers: bytes) -> Iterator[str]:
    """Answer each request on a connection of its own, and hang up."""

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def info(url: str, *, asynchronous: bool, **given: Any) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with AsyncClient(url, **given) as client:
            return await client.info()

    if asynchronous:
        return asyncio.run(run())
    with Client(url, **given) as client:
        return client.info()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_connection_that_ends_without_an_answer_is_replaced(asynchronous: bool) -> None:
    with hanging_up(b"", HEAD % 15 + ANSWER) as url:
        assert info(url, asynchronous=asynchronous) == {"version": "1"}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("announced", [16, 10**18])
def test_an_answer_cut_short_is_service_unavailable(announced: int, asynchronous: bool) -> None:
    """Whatever size is announced: memory is taken for the bytes that come."""
    with hanging_up(HEAD % announced + ANSWER) as url, pytest.raises(ServiceUnavailableError):
        info(url, asynchronous=asynchronous, retries=0)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_cut_short_is_asked_for_again(asynchronous: bool) -> None:
    with hanging_up(HEAD % 16 + ANSWER, HEAD % 15 + ANSWER) as url:
        assert info(url, asynchronous=asynchronous) == {"version": "1"}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_read_that_times_out_is_not_tried_again(asynchronous: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServiceUnavailableError):
            info(url, asynchronous=asynchronous, timeout=0.2)
        silent.settimeout(0.5)
        silent.accept()[0].close()
        with pytest.raises(TimeoutError):
            silent.accept()

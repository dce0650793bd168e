"""A client's key: it lets both clients in, and is shown nowhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import numpy as np
import pytest

from conftest import running_service
from softxent_client import AsyncClient, Client, ServiceError
from softxent_service.keys import new_key


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, str]]:
    text, kept = new_key("client", ["evaluate"])
    with running_service(f"--keys={kept.line()}", "--binary-bytes=2000") as url:
        yield url, text


def test_a_key_lets_in(guarded: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    url, key = guarded
    caplog.set_level(logging.DEBUG)
    logits, labels = np.ones((200, 3), np.float32), np.zeros(200, np.int64)
    with Client(url, key=key) as client:
        # Over the limit, so that it asks for the limit and sends parts.
        assert client.cross_entropy(logits, labels).count == 200
        assert client.info()["name"] == "softxent"
        assert client.health()
        assert key not in repr(client) + repr(vars(client))
    assert key not in caplog.text


def test_a_key_lets_the_other_client_in(guarded: tuple[str, str]) -> None:
    url, key = guarded

    async def count() -> int:
        async with AsyncClient(url, key=key) as client:
            return (await client.cross_entropy(np.ones((2, 3), np.float32), [0, 1])).count

    assert asyncio.run(count()) == 2


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_a_known_key_the_refusal_is_told(guarded: tuple[str, str], key: str | None) -> None:
    with Client(guarded[0], key=key) as client, pytest.raises(ServiceError) as refused:
        client.cross_entropy(np.ones((2, 3), np.float32), [0, 1])
    assert (refused.value.status, refused.value.problem_slug) == (401, "unauthorized")


@pytest.mark.parametrize("key", ["", "two words", "line\r\nx: y", "käse", "\x7f"])
def test_a_key_that_no_header_can_hold_is_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as refused:
        Client("http://127.0.0.1:8000", key=key)
    assert not key or key not in str(refused.value)

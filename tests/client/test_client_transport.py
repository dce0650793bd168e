"""The clients' own sockets against servers that do what HTTP allows, and what it does not."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import ssl
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import uvloop
from client_support import assert_same, batch
from relay import relay_before

import softxent
from softxent_client import AsyncClient, Client, ServiceError, ServiceUnavailableError

INFO = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
BUSY = (
    b"HTTP/1.1 413 Too Large\r\ncontent-type: application/problem+json\r\n"
    b'content-length: 21\r\n\r\n{"detail": "too big"}'
)
WAYS = ("threads", "asyncio", "uvloop")

Handler = Callable[[socket.socket], object]


@contextmanager
def serving(*handlers: Handler) -> Iterator[str]:
    """Serve one connection after another, each by the next handler; then no more."""

    def serve() -> None:
        for handler in handlers:
            connection, _ = listener.accept()
            with connection:
                handler(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join(60)
            assert not thread.is_alive()


def until_head(connection: socket.socket) -> bytes:
    had = b""
    while b"\r\n\r\n" not in had:
        piece = connection.recv(65_536)
        assert piece, had
        had += piece
    return had


def until_end(connection: socket.socket) -> None:
    while connection.recv(1 << 20):
        pass


def answering(*answers: bytes) -> Handler:
    """Answer so many requests without bodies, and hang up."""

    def handle(connection: socket.socket) -> None:
        for answer in answers:
            until_head(connection)
            connection.sendall(answer)

    return handle


def run(way: str, url: str, work: Callable[[Any], Any], **given: Any) -> Any:
    """Do `work` with a client; an AsyncClient's results are awaited."""
    if way == "threads":
        with Client(url, **given) as client:
            return work(client)

    async def wait() -> Any:
        async with AsyncClient(url, **given) as client:
            return await work(client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if way == "uvloop" else None) as runner:
        return runner.run(wait())


def info(client: Any) -> Any:
    return client.info()


def two_infos(client: Any) -> Any:
    if isinstance(client, Client):
        return [client.info(), client.info()]

    async def both() -> Any:
        return [await client.info(), await client.info()]

    return both()


def large(client: Any) -> Any:
    return client.cross_entropy(np.zeros((4096, 4096), np.float32), np.zeros(4096, np.int64))


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_carries_one_call_after_another(way: str) -> None:
    with serving(answering(INFO, INFO)) as url:
        assert run(way, url, two_infos, retries=0) == [{}, {}]


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_that_was_closed_meanwhile_is_replaced(way: str) -> None:
    closed = threading.Event()

    def close_first(connection: socket.socket) -> None:
        answering(INFO)(connection)
        connection.close()
        closed.set()

    def work(client: Any) -> Any:
        if isinstance(client, Client):
            client.info()
            assert closed.wait(60)
            return client.info()

        async def both() -> Any:
            await client.info()
            await asyncio.get_running_loop().run_in_executor(None, closed.wait, 60)
            return await client.info()

        return both()

    with serving(close_first, answering(INFO)) as url:
        assert run(way, url, work, retries=0) == {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("extra", [INFO, b"x"])
def test_what_nobody_asked_for_is_no_answer(way: str, extra: bytes) -> None:
    """A second answer to one request would else become that of the next."""

    def handle(connection: socket.socket) -> None:
        until_head(connection)
        connection.sendall(INFO + extra)
        until_end(connection)

    with serving(handle, answering(INFO)) as url:
        assert run(way, url, two_infos, retries=0) == [{}, {}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("answer", ["HTTP/1.0 200 OK", "HTTP/1.1 200 OK\r\nconnection: close"])
def test_a_connection_that_is_to_end_is_not_kept(way: str, answer: str) -> None:
    head = f"{answer}\r\ncontent-type: application/json\r\n\r\n".encode()
    with serving(answering(head + b"{}"), answering(head + b"{}")) as url:
        assert run(way, url, two_infos, retries=0) == [{}, {}]


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_before_the_request_was_sent_ends_the_sending(way: str) -> None:
    """The server takes no byte of the body, and does not hang up either."""

    def handle(connection: socket.socket) -> None:
        until_head(connection)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + BUSY)
        assert client_is_done.wait(60)

    client_is_done = threading.Event()
    with serving(answering(LIMITS), handle) as url:
        try:
            with pytest.raises(ServiceError, match="too big"):
                run(way, url, large, retries=0)
        finally:
            client_is_done.set()


LIMITS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    b'{"limits": {"binary_bytes": 1000000000}}'
)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_takes_nothing_is_service_unavailable(way: str) -> None:
    client_is_done = threading.Event()
    with serving(answering(LIMITS), lambda _: client_is_done.wait(60)) as url:
        try:
            with pytest.raises(ServiceUnavailableError, match=r"0\.3 seconds"):
                run(way, url, large, timeout=0.3, retries=0)
        finally:
            client_is_done.set()


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_hangs_up_while_it_is_sent_to_is_service_unavailable(way: str) -> None:
    with (
        serving(answering(LIMITS), until_head) as url,
        pytest.raises(ServiceUnavailableError, match="no complete answer"),
    ):
        run(way, url, large, retries=0)


@pytest.mark.parametrize("way", WAYS)
def test_answers_in_pieces_are_put_together(way: str) -> None:
    """Bytes that keep coming are no time-out, however long all of them take."""
    chunked = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
    answer = chunked + b'\r\n5\r\n{"a":\r\n3\r\n12}\r\n0\r\n\r\n'

    def handle(connection: socket.socket) -> None:
        until_head(connection)
        for at in range(len(answer)):
            connection.sendall(answer[at : at + 1])

    with serving(handle) as url:
        assert run(way, url, info, retries=0) == {"a": 12}


@pytest.mark.parametrize("way", WAYS)
def test_a_restarted_server_is_found_again(way: str) -> None:
    with serving(answering(INFO), lambda _: None, answering(INFO)) as url:
        assert run(way, url, two_infos) == [{}, {}]


@pytest.mark.parametrize("way", ["asyncio", "uvloop"])
def test_a_cancelled_call_leaves_no_answer_behind(way: str, service_url: str) -> None:
    async def work(client: AsyncClient) -> None:
        for number in range(20):
            logits = np.array([[number, 0.0]])
            call = asyncio.create_task(client.cross_entropy(logits, [0]))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            call.cancel()
            result = await client.cross_entropy(-logits, [0])
            assert_same(result, softxent.cross_entropy(-logits, [0]))

    run(way, service_url, work)


@pytest.mark.parametrize("way", ["asyncio", "uvloop"])
def test_a_cancelled_call_closes_its_connection(way: str) -> None:
    asked = threading.Event()

    def handle(connection: socket.socket) -> None:
        until_head(connection)
        asked.set()
        until_end(connection)

    async def work(client: AsyncClient) -> Any:
        call = asyncio.create_task(client.info())
        await asyncio.get_running_loop().run_in_executor(None, asked.wait, 60)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return await client.info()

    with serving(handle, answering(INFO)) as url:
        assert run(way, url, work, retries=0) == {}


@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_callers_each_get_their_own_answer(way: str, service_url: str) -> None:
    logits = [np.array([[number / 8, 0.0]]) for number in range(300)]

    def work(client: Any) -> Any:
        if isinstance(client, Client):
            with ThreadPoolExecutor(100) as threads:
                return list(threads.map(lambda x: client.cross_entropy(x, [0]), logits))

        async def all_at_once() -> Any:
            return await asyncio.gather(*(client.cross_entropy(x, [0]) for x in logits))

        return all_at_once()

    for x, result in zip(logits, run(way, service_url, work), strict=True):
        assert_same(result, softxent.cross_entropy(x, [0]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_client_serves_one_event_loop_after_another(service_url: str) -> None:
    client = AsyncClient(service_url)

    async def count(close: bool) -> int:
        result = await client.cross_entropy(np.zeros((2, 2)), [0, 1])
        if close:
            await client.aclose()
        return result.count

    async def both() -> int:
        # A loop in a thread beside this one.
        return await asyncio.to_thread(asyncio.run, count(False)) + await count(True)

    assert asyncio.run(both()) == 4
    # What a loop left open ends with it, and says so.
    gc.collect()


@pytest.mark.parametrize("way", WAYS)
def test_a_closed_client_says_so(way: str, service_url: str) -> None:
    def work(client: Any) -> Any:
        if isinstance(client, Client):
            client.close()
            return client.info()

        async def closed() -> Any:
            await client.aclose()
            return await client.info()

        return closed()

    with pytest.raises(RuntimeError, match="the client has been closed"):
        run(way, service_url, work)


@pytest.mark.parametrize("way", WAYS)
def test_memory_is_that_of_the_answer(way: str, service_url: str) -> None:
    logits, labels = np.zeros((1024, 8000), np.float32), np.zeros(1024, np.int64)

    def work(client: Any) -> Any:
        return client.cross_entropy(logits, labels)

    tracemalloc.start()
    try:
        result = run(way, service_url, work)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.gradient is not None
    assert peak < 1.1 * result.gradient.nbytes


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory, service_url: str) -> Iterator[Any]:
    """The relay over TLS, and its certificate."""
    if shutil.which("openssl") is None:
        pytest.fail("openssl is needed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    with relay_before(service_url, ssl_certfile=certificate, ssl_keyfile=key) as relay:
        yield relay, certificate


@pytest.mark.parametrize("way", WAYS)
def test_tls_is_spoken_and_certificates_are_checked(
    way: str, certified: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, certificate = certified
    with pytest.raises(ServiceUnavailableError, match="certificate verify failed"):
        run(way, relay.url, info, retries=0)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for rows in (3, 40_000):
        call = batch(rows, 50)

        def work(client: Any, call: Any = call) -> Any:
            return client.cross_entropy(**call)

        assert_same(run(way, relay.url, work), softxent.cross_entropy(**call))


def test_processes_do_not_share_connections_of_tls(
    certified: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_client_forks import run as run_program

    relay, certificate = certified
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert isinstance(ssl.create_default_context(), ssl.SSLContext)
    run_program("grandchildren", relay.url)
    run_program("closed_by_the_child", relay.url)


@pytest.mark.parametrize("way", WAYS)
def test_a_proxy_of_the_environment_is_used(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        heads.append(until_head(connection))
        connection.sendall(INFO)

    with serving(handle) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "localhost")
        assert run(way, "http://service.invalid:8000/base", info, retries=0) == {}
    assert heads[0].startswith(b"GET http://service.invalid:8000/base/v1/info HTTP/1.1\r\n")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(answering(INFO)) as url:
        assert run(way, url, info, retries=0) == {}


@pytest.mark.parametrize("way", ["threads", "asyncio"])
def test_a_transport_of_the_caller_is_used(way: str) -> None:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(503 if len(asked) == 1 else 200, json={"a": 1})

    transport = httpx.MockTransport(handle)
    given = {"transport": transport, "key": "secret"}
    assert run(way, "http://service/base/", info, **given) == {"a": 1}
    assert [str(request.url) for request in asked] == ["http://service/base/v1/info"] * 2
    assert asked[0].headers["authorization"] == "Bearer secret"
    assert asked[0].headers["host"] == "service"


def test_a_name_and_password_in_the_url_are_sent() -> None:
    heads: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        heads.append(until_head(connection))
        connection.sendall(INFO)

    with serving(handle) as url:
        run("threads", url.replace("://", "://me:pass@"), info, retries=0)
    assert b"\r\nAuthorization: Basic bWU6cGFzcw==\r\n" in heads[0]
    assert b"\r\nHost: 127.0.0.1:" in heads[0]


def test_prepared_requests_do_not_fill_the_memory() -> None:
    from softxent_client.messages import Call
    from softxent_client.prepared import PREPARED, Requests

    requests = Requests(httpx.URL("http://127.0.0.1"), None, 1)
    for number in range(3 * PREPARED):
        asked = requests.request(Call("GET", "/v1/info", {"x": str(number)}))
        assert asked.url.query == b"x=%d" % number
    assert len(vars(requests)["_prepared"]) <= PREPARED

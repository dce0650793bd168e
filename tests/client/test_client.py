"""The clients against a real server: same results as the library, typed errors, retries."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_server import LIMITS, Server, problem, running_server
from starlette.responses import Response

import softxent
from softxent.errors import EmptyReductionError, LabelError, OptionError, SoftxentError, TensorError
from softxent.results import CrossEntropyResult
from softxent_client import AsyncClient, Client, ServiceError, ServiceUnavailableError
from softxent_client.wire import JSON, LimitExceededError

OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities")
ENCODINGS = ("binary", "json")


def batch(rows: int, classes: int = 10, dtype: str = "float32") -> dict[str, Any]:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, classes, rows)
    labels[::11] = -100
    return {
        "logits": (rng.normal(size=(rows, classes)) * 5).astype(dtype),
        "labels": labels,
        "class_weights": rng.uniform(size=classes),
        "row_weights": rng.uniform(size=rows) * (rng.uniform(size=rows) > 0.1),
    }


def assert_same(ours: CrossEntropyResult, theirs: CrossEntropyResult) -> None:
    for name in (*OUTPUTS, "loss_sum", "weight_sum", "count"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert type(a) is type(b), name
        if a is not None:
            assert np.asarray(a).dtype == np.asarray(b).dtype, name
            assert np.asarray(a).shape == np.asarray(b).shape, name
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(params=ENCODINGS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(server.url, encoding=request.param) as client:
        yield client


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_results_are_the_librarys_to_the_bit(client: Client, dtype: str, reduction: str) -> None:
    call = {**batch(40, dtype=dtype), "reduction": reduction, "outputs": OUTPUTS, "scale": 0.3}
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def test_sequences_keep_their_shape(client: Client) -> None:
    logits = np.linspace(-3, 3, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    labels = np.arange(6).reshape(2, 3) % 4
    result = client.cross_entropy(logits, labels)
    assert result.gradient is not None
    assert result.gradient.shape == (2, 3, 4)
    assert_same(result, softxent.cross_entropy(logits, labels))


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5), (0, 0)])
def test_batches_of_no_rows_keep_their_shape(client: Client, shape: tuple[int, ...]) -> None:
    logits, labels = np.zeros(shape, np.float32), np.zeros(shape[:-1], np.int64)
    weights = np.ones(shape[-1])
    ours = client.cross_entropy(logits, labels, class_weights=weights)
    assert_same(ours, softxent.cross_entropy(logits, labels, class_weights=weights))


def test_read_only_strided_and_integer_inputs_are_sent_as_their_values(client: Client) -> None:
    logits = np.arange(12, dtype=np.float64).reshape(3, 4).T[::-1]
    labels = np.array([2, 0, 1, 1], np.uint8)
    weights = np.array([1, 2, 3])
    ours = client.cross_entropy(logits, labels, class_weights=weights)
    assert_same(ours, softxent.cross_entropy(logits, labels, class_weights=weights))


def test_non_finite_results_arrive(client: Client) -> None:
    call: Any = {"logits": np.array([[np.nan, 1], [np.inf, 0], [-np.inf, 1]]), "labels": [0, 0, 0]}
    ours = client.cross_entropy(**call, non_finite="propagate")
    assert_same(ours, softxent.cross_entropy(**call, non_finite="propagate"))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("outputs", [("loss",), ("gradient",), OUTPUTS])
def test_parts_merge_to_the_bits_of_the_whole(
    client: Client, server: Server, reduction: str, outputs: tuple[str, ...]
) -> None:
    call = {**batch(45_000), "reduction": reduction, "outputs": outputs, "label_smoothing": 0.1}
    ours = client.cross_entropy(**call)
    assert len(server.bodies) > 1
    assert max(server.bodies) <= max(LIMITS.binary_bytes, LIMITS.json_bytes)
    assert_same(ours, softxent.cross_entropy(**call))


def test_parts_of_unweighted_float64_sequences(client: Client) -> None:
    given = batch(60_000, classes=4, dtype="float64")
    logits, labels = given["logits"].reshape(200, 300, 4), given["labels"].reshape(200, 300)
    for options in ({"reduction": "mean"}, {"reduction": "mean", "denominator": 7.0}, {}):
        ours = client.cross_entropy(logits, labels, **options)
        assert_same(ours, softxent.cross_entropy(logits, labels, **options))


def test_parts_of_a_mean_over_nothing(client: Client) -> None:
    call = {**batch(45_000), "labels": np.full(45_000, -100), "reduction": "mean"}
    for empty in ("nan", "zero"):
        assert_same(
            client.cross_entropy(**call, empty=empty), softxent.cross_entropy(**call, empty=empty)
        )
    with pytest.raises(EmptyReductionError):
        client.cross_entropy(**call, empty="error")


def test_errors_of_a_part_name_rows_of_the_whole(client: Client) -> None:
    call = batch(45_000)
    call["labels"][44_321] = 10
    with pytest.raises(LabelError) as caught:
        client.cross_entropy(**call)
    assert (caught.value.rows, caught.value.values) == ((44_321,), (10,))


def test_a_row_over_the_limit_is_refused_with_the_limit(client: Client) -> None:
    with pytest.raises(LimitExceededError) as caught:
        client.cross_entropy(np.zeros((1, 600_000), np.float32), [0])
    assert caught.value.limit in (LIMITS.binary_bytes, LIMITS.json_bytes)


def test_limits_are_asked_for_once_and_only_for_large_bodies(
    client: Client, server: Server
) -> None:
    client.cross_entropy(**batch(4))
    assert "/v1/info" not in server.paths
    client.cross_entropy(**batch(45_000))
    client.cross_entropy(**batch(45_000))
    assert server.paths.count("/v1/info") == 1


def test_a_connection_is_used_again(client: Client, server: Server) -> None:
    for _ in range(3):
        client.cross_entropy(**batch(4))
    assert len(server.clients) == 1


def test_the_services_refusals_are_the_librarys_exceptions(client: Client) -> None:
    call: Any = {"logits": np.zeros((3, 2), np.float32), "labels": [0, 5, -1]}
    with pytest.raises(LabelError) as theirs:
        client.cross_entropy(**call)
    with pytest.raises(LabelError) as ours:
        softxent.cross_entropy(**call)
    assert theirs.value.details() == ours.value.details()
    assert str(theirs.value) == str(ours.value)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"logits": np.zeros((1, 2), np.int16), "labels": [0]}, TensorError),
        ({"logits": np.zeros((1, 2), np.int64), "labels": [0]}, TensorError),
        ({"logits": np.zeros((1, 2)), "labels": [0.5]}, TensorError),
        ({"logits": np.zeros((1, 2)), "labels": [0, 1]}, TensorError),
        ({"logits": np.zeros((1, 2)), "labels": [0], "reduction": "median"}, OptionError),
        ({"logits": np.zeros((1, 2)), "labels": [0], "colour": 1}, OptionError),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_sent(
    client: Client, server: Server, call: Any, error: type[SoftxentError]
) -> None:
    with pytest.raises(error):
        client.cross_entropy(**call)
    assert server.paths == []


def test_limit_problems_keep_their_fields(client: Client, server: Server) -> None:
    server.next_answers = [
        problem(413, "limit-exceeded", "too large", limit_name="json_bytes", limit=9)
    ]
    with pytest.raises(LimitExceededError, match="too large") as caught:
        client.cross_entropy(**batch(2))
    assert (caught.value.limit_name, caught.value.limit) == ("json_bytes", 9)


def test_unknown_problems_keep_their_document(client: Client, server: Server) -> None:
    server.next_answers = [problem(418, "teapot", "short and stout", spout=True)]
    with pytest.raises(ServiceError, match="short and stout") as caught:
        client.cross_entropy(**batch(2))
    assert (caught.value.status, caught.value.problem_slug) == (418, "teapot")
    assert caught.value.members["spout"] is True


@pytest.mark.parametrize(
    "answer",
    [
        Response("gateway says no", 502, media_type="text/html"),
        Response("hello", 200, media_type="text/plain"),
        Response("hello", 200, media_type=JSON),
        Response(b"\x00" * 9, 200, media_type="application/vnd.safetensors"),
        Response("[1]", 400, media_type="application/problem+json"),
        Response("{", 400, media_type="application/problem+json"),
        problem(422, "label-out-of-range", "odd fields", rows=5),
    ],
)
def test_answers_of_another_kind_are_service_errors(
    client: Client, server: Server, answer: Response
) -> None:
    server.next_answers = [answer]
    with pytest.raises(ServiceError):
        client.cross_entropy(**batch(2))


@pytest.mark.parametrize("status", [429, 503])
def test_busy_services_are_asked_again_with_the_whole_body(
    client: Client, server: Server, status: int
) -> None:
    server.next_answers = [Response(status_code=status, headers={"retry-after": "0"})] * 2
    call = batch(3_000)
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))
    assert len(server.bodies) == 3
    assert len(set(server.bodies)) == 1


def test_refusals_are_not_sent_again(client: Client, server: Server) -> None:
    server.next_answers = [problem(422, "invalid-tensor", "no")]
    with pytest.raises(TensorError):
        client.cross_entropy(**batch(2))
    assert len(server.bodies) == 1


def test_a_service_that_stays_busy_is_an_error_with_its_status(server: Server) -> None:
    server.next_answers = [problem(503, "draining", "later") for _ in range(2)]
    with Client(server.url, retries=1) as client, pytest.raises(ServiceError) as caught:
        client.cross_entropy(**batch(2))
    assert (caught.value.status, caught.value.problem_slug) == (503, "draining")


def test_health_is_asked_once(client: Client, server: Server) -> None:
    server.next_answers = [Response(status_code=503)]
    assert (client.health(), client.health()) == (False, True)
    assert len(server.paths) == 2


def test_nobody_listening_is_service_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Client(url, retries=1) as client, pytest.raises(ServiceUnavailableError):
            client.info()


def hangs_up_first(listener: socket.socket, answer: bytes) -> None:
    """Read a request and hang up; answer the next one, on a new connection."""
    for reply in (b"", answer):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(reply)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_connection_that_ends_without_an_answer_is_replaced(asynchronous: bool) -> None:
    body = b'{"version":"1"}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=hangs_up_first, args=(listener, head + body))
        thread.start()
        if asynchronous:
            assert asyncio.run(async_info(url)) == {"version": "1"}
        else:
            with Client(url) as client:
                assert client.info() == {"version": "1"}
        thread.join()


async def async_info(url: str) -> dict[str, Any]:
    async with AsyncClient(url) as client:
        return await client.info()


def test_an_answer_cut_short_is_service_unavailable() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=hangs_up_first, args=(listener, head))
        thread.start()
        with Client(url) as client, pytest.raises(ServiceUnavailableError):
            client.info()
        thread.join()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_async_client_does_the_same(server: Server, encoding: Any) -> None:
    small, large = batch(40), {**batch(45_000), "reduction": "mean"}

    async def run() -> list[CrossEntropyResult]:
        async with AsyncClient(server.url, encoding=encoding) as client:
            assert await client.health()
            server.next_answers = [Response(status_code=503, headers={"retry-after": "0"})]
            first = await client.cross_entropy(**small)
            with pytest.raises(LabelError):
                await client.cross_entropy(np.zeros((1, 2), np.float32), [7])
            return [first, await client.cross_entropy(**large)]

    ours = asyncio.run(run())
    assert_same(ours[0], softxent.cross_entropy(**small))
    assert_same(ours[1], softxent.cross_entropy(**large))


def test_arrays_of_a_binary_answer_are_views_of_what_was_received(server: Server) -> None:
    with Client(server.url) as client:
        result = client.cross_entropy(**batch(4))
    assert result.gradient is not None
    assert result.gradient.base is not None
    assert result.gradient.flags.writeable


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="binary, json"):
        Client("http://127.0.0.1", encoding="xml")  # type: ignore[arg-type]


def test_the_client_imports_no_numba() -> None:
    code = (
        "import sys, softxent_client; softxent_client.Client, softxent_client.AsyncClient;"
        "import softxent_client.wire;"
        "print(*(name for name in ('numba', 'llvmlite', 'fastapi') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_wire_imports_no_http() -> None:
    code = "import sys, softxent_client.wire; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

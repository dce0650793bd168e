"""`tritonclient.http`, sync and async, against the real service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

import softxent
from oip_bodies import DATATYPES, Array

LOGITS = np.random.default_rng(5).normal(size=(6, 11)).astype(np.float32)
LABELS = np.arange(6)
BATCH: dict[str, Array] = {"logits": LOGITS, "labels": LABELS}


@pytest.fixture(scope="module")
def address(shared_memory_url: str) -> str:
    return shared_memory_url.removeprefix("http://")


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address) as opened:
        yield opened


def tensor(name: str, array: Array, *, binary: bool = True, module: Any = triton) -> Any:
    given = module.InferInput(name, list(array.shape), DATATYPES[array.dtype])
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def inputs(tensors: dict[str, Array] = BATCH, **how: Any) -> list[Any]:
    return [tensor(name, array, **how) for name, array in tensors.items()]


def expected(outputs: tuple[str, ...] = ("loss", "gradient"), **options: Any) -> Any:
    return softxent.cross_entropy(LOGITS, LABELS, outputs=outputs, **options)


def assert_same(result: Any, **options: Any) -> None:
    wanted = expected(**options)
    for name in ("loss", "gradient"):
        assert np.array_equal(result.as_numpy(name), getattr(wanted, name))


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cross_entropy")
    assert client.is_model_ready("cross_entropy", "1")
    assert not client.is_model_ready("cross_entropy", "2")
    assert not client.is_model_ready("no such model")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("softmax", "1")["name"] == "softmax"
    assert client.get_model_config("softmax")["max_batch_size"] == 0
    assert {m["state"] for m in client.get_model_repository_index()} == {"READY"}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_every_way_in_and_out(client: Any, binary_in: bool, binary_out: bool | None) -> None:
    asked = None
    if binary_out is not None:
        asked = [
            triton.InferRequestedOutput(n, binary_data=binary_out) for n in ("gradient", "loss")
        ]
    assert_same(client.infer("cross_entropy", inputs(binary=binary_in), outputs=asked))


def test_mixed_kinds_reversed_order_id_and_version(client: Any) -> None:
    given = [tensor("labels", LABELS, binary=False), tensor("logits", LOGITS)]
    asked = [
        triton.InferRequestedOutput("gradient", binary_data=True),
        triton.InferRequestedOutput("rank", binary_data=False),
        triton.InferRequestedOutput("loss", binary_data=True),
    ]
    result = client.infer(
        "cross_entropy", given, "1", asked, request_id="é 1", query_params={"a": "b c"}
    )
    answer = result.get_response()
    assert [o["name"] for o in answer["outputs"]] == ["gradient", "rank", "loss"]
    assert (answer["id"], answer["model_version"]) == ("é 1", "1")
    assert np.array_equal(result.as_numpy("rank"), expected(("rank",)).rank)
    assert_same(result)


def test_options_and_sums_are_parameters(client: Any) -> None:
    options: dict[str, Any] = {"reduction": "mean", "label_smoothing": 0.25, "ignore_index": 3}
    result = client.infer("cross_entropy", inputs(), parameters=options)
    assert_same(result, **options)
    wanted = expected(**options)
    told = result.get_response()["parameters"]
    assert (told["loss_sum"], told["count"]) == (wanted.loss_sum, wanted.count)
    assert client.infer("cross_entropy", inputs(), timeout=30_000_000).as_numpy("loss").size == 6


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression_both_ways(client: Any, coding: str) -> None:
    how = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
    assert_same(client.infer("cross_entropy", inputs(), **how))
    assert_same(client.infer("cross_entropy", inputs(binary=False), **how))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_floats(client: Any, dtype: Any) -> None:
    logits = LOGITS.astype(dtype)
    given = inputs({"logits": logits, "labels": LABELS})
    result = client.infer("cross_entropy", given, parameters={"output_dtype": "float32"})
    wanted: Any = softxent.cross_entropy(logits, LABELS, output_dtype="float32")
    assert np.array_equal(result.as_numpy("gradient"), wanted.gradient)
    half = client.infer("softmax", given[:1]).as_numpy("probabilities")
    assert np.array_equal(half.astype(np.float64), softxent.softmax(logits).astype(np.float64))


def test_float16_as_json(client: Any) -> None:
    logits = LOGITS.astype(np.float16)
    asked = [triton.InferRequestedOutput("probabilities", binary_data=False)]
    result = client.infer("softmax", [tensor("logits", logits, binary=False)], outputs=asked)
    assert np.array_equal(result.as_numpy("probabilities"), softxent.softmax(logits))


@pytest.mark.parametrize("kind", ["string", "literal", "null"])
def test_numbers_that_json_lacks(client: Any, kind: str) -> None:
    logits = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, 0]], np.float32)
    result = client.infer(
        "cross_entropy",
        inputs({"logits": logits, "labels": np.zeros(3, np.int8)}, binary=False),
        outputs=[triton.InferRequestedOutput("loss", binary_data=False)],
        parameters={"non_finite": "propagate", "non_finite_json": kind},
    )
    loss = result.as_numpy("loss")
    assert np.isnan(loss[:2]).all()
    assert np.isnan(loss[2]) if kind == "null" else loss[2] == np.inf


def test_an_empty_batch(client: Any) -> None:
    empty: dict[str, Array] = {
        "logits": np.zeros((0, 5), np.float32),
        "labels": np.zeros(0, np.int64),
    }
    for binary in (True, False):
        result = client.infer("cross_entropy", inputs(empty, binary=binary))
        assert result.as_numpy("gradient").shape == (0, 5)


def test_many_calls_at_once(address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=8) as many:
        for pending in [many.async_infer("cross_entropy", inputs()) for _ in range(40)]:
            assert_same(pending.get_result())


def test_a_base_path(address: str) -> None:
    with triton.InferenceServerClient(f"{address}/base") as based:
        assert based.is_server_ready()
        assert based.get_server_metadata()["name"] == "softxent"
        assert_same(based.infer("cross_entropy", inputs()))


def test_asynchronous(address: str) -> None:
    asyncio.run(infer_asynchronously(address))


async def infer_asynchronously(address: str) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        for binary in (True, False):
            given = inputs(binary=binary, module=triton_aio)
            assert_same(await client.infer("cross_entropy", given))
        for coding in ("gzip", "deflate"):
            given = inputs(module=triton_aio)
            how = {
                "request_compression_algorithm": coding,
                "response_compression_algorithm": coding,
            }
            assert_same(await client.infer("cross_entropy", given, **how))
        long = np.zeros((40, 1_000), np.float32)
        asked = [triton_aio.InferRequestedOutput("probabilities", binary_data=False)]
        given = [tensor("logits", long, module=triton_aio)]
        result = await client.infer("softmax", given, outputs=asked)
        assert np.array_equal(result.as_numpy("probabilities"), softxent.softmax(long))
        with pytest.raises(InferenceServerException, match="unknown model"):
            await client.infer("no such model", inputs(module=triton_aio))


def refusals() -> dict[str, tuple[Callable[[Any], Any], str, str]]:
    asked = triton.InferRequestedOutput
    raw = np.zeros((1, 2), np.float32)

    def too_long(client: Any) -> Any:
        given = tensor("logits", raw)
        given._raw_data += b"x"
        return client.infer("softmax", [given])

    def wrong_type(client: Any) -> Any:
        return client.infer("softmax", [tensor("logits", LABELS.reshape(2, 3))])

    def place(client: Any) -> Any:
        given = triton.InferInput("logits", [1, 2], "FP32")
        given.set_shared_memory("nope", 8)
        return client.infer("softmax", [given])

    return {
        "model": (lambda c: c.infer("a b", inputs()), "404", "unknown model"),
        "version": (lambda c: c.infer("softmax", inputs(), "7"), "404", "version 7"),
        "output": (
            lambda c: c.infer("softmax", inputs(), outputs=[asked("loss")]),
            "422",
            "unknown tensor 'labels'",
        ),
        "parameter": (
            lambda c: c.infer("softmax", inputs()[:1], parameters={"tau": 1}),
            "400",
            "known are softcap, temperature",
        ),
        "classification": (
            lambda c: c.infer(
                "softmax", inputs()[:1], outputs=[asked("probabilities", class_count=2)]
            ),
            "501",
            "classification",
        ),
        "twice": (lambda c: c.infer("softmax", inputs()[:1] * 2), "400", "twice"),
        "size": (too_long, "400", "additional input data"),
        "type": (wrong_type, "422", "expected one of FP64, FP32, FP16, BF16"),
        "region": (place, "404", "nope"),
        "key": (
            lambda c: c.register_system_shared_memory("r", "softxent_nobody", 8),
            "400",
            "--ipc=host",
        ),
        "status": (lambda c: c.get_system_shared_memory_status("nope"), "404", "nope"),
        "cuda": (
            lambda c: c.register_cuda_shared_memory("r", b"x" * 64, 0, 8),
            "501",
            "GPUs not supported",
        ),
        "load": (lambda c: c.load_model("softmax"), "501", "not served"),
        "unload": (lambda c: c.unload_model("softmax"), "501", "not served"),
        "log": (lambda c: c.get_log_settings(), "501", "not served"),
        "trace": (lambda c: c.get_trace_settings(), "501", "not served"),
        "label": (
            lambda c: c.infer("cross_entropy", inputs({**BATCH, "labels": LABELS + 9})),
            "422",
            "labels must lie in",
        ),
    }


@pytest.mark.parametrize("name", refusals())
def test_refusals_reach_the_user(client: Any, name: str) -> None:
    call, status, text = refusals()[name]
    with pytest.raises(InferenceServerException) as caught:
        call(client)
    assert caught.value.status() == status
    assert text in caught.value.message()


def test_statistics(client: Any) -> None:
    before = client.get_inference_statistics("cross_entropy")["model_stats"][0]
    client.infer("cross_entropy", inputs())
    after = client.get_inference_statistics("cross_entropy", "1")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 1
    assert len(client.get_inference_statistics()["model_stats"]) == 3


@pytest.fixture
def regions(client: Any) -> Iterator[tuple[Any, Any]]:
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    given = shm.create_shared_memory_region("given", "/softxent_test_given", 4096)
    taken = shm.create_shared_memory_region("taken", "softxent_test_taken", 4096)
    client.register_system_shared_memory("a region", "/softxent_test_given", 4000, offset=5)
    client.register_system_shared_memory("taken", "softxent_test_taken", 4096)
    yield given, taken
    client.unregister_system_shared_memory()
    shm.destroy_shared_memory_region(given)
    shm.destroy_shared_memory_region(taken)


def test_shared_memory(client: Any, regions: tuple[Any, Any]) -> None:
    given, taken = regions
    rows = client.get_system_shared_memory_status()
    assert rows[0] == {
        "name": "a region",
        "key": "/softxent_test_given",
        "offset": 5,
        "byte_size": 4000,
    }
    shm.set_shared_memory_region(given, [LOGITS, LABELS], offset=8)
    logits, labels = (triton.InferInput(n, a.shape, DATATYPES[a.dtype]) for n, a in BATCH.items())
    logits.set_shared_memory("a region", LOGITS.nbytes, offset=3)
    labels.set_shared_memory("a region", LABELS.nbytes, offset=3 + LOGITS.nbytes)
    gradient, loss = (triton.InferRequestedOutput(name) for name in ("gradient", "loss"))
    gradient.set_shared_memory("taken", LOGITS.nbytes, offset=1)
    loss.set_shared_memory("taken", 24, offset=2000)
    client.infer("cross_entropy", [logits, labels], outputs=[gradient, loss])
    wanted = expected()
    found = shm.get_contents_as_numpy(taken, np.uint8, [4096])
    assert found[1 : 1 + LOGITS.nbytes].tobytes() == wanted.gradient.tobytes()
    assert found[2000:2024].tobytes() == wanted.loss.tobytes()
    with pytest.raises(InferenceServerException, match="already in manager"):
        client.register_system_shared_memory("taken", "softxent_test_taken", 4096)
    client.unregister_system_shared_memory("taken")
    with pytest.raises(InferenceServerException, match="taken"):
        client.infer("cross_entropy", [logits, labels], outputs=[gradient])

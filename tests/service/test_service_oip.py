"""The Open Inference Protocol over real sockets: the bits of the native route, and more ways."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest
from service_support import BINARY, batch

import softxent
from conftest import running_service
from oip_bodies import (
    DATATYPES,
    HEADER_LENGTH,
    Array,
    Json,
    answered,
    as_bytes,
    as_json,
    binary,
    message,
)
from softxent_client.wire import RESPONSE, Limits, safetensors_form

INFER = "/v2/models/cross_entropy/infer"


def post(url: str, body: bytes, path: str = INFER, **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(url + path, content=body, headers=given, timeout=60, verify=False)


def results(answer: httpx.Response) -> tuple[Json, dict[str, Array]]:
    assert answer.status_code == 200, answer.text
    return answered(answer.content, answer.headers.get(HEADER_LENGTH))


def cross_entropy(tensors: Mapping[str, Any], **options: Any) -> Any:
    return softxent.cross_entropy(**tensors, **options)


def infer(
    url: str, tensors: Mapping[str, Array], outputs: Any = (), path: str = INFER, **parameters: Any
) -> tuple[Json, dict[str, Array]]:
    body, headers = binary(tensors, outputs, **parameters)
    return results(post(url, body, path, **headers))


def native(url: str, tensors: Mapping[str, Array], query: str = "") -> dict[str, Array]:
    body = b"".join(safetensors_form.encode(dict(tensors)))
    answer = httpx.post(
        f"{url}/v1/cross_entropy{query}",
        content=body,
        headers={"content-type": BINARY},
        verify=False,
    )
    assert answer.status_code == 200, answer.text
    schema = RESPONSE(tensors["logits"].dtype.name)
    return safetensors_form.decode(answer.content, schema, Limits())


FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [2, 300])
@pytest.mark.parametrize("spaces", [0, 1, 5])
def test_bits_are_those_of_the_native_route(
    service_url: str, dtype: Any, rows: int, spaces: int
) -> None:
    tensors = batch(rows, 1_000, dtype)
    body, headers = binary(tensors)
    length = int(headers[HEADER_LENGTH])
    # Every alignment of the bytes gives the same.
    padded = body[:length] + b" " * spaces + body[length:]
    _, found = results(post(service_url, padded, **{HEADER_LENGTH: str(length + spaces)}))
    expected = native(service_url, tensors)
    for name in ("loss", "gradient"):
        assert found[name].tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_bits_survive_json(service_url: str, dtype: Any) -> None:
    tensors = batch(3, 40, dtype)
    inputs = [as_json(name, array, flat=name == "logits") for name, array in tensors.items()]
    document, found = results(post(service_url, json.dumps({"inputs": inputs}).encode()))
    expected = native(service_url, tensors)
    assert [o["datatype"] for o in document["outputs"]][1] == DATATYPES[np.dtype(dtype)]
    for name in ("loss", "gradient"):
        assert found[name].tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("dtype", [d for d in DATATYPES if d.kind in "iub"], ids=str)
def test_labels_of_every_integer_type(service_url: str, dtype: np.dtype[Any]) -> None:
    tensors = {"logits": batch(3, 2)["logits"], "labels": np.array([0, 1, 1])}
    typed = {**tensors, "labels": tensors["labels"].astype(dtype)}
    assert (
        infer(service_url, typed)[1]["loss"].tobytes()
        == native(service_url, tensors)["loss"].tobytes()
    )


def test_requested_outputs_come_in_their_order_with_id_and_sums(service_url: str) -> None:
    tensors = batch(4, 7)
    outputs = [
        "rank",
        {"name": "loss", "parameters": {"binary_data": False}},
        "correct",
        "gradient",
    ]
    document = {
        "id": "héé 7",
        "inputs": [as_bytes(name, array) for name, array in tensors.items()],
        "outputs": [{"name": o} if isinstance(o, str) else o for o in outputs],
        "parameters": {"binary_data_output": True, "reduction": "mean", "label_smoothing": 0.125},
    }
    body, headers = message(document, *tensors.values())
    told, found = results(
        post(service_url, body, "/v2/models/cross_entropy/versions/1/infer", **headers)
    )
    expected = cross_entropy(
        tensors,
        reduction="mean",
        label_smoothing=0.125,
        outputs=("loss", "gradient", "correct", "rank"),
    )
    assert (told["id"], told["model_name"], told["model_version"]) == (
        "héé 7",
        "cross_entropy",
        "1",
    )
    assert [o["name"] for o in told["outputs"]] == ["rank", "loss", "correct", "gradient"]
    assert "data" in told["outputs"][1]
    assert told["outputs"][1]["shape"] == []
    for name in ("rank", "loss", "correct", "gradient"):
        assert np.array_equal(found[name], getattr(expected, name))
    sums = ("loss_sum", "weight_sum", "count")
    assert told["parameters"] == {name: getattr(expected, name) for name in sums}


def test_all_targets_and_outputs(service_url: str) -> None:
    tensors = batch(4, 7)
    soft = np.random.default_rng(3).dirichlet(np.ones(7), 4).astype(np.float32)
    given = {
        **tensors,
        "target_probabilities": soft,
        "class_mask": np.ones(7, np.bool_),
        "row_weights": np.array([1.0, 2.0, 0.0, 1.0]),
    }
    options: dict[str, Any] = {"hard_weight": 0.25, "temperature": 2.0, "z_loss": 0.5}
    asked = [name for name in softxent.OUTPUTS if name != "target_entropy"]
    _, found = infer(service_url, given, asked, **options)
    expected = cross_entropy(given, outputs=asked, **options)
    for name in asked:
        assert np.array_equal(found[name], getattr(expected, name)), name
    top = {
        "logits": tensors["logits"],
        "target_indices": np.array([[0, 2], [1, -1], [3, 0], [6, 5]], np.int32),
        "target_log_probabilities": np.log(np.full((4, 2), 0.4)),
    }
    _, found = infer(service_url, top, ["loss", "target_entropy"], tail="bucket")
    expected = cross_entropy(top, tail="bucket", outputs=("loss", "target_entropy"))
    assert np.array_equal(found["loss"], expected.loss)
    assert np.array_equal(found["target_entropy"], expected.target_entropy)


def test_the_other_models(service_url: str) -> None:
    logits = batch(4, 7)["logits"]
    _, found = infer(
        service_url, {"logits": logits}, ["prediction", "probabilities"], "/v2/models/softmax/infer"
    )
    assert np.array_equal(found["probabilities"], softxent.softmax(logits))
    assert np.array_equal(found["prediction"], logits.argmax(1))
    given = {"logits": logits, "vectors": logits[::-1].copy(), "labels": np.arange(4)}
    path = "/v2/models/hessian_vector_product/infer"
    (product,) = infer(service_url, given, (), path, scale=2.0)[1].values()
    assert np.array_equal(product, softxent.hessian_vector_product(*given.values(), scale=2.0))


def test_options_may_be_text(service_url: str) -> None:
    tensors = batch(4, 7)
    typed = infer(service_url, tensors, label_smoothing=0.125, ignore_index=None, softcap=None)
    text = infer(service_url, tensors, label_smoothing="0.125", ignore_index="none", softcap="none")
    assert typed[1]["loss"].tobytes() == text[1]["loss"].tobytes()


def test_numbers_that_json_lacks_both_ways(service_url: str) -> None:
    body = (
        b'{"inputs":[{"name":"logits","datatype":"FP32","shape":[2,2],"data":[NaN,1,2,"-Infinity"]},'
        b'{"name":"labels","datatype":"UINT8","shape":[2],"data":[0,0]}],'
        b'"outputs":[{"name":"loss"}],"parameters":{"non_finite":"propagate","non_finite_json":"%s"}}'
    )
    words = {b"string": b'"NaN"', b"literal": b"NaN", b"null": b"null"}
    for kind, word in words.items():
        answer = post(service_url, body % kind)
        assert answer.status_code == 200, answer.text
        assert b'"data":[' + word + b"," in answer.content
        assert b'"loss_sum":' + word in answer.content


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_batches(service_url: str, rows: int) -> None:
    tensors: dict[str, Array] = {"logits": np.zeros((rows, 5), np.float32)}
    tensors["labels"] = np.zeros(rows, np.int64)
    _, found = infer(service_url, tensors)
    assert found["gradient"].shape == (rows, 5)


PACKERS: dict[str, tuple[Any, Any]] = {
    "gzip": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
}


@pytest.mark.parametrize("coding", PACKERS)
@pytest.mark.parametrize("rows", [2, 600])
def test_bodies_and_answers_may_be_compressed(service_url: str, coding: str, rows: int) -> None:
    pack, unpack = PACKERS[coding]
    tensors = batch(rows, 1_000)
    body, headers = binary(tensors)
    plain = post(service_url, body, accept_encoding="identity", **headers)
    with httpx.stream(
        "POST",
        service_url + INFER,
        content=pack(body),
        headers={"content-encoding": coding.upper(), "accept-encoding": coding, **headers},
    ) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == coding
    assert answer.headers[HEADER_LENGTH] == plain.headers[HEADER_LENGTH]
    assert unpack(packed) == plain.content


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", None),
        ("br", None),
        ("gzip;q=0", None),
        ("GZIP", "gzip"),
        ("identity;q=1, gzip;q=0.5", None),
        ("deflate;q=0.5, identity;q=0.1", "deflate"),
        ("gzip;q=x", None),
    ],
)
def test_floats_are_compressed_only_for_who_asks_for_it(
    service_url: str, accepted: str, coding: str | None
) -> None:
    body, headers = binary(batch(3, 10))
    answer = post(service_url, body, accept_encoding=accepted, **headers)
    assert answer.headers.get("content-encoding") == coding
    results(answer)


def test_long_json_is_compressed_for_who_would_take_it(service_url: str) -> None:
    tensors = batch(8, 1_000)
    inputs = [as_json(name, array) for name, array in tensors.items()]
    body = json.dumps({"inputs": inputs}).encode()
    answer = post(service_url, body, accept_encoding="gzip, deflate, br")
    assert answer.headers["content-encoding"] == "gzip"
    assert results(answer)[1]["loss"].tobytes() == native(service_url, tensors)["loss"].tobytes()


def test_chunked_bodies_and_queries(service_url: str) -> None:
    body, headers = binary(batch(30, 1_000))
    pieces = (body[i : i + 1_000] for i in range(0, len(body), 1_000))
    answer = httpx.post(f"{service_url}{INFER}?a=b+c", content=pieces, headers=headers)
    results(answer)


def get(url: str, path: str) -> Any:
    answer = httpx.get(url + path, verify=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_server_and_models_tell_of_themselves(service_url: str) -> None:
    server = get(service_url, "/v2")
    assert (server["name"], server["version"]) == ("softxent", softxent.__version__)
    assert "system_shared_memory" not in server["extensions"]
    names = get(service_url, "/v2/models")["models"]
    assert names == ["cross_entropy", "softmax", "hessian_vector_product"]
    for name in names:
        model = get(service_url, f"/v2/models/{name}")
        assert model == get(service_url, f"/v2/models/{name}/versions/1")
        assert get(service_url, f"/v2/models/{name}/ready") == {"name": name, "ready": True}
        assert (model["name"], model["versions"]) == (name, ["1"])
        config = get(service_url, f"/v2/models/{name}/config?a=b")
        assert (config["name"], config["max_batch_size"]) == (name, 0)
        for one, many in (("input", "inputs"), ("output", "outputs")):
            assert [t["name"] for t in config[one]] == [t["name"] for t in model[many]]
            types = [t["data_type"].removeprefix("TYPE_") for t in config[one]]
            assert types == [t["datatype"] for t in model[many]]
            assert [t["dims"] for t in config[one]] == [t["shape"] for t in model[many]]
        assert config["input"][0] == {
            "name": "logits",
            "data_type": "TYPE_FP32",
            "dims": [-1, -1],
            "optional": False,
        }
    assert config["parameters"]["numerics"]["string_value"] == str(softxent.NUMERICS_VERSION)


def test_what_models_tell_of_outputs_is_what_comes(service_url: str) -> None:
    told = get(service_url, "/v2/models/cross_entropy")["outputs"]
    names = [output["name"] for output in told if output["name"] != "target_entropy"]
    document, _ = infer(service_url, batch(3, 5), names)
    for output, found in zip(
        [o for o in told if o["name"] in names], document["outputs"], strict=True
    ):
        assert output["datatype"] == found["datatype"]
        assert len(output["shape"]) == len(found["shape"])


def test_repository_index(service_url: str) -> None:
    for body in (b"", b'{"ready": true}'):
        answer = httpx.post(f"{service_url}/v2/repository/index", content=body, verify=False)
        assert answer.json()[0] == {
            "name": "cross_entropy",
            "version": "1",
            "state": "READY",
            "reason": "",
        }


DURATIONS = ("success", "queue", "compute_input", "compute_infer", "compute_output")


def test_statistics_count_calls_rows_and_time(service_url: str) -> None:
    def now() -> Any:
        (one,) = get(service_url, "/v2/models/softmax/versions/1/stats")["model_stats"]
        assert one in get(service_url, "/v2/models/stats")["model_stats"]
        return one

    with running_service() as service_url:
        assert now()["last_inference"] == 0
        for rows in (3, 500):
            infer(
                service_url,
                {"logits": np.zeros((rows, 900), np.float32)},
                (),
                "/v2/models/softmax/infer",
            )
        post(service_url, b"{}", "/v2/models/softmax/infer")
        one = now()
    assert (one["inference_count"], one["execution_count"]) == (503, 2)
    assert one["last_inference"] > 1_500_000_000_000
    told = one["inference_stats"]
    assert {name: told[name]["count"] for name in DURATIONS} == dict.fromkeys(DURATIONS, 2)
    assert (told["fail"]["count"], told["cache_hit"], told["cache_miss"]) == (
        1,
        {"count": 0, "ns": 0},
        {"count": 0, "ns": 0},
    )
    parts = [told[name]["ns"] for name in DURATIONS[1:]]
    assert min(parts[1:]) > 0
    assert sum(parts) <= told["success"]["ns"]


def test_a_base_path_may_stand_before_every_route() -> None:
    with running_service("--base-path=/soft/xent") as url:
        for base in (url, url + "/soft/xent"):
            assert get(base, "/v2/health/live") == {"live": True}
            assert get(base, "/v2")["name"] == "softxent"
            infer(base, batch(3, 5))
            assert get(base, "/v1/info")["name"] == "softxent"
        assert httpx.get(f"{url}/soft/v2", verify=False).status_code == 404

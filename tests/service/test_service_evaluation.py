"""What the service answers: the library's own bits, in either form, from any number of clients."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load
from service_support import BINARY, GOOD, JSON, batch, binary, post

import softxent

QUERIES = ("", "?reduction=mean&label_smoothing=0.25", "?outputs=probabilities,log_normalizer,loss")


def as_json(tensors: dict[str, npt.NDArray[Any]]) -> bytes:
    members = (f'"{name}": {tensor.tolist()}' for name, tensor in tensors.items())
    return f"{{{', '.join(members)}}}".encode()


def expected(tensors: dict[str, npt.NDArray[Any]], query: str) -> softxent.CrossEntropyResult:
    given = softxent.Options.from_text(parse_qsl(query.lstrip("?")))
    options: dict[str, Any] = dataclasses.asdict(given)
    return softxent.cross_entropy(tensors["logits"], tensors["labels"], **options)


def read(answer: httpx.Response, dtype: type) -> dict[str, npt.NDArray[Any]]:
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == BINARY:
        return load(answer.content)
    rows = ("gradient", "probabilities", "log_normalizer", "loss")
    return {
        name: np.asarray(value, dtype if name in rows and isinstance(value, list) else np.float64)
        for name, value in answer.json().items()
    }


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("accept", [JSON, BINARY])
@pytest.mark.parametrize("form", [JSON, BINARY])
@pytest.mark.parametrize(("shape", "dtype"), [((3, 5), np.float32), ((700, 40), np.float64)])
def test_every_path_gives_the_bits_of_the_library(
    service_url: str, shape: tuple[int, int], dtype: type, form: str, accept: str, query: str
) -> None:
    tensors = batch(*shape, dtype)
    body = as_json(tensors) if form == JSON else binary(tensors)
    asked = query
    if form == JSON:
        asked += ("&" if query else "?") + f"logits_dtype={np.dtype(dtype).name}"
    answer = read(post(service_url, body, form, asked, accept=accept), dtype)
    result = expected(tensors, query)
    for name in (*softxent.OUTPUTS, "loss_sum", "weight_sum", "count"):
        wanted = getattr(result, name)
        assert (name in answer) == (wanted is not None)
        if wanted is not None:
            assert np.array_equal(answer[name], wanted), name


def test_confident_row_keeps_its_digits(service_url: str) -> None:
    answer = post(service_url, GOOD).json()
    assert answer["loss"] == pytest.approx([2.0611537e-09], rel=1e-6)
    assert answer["gradient"][0][0] == pytest.approx(-2.0611537e-09, rel=1e-6)


def test_batch_without_rows(service_url: str) -> None:
    answer = post(service_url, b'{"logits": [], "labels": []}').json()
    assert answer == {"loss": [], "gradient": [], "loss_sum": 0, "weight_sum": 0, "count": 0}


def test_mean_over_no_weight_is_a_word(service_url: str) -> None:
    body = b'{"logits": [[1, 2]], "labels": [-100]}'
    assert post(service_url, body, query="?reduction=mean").json()["loss"] == "NaN"


def test_large_binary_batch_is_answered_whole(service_url: str) -> None:
    tensors = batch(2000, 1000)
    answer = read(post(service_url, binary(tensors), BINARY), np.float32)
    result = expected(tensors, "")
    assert np.array_equal(answer["gradient"], np.asarray(result.gradient))


def test_32_concurrent_clients_get_their_own_answers(service_url: str) -> None:
    bodies = [binary(batch(rows, 200)) for rows in range(100, 132)]
    alone = [post(service_url, body, BINARY).content for body in bodies]
    with ThreadPoolExecutor(32) as pool:
        for _ in range(5):
            answers = pool.map(lambda body: post(service_url, body, BINARY).content, bodies)
            assert list(answers) == alone


def explain(url: str, body: bytes, **headers: str) -> httpx.Response:
    given = {"content-type": JSON, **headers}
    return httpx.post(f"{url}/v1/explain", content=body, headers=given)


def test_explanation_is_the_library_s(service_url: str) -> None:
    answer = explain(service_url, b'{"logits": [2, 1, 0], "label": 1}').json()
    wanted = softxent.explain([2, 1, 0], 1)
    assert answer["softmax_jacobian"] == wanted.softmax_jacobian.tolist()
    assert answer["fused_gradient"] == wanted.fused_gradient.tolist()
    assert answer["loss"] == pytest.approx(1 + math.log(math.exp(1) + 1 + math.exp(-1)) - 1)
    soft = explain(service_url, b'{"logits": [2, 0], "target_probabilities": [0.5, 0.5]}').json()
    assert soft["target"] == [0.5, 0.5]


def test_explanation_says_what_is_not_defined(service_url: str) -> None:
    answer = explain(service_url, b'{"logits": [2000, 0], "label": 1}').json()
    assert answer["loss_by_softmax_out"] is None
    assert answer["loss"] == 2000
    assert "not defined" in answer["notes"][0]


def test_explanation_shows_the_stable_and_the_textbook_forms(service_url: str) -> None:
    answer = explain(service_url, b'{"logits": [100, 98], "label": 0}').json()
    wanted = softxent.explain([100, 98], 0)
    assert answer["stable"]["e"] == wanted.stable.e.tolist()
    assert answer["stable"]["m"] == 100
    assert answer["stable"]["S"] == pytest.approx(math.exp(-2), rel=1e-15)
    assert answer["stable"]["log1p"] == answer["loss"]
    # exp(100) overflows float32, so its softmax is inf / inf.
    assert answer["naive"]["float32"] == {
        "softmax_out": ["NaN", "NaN"],
        "loss": "NaN",
        "gradient": ["NaN", "NaN"],
    }
    assert answer["naive"]["float64"]["loss"] == pytest.approx(math.log1p(math.exp(-2)))


def test_textbook_form_in_float32_has_float32_s_digits(service_url: str) -> None:
    text = explain(service_url, b'{"logits": [0, 0, 0], "label": 0}').text
    assert '"float32":{"softmax_out":[0.33333334,0.33333334,0.33333334]' in text


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b'{"logits": [1, 2]}', 422, "label"),
        (b'{"logits": [1, 2], "label": 2}', 422, "label"),
        (b'{"logits": [1, 2], "label": 1.5}', 422, "label"),
        (b'{"logits": [[1, 2]], "label": 0}', 422, "logits"),
        (b'{"logits": [1, "NaN"], "label": 0}', 422, "logits"),
        (b'{"logits": [1, 2], "label": 0, "target_probabilities": [1, 0]}', 422, "label"),
        (b'{"logits": [1, 2], "target_probabilities": [1, 1]}', 422, "target_probabilities"),
        (b'{"logits": [1, 2], "labels": [1]}', 422, "labels"),
    ],
)
def test_explanations_that_are_refused(
    service_url: str, body: bytes, status: int, field: str | None
) -> None:
    answer = explain(service_url, body)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text
    assert answer.json()["error"]

"""Every target and option over HTTP: the library's bits, or a refusal by name."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from service_support import BINARY, JSON, assert_alive, assert_problem, batch, binary, post
from target_support import KINDS, Tensors, send, target_batch

import softxent
from softxent_client.wire import RESPONSE, Limits, safetensors_form

TRANSFORMS: tuple[dict[str, Any], ...] = (
    {"z_loss": 0.01, "scale": -0.5},
    {"softcap": 5.0, "temperature": 2.5},
    {"label_smoothing": 0.1, "smoothing": "others"},
    {"reduction": "mean", "mean_over": "rows"},
    {"reduction": "mean", "label_smoothing": 0.2},
)
TAILS: tuple[dict[str, Any], ...] = ({"tail": "bucket", "z_loss": 0.1}, {"tail": "none"})


def assert_the_library_s(url: str, tensors: Tensors, form: str, options: dict[str, Any]) -> None:
    refused = {"hessian_diagonal"} if "softcap" in options else set()
    refused |= set() if "labels" in tensors else {"correct", "rank"}
    outputs = tuple(name for name in softxent.OUTPUTS if name not in refused)
    asked = {"outputs": outputs, **options}
    answer = send(url, tensors, form, asked)
    assert answer.status_code == 200, answer.text
    schema = RESPONSE(tensors["logits"].dtype.name)
    found = safetensors_form.decode(answer.content, schema, Limits())
    call: dict[str, Any] = {**tensors, **asked}
    result = softxent.cross_entropy(**call)
    for name in (*outputs, "loss_sum", "weight_sum", "count"):
        wanted = np.asarray(getattr(result, name))
        assert found[name].dtype == wanted.dtype, name
        assert found[name].tobytes() == wanted.tobytes(), name


@pytest.mark.parametrize("form", [JSON, BINARY])
@pytest.mark.parametrize("kind", KINDS)
def test_every_target_gives_the_bits_of_the_library(service_url: str, kind: str, form: str) -> None:
    mixed: dict[str, Any] = {"hard_weight": 0.3} if " and " in kind else {}
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        tensors = target_batch(kind, dtype)
        for options in ({}, *TRANSFORMS, *(TAILS if "top_k" in kind else ())):
            assert_the_library_s(service_url, tensors, form, {**mixed, **options})


@pytest.mark.parametrize("form", [JSON, BINARY])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_weights_beside_every_target(service_url: str, kind: str, form: str) -> None:
    tensors = target_batch(kind)
    rows, classes = tensors["logits"].shape
    tensors["row_weights"] = np.linspace(0, 2, rows)
    tensors["class_weights"] = np.linspace(0.5, 2, classes)
    mask = np.ones((rows, classes), np.bool_)
    named = tensors.get("labels", np.zeros(rows, np.int64))
    indices = tensors.get("target_indices", np.zeros((rows, 0), np.int64))
    for row in range(rows):
        spare = np.setdiff1d(np.arange(classes), [named[row], *indices[row]])
        mask[row, spare[0]] = False
    options: dict[str, Any] = {"reduction": "mean"}
    if " and " in kind:
        options["hard_weight"] = 0.25
    assert_the_library_s(service_url, {**tensors, "class_mask": mask}, form, options)
    everywhere = np.ones(classes, np.bool_)
    assert_the_library_s(service_url, {**tensors, "class_mask": everywhere}, form, options)


@pytest.mark.parametrize("form", [JSON, BINARY])
def test_probabilities_of_float32_beside_16_bits_are_not_rounded(
    service_url: str, form: str
) -> None:
    tensors = target_batch("probabilities", "float16")
    wide = target_batch("probabilities", "float32")["target_probabilities"]
    assert_the_library_s(service_url, {**tensors, "target_probabilities": wide}, form, {})


@pytest.mark.parametrize(
    "target",
    ['"target_probabilities": []', '"target_indices": [], "target_log_probabilities": []'],
)
def test_no_rows_of_a_soft_target(service_url: str, target: str) -> None:
    answer = post(service_url, f'{{"logits": [], {target}}}'.encode())
    assert answer.json() == {
        "loss": [],
        "gradient": [],
        "loss_sum": 0,
        "weight_sum": 0,
        "count": 0,
    }


LOGITS = '"logits": [[1, 2, 3], [1, 2, 3]]'
LOGS = '"target_log_probabilities": [[-1, -1], [-1, -1]]'
INDICES = '"target_indices": [[0, 1], [1, 2]]'
MASK = '"class_mask": [true, true, false]'
OUT_OF_RANGE, ROWS = "label-out-of-range", "invalid-rows"

BAD_ROWS: dict[str, tuple[str, str, str, list[Any]]] = {
    "index above": (f'"target_indices": [[0, 1], [1, 3]], {LOGS}', OUT_OF_RANGE, "indices", [3]),
    "index below": (f'"target_indices": [[0, 1], [1, -2]], {LOGS}', OUT_OF_RANGE, "indices", [-2]),
    "index twice": (f'"target_indices": [[0, 1], [2, 2]], {LOGS}', OUT_OF_RANGE, "indices", [2]),
    "index masked": (f"{INDICES}, {LOGS}, {MASK}", OUT_OF_RANGE, "indices", [2]),
    "log-probability infinite": (
        f'{INDICES}, "target_log_probabilities": [[-1, -1], [-1, "Infinity"]]',
        ROWS,
        "log_probabilities",
        ["Infinity"],
    ),
    "log-probability NaN": (
        f'{INDICES}, "target_log_probabilities": [[-1, -1], [-1, "NaN"]]',
        ROWS,
        "log_probabilities",
        ["NaN"],
    ),
    "negative probability": (
        '"target_probabilities": [[1, 0, 0], [1, -0.5, 0]]',
        ROWS,
        "probabilities",
        [-0.5],
    ),
    "infinite probability": (
        '"target_probabilities": [[1, 0, 0], [1, "Infinity", 0]]',
        ROWS,
        "probabilities",
        ["Infinity"],
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_are_no_target_are_named(service_url: str, case: str) -> None:
    target, slug, field, values = BAD_ROWS[case]
    answer = post(service_url, f"{{{LOGITS}, {target}}}".encode())
    document = assert_problem(answer, 422, slug, f"target_{field}")
    assert (document["rows"], document["values"], document["total"]) == ([1], values, 1)
    assert_alive(service_url)


@pytest.mark.parametrize("tail", ["bucket", "none"])
def test_masses_that_add_up_to_too_much_are_named(service_url: str, tail: str) -> None:
    logs = '"target_log_probabilities": [[-1, -1], [0, 0]]'
    body = f"{{{LOGITS}, {INDICES}, {logs}}}".encode()
    answer = post(service_url, body, query=f"?tail={tail}")
    document = assert_problem(answer, 422, ROWS, "target_log_probabilities")
    assert (document["rows"], document["values"], document["total"]) == ([1], [2.0], 1)
    assert post(service_url, body).status_code == 200


def test_rows_without_an_entry_do_not_count(service_url: str) -> None:
    """The loss is that of the first row: -log softmax([1, 2, 3])[0]."""
    target = '"target_indices": [[0], [-1]], "target_log_probabilities": [[0], ["NaN"]]'
    for tail in ("renormalize", "bucket", "none"):
        answer = post(
            service_url, f"{{{LOGITS}, {target}}}".encode(), query=f"?reduction=mean&tail={tail}"
        ).json()
        assert (answer["count"], answer["weight_sum"]) == (1, 1)
        assert answer["loss"] == pytest.approx(2.4076059644443806, rel=1e-7)
        assert answer["gradient"][1] == [0, 0, 0]


def test_bfloat16_masses_keep_their_type_in_binary(service_url: str) -> None:
    """59 equal ones add up to 1.0152, which is more than other types may."""
    logs = np.full((1, 59), -4.0625)
    tensors: Tensors = {
        "logits": np.zeros((1, 64), np.float32),
        "target_indices": np.arange(59)[None],
        "target_log_probabilities": logs.astype(ml_dtypes.bfloat16),
    }
    assert send(service_url, tensors, BINARY, {"tail": "bucket"}).status_code == 200
    tensors["target_log_probabilities"] = logs.astype(np.float32)
    answer = send(service_url, tensors, BINARY, {"tail": "bucket"})
    document = assert_problem(answer, 422, ROWS, "target_log_probabilities")
    assert "1 + 2^-7" in document["detail"]


def test_masked_labels_are_named(service_url: str) -> None:
    answer = post(service_url, f'{{{LOGITS}, "labels": [0, 2], {MASK}}}'.encode())
    document = assert_problem(answer, 422, OUT_OF_RANGE, "labels")
    assert (document["rows"], document["values"], document["total"]) == ([1], [2], 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_bad_probabilities_of_every_dtype_in_binary(service_url: str, dtype: str) -> None:
    tensors = target_batch("probabilities", dtype)
    tensors["target_probabilities"][[2, 4], 3] = (np.nan, -1)
    document = assert_problem(
        send(service_url, tensors, BINARY, {}), 422, ROWS, "target_probabilities"
    )
    assert (document["rows"], document["values"], document["total"]) == ([2, 4], ["NaN", -1], 2)


P = '"target_probabilities": [[1, 0, 0], [0, 1, 0]]'
TOP_K = f"{INDICES}, {LOGS}"
LABELS = '"labels": [0, 1]'
TENSOR, OPTION = "invalid-tensor", "invalid-option"

WRONG: dict[str, tuple[str, str, str, str]] = {
    "no target": (MASK, "", TENSOR, "labels"),
    "probabilities of another shape": (
        '"target_probabilities": [[1, 0], [1, 0]]',
        "",
        TENSOR,
        "target_probabilities",
    ),
    "probabilities of one row": (
        '"target_probabilities": [1, 0, 0]',
        "",
        TENSOR,
        "target_probabilities",
    ),
    "indices alone": (INDICES, "", TENSOR, "target_log_probabilities"),
    "log-probabilities alone": (LOGS, "", TENSOR, "target_indices"),
    "log-probabilities beside labels": (f"{LABELS}, {LOGS}", "", TENSOR, "target_indices"),
    "indices of another K": (
        f'"target_indices": [[0], [1]], {LOGS}',
        "",
        TENSOR,
        "target_indices",
    ),
    "top-k of other rows": (
        '"target_indices": [[0]], "target_log_probabilities": [[-1]]',
        "",
        TENSOR,
        "target_log_probabilities",
    ),
    "both soft targets": (f"{P}, {TOP_K}", "", TENSOR, "target_indices"),
    "mask of another length": (f'{LABELS}, "class_mask": [true]', "", TENSOR, "class_mask"),
    "mask of other rows": (
        f'{LABELS}, "class_mask": [[true, true, true]]',
        "",
        TENSOR,
        "class_mask",
    ),
    "mask of numbers": (f'{LABELS}, "class_mask": [1, 1, 0]', "", ROWS, "class_mask"),
    "class weights with bucket": (
        f'{TOP_K}, "class_weights": [1, 1, 1]',
        "?tail=bucket",
        TENSOR,
        "class_weights",
    ),
    "smoothing with bucket": (TOP_K, "?tail=bucket&label_smoothing=0.1", OPTION, "label_smoothing"),
    "hard_weight missing": (f"{LABELS}, {P}", "", OPTION, "hard_weight"),
    "hard_weight idle": (LABELS, "?hard_weight=0.5", OPTION, "hard_weight"),
    "hard_weight idle beside top-k": (TOP_K, "?hard_weight=0.5", OPTION, "hard_weight"),
    "tail without top-k": (P, "?tail=none", OPTION, "tail"),
    "mean_over without mean": (LABELS, "?mean_over=rows", OPTION, "mean_over"),
    "mean_over and denominator": (
        LABELS,
        "?mean_over=rows&reduction=mean&denominator=2",
        OPTION,
        "mean_over",
    ),
    "softcap of 0": (LABELS, "?softcap=0", OPTION, "softcap"),
    "temperature of 0": (LABELS, "?temperature=0", OPTION, "temperature"),
    "z_loss below 0": (LABELS, "?z_loss=-1", OPTION, "z_loss"),
}


@pytest.mark.parametrize("case", WRONG)
def test_targets_and_options_that_do_not_fit(service_url: str, case: str) -> None:
    members, query, slug, field = WRONG[case]
    answer = post(service_url, f"{{{LOGITS}, {members}}}".encode(), query=query)
    assert_problem(answer, 422, slug, field)
    assert_alive(service_url)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_a_binary_mask_is_of_booleans(service_url: str, dtype: type) -> None:
    body = binary({**batch(), "class_mask": np.ones(5, dtype)})
    assert_problem(post(service_url, body, BINARY), 422, "invalid-tensor", "class_mask")

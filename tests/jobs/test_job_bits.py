"""A job gives the very bits of one call, however it is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr
from job_support import (
    BFLOAT16,
    Tensors,
    accepted,
    attributes_of,
    batch,
    read,
    run,
    save,
    save_zarr,
)

import softxent
from softxent_service.jobs.cluster import Cluster

OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities", "correct", "rank")


def assert_same(folder: Path, tensors: Tensors, output: str = "out", **options: Any) -> None:
    """Check that a result holds what the library returns for the whole batch."""
    whole = softxent.cross_entropy(**tensors, **options)
    for name in options["outputs"]:
        want, got = np.asarray(getattr(whole, name)), read(folder, name, output)
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        assert got.tobytes() == want.tobytes(), name
    attributes = attributes_of(folder, output)
    for name in ("loss_sum", "weight_sum", "count"):
        assert attributes[name] == getattr(whole, name), name
    assert not (folder / output / ".softxent").exists()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_row_chunks_do_not_exist(tmp_path: Path, cluster: Cluster, chunk: int, dtype: Any) -> None:
    tensors = batch(400, 50, dtype)
    save(tmp_path, tensors, (chunk, 50))
    options: dict[str, Any] = {"outputs": OUTPUTS, "label_smoothing": 0.1}
    job = accepted(tmp_path, block_bytes=4000, **{**options, "outputs": list(OUTPUTS)})
    attributes = run(job, cluster)
    assert job.plan.blocks > 1 or chunk == 1000
    assert_same(tmp_path, tensors, **options)
    assert attributes["accuracy"] == read(tmp_path, "correct").sum() / attributes["count"]
    assert (read(tmp_path, "gradient").dtype == BFLOAT16) == (dtype is ml_dtypes.bfloat16)


@pytest.mark.parametrize("columns", [1000, 4096, 8192])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_class_chunks_do_not_exist(
    tmp_path: Path, cluster: Cluster, columns: int, reduction: str
) -> None:
    tensors = batch(11, 9000)
    tensors["class_weights"] = np.random.default_rng(2).uniform(size=9000)
    save(tmp_path, tensors, (4, columns))
    options: dict[str, Any] = {"outputs": OUTPUTS[:4], "reduction": reduction}
    job = accepted(tmp_path, block_bytes=4096 * 16, **{**options, "outputs": list(OUTPUTS[:4])})
    assert job.plan.is_sharded
    run(job, cluster)
    assert_same(tmp_path, tensors, **options)


def targets(kind: str) -> Tensors:
    random, tensors = np.random.default_rng(4), batch(60, 30)
    tensors["row_weights"] = random.uniform(size=60)
    teacher = random.dirichlet(np.ones(30), 60).astype(np.float32)
    if "labels" not in kind:
        del tensors["labels"]
    if "probabilities" in kind:
        tensors["target_probabilities"] = teacher
    if "top-k" in kind:
        tensors["target_indices"] = np.argsort(-teacher, axis=1)[:, :5]
        logs = np.log(np.take_along_axis(teacher, tensors["target_indices"], 1))
        tensors["target_log_probabilities"] = logs
    if "mask" in kind:
        mask = np.ones(30, bool)
        mask[7] = False
        tensors["class_mask"] = mask
        tensors["labels"][tensors["labels"] == 7] = 6
    if "mask of each row" in kind:
        tensors["class_mask"] = np.tile(tensors["class_mask"], (60, 1))
    return tensors


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("probabilities", {"reduction": "mean"}),
        ("top-k", {"tail": "bucket", "temperature": 2.0}),
        ("top-k", {"reduction": "mean", "mean_over": "rows"}),
        ("labels and probabilities", {"hard_weight": 0.25, "reduction": "mean"}),
        ("labels and top-k", {"hard_weight": 0.25, "z_loss": 0.1, "scale": 3.0}),
        ("labels mask", {"reduction": "mean", "softcap": 9.0}),
        ("labels mask of each row", {"reduction": "sum", "smoothing": "others"}),
        ("labels", {"reduction": "mean", "denominator": 7.0, "output_dtype": "bfloat16"}),
    ],
)
def test_every_kind_of_target(
    tmp_path: Path, cluster: Cluster, kind: str, options: dict[str, Any]
) -> None:
    tensors = targets(kind)
    save(tmp_path, tensors)
    job = accepted(tmp_path, block_bytes=1024, outputs=["loss", "gradient", "entropy"], **options)
    assert job.plan.blocks > 5
    run(job, cluster)
    assert_same(tmp_path, tensors, outputs=("loss", "gradient", "entropy"), **options)


def test_shards_are_read_and_the_batch_may_have_more_dimensions(
    tmp_path: Path, cluster: Cluster
) -> None:
    flat = batch(60, 30, np.float16)
    tensors: Tensors = {
        "logits": flat["logits"].reshape(12, 5, 30),
        "labels": flat["labels"].reshape(12, 5),
    }
    save_zarr(tmp_path / "logits.zarr", tensors["logits"], (2, 5, 10), (4, 5, 30))
    np.save(tmp_path / "labels.npy", tensors["labels"])
    run(accepted(tmp_path, block_bytes=1500, outputs=["loss", "gradient"]), cluster)
    assert_same(tmp_path, tensors, outputs=("loss", "gradient"))


@pytest.mark.parametrize("shape", [(0, 7), (3, 1), (1, 1)])
def test_small_batches(tmp_path: Path, cluster: Cluster, shape: tuple[int, int]) -> None:
    tensors: Tensors = {
        "logits": np.ones(shape, np.float32),
        "labels": np.zeros(shape[0], np.int64),
    }
    save(tmp_path, tensors)
    run(accepted(tmp_path, outputs=["loss", "gradient"]), cluster)
    assert_same(tmp_path, tensors, outputs=("loss", "gradient"))


def test_a_mean_over_nothing_is_what_empty_says(tmp_path: Path, cluster: Cluster) -> None:
    save(tmp_path, {"logits": np.ones((4, 3), np.float32), "labels": np.full(4, -100)})
    attributes = run(accepted(tmp_path, reduction="mean"), cluster)
    assert (attributes["mean"], attributes["perplexity"]) == ("NaN", None)
    assert np.isnan(read(tmp_path, "loss"))
    attributes = run(accepted(tmp_path, output="zero", reduction="mean", empty="zero"), cluster)
    assert (attributes["mean"], attributes["perplexity"]) == (0.0, None)


def test_the_result_tells_what_it_is(tmp_path: Path, cluster: Cluster) -> None:
    tensors = batch(40, 20)
    save(tmp_path, tensors)
    attributes = run(accepted(tmp_path, block_bytes=800), cluster)
    group = zarr.open_group(str(tmp_path / "out"), mode="r")
    assert dict(group.attrs) == attributes
    assert list(group.array_keys()) == ["loss"]
    assert attributes["numerics"] == softxent.NUMERICS_VERSION
    assert attributes["options"]["outputs"] == ["loss"]
    assert attributes["mean"] == attributes["loss_sum"] / 32
    assert attributes["perplexity"] == pytest.approx(np.exp(attributes["mean"]))
    assert (attributes["rows"], attributes["count"], attributes["blocks"]) == (40, 32, 4)
    assert attributes["accuracy"] is None

"""Jobs over top-k targets some of whose rows have none: they count in no sum and no mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_support import Tensors, accepted, attributes_of, batch, read, run, save

import softxent
from softxent_service.jobs.cluster import Cluster

ROWS, CLASSES = 60, 30


def with_empty_rows(*, weighted: bool, classes: int = CLASSES) -> Tensors:
    """Return a batch in which every fourth row has no target and is NaN throughout."""
    tensors, random = batch(ROWS, classes), np.random.default_rng(8)
    del tensors["labels"]
    tensors["target_indices"] = np.argsort(-random.random((ROWS, classes)))[:, :5]
    tensors["target_log_probabilities"] = -2.0 - random.random((ROWS, 5))
    tensors["target_indices"][::4] = -1
    tensors["target_log_probabilities"][::4] = np.nan
    tensors["logits"][::4] = np.nan
    if weighted:
        tensors["row_weights"] = random.uniform(size=ROWS)
    return tensors


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tail", ["renormalize", "bucket", "none"])
@pytest.mark.parametrize("mean_over", ["weights", "rows"])
def test_a_mean_divides_by_rows_that_have_a_target(
    tmp_path: Path, cluster: Cluster, mean_over: str, tail: str, weighted: bool
) -> None:
    tensors = with_empty_rows(weighted=weighted)
    save(tmp_path, tensors)
    options: dict[str, Any] = {"reduction": "mean", "mean_over": mean_over, "tail": tail}
    job = accepted(tmp_path, block_bytes=1024, outputs=["loss", "gradient"], **options)
    assert job.plan.blocks > 5
    run(job, cluster)
    whole = softxent.cross_entropy(**tensors, **options)
    assert read(tmp_path, "gradient").tobytes() == whole.gradient.tobytes()  # type: ignore[union-attr]
    attributes = attributes_of(tmp_path)
    assert attributes["count"] == whole.count == ROWS * 3 // 4
    assert (attributes["mean"], attributes["weight_sum"]) == (whole.loss, whole.weight_sum)


def test_blocks_of_columns_leave_them_out_too(tmp_path: Path, cluster: Cluster) -> None:
    tensors = with_empty_rows(weighted=False, classes=9000)
    save(tmp_path, tensors, (4, 4096))
    options: dict[str, Any] = {"reduction": "mean", "tail": "none"}
    job = accepted(tmp_path, block_bytes=4096 * 16, outputs=["loss", "gradient"], **options)
    assert job.plan.is_sharded
    run(job, cluster)
    whole = softxent.cross_entropy(**tensors, **options)
    assert read(tmp_path, "gradient").tobytes() == whole.gradient.tobytes()  # type: ignore[union-attr]
    assert attributes_of(tmp_path)["count"] == whole.count

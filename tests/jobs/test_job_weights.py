"""Jobs refuse weights with which a mean is lost, and sums beyond float64, as one call does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_support import accepted, attributes_of, batch, read, run, save

import softxent
from softxent.errors import SoftxentError
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.failure import JobFailedError

ROWS, CLASSES, BLOCK = 24, 5, 4


def refused(folder: Path, cluster: Cluster, given: dict[str, Any], **options: Any) -> Any:
    """Check that call and job are refused by one sentence; return what the job's failure says."""
    save(folder, given)
    with pytest.raises(SoftxentError) as call:
        softxent.cross_entropy(**given, **{**options, "outputs": tuple(options["outputs"])})
    with pytest.raises(JobFailedError) as job:
        run(accepted(folder, BLOCK * CLASSES * 4, **options), cluster)
    problem = job.value.problem
    assert problem["type"] == f"urn:softxent:problem:{call.value.slug}"
    assert (problem["detail"], problem["field"]) == (call.value.message, call.value.field)
    assert not (folder / "out" / "zarr.json").exists()
    return problem


def weighted(weight: float) -> dict[str, Any]:
    weights = np.full(ROWS, weight)
    weights[17] *= 2
    return {**batch(ROWS, CLASSES), "row_weights": weights}


@pytest.mark.parametrize("outputs", [["loss"], ["loss", "gradient"]])
def test_weights_that_vanish_in_every_row_are_refused(
    tmp_path: Path, cluster: Cluster, outputs: list[str]
) -> None:
    # Losses of float32 of such weights are subnormal: the mean would be 0 or lose its digits.
    told = refused(tmp_path, cluster, weighted(1e-40), outputs=outputs, reduction="mean")
    assert told["rows"] == [17]


def test_a_heavy_row_that_is_ignored_hides_no_lost_mean(tmp_path: Path, cluster: Cluster) -> None:
    given = weighted(1e-40)
    given["labels"][17], given["row_weights"][17] = -100, 1.0
    call: dict[str, Any] = {"reduction": "mean", "mean_over": "rows"}
    save(tmp_path, given)
    with pytest.raises(softxent.WeightError, match="losses lose digits"):
        softxent.cross_entropy(**given, outputs="loss", **call)
    with pytest.raises(JobFailedError) as job:
        run(accepted(tmp_path, BLOCK * CLASSES * 4, outputs=["loss"], **call), cluster)
    assert "losses lose digits" in job.value.problem["detail"]


@pytest.mark.parametrize("outputs", [["loss"], ["loss", "gradient"]])
def test_weights_that_add_up_to_more_than_float64_are_refused(
    tmp_path: Path, cluster: Cluster, outputs: list[str]
) -> None:
    given = weighted(8e307)
    given["logits"] = np.zeros((ROWS, CLASSES))
    given["logits"][np.arange(ROWS), given["labels"].clip(0)] = 800.0
    refused(tmp_path, cluster, given, outputs=outputs, reduction="mean")


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_so_are_class_weights_and_scale(tmp_path: Path, cluster: Cluster, on_error: str) -> None:
    given = {**batch(ROWS, CLASSES), "class_weights": np.full(CLASSES, 1e-20)}
    save(tmp_path, given)
    job = accepted(tmp_path, BLOCK * CLASSES * 4, reduction="mean", scale=1e-20, on_error=on_error)
    with pytest.raises(JobFailedError, match="multiply class_weights by a power of two"):
        run(job, cluster)


def test_tiny_weights_beside_an_ordinary_one_are_taken(tmp_path: Path, cluster: Cluster) -> None:
    """Of one block every weight is tiny; the mean is that of the row which weighs a half."""
    given = weighted(1e-40)
    given["labels"] %= CLASSES
    given["row_weights"][-1] = 0.5
    save(tmp_path, given)
    options: dict[str, Any] = {"reduction": "mean"}
    run(accepted(tmp_path, BLOCK * CLASSES * 4, outputs=["loss", "gradient"], **options), cluster)
    whole = softxent.cross_entropy(**given, **options)
    assert whole.gradient is not None
    assert read(tmp_path, "gradient").tobytes() == whole.gradient.tobytes()
    last = given["logits"][-1].astype(np.float64)
    loss = float(np.log(np.exp(last - last[given["labels"][-1]]).sum()))
    assert attributes_of(tmp_path)["mean"] == pytest.approx(loss, rel=1e-6)


def test_a_mean_without_a_row_is_not_refused(tmp_path: Path, cluster: Cluster) -> None:
    given = weighted(1e-40)
    given["labels"][:] = -100
    save(tmp_path, given)
    run(accepted(tmp_path, BLOCK * CLASSES * 4, reduction="mean", empty="zero"), cluster)
    assert float(read(tmp_path, "loss")) == 0.0


@pytest.mark.parametrize(
    "options", [{"reduction": "none"}, {"reduction": "sum"}, {"reduction": "mean"}]
)
def test_sums_beyond_float64_are_refused(
    tmp_path: Path, cluster: Cluster, options: dict[str, Any]
) -> None:
    """Each row's loss is 1.5e308, twice that is beyond the largest float64."""
    given: dict[str, Any] = {
        "logits": np.tile([1.5e308, 0.0], (2, 1)),
        "labels": np.ones(2, np.int64),
    }
    refused(tmp_path, cluster, given, outputs=["loss"], **options)


def test_they_are_returned_where_they_are_asked_for(tmp_path: Path, cluster: Cluster) -> None:
    given = {"logits": np.tile([1.5e308, 0.0], (2, 1)), "labels": np.ones(2, np.int64)}
    save(tmp_path, given)
    run(accepted(tmp_path, reduction="sum", non_finite="propagate"), cluster)
    assert float(read(tmp_path, "loss")) == np.inf
    assert attributes_of(tmp_path)["loss_sum"] == "Infinity"

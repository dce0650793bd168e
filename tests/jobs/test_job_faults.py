"""What is wrong with a job is told before it is accepted, or by block, rows and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from job_support import Tensors, accepted, batch, read, run, save, save_zarr

import softxent
from softxent import LabelError, OptionError, TensorError, WeightError
from softxent.errors import SoftxentError
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.errors import LocationError, StorageError
from softxent_service.jobs.failure import JobFailedError

ROWS, CLASSES = 5000, 10
MIDDLE = 2500
"""A row that is in no sample of what is looked at before a job is accepted."""


def tensors() -> Tensors:
    return batch(ROWS, CLASSES)


def changed(name: str, change: Any) -> Tensors:
    given = tensors()
    given[name] = change(given.get(name))
    return given


def with_value(name: str, row: int, value: Any) -> Tensors:
    given = tensors()
    given.setdefault("row_weights", np.ones(ROWS))
    given[name][row] = value
    return given


@pytest.mark.parametrize(
    ("given", "error", "field", "text"),
    [
        (changed("labels", lambda y: y[:-1]), TensorError, "labels", "shape [4999]"),
        (changed("labels", lambda y: y[:, None]), TensorError, "labels", "shape"),
        (changed("labels", lambda y: y * 1.0), TensorError, "labels", "must be integers"),
        (changed("logits", lambda x: x.astype(int)), TensorError, "logits", "must be one of"),
        (changed("logits", lambda x: x[:, 0]), TensorError, "logits", "2 dimensions"),
        (changed("logits", lambda x: x[:, :0]), TensorError, "logits", "no classes"),
        (
            changed("class_weights", lambda _: np.ones(CLASSES + 1)),
            TensorError,
            "class_weights",
            "shape [11]",
        ),
        (
            changed("class_weights", lambda _: -np.ones(CLASSES)),
            WeightError,
            "class_weights",
            "not negative",
        ),
        (
            changed("target_probabilities", lambda _: np.ones((ROWS, CLASSES + 1))),
            TensorError,
            "target_probabilities",
            "shape",
        ),
        (
            changed("target_indices", lambda _: np.ones((ROWS, 2), int)),
            TensorError,
            "target_log_probabilities",
            "is required",
        ),
        (with_value("labels", ROWS - 1, 10), LabelError, "labels", "in [0, 10)"),
        (with_value("labels", 0, -1), LabelError, "labels", "in [0, 10)"),
        (with_value("row_weights", ROWS - 1, -1.0), WeightError, "row_weights", "not negative"),
    ],
)
def test_what_shows_at_once_is_refused(
    tmp_path: Path, given: Tensors, error: type[SoftxentError], field: str, text: str
) -> None:
    save(tmp_path, given)
    with pytest.raises(error) as refused:
        accepted(tmp_path)
    assert refused.value.field == field
    assert text in refused.value.message
    assert not (tmp_path / "out").exists()


def test_a_sample_names_rows_of_the_whole(tmp_path: Path) -> None:
    save(tmp_path, with_value("labels", ROWS - 3, 99))
    with pytest.raises(LabelError) as refused:
        accepted(tmp_path)
    assert (refused.value.rows, refused.value.values) == ((ROWS - 3,), (99,))


@pytest.mark.parametrize("output", ["logits.npy", "logits.npy/below", "."])
def test_an_output_in_or_around_an_input_is_refused(tmp_path: Path, output: str) -> None:
    save(tmp_path, tensors())
    with pytest.raises(LocationError):
        accepted(tmp_path, output=output)


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    save(tmp_path, tensors())
    with pytest.raises(OptionError, match="tail applies only"):
        accepted(tmp_path, tail="none")


def failure(folder: Path, cluster: Cluster, **members: Any) -> dict[str, Any]:
    with pytest.raises(JobFailedError) as failed:
        run(accepted(folder, block_bytes=400 * CLASSES, **members), cluster)
    assert not (folder / "out" / "zarr.json").exists()
    return failed.value.problem


@pytest.mark.parametrize(
    ("name", "value", "slug", "field", "shown"),
    [
        ("labels", 10, "label-out-of-range", "labels", 10),
        ("row_weights", np.nan, "invalid-weight", "row_weights", "NaN"),
        ("logits", np.nan, "non-finite-result", "logits", "NaN"),
    ],
)
@pytest.mark.parametrize("members", [{}, {"reduction": "mean", "outputs": ["gradient"]}])
def test_a_fault_of_a_row_names_block_row_and_value(
    tmp_path: Path,
    cluster: Cluster,
    name: str,
    value: Any,
    slug: str,
    field: str,
    shown: Any,
    members: dict[str, Any],
) -> None:
    row = MIDDLE - MIDDLE % 5 + 1
    save(tmp_path, with_value(name, row, value))
    problem = failure(tmp_path, cluster, **members)
    assert problem["type"] == f"urn:softxent:problem:{slug}"
    assert (problem["field"], problem["rows"], problem["values"]) == (field, [row], [shown])
    assert problem["total"] == 1
    if not (members and field != "logits"):
        assert (problem["block"], problem["block_rows"]) == (25, [2500, 2600])
        assert "block 25, rows 2500 to 2599" in problem["detail"]


def test_of_several_faults_the_first_is_told(tmp_path: Path, cluster: Cluster) -> None:
    given = tensors()
    given["labels"][1001:3999] = 77
    save(tmp_path, given)
    problem = failure(tmp_path, cluster)
    assert (problem["block"], problem["rows"][0], problem["total"]) == (10, 1001, 99)


def test_a_fault_in_the_last_row_of_class_chunks(tmp_path: Path, cluster: Cluster) -> None:
    given = batch(8, 9000)
    given["logits"][7, 8999] = np.nan
    given["labels"][7] = 3
    save(tmp_path, given, (4, 4096))
    with pytest.raises(JobFailedError) as failed:
        run(accepted(tmp_path, block_bytes=4096 * 16, outputs=["loss", "gradient"]), cluster)
    assert failed.value.problem["rows"] == [7]
    assert failed.value.problem["type"].endswith("non-finite-result")


def test_a_corrupt_chunk_names_its_rows(tmp_path: Path, cluster: Cluster) -> None:
    given = tensors()
    save_zarr(tmp_path / "logits.zarr", given["logits"], (100, CLASSES))
    np.save(tmp_path / "labels.npy", given["labels"])
    chunk = tmp_path / "logits.zarr" / "c" / "30" / "0"
    chunk.write_bytes(chunk.read_bytes()[:50] + b"\0" * 50)
    problem = failure(tmp_path, cluster)
    assert problem["type"] == "urn:softxent:problem:storage-failed"
    assert (problem["field"], problem["block_rows"]) == ("logits", [3000, 3100])
    assert "logits[3000:3100, 0:10]" in problem["detail"]


def test_an_array_that_went_away_is_told(tmp_path: Path, cluster: Cluster) -> None:
    save(tmp_path, tensors())
    job = accepted(tmp_path)
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(JobFailedError, match="there is no array"):
        run(job, cluster)


def test_rows_at_fault_are_skipped_and_listed(tmp_path: Path, cluster: Cluster) -> None:
    given = tensors()
    given["labels"][[1, 2, MIDDLE + 1]] = 99
    given["logits"][[7, 4999]] = np.nan
    given["labels"][[7, 4999]] = 3
    save(tmp_path, given)
    attributes = run(
        accepted(
            tmp_path,
            block_bytes=400 * CLASSES,
            on_error="skip",
            outputs=["loss", "gradient", "prediction"],
        ),
        cluster,
    )
    skipped = [1, 2, 7, MIDDLE + 1, 4999]
    assert read(tmp_path, "skipped_rows").tolist() == skipped
    assert attributes["skipped"] == 5
    good = dict(given)
    good["labels"][skipped] = -100
    whole = softxent.cross_entropy(**good, outputs=("loss", "gradient", "prediction"))
    assert attributes["loss_sum"] == whole.loss_sum
    assert attributes["count"] == whole.count
    for name in ("loss", "gradient", "prediction"):
        assert read(tmp_path, name).tobytes() == getattr(whole, name).tobytes()


def test_rows_that_are_not_finite_are_no_fault_where_they_propagate(
    tmp_path: Path, cluster: Cluster
) -> None:
    given = with_value("logits", 1, np.nan)
    save(tmp_path, given)
    attributes = run(accepted(tmp_path, on_error="skip", non_finite="propagate"), cluster)
    assert (attributes["skipped"], attributes["loss_sum"]) == (0, "NaN")
    assert np.isnan(read(tmp_path, "loss")[1])


def test_a_mean_over_nothing_may_be_an_error(tmp_path: Path, cluster: Cluster) -> None:
    save(tmp_path, {"logits": np.ones((4, 3), np.float32), "labels": np.full(4, -100)})
    with pytest.raises(JobFailedError) as failed:
        run(accepted(tmp_path, reduction="mean", empty="error"), cluster)
    assert failed.value.problem["type"] == "urn:softxent:problem:empty-reduction"


def test_an_output_that_cannot_be_written_is_told_with_the_reason(
    tmp_path: Path, cluster: Cluster
) -> None:
    save(tmp_path, tensors())
    job = accepted(tmp_path, output="deep/out")
    (tmp_path / "deep").write_bytes(b"")
    with pytest.raises(JobFailedError, match="cannot be written") as failed:
        run(job, cluster)
    assert failed.value.problem["type"] == "urn:softxent:problem:storage-failed"


def test_a_name_of_an_output_is_no_group(tmp_path: Path) -> None:
    save(tmp_path, tensors())
    zarr.create_array(str(tmp_path / "out"), data=np.zeros(3))
    from softxent_service.jobs.errors import OutputInUseError
    from softxent_service.jobs.result import Result

    with pytest.raises(OutputInUseError):
        Result(accepted(tmp_path)).check()
    with pytest.raises(StorageError):
        accepted(tmp_path, logits=f"file://{tmp_path}/nothing", output="out2")

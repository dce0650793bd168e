"""Top-k targets through the clients: rows without an entry, and types that masses are stored in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from client_support import ENCODINGS, OUTPUTS, assert_same, target_batch

import softxent
from conftest import running_service
from softxent import RowsError
from softxent_client import Client

ROWS = 3_000
FLAGS = ("--binary-bytes=60000", "--json-bytes=50000")


@pytest.fixture(scope="module")
def tight_url() -> Iterator[str]:
    with running_service(*FLAGS) as url:
        yield url


def with_empty_rows(*, weighted: bool) -> dict[str, Any]:
    """Return a call in which every third row has no target and is NaN throughout."""
    call = target_batch("top_k", ROWS)
    del call["class_weights"]
    if not weighted:
        del call["row_weights"]
    call["target_indices"][::3] = -1
    call["target_log_probabilities"][::3] = np.nan
    call["logits"][::3] = np.nan
    return call


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tail", ["renormalize", "bucket", "none"])
def test_a_mean_sent_in_parts_leaves_out_rows_without_a_target(
    tight_url: str, encoding: Any, tail: str, weighted: bool
) -> None:
    call = {**with_empty_rows(weighted=weighted), "tail": tail, "reduction": "mean"}
    for mean_over in ("weights", "rows"):
        options: dict[str, Any] = {"outputs": OUTPUTS, "mean_over": mean_over}
        with Client(tight_url, encoding=encoding) as client:
            ours = client.cross_entropy(**call, **options)
        assert_same(ours, softxent.cross_entropy(**call, **options))
        taken = call.get("row_weights", np.ones(ROWS))[np.arange(ROWS) % 3 > 0]
        assert ours.count == np.count_nonzero(taken)


def test_masses_of_bfloat16_are_sent_as_such(service_url: str) -> None:
    """59 equal ones add up to 1.0152; JSON has float64 alone, whose sums may be 1 + 2^-7."""
    logs = np.full((1, 59), -4.0625).astype(ml_dtypes.bfloat16)
    call: dict[str, Any] = {
        "logits": np.linspace(-2, 2, 64, dtype=np.float32)[None],
        "target_indices": np.arange(59)[None],
        "target_log_probabilities": logs,
        "tail": "bucket",
    }
    with Client(service_url, encoding="binary") as client:
        assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))
    with Client(service_url, encoding="json") as client:
        with pytest.raises(RowsError, match=r"1 \+ 2\^-7"):
            client.cross_entropy(**call)
        call["tail"] = "renormalize"
        assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("stored", [np.float32, np.float16, np.float64])
def test_stored_types_arrive_with_every_digit(
    service_url: str, encoding: Any, stored: type
) -> None:
    call = target_batch("top_k", 40, "float64", soft=np.dtype(stored).name)
    del call["class_weights"]
    call["tail"] = "bucket"
    with Client(service_url, encoding=encoding) as client:
        assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))

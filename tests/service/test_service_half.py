"""float16 and bfloat16 through the service: the library's bits, in both forms."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from softxent import NonFiniteError, cross_entropy
from softxent_client import Client

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


@pytest.mark.parametrize("encoding", ["binary", "json"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(3, 5), (700, 40)])
def test_the_bits_of_the_library(
    service_url: str, shape: tuple[int, int], dtype: np.dtype[Any], encoding: Any
) -> None:
    generator = np.random.default_rng(5)
    logits = (generator.standard_normal(shape) * 4).astype(dtype)
    labels = generator.integers(0, shape[1], shape[0])
    options: Any = {"outputs": ("loss", "gradient", "log_normalizer", "probabilities")}
    wanted = cross_entropy(logits, labels, **options)
    with Client(service_url, encoding=encoding) as client:
        got = client.cross_entropy(logits, labels, **options)
    for name in ("gradient", "probabilities"):
        array, expected = getattr(got, name), getattr(wanted, name)
        assert array.dtype == dtype
        assert np.array_equal(array.view(np.uint16), expected.view(np.uint16))
    assert isinstance(got.loss, np.ndarray)
    assert got.loss.dtype == np.float32
    assert np.array_equal(got.loss, wanted.loss)  # type: ignore[arg-type]
    assert got.loss_sum == wanted.loss_sum


@pytest.mark.parametrize("encoding", ["binary", "json"])
@pytest.mark.parametrize("dtype", HALVES)
def test_refusals_name_rows(service_url: str, dtype: np.dtype[Any], encoding: Any) -> None:
    logits = np.array([[0, 1], [np.nan, 1]], dtype)
    with (
        Client(service_url, encoding=encoding) as client,
        pytest.raises(NonFiniteError) as refused,
    ):
        client.cross_entropy(logits, [0, 0])
    assert refused.value.rows == (1,)

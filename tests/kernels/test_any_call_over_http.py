"""Any legal call that can be drawn, through the clients in both forms: the library's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from batches import cases
from cases import Case
from hypothesis import HealthCheck, given, settings

import softxent
from softxent_client import Client

SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def call_of(case: Case) -> dict[str, Any]:
    """Return the call with those of its outputs that there are."""
    outputs = tuple(name for name in case.outputs if name in softxent.OUTPUTS)
    options = {k: v for k, v in case.product_options.items() if k != "outputs"}
    return {**case.tensors, **options, "outputs": outputs or ("loss",)}


def bits(client: Any, call: dict[str, Any]) -> dict[str, Any]:
    """Return what a client or the library answers: bytes by name, or its refusal.

    NaN is NaN: JSON has no word for its sign.
    """
    try:
        result = client.cross_entropy(**call)
    except softxent.SoftxentError as error:
        return {"error": type(error), "message": str(error), **error.details()}
    arrays = {name: np.array(value) for name, value in vars(result).items() if value is not None}
    for array in arrays.values():
        array[np.isnan(array)] = np.nan if array.dtype.kind != "i" else 0
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}


@settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
@given(case=cases(most_classes=4200))
def test_any_call_gives_the_bits_of_the_library(service_url: str, case: Case) -> None:
    call = call_of(case)
    wanted = bits(softxent, call)
    for encoding in ("binary", "json"):
        with Client(service_url, encoding=encoding) as client:
            assert bits(client, call) == wanted

"""Any legal call that can be drawn, through the clients in both forms: the library's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from batches import cases
from cases import Case
from hypothesis import HealthCheck, given, settings

import softxent
from softxent.evaluations import SOFTMAX
from softxent_client import Client

SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def bits(client: Any, method: str, call: dict[str, Any]) -> dict[str, Any]:
    """Return what a client or the library answers: bytes by name, or its refusal.

    NaN is NaN: JSON has no word for its sign.
    """
    try:
        result = getattr(client, method)(**call)
    except softxent.SoftxentError as error:
        return {"error": type(error), "message": str(error), **error.details()}
    values = {"array": result} if isinstance(result, np.ndarray) else vars(result)
    arrays = {name: np.array(value) for name, value in values.items() if value is not None}
    for array in arrays.values():
        if array.dtype.kind not in "ib":
            array[np.isnan(array)] = np.nan
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}


def calls_of(case: Case) -> list[tuple[str, dict[str, Any]]]:
    """Return the methods that a case is a call of, and their arguments."""
    about_logits = {
        name: value
        for name, value in (case.tensors | case.product_options).items()
        if name in (*SOFTMAX.tensors, *SOFTMAX.options)
    }
    calls = [("cross_entropy", case.tensors | case.options)]
    calls += [(name, about_logits) for name in ("softmax", "log_softmax", "logsumexp")]
    product = case.tensors | case.product_options | {"vectors": case.vectors}
    return [*calls, ("hessian_vector_product", product)]


@settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
@given(case=cases(most_classes=4200))
def test_any_call_gives_the_bits_of_the_library(service_url: str, case: Case) -> None:
    for method, call in calls_of(case):
        wanted = bits(softxent, method, call)
        for encoding in ("binary", "json"):
            with Client(service_url, encoding=encoding) as client:
                assert bits(client, method, call) == wanted

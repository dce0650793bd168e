"""Query strings as clients write them."""

from __future__ import annotations

import math

import pytest
from service_support import assert_problem, post


@pytest.mark.parametrize("number", ["1e+06", "1e%2B06", "%2B1e6", "+1e6", "1E6", "1000000"])
def test_a_plus_is_the_sign_of_a_number(service_url: str, number: str) -> None:
    query = f"?logits_dtype=float64&outputs=loss&reduction=mean&denominator={number}"
    answer = post(service_url, b'{"logits": [[0, 0]], "labels": [0]}', query=query)
    assert answer.json()["loss"] == pytest.approx(math.log(2) / 1e6, rel=1e-15)


@pytest.mark.parametrize("number", ["1e%2006", "%201", "1+1", "+"])
def test_blanks_and_lone_signs_are_no_number(service_url: str, number: str) -> None:
    answer = post(service_url, b"{}", query=f"?reduction=mean&denominator={number}")
    assert_problem(answer, 422, "invalid-option", "denominator")

"""The published fixtures are what the reference says today, to the last byte."""

from __future__ import annotations

import numpy as np
import pytest
from fixture_answers import expected
from fixture_calls import Fixture, fixtures
from make_fixtures import FOLDER, INDEX, index_of, made
from naive_full import naive

AGAIN = "If they are meant to change: python tests/kernels/make_fixtures.py"
MOST_BYTES = 2 << 20
"""They travel with every installation."""


def test_files_and_index_are_those_made_today() -> None:
    stored = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    entries, files = zip(*made(), strict=True)
    wanted = {f"{e['name']}.safetensors": file for e, file in zip(entries, files, strict=True)}
    wanted[INDEX] = index_of([*entries]).encode()
    assert set(stored) == set(wanted), AGAIN
    assert [name for name in wanted if stored[name] != wanted[name]] == [], AGAIN
    assert sum(map(len, stored.values())) < MOST_BYTES


# The textbook loses everything at offsets of 1e30.
NEAR = [fixture for fixture in fixtures() if not fixture.name.startswith("offsets")]


@pytest.mark.parametrize("fixture", NEAR, ids=lambda fixture: fixture.name)
def test_answers_are_about_those_of_the_textbook(fixture: Fixture) -> None:
    case = fixture.case
    wanted = naive(case.tensors, case.vectors, **case.product_options)
    tensors = expected(case, sums=fixture.evaluation == "cross_entropy")
    names = {name.removeprefix("expected.") for name in tensors if name.startswith("expected.")}
    for name in names & set(wanted):
        np.testing.assert_allclose(
            tensors[f"expected.{name}"], wanted[name], rtol=1e-6, atol=1e-9, err_msg=name
        )
    assert {*case.outputs} <= names <= {*wanted, *(f"{name}_low" for name in wanted)}

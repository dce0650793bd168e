"""Decimal digits become the nearest number of the type asked for, rounded once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from wire_support import read

from softxent_client.wire import Limits, json_blocks

MANTISSA = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
SMALLEST = {"float64": -1074, "float32": -149, "float16": -24, "bfloat16": -133}
BELOW = {name: Fraction(2) ** SMALLEST[name] for name in MANTISSA}


def nearest(exact: Fraction, dtype: str) -> Fraction:
    """Return the number of the type that is nearest to a fraction, the even one of two."""
    if not exact:
        return exact
    exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    exponent -= abs(exact) < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - MANTISSA[dtype] + 1, SMALLEST[dtype])
    return round(exact / unit) * unit


def spelled(value: Fraction, digits: int, exponent: int = 0) -> str:
    """Return a dyadic fraction with so many digits behind the point, cut off."""
    scaled = abs(value) / Fraction(10) ** exponent
    whole, rest = divmod(int(scaled * 10**digits), 10**digits)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}d}" + (f"e{exponent}" if exponent else "")


def near_ties(dtype: str) -> Iterator[str]:
    """Yield texts just below, at and just above what lies between two numbers of the type."""
    draw = random.Random(dtype)
    bits, least = MANTISSA[dtype], SMALLEST[dtype]
    for _ in range(40):
        unit = Fraction(2) ** draw.choice([least, least + 1, least + 5, -bits, 1 - bits, 0, 3])
        middle = (draw.randrange(1, 2**bits) + Fraction(1, 2)) * unit * draw.choice([1, -1])
        text = spelled(middle, 200)
        yield text
        yield text + "0" * draw.randrange(40) + "1"
        yield spelled(middle - abs(middle) / 2**70, 250)
        exponent = draw.choice([-7, 9, 30])
        yield spelled(middle, 240, exponent)
        yield spelled(middle, 240, exponent).replace("e", "1e")


REPORTED = ["1.00390625093132257461547851562500", "1.00390625", "1.003906250000000000001"]
INTEGERS = ["257", "259", "2049", "2051", "16777217", "16777219", "9007199791611905"]
"""The last is 2^53 + 2^29 + 1, whose float64 lies between two float32."""
EXPONENTS = ["257e0", "2570E-1", "0.0257e+4", "1.6777217e7", "16777217.000000000000000000001"]


def texts_of(dtype: str) -> list[str]:
    small = [*REPORTED, *INTEGERS[:4], "257e0", "2570E-1", "0.0257e+4", "0", "-0.0", "1e-400"]
    larger = [] if dtype == "float16" else [*INTEGERS[4:], *EXPONENTS]
    texts = [*small, *larger, *near_ties(dtype)]
    return [text for text in texts if abs(Fraction(text)) < 65_000]


def check(text: str, value: np.generic, dtype: str) -> None:
    assert Fraction(float(value)) == nearest(Fraction(text), dtype), text


@pytest.mark.parametrize("dtype", MANTISSA)
def test_digits_are_rounded_once(dtype: str) -> None:
    texts = texts_of(dtype)
    body = f'{{"labels":[0],"logits":[[{",".join(texts)}]]}}'
    for text, value in zip(texts, read(body, dtype)["logits"][0], strict=True):
        check(text, value, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_digits_of_large_documents_are_rounded_once(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(json_blocks, "BLOCK_BYTES", 2_000)
    texts = texts_of(dtype)
    rows = ",".join(f'[{text}, "NaN",1 ]' for text in texts)
    body = f'{{"logits":[{rows}],"labels":[{",".join("0" for _ in texts)}]}}'
    assert len(body) > 2_000
    for text, row in zip(texts, read(body, dtype, Limits())["logits"], strict=True):
        check(text, row[0], dtype)
        assert np.isnan(np.float32(row[1]))


def test_probabilities_beside_16_bit_logits_are_rounded_once() -> None:
    # 1/2 + 2^-25 + 2^-60: its float64 lies between two float32.
    text = spelled(Fraction(1, 2) + Fraction(1, 2**25) + Fraction(1, 2**60), 60)
    tensors = read(f'{{"logits":[[1,2]],"target_probabilities":[[{text},0]]}}', "bfloat16")
    check(text, tensors["target_probabilities"][0, 0], "float32")


@pytest.mark.parametrize(
    ("dtype", "largest"), [("float16", 65504), ("bfloat16", 2.0**127 * 1.9921875)]
)
def test_what_is_just_below_the_middle_to_infinity_is_the_largest_number(
    dtype: str, largest: float
) -> None:
    half = Fraction(largest) / (2 ** MANTISSA[dtype] - 1) / 2
    middle = int(Fraction(largest) + half)
    text = f"{middle - 1}.{'9' * 30}"
    assert float(read(f'{{"logits":[[{text}]],"labels":[0]}}', dtype)["logits"][0, 0]) == largest


TIE = "1.000000059604644775390625000001"
"""Just above the middle of 1 and the next float32: its digits are asked for."""


@pytest.mark.parametrize(
    "text",
    [
        "1e-1000000000000000000001",
        "0e1000000000000000000001",
        "0.0e-99999999999999999999",
        "-1e-1000000000000000000001",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_exponent_of_any_length_beside_a_tie(dtype: str, text: str) -> None:
    found = read(f'{{"logits":[[{TIE},{text}]],"labels":[0]}}', dtype)
    assert [float(v) for v in found["logits"][0]] == [
        float(nearest(Fraction(TIE), dtype)),
        0.0,
    ]


@pytest.mark.parametrize("numbers", [1, 400, 40_000])
def test_an_exponent_of_many_digits_is_read_in_documents_of_any_size(numbers: int) -> None:
    """Its digits are no number that could be written anew."""
    slow = ",1.000000000000000011e-30" * numbers
    found = read(
        f'{{"logits":[[1e-1000000000000000000001,1e-00000000000000000000001{slow}]],"labels":[0]}}'
    )
    assert found["logits"][0, :2].tolist() == [0.0, float(np.float32(0.1))]
    assert (found["logits"][0, 2:] == np.float32(1.000000000000000011e-30)).all()

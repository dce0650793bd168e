"""Every option's legal and illegal values as text, and text of options."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softxent import OUTPUTS, OptionError, Options

TEXTS: list[tuple[str, str, Any]] = [
    ("outputs", "gradient,loss", ("loss", "gradient")),
    ("reduction", "sum", "sum"),
    ("ignore_index", "none", None),
    ("ignore_index", "-1", -1),
    ("ignore_index", "+7", 7),
    ("ignore_index", "0", 0),
    ("ignore_index", "-9223372036854775808", -(2**63)),
    ("label_smoothing", "0.1", 0.1),
    ("label_smoothing", "1", 1.0),
    ("smoothing", "others", "others"),
    ("z_loss", "1e-4", 1e-4),
    ("softcap", "none", None),
    ("softcap", "30", 30.0),
    ("temperature", "0.5", 0.5),
    ("tail", "bucket", "bucket"),
    ("tail", "none", "none"),
    ("hard_weight", "none", None),
    ("hard_weight", "0", 0.0),
    ("denominator", "none", None),
    ("scale", "-2.5e-3", -0.0025),
    ("scale", "+1E+2", 100.0),
    ("scale", "1e-400", 0.0),
    ("label_smoothing", ".1", 0.1),
    ("label_smoothing", "1.", 1.0),
    ("scale", "-.5E1", -5.0),
    ("non_finite", "propagate", "propagate"),
    ("empty", "zero", "zero"),
    ("output_dtype", "none", None),
    ("output_dtype", "bfloat16", "bfloat16"),
]


@pytest.mark.parametrize(("name", "text", "value"), TEXTS)
def test_text_is_read(name: str, text: str, value: Any) -> None:
    assert getattr(Options.from_text([(name, text)]), name) == value


NOT_NUMBERS = (
    "",
    " 1",
    "1 ",
    "1\n",
    "1_0",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "\N{FULLWIDTH DIGIT ONE}",
    "\N{MINUS SIGN}1",
    "--1",
    "01",
    ".",
    "-.",
    ".e1",
    "1..5",
    "1e",
    "0x1",
    "nan",
    "inf",
    "-Infinity",
    "true",
    "null",
    "1,0",
    "1 000",
    "1\0",
)


@pytest.mark.parametrize("text", NOT_NUMBERS)
@pytest.mark.parametrize(
    "name",
    [
        "ignore_index",
        "label_smoothing",
        "z_loss",
        "softcap",
        "temperature",
        "hard_weight",
        "denominator",
        "scale",
    ],
)
def test_text_that_is_not_a_plain_number_is_refused(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=name) as caught:
        Options.from_text([("reduction", "mean"), (name, text)])
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ignore_index", "1.0"),
        ("ignore_index", "1e2"),
        ("ignore_index", "9223372036854775808"),
        ("ignore_index", "1" * 5000),
        ("label_smoothing", "none"),
        ("label_smoothing", "1.5"),
        ("scale", "1e999"),
        ("z_loss", "none"),
        ("softcap", "0"),
        ("temperature", "none"),
        ("hard_weight", "1.5"),
        ("mean_over", "none"),
        ("denominator", "0"),
        ("outputs", ""),
        ("outputs", "loss,"),
        ("outputs", "loss,loss"),
        ("outputs", "loss, gradient"),
        ("reduction", ""),
        ("non_finite", "none"),
        ("empty", "NaN"),
    ],
)
def test_text_of_an_illegal_value_is_refused(name: str, text: str) -> None:
    pairs = [("reduction", "mean")] if name != "reduction" else []
    with pytest.raises(OptionError) as caught:
        Options.from_text([*pairs, (name, text)])
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "text"), [("denominator", "1e 06"), ("scale", " 2"), ("ignore_index", " 7")]
)
def test_a_blank_that_was_a_plus_is_named(name: str, text: str) -> None:
    """What `1e+06` becomes where a query string is decoded."""
    pairs = [("reduction", "mean"), (name, text)]
    with pytest.raises(OptionError, match=r"\+ stands for a blank: write %2B") as caught:
        Options.from_text(pairs)
    assert caught.value.field == name


@pytest.mark.parametrize("text", ["1" * 30_000 + "x", "1." + "1" * 30_000 + "x", "." * 30_000])
def test_a_long_text_is_refused_at_once_and_not_repeated(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        Options.from_text([("scale", text)])
    assert len(str(caught.value)) < 200


def test_unknown_name_is_refused_and_the_known_ones_listed() -> None:
    with pytest.raises(OptionError, match=r"unknown option 'smooth'.*label_smoothing") as caught:
        Options.from_text([("smooth", "0.1")])
    assert caught.value.field == "smooth"


def test_repeated_name_is_refused_even_with_the_same_value() -> None:
    with pytest.raises(OptionError, match="scale is given more than once"):
        Options.from_text([("scale", "1"), ("scale", "1")])


def test_text_of_the_defaults_is_empty() -> None:
    assert Options().to_text() == {}
    assert Options.from_text([]) == Options()


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Options,
        outputs=st.lists(st.sampled_from(OUTPUTS), min_size=1, unique=True),
        reduction=st.just("mean"),
        ignore_index=st.none() | st.integers(-(2**63), 2**63 - 1),
        label_smoothing=st.floats(0, 1),
        smoothing=st.sampled_from(["all", "others"]),
        z_loss=st.floats(0, allow_infinity=False),
        softcap=st.none() | st.floats(0, exclude_min=True, allow_infinity=False),
        temperature=st.floats(0, exclude_min=True, allow_infinity=False),
        tail=st.sampled_from(["renormalize", "bucket", "none"]),
        hard_weight=st.none() | st.floats(0, 1),
        denominator=st.none() | st.floats(0, exclude_min=True, allow_infinity=False),
        scale=FINITE,
        non_finite=st.sampled_from(["error", "propagate"]),
        empty=st.sampled_from(["nan", "zero", "error"]),
    )
)
def test_text_round_trip(options: Options) -> None:
    assert Options.from_text(options.to_text().items()) == options

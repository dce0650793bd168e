"""Every option's legal and illegal values, as Python values and as text."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softxent import OUTPUTS, OptionError, Options
from softxent.evaluations import EVALUATIONS, OPTIONS, Evaluation

LEGAL: list[tuple[dict[str, Any], str, Any]] = [
    ({"outputs": "loss"}, "outputs", ("loss",)),
    ({"outputs": ["gradient", "loss"]}, "outputs", ("loss", "gradient")),
    ({"outputs": OUTPUTS[::-1]}, "outputs", OUTPUTS),
    *[({"reduction": word}, "reduction", word) for word in ("none", "mean", "sum")],
    ({"ignore_index": None}, "ignore_index", None),
    ({"ignore_index": np.int8(-1)}, "ignore_index", -1),
    ({"ignore_index": -(2**63)}, "ignore_index", -(2**63)),
    ({"ignore_index": 2**63 - 1}, "ignore_index", 2**63 - 1),
    ({"label_smoothing": 0}, "label_smoothing", 0.0),
    ({"label_smoothing": 1}, "label_smoothing", 1.0),
    ({"label_smoothing": np.float32(0.5)}, "label_smoothing", 0.5),
    *[({"smoothing": word}, "smoothing", word) for word in ("all", "others")],
    ({"z_loss": 0}, "z_loss", 0.0),
    ({"z_loss": 1e300}, "z_loss", 1e300),
    ({"softcap": None}, "softcap", None),
    ({"softcap": 30}, "softcap", 30.0),
    ({"temperature": np.float32(0.5)}, "temperature", 0.5),
    *[({"tail": word}, "tail", word) for word in ("renormalize", "bucket", "none")],
    ({"hard_weight": None}, "hard_weight", None),
    *[({"hard_weight": share}, "hard_weight", float(share)) for share in (0, 0.25, 1)],
    *[
        ({"mean_over": word, "reduction": "mean"}, "mean_over", word)
        for word in ("weights", "rows")
    ],
    ({"denominator": None, "reduction": "mean"}, "denominator", None),
    ({"denominator": 5e-324, "reduction": "mean"}, "denominator", 5e-324),
    ({"denominator": Fraction(1, 4), "reduction": "mean"}, "denominator", 0.25),
    ({"scale": 0}, "scale", 0.0),
    ({"scale": -1.5}, "scale", -1.5),
    ({"scale": np.int64(3)}, "scale", 3.0),
    *[({"non_finite": word}, "non_finite", word) for word in ("error", "propagate")],
    *[({"empty": word}, "empty", word) for word in ("nan", "zero", "error")],
    *[
        ({"output_dtype": word}, "output_dtype", word)
        for word in (None, "float64", "float32", "float16", "bfloat16")
    ],
]

ILLEGAL: list[tuple[dict[str, Any], str]] = [
    ({"outputs": ()}, "outputs"),
    ({"outputs": "loss,gradient"}, "outputs"),
    ({"outputs": ("loss", "loss")}, "outputs"),
    ({"outputs": ("loss", "hessian")}, "outputs"),
    ({"outputs": ("Loss",)}, "outputs"),
    ({"outputs": None}, "outputs"),
    ({"outputs": [["loss"]]}, "outputs"),
    ({"outputs": np.array([1, 2])}, "outputs"),
    ({"reduction": "Mean"}, "reduction"),
    ({"reduction": None}, "reduction"),
    ({"reduction": ["mean"]}, "reduction"),
    ({"ignore_index": True}, "ignore_index"),
    ({"ignore_index": np.True_}, "ignore_index"),
    ({"ignore_index": 1.0}, "ignore_index"),
    ({"ignore_index": "1"}, "ignore_index"),
    ({"ignore_index": np.array([1, 2])}, "ignore_index"),
    ({"ignore_index": 2**63}, "ignore_index"),
    ({"ignore_index": 10**5000}, "ignore_index"),
    ({"ignore_index": -(2**63) - 1}, "ignore_index"),
    *[
        ({"label_smoothing": value}, "label_smoothing")
        for value in (-1e-9, 1.0000001, math.nan, math.inf, True, None, "0.1", 1j, [0.1])
    ],
    *[
        ({"denominator": value, "reduction": "mean"}, "denominator")
        for value in (0, -0.0, -1, math.nan, math.inf, False, "1", 10**400)
    ],
    *[({"smoothing": value}, "smoothing") for value in ("none", "", None, 0)],
    *[({"z_loss": value}, "z_loss") for value in (-1e-9, math.nan, math.inf, None, True, "1")],
    *[
        ({name: value}, name)
        for name in ("softcap", "temperature")
        for value in (0, -1.0, math.nan, math.inf, True, "2")
    ],
    ({"temperature": None}, "temperature"),
    *[({"tail": value}, "tail") for value in ("drop", None, "")],
    *[({"hard_weight": value}, "hard_weight") for value in (-0.1, 1.1, math.nan, True, "0.5")],
    ({"mean_over": "classes", "reduction": "mean"}, "mean_over"),
    ({"mean_over": None, "reduction": "mean"}, "mean_over"),
    ({"mean_over": "rows"}, "mean_over"),
    ({"mean_over": "rows", "reduction": "sum"}, "mean_over"),
    ({"mean_over": "rows", "reduction": "mean", "denominator": 2.0}, "mean_over"),
    ({"denominator": 2.0}, "denominator"),
    ({"denominator": 2.0, "reduction": "sum"}, "denominator"),
    *[
        ({"scale": value}, "scale")
        for value in (math.nan, math.inf, -math.inf, True, None, "1", 10**400, np.ones(2))
    ],
    ({"non_finite": "ignore"}, "non_finite"),
    ({"empty": ""}, "empty"),
    ({"empty": 0}, "empty"),
    *[({"output_dtype": value}, "output_dtype") for value in ("none", "double", np.float32, 4)],
]


@pytest.mark.parametrize(("given_", "name", "value"), LEGAL)
def test_legal_values_are_taken(given_: dict[str, Any], name: str, value: Any) -> None:
    found = getattr(Options(**given_), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("given_", "field"), ILLEGAL)
def test_illegal_values_are_refused_by_name(given_: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        Options(**given_)
    assert caught.value.field == field


def test_defaults() -> None:
    assert Options() == Options(
        outputs=("loss", "gradient"),
        reduction="none",
        ignore_index=-100,
        label_smoothing=0.0,
        smoothing="all",
        z_loss=0.0,
        softcap=None,
        temperature=1.0,
        tail="renormalize",
        hard_weight=None,
        denominator=None,
        mean_over="weights",
        scale=1.0,
        non_finite="error",
        empty="nan",
        output_dtype=None,
    )


def test_every_option_stands_in_the_table_of_evaluations() -> None:
    assert tuple(field.name for field in dataclasses.fields(Options)) == OPTIONS


@pytest.mark.parametrize("evaluation", EVALUATIONS.values(), ids=lambda e: e.name)
def test_an_evaluation_takes_its_own_options_alone(evaluation: Evaluation) -> None:
    defaults = Options.from_text([], evaluation)
    assert defaults.outputs == evaluation.default_outputs
    assert defaults.to_text(evaluation) == {}
    for name in set(OPTIONS) - set(evaluation.options):
        with pytest.raises(OptionError) as caught:
            Options.from_text([(name, "none")], evaluation)
        assert caught.value.field == name
    if "outputs" in evaluation.options:
        with pytest.raises(OptionError) as outputs:
            Options.from_text([("outputs", "hessian_vector_product")], evaluation)
        assert outputs.value.field == "outputs"


def test_options_do_not_change_after_the_check() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().scale = math.nan  # type: ignore[misc]


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
    "1.",
    ".5",
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


@pytest.mark.parametrize("outputs", [(["loss"],), ({},), [["loss"]], (("loss",),)])
def test_outputs_that_are_no_words_are_refused(outputs: Any) -> None:
    with pytest.raises(OptionError, match="unknown output") as refused:
        Options.from_keywords({"outputs": outputs})
    assert refused.value.field == "outputs"

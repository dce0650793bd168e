"""Every option's legal and illegal values, as Python values."""

from __future__ import annotations

import dataclasses
import inspect
import math
from fractions import Fraction
from typing import Any, get_type_hints

import numpy as np
import pytest

import softxent
from softxent import OUTPUTS, OptionError, Options
from softxent.evaluations import EVALUATIONS, OPTIONS, Evaluation
from softxent.options import OptionKeywords

LEGAL: list[tuple[dict[str, Any], str, Any]] = [
    ({"outputs": "loss"}, "outputs", ("loss",)),
    ({"outputs": "rank,loss"}, "outputs", ("loss", "rank")),
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
    ({"outputs": ("loss", "loss")}, "outputs"),
    ({"outputs": ("loss", "hessian")}, "outputs"),
    ({"outputs": ("Loss",)}, "outputs"),
    ({"outputs": "loss,,rank"}, "outputs"),
    ({"outputs": ""}, "outputs"),
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


@pytest.mark.parametrize("outputs", [(["loss"],), ({},), [["loss"]], (("loss",),)])
def test_outputs_that_are_no_words_are_refused(outputs: Any) -> None:
    with pytest.raises(OptionError, match="unknown output") as refused:
        Options.from_keywords({"outputs": outputs})
    assert refused.value.field == "outputs"


def test_help_shows_every_option_with_its_type_and_default() -> None:
    shown = inspect.signature(softxent.cross_entropy).parameters
    fields = {field.name: field for field in dataclasses.fields(Options)}
    types = get_type_hints(Options)
    assert set(get_type_hints(OptionKeywords)) == set(fields)
    for name, field in fields.items():
        assert (shown[name].default, shown[name].annotation) == (field.default, types[name])
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert "outputs" not in inspect.signature(softxent.hessian_vector_product).parameters
    assert list(inspect.signature(softxent.softmax).parameters)[-4:] == [
        "softcap",
        "temperature",
        "non_finite",
        "output_dtype",
    ]

"""Options of an evaluation: one frozen record, validated when it is made.

Each option has the same name as a keyword, a query parameter and a command-line flag.
`Options.from_text` reads the textual form ("none" is the word for null, lists are separated by
commas) and `Options.to_text` writes it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar, get_args, get_type_hints

from softxent.errors import OptionError
from softxent.evaluations import CROSS_ENTROPY, Evaluation
from softxent.hints import LONGEST, unknown
from softxent.option_kinds import Choice, Integer, Kind, Number, OrNone, OutputNames

Reduction = Literal["none", "mean", "sum"]
Smoothing = Literal["all", "others"]
Tail = Literal["renormalize", "bucket", "none"]
MeanOver = Literal["weights", "rows"]
NonFinite = Literal["error", "propagate"]
Empty = Literal["nan", "zero", "error"]
DType = Literal["float64", "float32", "float16", "bfloat16"]


class ProductKeywords(TypedDict, total=False):
    """The fields of `Options` that choose no output, as keyword arguments."""

    reduction: Reduction
    ignore_index: int | None
    label_smoothing: float
    smoothing: Smoothing
    z_loss: float
    softcap: float | None
    temperature: float
    tail: Tail
    hard_weight: float | None
    denominator: float | None
    mean_over: MeanOver
    scale: float
    non_finite: NonFinite
    empty: Empty
    output_dtype: DType | None


class OptionKeywords(ProductKeywords, total=False):
    """The fields of `Options` as keyword arguments; all may be left out."""

    outputs: tuple[str, ...] | list[str] | str


class SoftmaxKeywords(TypedDict, total=False):
    """Options that concern logits alone."""

    softcap: float | None
    temperature: float
    non_finite: NonFinite
    output_dtype: DType | None


class Declared(NamedTuple):
    """Declaration of an option: the kind of its values, and a sentence."""

    kind: Kind
    sentence: str


def _choice(literal: Any) -> Choice:
    return Choice(get_args(literal))


_SHARE, _POSITIVE = Number(least=0, most=1), Number(above=0)


@dataclass(frozen=True)
class Options:
    """Options of the evaluation of a batch.

    Attributes:
        outputs: what is computed, each once; see `softxent.evaluations`.
        reduction: "none" gives a loss a row, "sum" and "mean" one float64.
        ignore_index: rows with this label are left out; None ignores no row.
        label_smoothing: eps in [0, 1]: the target is (1 - eps) of what is given, and eps
            spread evenly over classes.
        smoothing: whether eps is spread over "all" classes or over the "others" alone.
        z_loss: factor, not negative, of the squared log-normaliser that is added to a loss.
        softcap: s > 0 turns each logit x into s tanh(x / s); None leaves it.
        temperature: > 0, divides the logits, after the softcap.
        tail: what becomes of the probability that a top-k target does not name: "renormalize"
            divides by what it names, "bucket" gives the rest to all other classes together,
            "none" leaves it out.
        hard_weight: share in [0, 1] of the label where there is a soft target too.
        denominator: what "mean" divides by, > 0; None divides by what `mean_over` says.
        mean_over: "weights" divides by the sum of weights, "rows" by the rows not ignored.
        scale: a finite factor on loss and gradient, applied before rounding.
        non_finite: "error" refuses rows whose loss or log-normaliser is not finite,
            "propagate" returns them.
        empty: what a mean over no weight is: "nan", "zero" or an "error".
        output_dtype: what outputs of one value a logit are stored in; None is the logits' dtype.

    Raises:
        OptionError: an option has the wrong type, is out of range or does not apply.
    """

    outputs: Annotated[
        tuple[str, ...], Declared(OutputNames(), "What is computed, separated by commas.")
    ] = ("loss", "gradient")
    reduction: Annotated[
        Reduction,
        Declared(_choice(Reduction), "none gives a loss a row, sum and mean one number."),
    ] = "none"
    ignore_index: Annotated[
        int | None,
        Declared(OrNone(Integer()), "Rows with this label are left out; none leaves out no row."),
    ] = -100
    label_smoothing: Annotated[
        float,
        Declared(_SHARE, "The target is (1 - eps) of what is given, and eps spread over classes."),
    ] = 0.0
    smoothing: Annotated[
        Smoothing,
        Declared(
            _choice(Smoothing),
            "Whether eps is spread over all classes or over the others than the label.",
        ),
    ] = "all"
    z_loss: Annotated[
        float,
        Declared(
            Number(least=0), "A factor of the squared log-normaliser, which is added to the loss."
        ),
    ] = 0.0
    softcap: Annotated[
        float | None,
        Declared(OrNone(_POSITIVE), "s turns each logit x into s tanh(x / s)."),
    ] = None
    temperature: Annotated[float, Declared(_POSITIVE, "Divides the logits, after the softcap.")] = (
        1.0
    )
    tail: Annotated[
        Tail,
        Declared(
            _choice(Tail),
            "What becomes of the probability that a top-k target does not name: renormalize"
            " divides by what it names, bucket gives the rest to all other classes together, none"
            " leaves it out.",
        ),
    ] = "renormalize"
    hard_weight: Annotated[
        float | None,
        Declared(
            OrNone(_SHARE), "The label's share where there is a soft target too; then required."
        ),
    ] = None
    denominator: Annotated[
        float | None,
        Declared(OrNone(_POSITIVE), "What mean divides by, in place of what mean_over says."),
    ] = None
    mean_over: Annotated[
        MeanOver,
        Declared(
            _choice(MeanOver),
            "Whether mean divides by the sum of weights or by the rows that are not ignored.",
        ),
    ] = "weights"
    scale: Annotated[
        float, Declared(Number(), "A factor on loss and gradient, applied before rounding.")
    ] = 1.0
    non_finite: Annotated[
        NonFinite,
        Declared(
            _choice(NonFinite), "error refuses rows whose loss or log-normaliser is not finite."
        ),
    ] = "error"
    empty: Annotated[Empty, Declared(_choice(Empty), "What a mean over no weight is.")] = "nan"
    output_dtype: Annotated[
        DType | None,
        Declared(
            OrNone(_choice(DType)),
            "What outputs of one value a logit are stored in; none is the logits' dtype.",
        ),
    ] = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = DECLARED[field.name].kind.check(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        for name in ("denominator", "mean_over"):
            if self.reduction != "mean" and getattr(self, name) != _DEFAULTS[name]:
                raise OptionError(
                    f"{name} applies only with reduction=mean, not {self.reduction}", field=name
                )
        if self.denominator is not None and self.mean_over != "weights":
            raise OptionError(
                "mean_over says what the mean divides by, and so does denominator: give one",
                field="mean_over",
            )

    @classmethod
    def from_keywords(
        cls, given: Mapping[str, Any], evaluation: Evaluation = CROSS_ENTROPY
    ) -> Options:
        """Make options of keyword arguments.

        Raises:
            OptionError: a name is unknown or does not apply, or a value is refused.
        """
        if not given:
            return _default(evaluation)
        for name in given:
            _check_known(name, evaluation)
        if all(map(_is_plain, given.values())):
            # -0.0 equals 0.0, and 1 equals True.
            return _made(evaluation, tuple((n, type(v), str(v), v) for n, v in given.items()))
        return _make(evaluation, given)

    @classmethod
    def for_output(cls, output: str, given: Mapping[str, Any], evaluation: Evaluation) -> Options:
        """Make options of the arguments of a function that returns one output of an evaluation.

        Raises:
            OptionError: a name is unknown or does not apply, or a value is refused.
        """
        return cls.from_keywords(given, _of_one_output(evaluation, output))

    @classmethod
    def from_text(
        cls, pairs: Iterable[tuple[str, str]], evaluation: Evaluation = CROSS_ENTROPY
    ) -> Options:
        """Read options from (name, text) pairs, as a query string or a command line gives them.

        Raises:
            OptionError: a name is unknown, repeated or does not apply, or its text is not a legal
                value.
        """
        given: dict[str, Any] = {}
        for name, text in pairs:
            _check_known(name, evaluation)
            if name in given:
                raise OptionError(f"option {name} is given more than once", field=name)
            given[name] = DECLARED[name].kind.read(name, text)
        return cls.from_keywords(given, evaluation)

    def to_text(self, evaluation: Evaluation = CROSS_ENTROPY) -> dict[str, str]:
        """Return the options that differ from their defaults, in the form `from_text` reads."""
        defaults = {**_DEFAULTS, "outputs": evaluation.default_outputs}
        return {
            name: _as_text(getattr(self, name))
            for name, default in defaults.items()
            if getattr(self, name) != default
        }


DECLARED: dict[str, Declared] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Options, include_extras=True).items()
}
"""What every option is, by name."""

Function = TypeVar("Function", bound=Callable[..., Any])


def shows_options(keywords: type) -> Callable[[Function], Function]:
    """Give a function whose `**options` are of a TypedDict a signature that shows each of them."""

    def decorate(function: Function) -> Function:
        signature, types = inspect.signature(function), get_type_hints(Options)
        *own, _ = signature.parameters.values()
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_DEFAULTS[name],
                annotation=types[name],
            )
            for name in _DEFAULTS
            if name in keywords.__annotations__
        ]
        shown = signature.replace(parameters=[*own, *options])
        function.__signature__ = shown  # type: ignore[attr-defined]
        return function

    return decorate


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Options)}


@functools.cache
def _of_one_output(evaluation: Evaluation, output: str) -> Evaluation:
    names = tuple(name for name in evaluation.options if name != "outputs")
    return dataclasses.replace(evaluation, options=names, default_outputs=(output,))


_HASHED = (str, int, float, bool, type(None))


def _is_plain(value: Any) -> bool:
    """Whether a value can be looked up by; what a tuple holds may not be."""
    held = value if type(value) is tuple else (value,)
    return all(type(one) in _HASHED for one in held)


def _make(evaluation: Evaluation, given: Mapping[str, Any]) -> Options:
    options = Options(**{"outputs": evaluation.default_outputs, **given})
    check_outputs(options, evaluation)
    return options


@functools.cache
def _default(evaluation: Evaluation) -> Options:
    """Return the options of a call that gives none."""
    return _make(evaluation, {})


@functools.lru_cache(maxsize=256)
def _made(evaluation: Evaluation, given: tuple[tuple[str, type, str, Any], ...]) -> Options:
    """Return the options of a call like one before: checks take 15 us, a call of few rows 40."""
    return _make(evaluation, {name: value for name, _, _, value in given})


def check_outputs(options: Options, evaluation: Evaluation) -> None:
    """Refuse outputs that an evaluation does not have.

    Raises:
        OptionError: there is one.
    """
    for name in options.outputs:
        if name not in evaluation.outputs:
            raise OptionError(unknown("output", name, evaluation.outputs), field="outputs")


def _check_known(name: str, evaluation: Evaluation) -> None:
    if name not in evaluation.options:
        raise OptionError(unknown("option", name, evaluation.options), field=name[:LONGEST])


def _as_text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(value)
    return repr(value) if isinstance(value, float) else str(value)

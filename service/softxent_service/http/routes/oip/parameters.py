"""The parameters of a request: the options, and how the call is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from softxent import Options
from softxent.errors import OptionError
from softxent.evaluations import Evaluation
from softxent.options import DECLARED
from softxent_client.wire.json_form import WORDS_AS
from softxent_client.wire.oip_document import refuse_unknown
from softxent_service.http.errors import MalformedRequestError

MICROSECONDS = 1e-6

OWN = ("timeout", "non_finite_json", "content_type", "binary_data_output")
"""Parameters that are no options; the last one is read with the outputs."""


@dataclass(frozen=True)
class Parameters:
    """Parsed parameters.

    Attributes:
        seconds: how long the call may take; None leaves it.
        non_finite: how numbers that JSON lacks are written.
    """

    options: Options
    seconds: float | None
    non_finite: str


def read_parameters(
    given: Mapping[str, Any], outputs: tuple[str, ...], evaluation: Evaluation, longest: float
) -> Parameters:
    """Read the parameters of a request for these outputs.

    An option may be of its own type or text, as query strings have it, since some clients send no
    other; null leaves it at its default.

    Raises:
        UnknownNameError: one is unknown.
        OptionError: an option is not a legal value, or does not apply.
        MalformedRequestError: the time that is asked for is no positive number, or too long.
    """
    if not given:
        return _defaults(outputs, evaluation)
    names = tuple(name for name in evaluation.options if name != "outputs")
    refuse_unknown(given, (*names, *OWN), "the request")
    options = {name: _value(name, given[name]) for name in names if given.get(name) is not None}
    return Parameters(
        _options(options, outputs, evaluation),
        _seconds(given.get("timeout"), longest),
        _non_finite(given.get("non_finite_json")),
    )


@lru_cache(maxsize=256)
def _defaults(outputs: tuple[str, ...], evaluation: Evaluation) -> Parameters:
    return Parameters(_options({}, outputs, evaluation), None, _non_finite(None))


def _options(given: Mapping[str, Any], outputs: tuple[str, ...], evaluation: Evaluation) -> Options:
    asked = {"outputs": outputs} if "outputs" in evaluation.options else {}
    return Options.from_keywords({**given, **asked}, evaluation)


def _value(name: str, value: Any) -> Any:
    return DECLARED[name].kind.read(name, value) if isinstance(value, str) else value


def _seconds(timeout: Any, longest: float) -> float | None:
    if timeout is None:
        return None
    # type() and not isinstance(): true is an int to Python.
    if type(timeout) is not int or not 0 < timeout * MICROSECONDS <= longest:
        raise MalformedRequestError(
            f"timeout must be an integer of microseconds above 0 and at most {longest:g} s",
            field="timeout",
        )
    return timeout * MICROSECONDS


def _non_finite(given: Any) -> str:
    if given is None:
        return "string"
    if not isinstance(given, str) or given not in WORDS_AS:
        raise OptionError(
            f"non_finite_json must be one of {', '.join(WORDS_AS)}", field="non_finite_json"
        )
    return given

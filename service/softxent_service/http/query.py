"""Options of an evaluation, read from the query string."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

from softxent import Options
from softxent.errors import OptionError
from softxent.evaluations import Evaluation
from softxent_client.wire import JSON
from softxent_client.wire.schema import SHOWN

LOGITS_DTYPES = ("float32", "float64", "float16", "bfloat16")
"""What JSON logits may become, the default first."""


@dataclass(frozen=True)
class Query:
    """The options, and what JSON logits become, which only JSON leaves open."""

    evaluation: Evaluation
    options: Options
    logits_dtype: str


KEPT_BYTES = 1 << 10
"""What queries of up to this size say is kept: a client's next call often says the same."""


def read_query(query: bytes, form: str, evaluation: Evaluation) -> Query:
    """Read the options from a raw query string, for a body of media type `form`.

    Raises:
        OptionError: one is unknown, repeated, not a legal value or does not apply.
    """
    read = _read_before if len(query) <= KEPT_BYTES else _read
    return read(query, form, evaluation)


def _read(query: bytes, form: str, evaluation: Evaluation) -> Query:
    # A form's + is a blank, which no option has: it is the sign of a number, as in 1e+06.
    plain = query.decode("latin-1").replace("+", "%2B")
    pairs = parse_qsl(plain, keep_blank_values=True)
    dtypes = [text for name, text in pairs if name == "logits_dtype"]
    named = (pair for pair in pairs if pair[0] != "logits_dtype")
    options = Options.from_text(named, evaluation)
    return Query(evaluation, options, _logits_dtype(dtypes, form))


_read_before = lru_cache(maxsize=256)(_read)


def refuse_any(query: bytes) -> None:
    """Refuse a query string where no option applies.

    Raises:
        OptionError: there is one.
    """
    if query:
        name = query.decode("latin-1").partition("=")[0][:SHOWN]
        raise OptionError(f"option {name!r} does not apply here; none does", field=name)


def _logits_dtype(given: list[str], form: str) -> str:
    if not given:
        return LOGITS_DTYPES[0]
    if len(given) > 1:
        raise _refuse("option logits_dtype is given more than once")
    if form != JSON:
        raise _refuse(f"logits_dtype applies only to {JSON}; {form} carries its own")
    if given[0] not in LOGITS_DTYPES:
        known = ", ".join(LOGITS_DTYPES)
        raise _refuse(f"logits_dtype must be one of {known}, not {given[0][:SHOWN]!r}")
    return given[0]


def _refuse(message: str) -> OptionError:
    return OptionError(message, field="logits_dtype")

"""Content negotiation: Content-Type, Accept, Content-Encoding and Request-Timeout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from starlette.types import Scope

from softxent_client.wire import JSON, MEDIA_TYPES
from softxent_client.wire.schema import SHOWN
from softxent_service.http.errors import (
    HeadTooLargeError,
    MalformedRequestError,
    NotAcceptableError,
    UnsupportedMediaTypeError,
)
from softxent_service.http.limits.compression import CODINGS

FORMS = tuple(MEDIA_TYPES)

LONGEST_FIELD = 4 << 10
"""Bytes that Accept, all lines of it, and Content-Type may have: browsers send 150."""

PLAIN = (b"identity", b"")
"""What Content-Encoding says of a body that is not coded; an empty list is no coding."""


@dataclass(frozen=True)
class Head:
    """Headers of a request that describe its body and its answer.

    Attributes:
        coding: a key of `CODINGS`, None for a plain body.
    """

    form: str
    answer_form: str
    content_length: bytes | None
    coding: bytes | None
    timeout: bytes | None


def read_head(scope: Scope, forms: tuple[str, ...] = FORMS) -> Head:
    """Return what the headers say, where bodies and answers may have one of `forms`.

    Raises:
        UnsupportedMediaTypeError: the body's media type, charset or coding is not read here, or
            there are two media types.
        NotAcceptableError: the client accepts no form that is written here.
    """
    content_type = length = timeout = None
    accepts: list[bytes] = []
    codings: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"content-type":
            if content_type is not None:
                raise UnsupportedMediaTypeError(
                    "Content-Type is given more than once", field="content-type"
                )
            content_type = value
        elif name == b"content-length":
            length = value
        elif name == b"request-timeout":
            timeout = value
        elif name == b"accept":
            accepts.append(value)
        elif name == b"content-encoding":
            codings.append(value)
    _check_lengths(content_type, accepts)
    forms_of_both = _negotiate(content_type, b",".join(accepts), forms)
    return Head(*forms_of_both, length, coding_of(b",".join(codings)), timeout)


def _check_lengths(content_type: bytes | None, accepts: list[bytes]) -> None:
    """Refuse what would take long to read, and much memory to remember."""
    for name, size in (
        ("Content-Type", len(content_type or b"")),
        ("Accept", sum(map(len, accepts)) + len(accepts)),
    ):
        if size > LONGEST_FIELD:
            raise HeadTooLargeError(f"{name} has {size} bytes and may have {LONGEST_FIELD}")


def coding_of(named: bytes) -> bytes | None:
    """Return how a body is coded, by the value of Content-Encoding; None for a plain one.

    Raises:
        UnsupportedMediaTypeError: in a way that is not read here.
    """
    coding = named.strip().lower()
    if coding in PLAIN:
        return None
    if coding not in CODINGS:
        known = ", ".join(name.decode() for name in CODINGS)
        shown = named[:SHOWN].decode("latin-1")
        raise UnsupportedMediaTypeError(
            f"content-encoding {shown!r} is not read here; known are {known}",
            field="content-encoding",
        )
    return coding


@lru_cache(maxsize=256)
def _negotiate(
    content_type: bytes | None, accept: bytes, forms: tuple[str, ...]
) -> tuple[str, str]:
    given = _request_form(content_type, forms)
    return given, _answer_form(accept, given, forms)


def _request_form(content_type: bytes | None, forms: tuple[str, ...]) -> str:
    known = " or ".join(forms)
    if content_type is None:
        raise UnsupportedMediaTypeError(
            f"Content-Type is missing; send {known}", field="content-type"
        )
    name, parameters = _parse(content_type.decode("latin-1"))
    if name not in forms:
        raise UnsupportedMediaTypeError(
            f"Content-Type {name[:SHOWN]!r} is not read here; send {known}", field="content-type"
        )
    charset = parameters.get("charset", "utf-8")
    if name == JSON and charset.lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaTypeError(
            f"charset {charset!r} is not read here; send UTF-8", field="content-type"
        )
    return name


def _answer_form(accept: bytes, given: str, forms: tuple[str, ...]) -> str:
    text = accept.decode("latin-1")
    ranges = [_parse(part) for part in text.split(",") if part.strip()]
    if not ranges:
        return given
    # The request's form stands first: max takes it where another is liked as much.
    best = max(sorted(forms, key=lambda form: form != given), key=lambda f: _quality(f, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptableError(
            f"Accept {text[:SHOWN]!r} leaves nothing; accept {' or '.join(forms)}", field="accept"
        )
    return best


def _quality(form: str, ranges: list[tuple[str, dict[str, str]]]) -> float:
    """Return the q of the most specific range that covers `form`, 0 if none does."""
    for pattern in (form, form.split("/")[0] + "/*", "*/*"):
        for name, parameters in ranges:
            if name == pattern:
                return _q(parameters.get("q", "1"))
    return 0.0


def _q(text: str) -> float:
    q = _number(text)
    return q if 0 <= q <= 1 else 0.0


_SECONDS = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?:[eE][+-]?[0-9]{1,2})?")
"""A decimal number, as programs write it; Python's own also reads underscores and words."""


def seconds_of(timeout: bytes | None, default: float, longest: float) -> float:
    """Return how long a call may take, as its header Request-Timeout asks.

    Raises:
        MalformedRequestError: it asks for no positive number of seconds, or for too many.
    """
    if timeout is None:
        return default
    seconds = _number(timeout.decode("latin-1"))
    if not 0 < seconds <= longest:
        raise MalformedRequestError(
            f"Request-Timeout must be a number of seconds above 0 and at most {longest:g}",
            field="request-timeout",
        )
    return seconds


def _number(text: str) -> float:
    return float(text) if _SECONDS.fullmatch(text) else 0.0


def _parse(text: str) -> tuple[str, dict[str, str]]:
    """Return a media type or range in lower case, and its parameters."""
    name, *rest = text.split(";")
    pairs = (part.partition("=") for part in rest)
    parameters = {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}
    return name.strip().lower(), parameters

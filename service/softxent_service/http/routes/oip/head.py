"""Headers of an inference request; Content-Type is not among them, since no client sets it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

from softxent_client.wire import MalformedBodyError
from softxent_service.http.negotiation import coding_of

HEADER_LENGTH = b"inference-header-content-length"

MOST_DIGITS = 19


@dataclass(frozen=True)
class InferHead:
    """Headers of an inference request.

    Attributes:
        coding: a key of `CODINGS`, None for a plain body.
        header_length: how many bytes of the body are JSON; None for all of them.
    """

    content_length: bytes | None
    coding: bytes | None
    header_length: int | None
    accept_encoding: bytes | None
    timeout: bytes | None


def read_infer_head(scope: Scope) -> InferHead:
    """Return what the headers of a request say.

    Raises:
        MalformedBodyError: the length of the JSON is no number, or there are two.
        UnsupportedMediaTypeError: the body is coded in a way that is not read here.
    """
    length = timeout = None
    accepted: list[bytes] = []
    codings: list[bytes] = []
    header_lengths: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == HEADER_LENGTH:
            header_lengths.add(value.strip())
        elif name == b"content-length":
            length = value
        elif name == b"accept-encoding":
            accepted.append(value)
        elif name == b"request-timeout":
            timeout = value
        elif name == b"content-encoding":
            codings.append(value)
    return InferHead(
        length,
        coding_of(b",".join(codings)),
        _header_length(header_lengths),
        b",".join(accepted) if accepted else None,
        timeout,
    )


def _header_length(given: set[bytes]) -> int | None:
    if not given:
        return None
    text = given.pop()
    digits = text.removeprefix(b"-")
    if given or not digits.isdigit() or len(digits) > MOST_DIGITS:
        raise MalformedBodyError(
            "Inference-Header-Content-Length is not one number of bytes",
            field="inference-header-content-length",
        )
    return int(text)

"""Compression of responses: whether, and in which coding."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from softxent_service.http.negotiation import LONGEST_FIELD
from softxent_service.http.response import Piece

WINDOWS = {"gzip": 31, "deflate": 15}
"""The codings that every client of the protocol reads, and zlib's number for their wrappers."""

TEXT_BYTES = 64 << 10
"""JSON alone is compressed from this size on for a client that would take several codings."""

LEVEL = 1
"""Digits shrink to half at 60 MB/s; higher levels take three times as long for a tenth less."""

_STEP = 1 << 20


def coding_of(accepted: bytes | None, size: int, *, is_text: bool) -> str | None:
    """Return how to compress an answer of `size` bytes, None not to.

    Some clients always say that they take several codings, without anybody's having asked for it,
    and float tensors barely shrink. So compression is what a client has asked for who names one.
    """
    if accepted is None or len(accepted) > LONGEST_FIELD or not size:
        return None
    weights = _weights(accepted.decode("latin-1"))
    codings = [coding for coding, weight in weights.items() if coding != "identity" and weight > 0]
    known = [coding for coding in codings if coding in WINDOWS]
    if not known or (len(codings) > 1 and not (is_text and size >= TEXT_BYTES)):
        return None
    best = max(known, key=lambda coding: weights[coding])
    return None if weights.get("identity", 0) > weights[best] else best


def compressed(pieces: Sequence[Piece], coding: str) -> Iterator[bytes]:
    """Yield the pieces compressed, about a megabyte of them at a time."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOWS[coding])
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), _STEP):
            yield compressor.compress(view[start : start + _STEP])
    yield compressor.flush()


def _weights(accepted: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        coding, *parameters = (word.strip() for word in part.split(";"))
        if coding:
            weights.setdefault(coding, _weight(parameters))
    return weights


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0

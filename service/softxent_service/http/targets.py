"""What a request names: always with a path."""

from __future__ import annotations

import httptools

from softxent_service.http.errors import MalformedRequestError


def rooted(target: bytes) -> bytes:
    """Return an absolute target with "/" where its path is empty (RFC 9110, 4.2.3).

    Raises:
        MalformedRequestError: it is no target.
    """
    try:
        parsed = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise MalformedRequestError("the request target is neither a path nor a URL") from None
    return target if parsed.path else b"/?" + (parsed.query or b"")

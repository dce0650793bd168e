"""Upgrade offers (`Upgrade: h2c`, `websocket`), which are ignored.

RFC 9110 (7.8) allows that, and clients that make the offer read the plain answer. The parser,
though, takes such a head for the whole message and loses the body.
"""

from __future__ import annotations

from collections.abc import Iterable

import httptools

from softxent_service.http.errors import MalformedRequestError


def head_without_offer(
    parser: httptools.HttpRequestParser, url: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """Return the head that `parser` has just read, without its offer.

    Raises:
        MalformedRequestError: the method is CONNECT, after which no message follows.
    """
    method, version = parser.get_method(), parser.get_http_version()
    if method == b"CONNECT":
        raise MalformedRequestError("CONNECT asks for a tunnel, and there is none here")
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])

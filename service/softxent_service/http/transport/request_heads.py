"""Rules for request heads that the parser does not enforce (RFC 9112)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import httptools

from softxent_service.http.errors import MalformedRequestError, UnsupportedMediaTypeError

VERSIONS = ("1.1", "1.0")

LARGEST_PORT = 65535

_NAME = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
"""A registered name or an IPv4 address; it may be empty (RFC 3986, 3.2.2)."""


def check_head(version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a head whose message could mean two things, or goes to no host.

    Raises:
        MalformedRequestError: the version is not served; Host is missing, repeated or malformed;
            Transfer-Encoding does not end in `chunked`, or stands in HTTP/1.0, which lacks it.
        UnsupportedMediaTypeError: there is another Transfer-Encoding before `chunked`.
    """
    if version not in VERSIONS:
        raise MalformedRequestError(f"HTTP/{version} is not served; send HTTP/1.1")
    hosts, codings = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if codings:
        _check_coding(version, b",".join(codings))
    if len(hosts) != 1 and (hosts or version == "1.1"):
        found = "missing" if not hosts else f"given {len(hosts)} times"
        raise MalformedRequestError(f"Host is {found}; send it once", field="host")
    if hosts and not _is_authority(hosts[0]):
        raise MalformedRequestError(
            "Host is malformed; send host or host:port, with an IPv6 address in brackets",
            field="host",
        )


def rooted(target: bytes) -> bytes:
    """Return a target that is a URL with "/" where its path is empty (RFC 9110, 4.2.3).

    Raises:
        MalformedRequestError: it is no URL of a service like this.
    """
    scheme, slashes, rest = target.partition(b"://")
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
    if slashes and scheme.lower() in (b"http", b"https") and authority and _is_authority(authority):
        try:
            parsed = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            parsed = None
        if parsed is not None:
            return target if parsed.path else b"/?" + (parsed.query or b"")
    raise MalformedRequestError("the request target is neither a path nor an http URL")


def _check_coding(version: str, value: bytes) -> None:
    if version == "1.0":
        raise MalformedRequestError(
            "HTTP/1.0 has no Transfer-Encoding; send Content-Length, or HTTP/1.1",
            field="transfer-encoding",
        )
    if value.rpartition(b",")[2].strip().lower() != b"chunked":
        raise MalformedRequestError(
            "Transfer-Encoding does not end in chunked, so that the body has no end",
            field="transfer-encoding",
        )
    if value.lower() != b"chunked":
        raise UnsupportedMediaTypeError(
            f"Transfer-Encoding {value.decode('latin-1')!r} is not read here; send chunked alone",
            field="transfer-encoding",
        )


def _is_authority(text: bytes) -> bool:
    """Tell whether `text` is a host, or a host and a port (RFC 3986, 3.2)."""
    host, colon, port = text.rpartition(b":")
    if text.endswith(b"]") or not colon:
        host, port = text, b""
    if port and not (port.isdigit() and len(port) <= 5 and int(port) <= LARGEST_PORT):
        return False
    if host.startswith(b"["):
        return host.endswith(b"]") and _is_ipv6(host[1:-1])
    return _NAME.fullmatch(host) is not None


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode("latin-1"))
    except ValueError:
        return False
    return True

"""Requests and answers as values."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from softxent import errors as library
from softxent_client.errors import ServiceError
from softxent_client.wire import JSON
from softxent_client.wire import errors as wire

PIECE_BYTES = 1 << 20
"""Bytes handed to the transport at once; it copies what a socket did not take, over and over."""

RECEIVED = "softxent_received"
"""The extension of a response that holds its body; httpx's own would be joined from pieces."""

PROBLEM = "application/problem+json"
PROBLEM_PREFIX = "urn:softxent:problem:"

PROBLEM_BYTES = 1 << 16
"""A longer problem document is refused unread. The service's own are below 4 KiB."""

PROBLEM_DEPTH = 16
"""Levels of a problem document. Python cannot copy or pickle what is nested some hundred deep."""

Buffer = bytes | memoryview


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Buffers sent one after another without being joined; can be sent again for a retry."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self.parts = [memoryview(part) for part in parts]
        self.nbytes = sum(part.nbytes for part in self.parts)

    def __iter__(self) -> Iterator[bytes]:
        """Yield views of at most 1 MiB."""
        for part in self.parts:
            for start in range(0, part.nbytes, PIECE_BYTES):
                # httpx says bytes, and every layer below takes any buffer.
                yield part[start : start + PIECE_BYTES]  # type: ignore[misc]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the same as `__iter__`."""
        for piece in self:
            yield piece


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    body: Body | None = None
    retried: bool = True


@dataclass(frozen=True)
class Answer:
    """One answer, its body in one buffer.

    The buffer grew as bytes came: what a header announces may be a lie, and a buffer of 131 MB made
    in advance, which Python fills with zeros, took 108 ms to be filled, a growing one 98 ms.
    """

    status: int
    content_type: str
    body: bytearray | memoryview


def answer(response: httpx.Response) -> Answer:
    """Return what a response said whose body was received into its extensions."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise ServiceError(
            f"the answer is encoded as {_printable(coding[:100])}, which was not asked for;"
            " let no proxy compress answers",
            status=response.status_code,
        )
    return Answer(response.status_code, media_type(response.headers), response.extensions[RECEIVED])


def media_type(headers: Mapping[str, str]) -> str:
    """Return the media type of an answer without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_too_long(status: int, length: int) -> bool:
    """Tell whether no more of an answer need be read: it is no result, and long."""
    return not 200 <= status < 300 and length > PROBLEM_BYTES


def checked(answer: Answer, content_type: str = JSON) -> Answer:
    """Return a successful answer of the expected type; raise what any other answer means.

    Raises:
        SoftxentError: the library's own exception for a problem it knows, else ServiceError.
    """
    if 200 <= answer.status < 300 and answer.content_type == content_type:
        return answer
    if answer.content_type == PROBLEM:
        raise problem_error(answer.status, answer.body)
    raise ServiceError(
        f"the service answered with status {answer.status} and"
        f" {_printable(answer.content_type[:100]) or 'no type'}, expected {content_type};"
        " a proxy or another server may have answered in its place",
        status=answer.status,
    )


def document(answer: Answer) -> dict[str, Any]:
    """Return the JSON object that an answer holds.

    Raises:
        SoftxentError: as `checked`, or ServiceError because it is not a JSON object.
    """
    return json_object(checked(answer).body, "the answer", answer.status)


def json_object(text: Buffer | bytearray | str, what: str, status: int) -> dict[str, Any]:
    """Return the JSON object that `text` is.

    Raises:
        ServiceError: it is none; `what` names the text in the message.
    """
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError:
        members = None
    if not isinstance(members, dict):
        raise ServiceError(f"{what} is not a JSON object", status=status)
    return members


def problem_error(status: int, body: Buffer | bytearray) -> library.SoftxentError:
    """Return the exception that a problem document describes, with its fields.

    The library's exceptions take only fields of their own types; a document with other ones, or
    of no known type, becomes a ServiceError that keeps the document.
    """
    try:
        members = _problem_members(status, body)
    except ServiceError as error:
        return error
    slug = _text(members, "type").removeprefix(PROBLEM_PREFIX)
    message = _text(members, "detail") or _text(members, "title") or slug
    cls = _known_errors().get(slug)
    if cls is not None and message:
        fields = {name: members[name] for name in _fields(cls) if name in members}
        if all(FIELD_CHECKS[name](value) for name, value in fields.items()):
            return cls(message, **fields)
    message = message or f"the service answered with status {status} and a problem without detail"
    return ServiceError(message, status=status, problem_slug=slug or None, members=members)


def _problem_members(status: int, body: Buffer | bytearray) -> dict[str, Any]:
    """Return the members of a problem document that is small enough to be printed and copied."""
    what = "the problem document"
    if len(body) > PROBLEM_BYTES:
        raise ServiceError(f"{what} is longer than {PROBLEM_BYTES} bytes", status=status)
    members = json_object(body, what, status)
    level: list[Any] = [members]
    for _ in range(PROBLEM_DEPTH):
        nested = (value for value in level if isinstance(value, dict | list))
        level = [v for value in nested for v in (value.values() if type(value) is dict else value)]
    if level:
        raise ServiceError(f"{what} is nested over {PROBLEM_DEPTH} levels deep", status=status)
    return members


def _text(members: Mapping[str, Any], name: str) -> str:
    """Return a member that is text, as a terminal can show it; else nothing."""
    value = members.get(name)
    return _printable(value) if isinstance(value, str) else ""


def _printable(text: str) -> str:
    """Return `text` with an escape for each character that would control a terminal or a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_integer(value: object) -> bool:
    return type(value) is int


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are(kinds: tuple[type, ...]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(type(one) in kinds for one in value)


FIELD_CHECKS: Mapping[str, Callable[[object], bool]] = {
    "field": lambda value: value is None or _is_text(value),
    "rows": _are((int,)),
    "values": _are((bool, int, float, str)),
    "total": _is_integer,
    "limit_name": _is_text,
    "limit": _is_integer,
}
"""What each field of the library's exceptions may be in a problem document."""


def _fields(cls: type[library.SoftxentError]) -> list[str]:
    """Return the fields of an exception: what it takes beside its message."""
    return [name for name in inspect.signature(cls).parameters if name != "message"]


def _known_errors() -> dict[str, type[library.SoftxentError]]:
    """Return the exceptions that cross the wire, by slug."""
    return {
        value.slug: value
        for module in (library, wire)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, library.SoftxentError)
    }

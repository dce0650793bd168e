"""Requests and answers as values: what is sent, what came back, and nothing that sends."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from softxent import errors as library
from softxent_client.errors import ServiceError
from softxent_client.wire import errors as wire

PIECE_BYTES = 1 << 20
"""Bytes handed to the transport at once; it copies what a socket did not take, over and over."""

RECEIVED = "softxent_received"
"""The extension of a response that holds its body; httpx's own would be joined from pieces."""

PROBLEM = "application/problem+json"
PROBLEM_PREFIX = "urn:softxent:problem:"

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
    body: bytearray


def build(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    """Return the request to send; answers are asked for uncompressed, so that they are arrays."""
    headers = {"accept-encoding": "identity"}
    if call.content_type is not None and call.body is not None:
        headers["content-type"] = headers["accept"] = call.content_type
        headers["content-length"] = str(call.body.nbytes)
    request = http.build_request(call.method, call.path, params=call.params, headers=headers)
    if call.body is not None:
        request.stream = call.body
    return request


def answer(response: httpx.Response) -> Answer:
    """Return what a response said whose body was received into its extensions."""
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Answer(response.status_code, content_type, response.extensions[RECEIVED])


def checked(answer: Answer, content_type: str = "application/json") -> Answer:
    """Return an answer of status 200 and the expected type, and raise what any other one means.

    Raises:
        SoftxentError: the library's own exception for a problem it knows, else ServiceError.
    """
    if answer.status == 200 and answer.content_type == content_type:
        return answer
    if answer.content_type == PROBLEM:
        raise problem_error(answer.status, answer.body)
    raise ServiceError(
        f"the service answered with status {answer.status} and {answer.content_type or 'no type'},"
        f" expected {content_type}",
        status=answer.status,
    )


def document(answer: Answer) -> dict[str, Any]:
    """Return the JSON object that an answer holds.

    Raises:
        SoftxentError: as `checked`, or ServiceError because it is not a JSON object.
    """
    members = _object(checked(answer).body)
    if members is None:
        raise ServiceError("the answer is not a JSON object", status=answer.status)
    return members


def problem_error(status: int, body: bytearray) -> library.SoftxentError:
    """Return the exception that a problem document describes, with its fields."""
    members = _object(body)
    if members is None:
        return ServiceError("the problem document is not a JSON object", status=status)
    slug = str(members.get("type", "")).removeprefix(PROBLEM_PREFIX)
    message = str(members.get("detail", members.get("title", slug)))
    cls = _known_errors().get(slug)
    if cls is not None:
        known = {k: v for k, v in members.items() if k in inspect.signature(cls).parameters}
        try:
            return cls(message, **known)
        except TypeError:
            pass  # A member of an unexpected type; the document itself is still worth having.
    return ServiceError(message, status=status, problem_slug=slug, members=members)


def _object(body: bytearray) -> dict[str, Any] | None:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return members if isinstance(members, dict) else None


def _known_errors() -> dict[str, type[library.SoftxentError]]:
    """Return the exceptions that cross the wire, by slug."""
    return {
        value.slug: value
        for module in (library, wire)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, library.SoftxentError)
    }

"""Code that the synchronous and the asynchronous client share: everything that does not wait.

A method is a generator that yields a call, is handed its answer and returns the result, so that
the two clients differ only in how they send one call.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import httpx
import numpy as np
import numpy.typing as npt
from httpx_retries import Retry

from softxent.errors import TensorError
from softxent.evaluations import CROSS_ENTROPY, Evaluation, given_tensors
from softxent.explanation import Explanation
from softxent.options import Options
from softxent.results import CrossEntropyResult, Floats
from softxent_client.batches import ASK_LIMIT_BYTES, Form, in_parts, prepare, whole
from softxent_client.errors import ServiceError, ServiceUnavailableError
from softxent_client.explained import explanation_of
from softxent_client.messages import Answer, Body, Call, document
from softxent_client.prepared import Requests
from softxent_client.wire import JSON, SAFETENSORS, LimitExceededError, json_form

Encoding = Literal["binary", "json"]
Timeout = float | httpx.Timeout | None
T = TypeVar("T")
Steps = Generator[Call, Answer, T]

FORMS = {"binary": Form(SAFETENSORS, "binary_bytes"), "json": Form(JSON, "json_bytes")}

RETRIES = 3

_RETRIED_STATUSES = (429, 503)
_RETRIED_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
)


def retry_policy(retries: int) -> Retry:
    """Return when a request is sent again, at most `retries` times.

    After connect errors, a connection that ended before its answer did, 429 and 503, with the
    service's Retry-After (at most 30 s) or else a growing pause; not after a read time-out, whose
    evaluation may still run. POST is among the methods because an evaluation changes nothing on
    the service.
    """
    return Retry(
        total=retries,
        allowed_methods=("GET", "POST"),
        status_forcelist=_RETRIED_STATUSES,
        retry_on_exceptions=_RETRIED_ERRORS,
        backoff_factor=0.1,
        max_backoff_wait=30.0,
    )


class Bearer(httpx.Auth):
    """Key of a client; no header of the client holds it, which its repr or a log may show."""

    def __init__(self, key: str) -> None:
        """Take a key.

        Raises:
            ValueError: it cannot stand in a header; the message does not show it.
        """
        if not key.isascii() or not key.isprintable() or not key or " " in key:
            raise ValueError("key must be printable ASCII without spaces")
        self._value = f"Bearer {key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header Authorization."""
        request.headers["authorization"] = self._value
        yield request


class Shared:
    """Base of both clients: the calls that a method makes, and the meaning of their answers."""

    def __init__(
        self, url: httpx.URL, encoding: Encoding, key: str | None, timeout: Timeout
    ) -> None:
        if encoding not in FORMS:
            raise ValueError(f"encoding must be one of {', '.join(FORMS)}, not {encoding!r}")
        self._form = FORMS[encoding]
        self._requests = Requests(url, None if key is None else Bearer(key), timeout)
        self._limit: int | None = None

    def _cross_entropy_steps(self, arguments: Mapping[str, Any]) -> Steps[CrossEntropyResult]:
        options = Options.from_keywords(arguments["options"])
        tensors = given_tensors(arguments, CROSS_ENTROPY)
        results = yield from self._evaluation_steps(CROSS_ENTROPY, tensors, options)
        return CrossEntropyResult(**results)

    def _output_steps(
        self, output: str, evaluation: Evaluation, arguments: Mapping[str, Any]
    ) -> Steps[Floats]:
        """Return one output of an evaluation, for the arguments of the function that does."""
        options = Options.for_output(output, arguments["options"], evaluation)
        tensors = given_tensors(arguments, evaluation)
        results = yield from self._evaluation_steps(evaluation, tensors, options)
        array: Floats = results[output]
        return array

    def _evaluation_steps(
        self, evaluation: Evaluation, tensors: Mapping[str, Any], options: Options
    ) -> Steps[dict[str, Any]]:
        request = prepare(evaluation, tensors, options)
        while True:
            body = self._form.body(request, slice(0, request.batch.rows))
            limit = yield from self._limit_steps(body.nbytes)
            try:
                if body.nbytes <= limit:
                    return (yield from whole(self._form, body, request))
                del body
                return (yield from in_parts(self._form, request, limit))
            except LimitExceededError as refusal:
                if not self._form.lowers(refusal, limit):
                    raise
                self._limit = refusal.limit

    def _limit_steps(self, nbytes: int) -> Steps[int]:
        """Return the service's limit, which a body of `nbytes` may find out by being sent."""
        if self._limit is None:
            if nbytes <= ASK_LIMIT_BYTES:
                return ASK_LIMIT_BYTES
            self._limit = _limit((yield from self._info_steps()), self._form.limit_name)
        return self._limit

    def _info_steps(self) -> Steps[dict[str, Any]]:
        return document((yield Call("GET", "/v1/info")))

    def _explain_steps(
        self,
        logits: npt.ArrayLike,
        label: int | None,
        target_probabilities: npt.ArrayLike | None,
    ) -> Steps[Explanation]:
        given = {"logits": logits, "label": label, "target_probabilities": target_probabilities}
        arrays = {name: _array(name, value) for name, value in given.items() if value is not None}
        body = Body(list(json_form.encode(arrays)))
        return explanation_of(document((yield Call("POST", "/v1/explain", {}, JSON, body))))

    def _health_steps(self) -> Steps[bool]:
        return (yield Call("GET", "/v2/health/ready", retried=False)).status == 200


def _limit(info: dict[str, Any], name: str) -> int:
    limits = info.get("limits")
    limit = limits.get(name) if isinstance(limits, dict) else None
    if not isinstance(limit, int):
        raise ServiceError(f"the service does not say its limit {name}")
    return limit


def _array(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TensorError(f"{name} is not a rectangular array: {error}", field=name) from None
    if array.dtype.kind not in "fiub":
        raise TensorError(f"{name} must be numbers, not {array.dtype}", field=name)
    # The shortest digits of a float32 are not its value in float64.
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def service_url(base_url: str) -> httpx.URL:
    """Return where the service is.

    Raises:
        ValueError: it is not an http or https URL with a host.
    """
    try:
        url = httpx.URL(base_url)
        # Sockets encode names so, and would raise this at the first call.
        url.raw_host.decode().encode("idna")
        valid = url.scheme in ("http", "https") and url.host and (url.port or 0) < 1 << 16
    except (httpx.InvalidURL, UnicodeError):
        valid = False
    if not valid:
        raise ValueError(f'base_url must be like "http://127.0.0.1:8000", not {base_url!r}')
    return url


@contextmanager
def connection_errors() -> Iterator[None]:
    """Turn what httpx raises into ServiceUnavailableError."""
    try:
        yield
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise ServiceUnavailableError(f"no complete answer from the service: {reason}") from error

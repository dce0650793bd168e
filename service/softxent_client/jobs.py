"""Client of jobs: submission, list, state, events and cancellation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from softxent_client.errors import ForkError, ServiceError, ServiceUnavailableError
from softxent_client.messages import (
    Answer,
    checked,
    document,
    is_too_long,
    json_object,
    media_type,
)
from softxent_client.per_process import PerProcess
from softxent_client.shared import Bearer, service_url

PATH = "/v1/jobs"

ARRAYS_PATH = "/v1/arrays"

EVENTS = "text/event-stream"

ENDS = ("succeeded", "failed", "cancelled")

RECONNECT_SECONDS = 1.0
"""How long to wait before a stream of events that ended is asked for again."""

TIMEOUT = httpx.Timeout(60.0, connect=5.0)

Json = dict[str, Any]


class Jobs:
    """The jobs of the service at `base_url`; each is a dict, as the service's documents tell.

    Args:
        key: what the service lets this client in by, for the scope `jobs`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        url, auth = service_url(base_url), None if key is None else Bearer(key)
        given = dict(headers or {})
        self._connections = PerProcess(
            lambda: httpx.Client(base_url=url, timeout=TIMEOUT, headers=given, auth=auth)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if (http := self._connections.existing()) is not None:
            http.close()

    def submit(self, job: Mapping[str, Any], *, key: str | None = None) -> Json:
        """Submit a job; with a key it is safe to submit again.

        Args:
            job: tensors and `output` as URLs, `on_error`, and options by name.
            key: the same key with the same job is the same job.

        Raises:
            SoftxentError: the service refuses it, or cannot be reached.
        """
        headers = {} if key is None else {"idempotency-key": key}
        return self._ask("POST", PATH, json=dict(job), headers=headers)

    def show(self, job_id: str) -> Json:
        """Return a job."""
        return self._ask("GET", _job_path(job_id))

    def list(self, *, states: str = "", limit: int = 50, cursor: str | None = None) -> Json:
        """Return `jobs`, the newest first, and `next`, the cursor of those that follow."""
        given = {"limit": str(limit), "state": states, "cursor": cursor}
        return self._ask("GET", PATH, params={name: text for name, text in given.items() if text})

    def arrays(self, *, limit: int = 50, cursor: str | None = None) -> Json:
        """Return `arrays` below the roots, by name, and `next`, the cursor of those that follow."""
        given = {"limit": str(limit), "cursor": cursor}
        found = {name: text for name, text in given.items() if text}
        return self._ask("GET", ARRAYS_PATH, params=found)

    def cancel(self, job_id: str) -> Json:
        """Cancel a job that is queued or running, and return it."""
        return self._ask("POST", f"{_job_path(job_id)}/cancel")

    def watch(self, job_id: str, *, reconnect_seconds: float = 60.0) -> Iterator[Json]:
        """Yield a job as it is, and again whenever there is news, until it has ended.

        Args:
            reconnect_seconds: seconds for which the service may be unreachable.

        Raises:
            ServiceError: the service refuses, or sends what is no job.
            ServiceUnavailableError: the service sent no event for `reconnect_seconds` seconds.
            ForkError: a forked child goes on with its parent's iterator.
        """
        last, reached = "", time.monotonic()
        while True:
            ended: ServiceError = ServiceUnavailableError("the service sends no events")
            try:
                for event, job in self._events(job_id, last):
                    last, reached = event, time.monotonic()
                    yield job
                    if job["state"] in ENDS:
                        return
            except httpx.HTTPError as error:
                ended = _unreachable(error)
            except ServiceError as error:
                if error.status != 503:
                    raise
                ended = error
            if time.monotonic() - reached > reconnect_seconds:
                raise ended
            time.sleep(RECONNECT_SECONDS)

    def _events(self, job_id: str, last: str) -> Iterator[tuple[str, Json]]:
        headers = {"last-event-id": last} if last else {}
        url, http = f"{_job_path(job_id)}/events", self._connections.get()
        with http.stream("GET", url, headers=headers) as response:
            if response.status_code != 200 or media_type(response.headers) != EVENTS:
                checked(_received(response), EVENTS)
            event = ""
            for line in response.iter_lines():
                name, _, text = line.partition(": ")
                if name == "id":
                    event = text
                elif name == "data":
                    yield event, _job(text)
                    if self._connections.existing() is not http:
                        raise ForkError(
                            "this watch belongs to the parent process; call watch again"
                        )

    def _ask(self, method: str, path: str, **rest: Any) -> Json:
        http = self._connections.get()
        try:
            with http.stream(method, path, **rest) as response:
                return document(_received(response))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error


def _job_path(job_id: str) -> str:
    return f"{PATH}/{quote(job_id, safe='')}"


def _received(response: httpx.Response) -> Answer:
    """Return a whole answer, or the beginning of a long one that is no result."""
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if is_too_long(response.status_code, len(body)):
            break
    return Answer(response.status_code, media_type(response.headers), body)


def _job(text: str) -> Json:
    job = json_object(text, "an event of a job", 200)
    if not isinstance(job.get("state"), str):
        raise ServiceError("an event of a job has no state", status=200)
    return job


def _unreachable(error: httpx.HTTPError) -> ServiceUnavailableError:
    return ServiceUnavailableError(f"no complete answer from the service: {error}")

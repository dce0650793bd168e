"""Jobs of a service: submitted, shown, listed, watched, cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from softxent_client.errors import ServiceError, ServiceUnavailableError
from softxent_client.messages import PROBLEM, problem_error
from softxent_client.shared import Bearer, service_url

PATH = "/v1/jobs"

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
        url = service_url(base_url)
        self._http = httpx.Client(
            base_url=url,
            timeout=TIMEOUT,
            headers=dict(headers or {}),
            auth=None if key is None else Bearer(key),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

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
        return self._ask("GET", f"{PATH}/{job_id}")

    def list(self, *, states: str = "", limit: int = 50, cursor: str | None = None) -> Json:
        """Return `jobs`, the newest first, and `next`, the cursor of those that follow."""
        given = {"limit": str(limit), "state": states, "cursor": cursor}
        return self._ask("GET", PATH, params={name: text for name, text in given.items() if text})

    def cancel(self, job_id: str) -> Json:
        """Cancel a job that is queued or running, and return it."""
        return self._ask("POST", f"{PATH}/{job_id}/cancel")

    def watch(self, job_id: str, *, patience: float = 60.0) -> Iterator[Json]:
        """Yield a job as it is, and again whenever there is news, until it has ended.

        Args:
            patience: seconds for which the service may be unreachable.
        """
        last, reached = "", time.monotonic()
        while True:
            try:
                for event, job in self._events(job_id, last):
                    last, reached = event, time.monotonic()
                    yield job
                    if job["state"] in ENDS:
                        return
            except (httpx.TransportError, ServiceError) as error:
                unknown = isinstance(error, ServiceError) and error.status != 503
                if unknown or time.monotonic() - reached > patience:
                    raise _unreachable(error) from error
            time.sleep(RECONNECT_SECONDS)

    def _events(self, job_id: str, last: str) -> Iterator[tuple[str, Json]]:
        headers = {"last-event-id": last} if last else {}
        url = f"{PATH}/{job_id}/events"
        with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                response.read()
                _document(response)
            event = ""
            for line in response.iter_lines():
                name, _, text = line.partition(": ")
                if name == "id":
                    event = text
                elif name == "data":
                    yield event, orjson.loads(text)

    def _ask(self, method: str, path: str, **rest: Any) -> Json:
        try:
            return _document(self._http.request(method, path, **rest))
        except httpx.TransportError as error:
            raise _unreachable(error) from error


def _unreachable(error: Exception) -> Exception:
    if isinstance(error, httpx.TransportError):
        return ServiceUnavailableError(f"no answer from the service: {error}")
    return error


def _document(response: httpx.Response) -> Json:
    content_type = response.headers.get("content-type", "").partition(";")[0]
    if content_type == PROBLEM:
        raise problem_error(response.status_code, bytearray(response.content))
    if not response.is_success or content_type != "application/json":
        raise ServiceError(
            f"the service answered with status {response.status_code}", status=response.status_code
        )
    members: Json = orjson.loads(response.content)
    return members

"""`/v1/jobs`: submission, list, state, events and cancellation of jobs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from softxent.errors import SoftxentError
from softxent_client.wire import JSON
from softxent_service.http.call import Call, CallLimits
from softxent_service.http.errors import DeadlineError
from softxent_service.http.limits.body_buffer import Ceiling
from softxent_service.http.negotiation import read_head
from softxent_service.http.query import refuse_any
from softxent_service.http.readiness import Readiness
from softxent_service.http.router import match_of
from softxent_service.http.routes.job_requests import (
    EVENTS_PARAMETERS,
    ID_PARAMETERS,
    LIST_PARAMETERS,
    idempotency_key,
    read_list,
    read_members,
)
from softxent_service.jobs.errors import JobsUnavailableError
from softxent_service.jobs.record import Cursor
from softxent_service.jobs.states import ENDS, State
from softxent_service.settings import Settings

if TYPE_CHECKING:
    from softxent_service.jobs.record import Record
    from softxent_service.jobs.records import Records
    from softxent_service.jobs.service import Host, JobService

T = TypeVar("T")
Json = dict[str, Any]

PATH = "/v1/jobs"

JOB_BYTES = 64 << 10
"""Largest description of a job; it is kept for good."""

ADVICE = "a job names its arrays by URL and holds no values; shorten it"

CALLS = 8
"""Requests about jobs that look at arrays or records at a time."""

POLL_SECONDS = 0.5
"""How often a job that is watched is looked at."""

COUNT_SECONDS = 2.0
"""How long it may take to count jobs; the first time imports what they need, and takes longer."""

SILENCE_SECONDS = 15.0
"""How often a watched job without news says so, for whoever closes idle connections."""


class Jobs:
    """The jobs of a service, and the runner beside it; all are made on first use.

    What they import (Dask, DBOS, Zarr) takes as long as all else, and not every service has jobs.
    Who only asks for records waits for DBOS alone.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._records: Records | None = None
        self._service: JobService | None = None
        self._host: Host | None = None
        self._limiter = anyio.CapacityLimiter(CALLS)

    def records(self) -> Records:
        """Return what tells of jobs and cancels them."""
        with self._lock:
            if self._records is None:
                from softxent_service.jobs.records import Records, database_url

                self._records = Records(database_url(self._settings.database, self._settings.data))
            return self._records

    def service(self) -> JobService:
        """Return what takes jobs, with the runner beside it."""
        with self._lock:
            if self._service is None:
                from softxent_service.jobs.service import Host, JobService

                self._service = JobService(self._settings, self.records())
                if self._settings.job_runner == "here":
                    self._host = Host(self._settings)
            return self._service

    def resume(self) -> None:
        """Go on with the jobs of before, if there are any records."""
        settings = self._settings
        if settings.job_runner == "here" and (
            settings.database or (settings.data / "jobs.sqlite").exists()
        ):
            self.service()

    def close(self) -> None:
        """Stop what was made."""
        with self._lock:
            if self._host is not None:
                self._host.close()
            if self._records is not None:
                self._records.close()

    async def active(self) -> Mapping[str, int]:
        """Return how many jobs are queued and running; nothing where there are no records of any.

        Who counts must not wait for a database: what is not told in time is told the next time.
        """
        settings = self._settings
        if not (self._records or settings.database or (settings.data / "jobs.sqlite").exists()):
            return {}
        try:
            return await self.ask(lambda jobs: jobs.records().active(), COUNT_SECONDS)
        except SoftxentError:
            return {}

    async def ask(self, question: Callable[[Jobs], T], seconds: float) -> T:
        """Return the answer to a question, asked in a thread.

        Raises:
            DeadlineError: it did not answer in time.
        """
        try:
            with anyio.fail_after(seconds):
                return await anyio.to_thread.run_sync(
                    lambda: question(self),
                    limiter=self._limiter,
                    abandon_on_cancel=True,
                )
        except TimeoutError:
            raise DeadlineError(f"the call was not done within {seconds:g} s") from None


class SubmitRoute:
    """`POST /v1/jobs`: answers once the job is recorded, and before it runs."""

    def __init__(self, jobs: Jobs, limits: CallLimits) -> None:
        self._jobs = jobs
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is raised and becomes a problem document."""
        refuse_any(scope["query_string"])
        head = read_head(scope, forms=(JSON,))
        key = idempotency_key(scope)
        with Call(self._limits, scope, receive, head.timeout) as call:
            body = await call.read(head, Ceiling("job_bytes", JOB_BYTES, ADVICE))
            members = read_members(body.take())
        record = await self._jobs.ask(
            lambda jobs: jobs.service().submit(members, key), call.deadline.left()
        )
        headers = {"location": f"{match_of(scope).prefix}{PATH}/{record.id}"}
        await JSONResponse(record.to_json(), 202, headers)(scope, receive, send)


def job_routes(
    jobs: Jobs, readiness: Readiness, settings: Settings, methods: list[str]
) -> APIRouter:
    """Return the routes that need no body; those that only read answer to `methods`."""
    router = APIRouter(tags=["jobs"])
    read = partial(router.api_route, methods=methods)
    ask = partial(jobs.ask, seconds=settings.timeout_seconds)

    @read(PATH, summary="Jobs, the newest first", openapi_extra={"parameters": LIST_PARAMETERS})
    async def index(request: Request) -> Response:
        query = read_list(request.scope["query_string"])
        return JSONResponse(await ask(lambda jobs: page(jobs.records(), **query)))

    @read(PATH + "/{id}", summary="One job", openapi_extra={"parameters": ID_PARAMETERS})
    async def show(request: Request) -> Response:
        job_id = request.path_params["id"]
        return JSONResponse((await ask(lambda jobs: jobs.records().show(job_id))).to_json())

    @read(
        PATH + "/{id}/events",
        summary="One job, and again whenever there is news of it, as server-sent events",
        response_class=_Events,
        openapi_extra={"parameters": EVENTS_PARAMETERS},
    )
    async def events(request: Request) -> Response:
        job_id = request.path_params["id"]
        record = await ask(lambda jobs: jobs.records().show(job_id))
        last = request.headers.get("last-event-id", "")
        news = watch(record, lambda: ask(lambda jobs: jobs.records().show(job_id)), last, readiness)
        return _Events(news, headers={"cache-control": "no-store", "x-accel-buffering": "no"})

    @router.post(
        PATH + "/{id}/cancel",
        summary="Cancel a job; what of its result is finished stays",
        openapi_extra={"parameters": ID_PARAMETERS},
    )
    async def cancel(request: Request) -> Response:
        job_id = request.path_params["id"]
        return JSONResponse((await ask(lambda jobs: jobs.records().cancel(job_id))).to_json())

    return router


class _Events(StreamingResponse):
    media_type = "text/event-stream"


async def watch(
    record: Record, ask: Callable[[], Any], last: str, readiness: Readiness
) -> AsyncIterator[bytes]:
    """Yield an event for the job as it is and for all that changes, until it has ended.

    An event tells everything, and its id is a digest of what it tells: who comes back with the
    last id, to this service or another, misses nothing and gets nothing twice.
    """
    silent = 0.0
    while True:
        told = json.dumps(record.to_json(), separators=(",", ":"))
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        if digest != last:
            last, silent = digest, 0.0
            yield f"id: {digest}\nevent: job\ndata: {told}\n\n".encode()
        if record.state in ENDS or readiness.stopping:
            return
        await asyncio.sleep(POLL_SECONDS)
        silent += POLL_SECONDS
        if silent >= SILENCE_SECONDS:
            silent = 0.0
            yield b": no news\n\n"
        try:
            record = await ask()
        except (JobsUnavailableError, DeadlineError):
            continue


def page(records: Records, states: list[State], limit: int, cursor: str | None) -> Json:
    """Return some jobs, and the cursor of those that follow."""
    found = records.page(states, limit, Cursor.from_text(cursor) if cursor else None)
    return {
        "jobs": [record.to_json() for record in found.records],
        "next": found.following,
    }

"""`GET /v1/arrays`: the arrays below the roots, to choose the inputs of a job from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from softxent_service.http.routes.job_requests import ARRAYS_PARAMETERS, read_page
from softxent_service.http.routes.jobs import Jobs
from softxent_service.settings import Settings

if TYPE_CHECKING:
    from softxent_service.jobs.listing import ArrayPage

PATH = "/v1/arrays"


def array_routes(jobs: Jobs, settings: Settings, methods: list[str]) -> APIRouter:
    """Return the route, answering to `methods`."""
    router = APIRouter(tags=["jobs"])

    @router.api_route(
        PATH,
        methods=methods,
        summary="Arrays below the roots, by name",
        openapi_extra={"parameters": ARRAYS_PARAMETERS},
    )
    async def index(request: Request) -> Response:
        limit, cursor = read_page(request.url.query.encode("latin-1"))
        found = await jobs.ask(
            lambda _: list_below(settings.root_urls, limit, cursor), settings.timeout_seconds
        )
        return JSONResponse(found.to_json())

    return router


def list_below(roots: list[str], limit: int, cursor: str | None) -> ArrayPage:
    """Return some arrays below roots; what reads them is imported with the first request."""
    from softxent_service.jobs.listing import ArrayCursor, list_arrays
    from softxent_service.jobs.roots import Roots

    after = None if cursor is None else ArrayCursor.from_text(cursor)
    return list_arrays(Roots(roots), limit, after)

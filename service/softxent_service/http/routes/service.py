"""`/v1/info` and `/v2/health`: versions and limits, liveness and readiness."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import softxent
from softxent_client.wire import MEDIA_TYPES
from softxent_service.http.query import LOGITS_DTYPES
from softxent_service.http.readiness import Readiness
from softxent_service.settings import Settings


class LimitsInfo(BaseModel):
    """Ceilings that bodies are checked against before anything is allocated."""

    binary_bytes: int
    json_bytes: int
    tensors: int
    header_bytes: int
    json_depth: int
    memory_bytes: int = Field(description="Most that all calls together may hold.")
    timeout_seconds: float = Field(description="Time of a call without Request-Timeout.")
    longest_timeout_seconds: float


class Info(BaseModel):
    """Versions and limits of the service."""

    name: str = "softxent"
    version: str
    numerics: int = Field(description="Changes whenever any bit of any result may change.")
    tile: int = Field(description="Columns of a tile, the unit in which a row is evaluated.")
    dtypes: list[str]
    media_types: list[str]
    outputs: list[str]
    workers: int = Field(description="Processes at this address; limits hold for each.")
    threads: int = Field(description="Kernel threads of each of them.")
    threading_layer: str | None = Field(description="null until a parallel kernel has run.")
    limits: LimitsInfo
    roots: list[str] = Field(description="URLs below which jobs read and write.")


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """Readiness to answer evaluations; `error` says why not."""

    ready: bool
    error: str | None = None


def small_routes(settings: Settings, readiness: Readiness, methods: list[str]) -> APIRouter:
    """Return the routes, bound to what they tell about and answering to `methods`."""
    router = APIRouter()
    route = partial(router.api_route, methods=methods)

    @route("/v1/info", summary="Versions, numerics and limits", tags=["service"])
    async def info() -> Info:
        return describe(settings, readiness.threading_layer)

    @route("/v2/health/live", summary="The process answers", tags=["health"])
    async def live() -> Live:
        return Live(live=True)

    unready: dict[int | str, dict[str, Any]] = {503: {"model": Ready, "description": "Not yet"}}

    @route(
        "/v2/health/ready",
        summary="Every kernel is compiled or loaded, and the service does not stop",
        tags=["health"],
        response_model=Ready,
        response_model_exclude_none=True,
        responses=unready,
    )
    async def ready() -> Response:
        if readiness.unready is None:
            return JSONResponse({"ready": True})
        return JSONResponse({"ready": False, "error": readiness.unready}, 503)

    return router


def describe(settings: Settings, threading_layer: str | None) -> Info:
    """Return what the service tells about itself."""
    return Info(
        version=softxent.__version__,
        numerics=softxent.NUMERICS_VERSION,
        tile=softxent.TILE,
        dtypes=list(LOGITS_DTYPES),
        media_types=list(MEDIA_TYPES),
        outputs=list(softxent.OUTPUTS),
        workers=settings.workers,
        threads=settings.worker_threads,
        threading_layer=threading_layer,
        limits=LimitsInfo(
            **vars(settings.limits),
            memory_bytes=settings.memory_bytes,
            timeout_seconds=settings.timeout_seconds,
            longest_timeout_seconds=settings.longest_timeout_seconds,
        ),
        roots=settings.root_urls,
    )

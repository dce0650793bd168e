"""`GET /metrics`: counters of the service, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from softxent_service.http.limits.concurrency import ConcurrencyLimiter
from softxent_service.http.limits.memory import MemoryBudget
from softxent_service.http.readiness import Readiness
from softxent_service.http.routes.jobs import Jobs
from softxent_service.telemetry.telemetry import Telemetry

PATH = "/metrics"


def metrics_route(telemetry: Telemetry, jobs: Jobs, methods: list[str]) -> APIRouter:
    """Return the route, answering to `methods`."""
    router = APIRouter(tags=["service"])

    @router.api_route(
        PATH, methods=methods, summary="Counts of requests, for Prometheus", response_class=_Text
    )
    async def metrics(request: Request) -> Response:
        active = await jobs.active()
        # On the event loop, where nothing is counted meanwhile: 1 ms, every 15 s or so.
        text, media_type = telemetry.exposition(request.headers.get("accept", ""), active)
        return Response(text, media_type=media_type)

    return router


def readings(
    limiter: ConcurrencyLimiter, budget: MemoryBudget, readiness: Readiness
) -> dict[str, float]:
    """Return what holds now, by the names of metrics."""
    return {
        "softxent_calls_in_progress": limiter.busy,
        "softxent_queue_depth": limiter.waiting,
        "softxent_bytes_in_flight": budget.used,
        "softxent_bytes_kept": budget.kept,
        "softxent_ready": readiness.unready is None,
        "softxent_compilations": readiness.compilations(),
    }


class _Text(Response):
    media_type = "text/plain"

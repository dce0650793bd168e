"""Assembly of the application from its settings: one list of routes, one of middleware."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.telemetry import TelemetryConfig
from starlette.routing import Route
from starlette.types import ASGIApp

import softxent
from softxent.evaluations import EVALUATIONS
from softxent_service.http.call import CallLimits
from softxent_service.http.evaluator import Evaluator
from softxent_service.http.limits.body import BodyReader
from softxent_service.http.limits.concurrency import ConcurrencyLimiter
from softxent_service.http.limits.memory import MemoryBudget
from softxent_service.http.middleware.authentication import BearerAuth
from softxent_service.http.middleware.cors import add_cors
from softxent_service.http.middleware.shutdown import ShutdownMiddleware
from softxent_service.http.middleware.telemetry import TelemetryMiddleware
from softxent_service.http.openapi.document import describe_routes
from softxent_service.http.openapi.keys import describe_keys
from softxent_service.http.problems import add_problem_handler
from softxent_service.http.readiness import Readiness
from softxent_service.http.router import Dispatcher, RouteTable
from softxent_service.http.routes import explain
from softxent_service.http.routes.arrays import array_routes
from softxent_service.http.routes.docs import docs_routes
from softxent_service.http.routes.evaluation import EvaluationRoute
from softxent_service.http.routes.fixtures import fixture_routes
from softxent_service.http.routes.jobs import PATH as JOBS_PATH
from softxent_service.http.routes.jobs import Jobs, SubmitRoute, job_routes
from softxent_service.http.routes.metrics import metrics_route, readings
from softxent_service.http.routes.oip.routes import protocol
from softxent_service.http.routes.page import page_routes
from softxent_service.http.routes.service import small_routes
from softxent_service.keys import KeyRing
from softxent_service.settings import Settings
from softxent_service.telemetry.telemetry import Telemetry

NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own asks for three providers with every request, exports where a variable of the
environment says so, and would trace each request a second time."""

DESCRIPTION = """Softmax cross-entropy of a batch of logits and labels, and its gradient.

Results are exact to a few units in the last place, and the same bits whatever the batch, the
form or the number of threads. A POST here is a pure function: it is safe to repeat.

Other paths are refused with 404 and other methods with 405, in problem documents too."""


def create_app(
    settings: Settings,
    readiness: Readiness,
    telemetry: Telemetry | None = None,
    ring: KeyRing | None = None,
) -> FastAPI:
    """Return the application; it evaluates nothing before `readiness` is warm.

    Requests are told to `telemetry`, by default to one that logs none; only keys of `ring` are let
    in, everyone where it is None.
    """
    telemetry = telemetry or Telemetry(settings)
    limiter = ConcurrencyLimiter(
        threads=settings.max_concurrent_calls,
        queue=settings.max_queued_calls,
        kernels=settings.max_concurrent_kernels,
    )
    budget = MemoryBudget(settings.memory_bytes, settings.kept_bytes)
    evaluator = Evaluator(readiness, settings.worker_threads)
    reader = BodyReader(budget, settings.body_idle_seconds, settings.body_bytes_per_second)
    limits = CallLimits(reader, limiter, settings)
    app = FastAPI(
        title="softxent",
        version=softxent.__version__,
        description=DESCRIPTION,
        # All routes are in the table; its own pages fetch their scripts from elsewhere.
        openapi_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.state.jobs = jobs = Jobs(settings)
    served = protocol(evaluator, limits)
    posted: dict[str, ASGIApp] = {
        **{
            f"/v1/{evaluation.name}": EvaluationRoute(evaluation, evaluator, limits)
            for evaluation in EVALUATIONS.values()
        },
        **served.endpoints,
        explain.PATH: explain.ExplainRoute(limits),
        JOBS_PATH: SubmitRoute(jobs, limits),
    }

    def routers(methods: list[str]) -> list[APIRouter]:
        return [
            small_routes(settings, readiness, methods),
            fixture_routes(methods),
            metrics_route(telemetry, jobs, methods),
            job_routes(jobs, readiness, settings, methods),
            array_routes(jobs, settings, methods),
        ]

    # FastAPI would document each of them twice, once as HEAD and with one name for both.
    documented = _routes(routers(["GET"]))
    document = describe_routes(app, documented, served.documented, settings)
    if ring is not None:
        describe_keys(document)
    app.openapi = lambda: document  # type: ignore[method-assign]
    table = RouteTable(
        [
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posted.items()),
            *served.routes,
            *docs_routes(document),
            *(page_routes() if settings.page else ()),
            *_routes(routers(["GET", "HEAD"])),
        ],
        settings.base_path or "",
    )
    app.add_middleware(Dispatcher)
    if ring is not None:
        app.add_middleware(BearerAuth, ring=ring)
    app.add_middleware(ShutdownMiddleware)
    if settings.cors_origins is not None:
        add_cors(app, settings.cors_origins)
    app.add_middleware(
        TelemetryMiddleware, telemetry=telemetry, route_of=lambda scope: table.find(scope).path
    )
    add_problem_handler(app)
    telemetry.readings = partial(readings, limiter, budget, readiness)
    return app


def _routes(routers: list[APIRouter]) -> list[Route]:
    """Return the routes of `routers`, ready to be called without the framework's router."""
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    for route in routes:
        route.app = AsyncExitStackMiddleware(route.app)
    return routes

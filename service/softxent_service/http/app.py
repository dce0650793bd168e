"""Assembles the application from its settings; nothing happens before it is called."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import Route

import softxent
from softxent.evaluations import EVALUATIONS
from softxent_service.http import explain
from softxent_service.http.admission import Gate
from softxent_service.http.body import Reader
from softxent_service.http.budget import Budget
from softxent_service.http.draining import Draining
from softxent_service.http.evaluation import EvaluationRoute
from softxent_service.http.fixtures import fixture_routes
from softxent_service.http.jobs import PATH as JOBS_PATH
from softxent_service.http.jobs import Jobs, SubmitRoute, job_routes
from softxent_service.http.openapi import describe_routes
from softxent_service.http.problems import add_problem_handlers
from softxent_service.http.readiness import Readiness
from softxent_service.http.routes import small_routes
from softxent_service.settings import Settings

DESCRIPTION = """Softmax cross-entropy of a batch of logits and labels, and its gradient.

Results are exact to a few units in the last place, and the same bits whatever the batch, the
form or the number of threads. A POST here is a pure function: it is safe to repeat.

Other paths are refused with 404 and other methods with 405, in problem documents too."""


def create_app(settings: Settings, readiness: Readiness) -> FastAPI:
    """Return the application; it evaluates nothing before `readiness` is warm."""
    gate = Gate(threads=settings.calls, queue=settings.queue, kernels=settings.kernels)
    budget = Budget(settings.memory_bytes, settings.kept_bytes)
    reader = Reader(budget, settings.body_idle_seconds, settings.body_bytes_per_second)
    app = FastAPI(
        title="softxent",
        version=softxent.__version__,
        description=DESCRIPTION,
        redirect_slashes=False,
    )
    app.state.jobs = jobs = Jobs(settings)
    app.add_middleware(Draining)
    add_problem_handlers(app)
    app.include_router(small_routes(settings, readiness, ["GET", "HEAD"]))
    app.include_router(fixture_routes(["GET", "HEAD"]))
    app.include_router(job_routes(jobs, readiness, settings, ["GET", "HEAD"]))
    # First, so that no other route is tried before it.
    app.router.routes[:0] = [
        *(
            Route(
                f"/v1/{evaluation.name}",
                EvaluationRoute(evaluation, readiness, gate, reader, settings),
                methods=["POST"],
            )
            for evaluation in EVALUATIONS.values()
        ),
        Route(
            explain.PATH,
            explain.ExplainRoute(gate, reader, settings),
            methods=["POST"],
        ),
        Route(JOBS_PATH, SubmitRoute(jobs, reader, settings), methods=["POST"]),
    ]
    # FastAPI would document each of them twice, once as HEAD and with one name for both.
    documented = [
        small_routes(settings, readiness, ["GET"]),
        fixture_routes(["GET"]),
        job_routes(jobs, readiness, settings, ["GET"]),
    ]
    routes = [route for router in documented for route in router.routes]
    document = describe_routes(app, routes, settings.limits)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app

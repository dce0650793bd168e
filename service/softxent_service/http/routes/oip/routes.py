"""The protocol's routes: one table for the router and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from softxent.evaluations import EVALUATIONS
from softxent_client.wire import MalformedBodyError, NotSupportedError
from softxent_service.http.call import CallLimits
from softxent_service.http.errors import NotReadyError, UnknownModelError
from softxent_service.http.evaluator import Evaluator
from softxent_service.http.readiness import Readiness
from softxent_service.http.routes.oip.infer import InferRoute
from softxent_service.http.routes.oip.models import (
    VERSION,
    find_model,
    model_config,
    model_metadata,
    repository_index,
    server_metadata,
)
from softxent_service.http.routes.oip.region_routes import RegionRoutes
from softxent_service.http.routes.oip.regions import Regions
from softxent_service.http.routes.oip.small_bodies import read_object
from softxent_service.http.routes.oip.statistics import ModelStatistics

Endpoint = Callable[[Request], Awaitable[Response]]

MODEL = "/v2/models/{model}"
MODELS = (MODEL, MODEL + "/versions/{version}")


@dataclass(frozen=True)
class Documented:
    """A route as documents tell of it."""

    method: str
    path: str
    summary: str


@dataclass(frozen=True)
class Protocol:
    """Routes under `/v2`, health aside.

    Attributes:
        endpoints: what evaluates, by its path; it is posted to.
        routes: all others, in the order in which they are tried.
        documented: those of them that do something.
    """

    endpoints: Mapping[str, InferRoute]
    routes: list[Route]
    documented: list[Documented]


def protocol(evaluator: Evaluator, limits: CallLimits) -> Protocol:
    """Return the routes, with the statistics and regions that they share."""
    regions = Regions()
    statistics = {name: ModelStatistics(name) for name in EVALUATIONS}
    built = _Routes(evaluator.readiness, limits, statistics)
    shared = RegionRoutes(regions, limits)
    infer = {
        name: InferRoute(evaluation, evaluator, limits, statistics[name], regions)
        for name, evaluation in EVALUATIONS.items()
    }
    endpoints = {
        f"/v2/models/{name}{version}/infer": endpoint
        for name, endpoint in infer.items()
        for version in ("", f"/versions/{VERSION}")
    }
    table = [*built.table(), *shared.table()]
    routes = [Route(path, do, methods=[method]) for method, path, _, do in table]
    documented = [Documented(method, path, told) for method, path, told, _ in table if told]
    return Protocol(endpoints, routes, documented)


class _Routes:
    """Metadata of server and models."""

    def __init__(
        self, readiness: Readiness, limits: CallLimits, statistics: dict[str, ModelStatistics]
    ) -> None:
        self._readiness = readiness
        self._limits = limits
        self._statistics = statistics

    def table(self) -> list[tuple[str, str, str, Endpoint]]:
        """Return method, path, summary and endpoint of each route."""
        whole: list[tuple[str, str, str, Endpoint]] = [
            ("GET", "/v2", "What the server is", self._server),
            ("GET", "/v2/models", "Names of all models", self._models),
            ("GET", "/v2/models/stats", "What all models have done", self._all_statistics),
            ("POST", "/v2/repository/index", "All models and their state", self._index),
        ]
        for path in MODELS:
            whole += [
                ("POST", path + "/infer", "Outputs of a model for a batch", self._unknown),
                ("GET", path + "/ready", "Whether a model may be called", self._ready),
                ("GET", path + "/config", "Inputs and outputs, as a ModelConfig", self._config),
                ("GET", path + "/stats", "What a model has done", self._model_statistics),
                ("GET", path, "Inputs and outputs of a model", self._model),
            ]
        for method, path in UNSERVED:
            whole.append((method, path, "", _unserved))
        return whole

    async def _server(self, _request: Request) -> Response:
        return JSONResponse(server_metadata(shared_memory=self._limits.settings.shared_memory))

    async def _models(self, _request: Request) -> Response:
        return JSONResponse({"models": list(EVALUATIONS)})

    async def _model(self, request: Request) -> Response:
        return JSONResponse(model_metadata(find_model(**request.path_params)))

    async def _config(self, request: Request) -> Response:
        return JSONResponse(model_config(find_model(**request.path_params)))

    async def _ready(self, request: Request) -> Response:
        model = find_model(**request.path_params)
        if self._readiness.unready is not None:
            raise NotReadyError(f"model {model.name} is not ready: {self._readiness.unready}")
        return JSONResponse({"name": model.name, "ready": True})

    async def _all_statistics(self, _request: Request) -> Response:
        return _statistics_response(list(self._statistics.values()))

    async def _model_statistics(self, request: Request) -> Response:
        return _statistics_response([self._statistics[find_model(**request.path_params).name]])

    async def _index(self, request: Request) -> Response:
        given = await read_object(request, self._limits)
        ready_only = given.get("ready", False)
        if not isinstance(ready_only, bool):
            raise MalformedBodyError("ready must be true or false", field="ready")
        return JSONResponse(repository_index(self._readiness, ready_only=ready_only))

    async def _unknown(self, request: Request) -> Response:
        """Answer a call of a model that has no route of its own, since there is none."""
        model = find_model(**request.path_params)
        raise UnknownModelError(f"model {model.name} is not called by this path", field="model")


UNSERVED = (
    ("POST", "/v2/repository/models/{model}/load"),
    ("POST", "/v2/repository/models/{model}/unload"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("GET", MODEL + "/trace/setting"),
    ("POST", MODEL + "/trace/setting"),
)
"""Routes of extensions that are not served, and answered with 501 as such."""


async def _unserved(_request: Request) -> Response:
    raise NotSupportedError(
        "this extension is not served: models are part of the service, and its log and traces are "
        "set where it is started"
    )


def _statistics_response(statistics: list[ModelStatistics]) -> Response:
    body: dict[str, Any] = {"model_stats": [one.to_json() for one in statistics]}
    return JSONResponse(body)

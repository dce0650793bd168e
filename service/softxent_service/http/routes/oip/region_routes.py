"""The protocol's routes of shared memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from softxent_client.wire import MalformedBodyError, NotSupportedError
from softxent_client.wire.oip_document import natural, required
from softxent_service.http.call import CallLimits
from softxent_service.http.routes.oip.regions import LARGEST, Regions
from softxent_service.http.routes.oip.small_bodies import read_object

Endpoint = Callable[[Request], Awaitable[Response]]

SYSTEM = "/v2/systemsharedmemory"
CUDA = "/v2/cudasharedmemory"
ONE = "/region/{name}"


class RegionRoutes:
    """Routes that register, list and unregister regions, where settings allow it."""

    def __init__(self, regions: Regions, limits: CallLimits) -> None:
        self._regions = regions
        self._limits = limits

    def table(self) -> list[tuple[str, str, str, Endpoint]]:
        """Return method, path, summary and endpoint of each route."""
        return [
            ("GET", SYSTEM + "/status", "All regions of shared memory", self._status),
            ("GET", SYSTEM + ONE + "/status", "A region of shared memory", self._status),
            ("POST", SYSTEM + ONE + "/register", "Use a region of shared memory", self._register),
            ("POST", SYSTEM + ONE + "/unregister", "Forget a region", self._unregister),
            ("POST", SYSTEM + "/unregister", "Forget all regions", self._unregister),
            ("GET", CUDA + "/status", "", _no_cuda_regions),
            ("GET", CUDA + ONE + "/status", "", _no_cuda_regions),
            ("POST", CUDA + ONE + "/register", "", _refuse_cuda),
            # Clients begin with these two, so as to find nothing of an earlier run.
            ("POST", CUDA + ONE + "/unregister", "", _nothing),
            ("POST", CUDA + "/unregister", "", _nothing),
        ]

    async def _status(self, request: Request) -> Response:
        return JSONResponse(self._regions.status(request.path_params.get("name")))

    async def _register(self, request: Request) -> Response:
        self._check_allowed()
        given = await read_object(request, self._limits)
        owner = "the shared memory register request"
        key = required(given, "key", str, owner)
        size = natural(given, "byte_size", owner)
        offset = natural(given, "offset", owner) or 0
        if size is None:
            raise MalformedBodyError(f"byte_size of {owner} is missing", field="byte_size")
        if max(size, offset) > LARGEST:
            raise MalformedBodyError(f"byte_size and offset of {owner} are at most {LARGEST}")
        self._regions.register(request.path_params["name"], key, offset, size)
        return JSONResponse({})

    async def _unregister(self, request: Request) -> Response:
        self._check_allowed()
        self._regions.unregister(request.path_params.get("name"))
        return JSONResponse({})

    def _check_allowed(self) -> None:
        if not self._limits.settings.shared_memory:
            raise NotSupportedError(
                "Client shared memory is disabled. Start the service with --shared-memory, on "
                "loopback or a Unix-domain socket, to enable it."
            )


async def _no_cuda_regions(_request: Request) -> Response:
    return JSONResponse([])


async def _nothing(_request: Request) -> Response:
    return JSONResponse({})


async def _refuse_cuda(request: Request) -> Response:
    name = request.path_params["name"]
    raise NotSupportedError(
        f"failed to register CUDA shared memory region: {name!r}, GPUs not supported", field=name
    )

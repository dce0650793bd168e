"""A small real server that speaks the wire forms, misbehaves when told to, and has low limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from softxent.errors import SoftxentError
from softxent.front import evaluate
from softxent.options import Options
from softxent_client.wire import MEDIA_TYPES, REQUEST, Limits, result_tensors

LIMITS = Limits(binary_bytes=1_200_000, json_bytes=1_100_000)


@dataclass
class Server:
    """The server's address, what it was asked, and the answers that it gives before real ones."""

    url: str = ""
    bodies: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    clients: set[Any] = field(default_factory=set)
    next_answers: list[Response] = field(default_factory=list)


def application(server: Server) -> Starlette:
    async def info(_request: Request) -> Response:
        server.paths.append("/v1/info")
        limits = {"binary_bytes": LIMITS.binary_bytes, "json_bytes": LIMITS.json_bytes}
        return JSONResponse({"limits": limits})

    async def cross_entropy(request: Request) -> Response:
        body = await request.body()
        server.paths.append("/v1/cross_entropy")
        server.bodies.append(len(body))
        server.clients.add(request.client)
        if server.next_answers:
            return server.next_answers.pop(0)
        params = dict(request.query_params)
        dtype = params.pop("logits_dtype", "float32")
        media_type = request.headers["content-type"]
        form = MEDIA_TYPES[media_type]
        try:
            tensors = form.decode(body, REQUEST(dtype), LIMITS)
            result = evaluate(tensors, Options.from_text(params.items()))
        except SoftxentError as error:
            return problem(422, error.slug, error.message, **error.details())
        return Response(b"".join(form.encode(result_tensors(result))), media_type=media_type)

    async def ready(_request: Request) -> Response:
        server.paths.append("/v2/health/ready")
        return server.next_answers.pop(0) if server.next_answers else Response()

    return Starlette(
        routes=[
            Route("/v1/info", info),
            Route("/v1/cross_entropy", cross_entropy, methods=["POST"]),
            Route("/v2/health/ready", ready),
        ]
    )


def problem(status: int, slug: str, detail: str, **members: Any) -> Response:
    document = {"type": f"urn:softxent:problem:{slug}", "status": status, "detail": detail}
    return JSONResponse(
        {**document, **members}, status_code=status, media_type="application/problem+json"
    )


@contextmanager
def running_server() -> Iterator[Server]:
    state = Server()
    config = uvicorn.Config(application(state), port=0, log_level="error", lifespan="off")
    uvicorn_server = uvicorn.Server(config)
    listener = config.bind_socket()
    state.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield state
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        listener.close()

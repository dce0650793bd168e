"""A relay before the real service: it notes what passes, and can answer in the service's place.

What it says itself is what the service never says: too busy, not ours, half of an answer.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PASSED_ON = ("content-type", "accept", "accept-encoding")


@dataclass
class Relay:
    """Its address, what was asked of it, and the answers that it gives before the service's."""

    url: str = ""
    bodies: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    clients: set[Any] = field(default_factory=set)
    next_answers: list[Response] = field(default_factory=list)


def application(relay: Relay, service_url: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=service_url, timeout=60) as http:
            app.state.http = http
            yield

    async def pass_on(request: Request) -> Response:
        body = await request.body()
        relay.paths.append(request.url.path)
        relay.bodies.append(len(body))
        relay.clients.add(request.client)
        if relay.next_answers:
            return relay.next_answers.pop(0)
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        url = httpx.URL(path=request.url.path, query=request.url.query.encode())
        answer = await request.app.state.http.request(
            request.method, url, content=body, headers=headers
        )
        media_type = answer.headers["content-type"]
        return Response(answer.content, answer.status_code, media_type=media_type)

    route = Route("/{path:path}", pass_on, methods=["GET", "POST"])
    return Starlette(routes=[route], lifespan=lifespan)


def problem(status: int, slug: str, detail: str, **members: Any) -> Response:
    document = {"type": f"urn:softxent:problem:{slug}", "status": status, "detail": detail}
    return JSONResponse(
        {**document, **members}, status_code=status, media_type="application/problem+json"
    )


@contextmanager
def relay_before(service_url: str, **given: Any) -> Iterator[Relay]:
    """Run a relay; what is given is uvicorn's, such as a certificate."""
    relay = Relay()
    config = uvicorn.Config(application(relay, service_url), port=0, log_level="error", **given)
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    listener.listen()
    scheme = "https" if config.ssl_certfile else "http"
    relay.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield relay
    finally:
        server.should_exit = True
        thread.join()
        listener.close()

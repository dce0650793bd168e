"""The bare servers beside which ours is measured; run as a script, this module is one of them."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import numpy as np
import uvicorn
from fastapi import Body, FastAPI, Request, Response
from servers import HOST
from starlette.types import ASGIApp, Receive, Scope, Send


def raw_echo(port: int) -> None:
    """Echo on blocking sockets: a length of 8 bytes, then the bytes; back comes the same body."""
    with socket.create_server((HOST, port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                _echo(connection)


def _echo(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(b"")
    while head := connection.recv(8, socket.MSG_WAITALL):
        size = int.from_bytes(head, "little")
        if len(buffer) != size:
            buffer = memoryview(bytearray(size))
        got = 0
        while got < size:
            got += connection.recv_into(buffer[got:])
        connection.sendall(buffer)


def asgi_echo(port: int) -> None:
    """Echo in bare ASGI, without a framework."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pieces, more = [], scope["type"] == "http"
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        body = b"".join(pieces)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    _run(app, port)


def fastapi_echo(port: int) -> None:
    """Echo in FastAPI, the way its documentation reads a body."""
    app = FastAPI()

    @app.post("/")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    _run(app, port)


def dict_route(port: int) -> None:
    """Serve cross-entropy the way it is usually written: a model in, a `def` route, a dict out."""
    app = FastAPI()

    @app.post("/")
    def cross_entropy(
        logits: Annotated[list[list[float]], Body()], labels: Annotated[list[int], Body()]
    ) -> dict[str, object]:
        scores = np.array(logits, np.float32)
        chosen = np.arange(len(labels)), np.array(labels)
        shifted = scores - scores.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        sums = powers.sum(axis=1, keepdims=True)
        loss = np.log(sums[:, 0]) - shifted[chosen]
        gradient = powers / sums
        gradient[chosen] -= 1
        return {"loss": loss.tolist(), "gradient": gradient.tolist()}

    _run(app, port)


def ready_route(port: int) -> None:
    """Serve the least that FastAPI can do: read the body, return a response made beforehand."""
    app = FastAPI()
    answer = Response(b'{"loss": [2.3025851]}', media_type="application/json")

    @app.post("/")
    async def constant(request: Request) -> Response:
        await request.body()
        return answer

    _run(app, port)


def _run(app: ASGIApp, port: int) -> None:
    uvicorn.run(
        app,
        host=HOST,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


SERVERS: dict[str, Callable[[int], None]] = {
    "raw-echo": raw_echo,
    "asgi-echo": asgi_echo,
    "fastapi-echo": fastapi_echo,
    "dict-route": dict_route,
    "ready-route": ready_route,
}


def main() -> None:
    """Be one of the bare servers until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(SERVERS))
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    SERVERS[arguments.name](arguments.port)


if __name__ == "__main__":
    main()

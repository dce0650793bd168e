"""LitServe with torch: raw bytes and its own JSON, each in one worker, over its fast queue."""

import argparse
import signal
from dataclasses import dataclass, field
from typing import Annotated, Any

import litserve
from fastapi import Depends, Request, Response
from torch_loss import answer, answer_lists


@dataclass
class Payload:
    """A body that is not shown: LitServe formats every request for its log, 131 MB of bytes too."""

    body: bytes = field(repr=False)


async def payload(request: Request) -> Payload:
    """Return the body as it came."""
    return Payload(await request.body())


class Binary(litserve.LitAPI):
    """Takes and returns the plain form."""

    def setup(self, device: str) -> None:
        """Load nothing."""

    def decode_request(self, request: Annotated[Payload, Depends(payload)]) -> bytes:
        """Return the body."""
        return request.body

    def predict(self, body: bytes) -> memoryview:
        """Return the answer's body."""
        return answer(body)

    def encode_response(self, output: memoryview) -> Response:
        """Return the answer; it goes to the server through a pickle, which takes bytes only."""
        return Response(bytes(output))


class Json(litserve.LitAPI):
    """Takes a dict and returns one."""

    def setup(self, device: str) -> None:
        """Load nothing."""

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what LitServe read."""
        return request

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return loss and gradient as lists."""
        return answer_lists(batch["logits"], batch["labels"], batch.get("threads", 1))

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return what LitServe writes."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    # LitServe ends its worker processes when it is interrupted, and leaves them when terminated.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    apis = [Binary(api_path="/binary"), Json(api_path="/json")]
    server = litserve.LitServer(
        apis, accelerator="cpu", fast_queue=True, timeout=False, disable_openapi_url=True
    )
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )

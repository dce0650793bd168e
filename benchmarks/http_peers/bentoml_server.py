"""BentoML with torch: a mounted FastAPI route for raw bytes, as its documentation says, and JSON.

Metrics, access log and usage statistics are off; one worker.
"""

from typing import Any

import bentoml
import numpy as np
from fastapi import FastAPI, Request, Response
from torch_loss import answer, answer_lists

app = FastAPI()


@app.post("/binary")
async def binary(request: Request) -> Response:
    """Answer in the plain form."""
    return Response(answer(await request.body()))


@bentoml.service(
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 600},
)
@bentoml.asgi_app(app)
class CrossEntropy:
    """The service that BentoML starts."""

    @bentoml.api(route="/json")
    async def json(
        self, logits: np.ndarray, labels: np.ndarray, threads: int = 1
    ) -> dict[str, Any]:
        """Answer in BentoML's own JSON, which it reads into arrays."""
        return answer_lists(logits, labels, threads)

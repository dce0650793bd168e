"""FastAPI with torch, the service that most would write: raw bytes, and a pydantic model."""

import argparse

import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from torch_loss import answer, answer_lists

app = FastAPI()


class Batch(BaseModel):
    """Logits [N, C] and labels [N]."""

    logits: list[list[float]]
    labels: list[int]
    threads: int = 1


class Answer(BaseModel):
    """Loss [N] and gradient [N, C]."""

    loss: list[float]
    gradient: list[list[float]]


@app.post("/binary")
async def binary(request: Request) -> Response:
    """Answer in the plain form."""
    return Response(answer(await request.body()))


@app.post("/json")
async def json(batch: Batch) -> Answer:
    """Answer in JSON; the model goes to JSON through pydantic."""
    return Answer(**answer_lists(batch.logits, batch.labels, batch.threads))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_level="warning")

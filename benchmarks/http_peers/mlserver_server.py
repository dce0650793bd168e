"""MLServer with torch: a custom handler for raw bytes, and its own protocol with its NumPy codec.

In one process, without metrics and compression: its workers would send every tensor through a
queue.
"""

import argparse
import asyncio

from fastapi import Request, Response
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse
from torch_loss import answer, answer_arrays

HOST = "127.0.0.1"


class CrossEntropy(MLModel):
    """The model."""

    @custom_handler(rest_path="/binary")
    async def binary(self, request: Request) -> Response:
        """Answer in the plain form."""
        return Response(answer(await request.body()))

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer in the Open Inference Protocol."""
        logits, labels = (NumpyCodec.decode_input(tensor) for tensor in payload.inputs)
        threads = ((payload.parameters and payload.parameters.model_extra) or {}).get("threads", 1)
        loss, gradient = answer_arrays(logits, labels, threads)
        outputs = {"loss": loss, "gradient": gradient}
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, array) for name, array in outputs.items()],
        )


async def serve(port: int) -> None:
    """Serve until a signal comes."""
    settings = Settings(
        debug=False,
        host=HOST,
        http_port=port,
        grpc_port=0,
        parallel_workers=0,
        metrics_endpoint=None,
        gzip_enabled=False,
        load_models_at_startup=False,
    )
    await MLServer(settings).start(
        [ModelSettings(name="cross_entropy", implementation=CrossEntropy)]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))

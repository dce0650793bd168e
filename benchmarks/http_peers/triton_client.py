"""Triton's own client, told on standard input when to call: a line in, a call, a line out."""

import argparse
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

MINUTES = 600.0


def main() -> None:
    """Call once for each line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", type=int, nargs=2, required=True)
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    logits = generator.standard_normal(given.shape, np.float32)
    labels = generator.integers(0, given.shape[1], given.shape[0])
    client = InferenceServerClient(
        f"127.0.0.1:{given.port}", connection_timeout=MINUTES, network_timeout=MINUTES
    )
    for _ in sys.stdin:
        inputs = [
            InferInput("logits", logits.shape, "FP32").set_data_from_numpy(logits),
            InferInput("labels", labels.shape, "INT64").set_data_from_numpy(labels),
        ]
        outputs = [InferRequestedOutput(name) for name in ("loss", "gradient")]
        answer = client.infer(given.model, inputs, outputs=outputs)
        print(answer.as_numpy("loss").shape, answer.as_numpy("gradient").shape, flush=True)


if __name__ == "__main__":
    main()

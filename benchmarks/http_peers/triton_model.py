"""What Triton's Python backend runs; `triton_server.py` puts it where Triton looks for models."""

import json
from typing import Any

import torch
import triton_python_backend_utils as triton
from torch_loss import answer_arrays


class TritonPythonModel:
    """One instance in one process; its name is the backend's."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Read how many threads this model computes on."""
        parameters = json.loads(arguments["model_config"])["parameters"]
        self._threads = int(parameters["threads"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer what the backend hands over."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        logits, labels = (
            torch.from_numpy(triton.get_input_tensor_by_name(request, name).as_numpy())
            for name in ("logits", "labels")
        )
        loss, gradient = answer_arrays(logits, labels, self._threads)
        outputs = [triton.Tensor("loss", loss), triton.Tensor("gradient", gradient)]
        return triton.InferenceResponse(outputs)

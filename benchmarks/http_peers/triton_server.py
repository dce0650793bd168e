"""NVIDIA Triton with its Python backend, torch in it; the program comes with the PyTriton wheel.

The backend runs a model in a process of its own, with the interpreter of a library; what it needs
to find is laid out in a temporary folder. There is a model for each number of threads.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytriton

HERE = Path(__file__).resolve().parent
TRITON = Path(pytriton.__file__).parent / "tritonserver"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

CONFIG = """
backend: "python"
max_batch_size: 0
input [
  { name: "logits" data_type: TYPE_FP32 dims: [-1, -1] },
  { name: "labels" data_type: TYPE_INT64 dims: [-1] }
]
output [
  { name: "loss" data_type: TYPE_FP32 dims: [-1] },
  { name: "gradient" data_type: TYPE_FP32 dims: [-1, -1] }
]
instance_group [{ count: 1 kind: KIND_CPU }]
parameters { key: "threads" value: { string_value: "%d" } }
"""


def lay_out(folder: Path) -> None:
    """Lay out the backend with this Python's stub, and a model for each number of threads."""
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stub = TRITON / "python_backend_stubs" / VERSION / "triton_python_backend_stub"
    for part in [stub, *(TRITON / "backends" / "python").glob("*triton_python*")]:
        (backend / part.name).symlink_to(part)
    for threads in (1, 2):
        model = folder / "models" / f"cross_entropy_{threads}"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(CONFIG % threads)
        (model / "1" / "model.py").symlink_to(HERE / "triton_model.py")
        (model / "1" / "torch_loss.py").symlink_to(HERE / "torch_loss.py")


def environment() -> dict[str, str]:
    """Return what the backend's processes need: they take their packages from the first Python."""
    libraries = [f"{sys.base_prefix}/lib", str(TRITON.parents[1] / "nvidia_pytriton.libs")]
    return {
        **os.environ,
        "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def command(folder: str, port: int) -> list[str]:
    """Return the command that serves the models by HTTP alone."""
    return [
        str(TRITON / "bin" / "tritonserver"),
        f"--model-repository={folder}/models",
        f"--backend-directory={folder}/backends",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--disable-auto-complete-config",
        "--log-info=false",
        "--exit-timeout-secs=10",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        process = subprocess.Popen(command(folder, port), env=environment())
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        sys.exit(process.wait())

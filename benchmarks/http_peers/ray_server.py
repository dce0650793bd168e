"""Ray Serve with torch: a FastAPI ingress, in one replica that answers on a port of its own.

Throughput-optimised, as its guide to performance says, and without the proxy on the way: clients
speak to the replica, which is the least that a request can pass through there. No dashboard and
no usage statistics; all of it listens on the loopback only.
"""

import argparse
import os
import secrets
import signal
import tempfile
import threading
from typing import Any

from fastapi import FastAPI, Request, Response
from torch_loss import answer, answer_lists

HOST = "127.0.0.1"

app = FastAPI()


class CrossEntropy:
    """The deployment."""

    @app.post("/binary")
    async def binary(self, request: Request) -> Response:
        """Answer in the plain form."""
        return Response(answer(await request.body()))

    @app.post("/json")
    async def json(self, request: Request) -> dict[str, Any]:
        """Answer in JSON."""
        batch = await request.json()
        return answer_lists(batch["logits"], batch["labels"], batch.get("threads", 1))


def settings(port: int) -> dict[str, str]:
    """Return the settings that Ray reads on import."""
    return {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Keeps Ray's own ports on the loopback, as on systems where it knows no clusters.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # What it does while it waits would be measured with the others.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "2",
        "RAY_enable_metrics_collection": "0",
        "RAY_event_stats": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DEFAULT_HTTP_HOST": HOST,
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


def stay_on_loopback() -> None:
    """Bind a worker's gRPC server to the loopback; Ray Serve binds it to every interface."""
    from grpc.aio._server import Server

    bind = Server.add_insecure_port

    def bind_to_loopback(self: Any, address: str) -> Any:
        return bind(self, address.replace("[::]", HOST))

    Server.add_insecure_port = bind_to_loopback


def serve(port: int, folder: str) -> None:
    """Serve until SIGTERM comes; what Ray writes lies in the folder."""
    os.environ.update(settings(port))
    import ray
    from ray import serve

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": stay_on_loopback},
        _temp_dir=folder,
    )
    # Only now: Ray has a handler of its own, which aborts.
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    serve.start(http_options={"host": HOST, "port": 0}, logging_config={"enable_access_log": False})
    deployment = serve.deployment(num_replicas=1, max_ongoing_requests=100)
    serve.run(deployment(serve.ingress(app)(CrossEntropy)).bind())
    over.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        serve(port, folder)

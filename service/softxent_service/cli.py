"""The entry point of `softxent`; imports nothing that the service extra brings."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

NEEDED = (
    *(
        "fastapi",
        "fastapi_offline",
        "typer",
        "uvicorn",
        "pydantic_settings",
        "httptools",
        "orjson",
        "simdjson",
    ),
    *("dask", "distributed", "dbos", "obstore", "prometheus_client", "structlog", "tenacity"),
    "zarr",
)
EXTRA = 'pip install "softxent[service]"'


def main() -> None:
    """Run the command, or say which extra it needs."""
    # The imports alone take half a second, in which a signal would be a traceback.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        from softxent_service.job_commands import app
    except ModuleNotFoundError as missing:
        if missing.name not in NEEDED:
            raise
        sys.exit(f"softxent: {missing.name} is not installed; run: {EXTRA}")
    app(prog_name="softxent")


def _end(_signal: int, _frame: FrameType | None) -> None:
    # SystemExit would be lost inside an import's callbacks, and there is nothing to clean up.
    os._exit(0)


if __name__ == "__main__":
    main()

"""The entry point of `softxent`; imports nothing that the service extra brings."""

from __future__ import annotations

import sys

NEEDED = ("fastapi", "typer", "uvicorn", "pydantic_settings", "httptools", "orjson", "simdjson")
EXTRA = 'pip install "softxent[service]"'


def main() -> None:
    """Run the command, or say which extra it needs."""
    try:
        from softxent_service.commands import app
    except ModuleNotFoundError as missing:
        if missing.name not in NEEDED:
            raise
        sys.exit(f"softxent: {missing.name} is not installed; run: {EXTRA}")
    app(prog_name="softxent")


if __name__ == "__main__":
    main()

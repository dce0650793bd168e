"""Clients of the softxent service: the library's own call, over HTTP, without its kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softxent_client.async_client import AsyncClient
    from softxent_client.client import Client
    from softxent_client.errors import ForkError, ServiceError, ServiceUnavailableError

__all__ = ["AsyncClient", "Client", "ForkError", "ServiceError", "ServiceUnavailableError"]

_MODULES = {"AsyncClient": "async_client", "Client": "client"}
_EXTRA = ("httpx", "httpx_retries", "ml_dtypes", "orjson", "simdjson")


def __getattr__(name: str) -> Any:
    # On first use, so that `softxent_client.wire` needs neither httpx nor its import time.
    if name not in __all__:
        raise AttributeError(f"module 'softxent_client' has no attribute {name!r}")
    import importlib

    module = _MODULES.get(name, "errors")
    try:
        value = getattr(importlib.import_module(f"softxent_client.{module}"), name)
    except ModuleNotFoundError as missing:
        if missing.name not in _EXTRA:
            raise
        message = f'{missing.name} is not installed; run: pip install "softxent[client]"'
        raise ModuleNotFoundError(message, name=missing.name) from None
    globals()[name] = value
    return value

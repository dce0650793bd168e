"""Requests of a client, prepared once for each route and set of options, and how they are sent."""

from __future__ import annotations

import select
import socket
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx
from httpx_retries import Retry

import softxent
from softxent_client.messages import Body, Call

PREPARED = 256
"""Requests kept; a caller whose options differ in every call does not fill the memory."""

TIMEOUT = httpx.Timeout(60.0, connect=5.0)

_NO_RETRY = Retry(total=0)


class Requests:
    """Maker of the requests to one service.

    Only what differs from call to call is made for each: httpx takes 170 us for a request.
    """

    def __init__(
        self, url: httpx.URL, auth: httpx.Auth | None, timeout: httpx.Timeout | float | None
    ) -> None:
        self._url = url
        if auth is None and (url.username or url.password):
            auth = httpx.BasicAuth(url.username, url.password)
        self._auth = auth
        self._extensions = {"timeout": httpx.Timeout(timeout).as_dict()}
        self._agent = f"softxent-client/{softxent.__version__}"
        self._prepared: dict[tuple[Any, ...], httpx.Request] = {}

    def request(self, call: Call) -> httpx.Request:
        """Return the request that sends `call`."""
        key = (call.method, call.path, call.content_type, *call.params.items())
        prepared = self._prepared.get(key)
        if prepared is None:
            if len(self._prepared) >= PREPARED:
                self._prepared.clear()
            prepared = self._prepared[key] = self._prepare(call)
        headers, body = prepared.headers.raw, call.body
        if body is not None:
            headers = [*headers, (b"Content-Length", b"%d" % body.nbytes)]
        extensions: dict[str, Any] = dict(self._extensions)
        if not call.retried:
            extensions["retry"] = _NO_RETRY
        return httpx.Request(
            prepared.method,
            prepared.url,
            headers=headers,
            stream=Body([]) if body is None else body,
            extensions=extensions,
        )

    def _prepare(self, call: Call) -> httpx.Request:
        """Return a request without a body; answers are asked for uncompressed, to be arrays."""
        headers = {"user-agent": self._agent, "accept-encoding": "identity"}
        if call.content_type is not None:
            headers["content-type"] = headers["accept"] = call.content_type
        url = self._url.copy_with(path=self._url.path.rstrip("/") + call.path)
        request = httpx.Request("GET", url, params=call.params or None, headers=headers)
        request.method = call.method
        # The key stands in no header of the client's own, which its repr or a log may show.
        return request if self._auth is None else next(self._auth.auth_flow(request))


def proxy_of(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for a service, as httpx reads it."""
    proxies = getproxies()
    if proxy_bypass(url.host):
        return None
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def can_be_direct() -> bool:
    """Tell whether this platform has what the transports of our own are made from."""
    return hasattr(select, "poll") and hasattr(socket.socket, "sendmsg")

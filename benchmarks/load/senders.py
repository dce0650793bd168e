"""Ways to send a request: by httpx, as people do, or by bare sockets where httpx is too slow.

httpx takes about 0.5 ms of a processor for a small call, several times what the service takes: from
one process it cannot find the service's limit with small calls, only with large ones.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from load.cases import PATH, Case

TIMEOUT_SECONDS = 60.0


class Sender(Protocol):
    """Sends a case's request; the body of an answer is read whole."""

    async def send(self, case: Case) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            OSError, httpx.HTTPError, ValueError, EOFError: there was no whole answer.
        """

    async def close(self) -> None:
        """Close the connections."""


FAILURES = (OSError, httpx.HTTPError, ValueError, EOFError, TimeoutError)
"""What a sender raises where there was no whole answer."""


def headers_of(case: Case, key: str | None) -> dict[str, str]:
    """Return what a request says beside its body."""
    told = {"content-type": case.form, "accept": case.form}
    return told if key is None else told | {"authorization": f"Bearer {key}"}


def trusted(authorities: Path | None) -> ssl.SSLContext:
    """Return whom an https service is believed: those of a PEM file, or whom httpx believes.

    Raises:
        OSError: the file cannot be read, or holds no certificates.
    """
    if authorities is None:
        return httpx.create_ssl_context()
    return ssl.create_default_context(cafile=authorities)


class HttpxSender:
    """One httpx client with kept-alive connections."""

    def __init__(
        self, url: str, key: str | None, connections: int, trust: ssl.SSLContext | None = None
    ) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._key = key
        # The client goes through its own queue for a connection whenever one comes free: with
        # thousands in it, it sends a tenth of what it could, and never catches up again.
        self._places = asyncio.Semaphore(connections)
        self._client = httpx.AsyncClient(
            base_url=url, limits=limits, timeout=TIMEOUT_SECONDS, verify=trust or trusted(None)
        )

    async def send(self, case: Case) -> tuple[int, bytes]:
        """Return status and body."""
        async with self._places:
            answer = await self._client.post(
                PATH, content=case.body, headers=headers_of(case, self._key)
            )
        return answer.status_code, answer.content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class RawSender:
    """Kept-alive connections of asyncio's own, which write one request and read one answer."""

    def __init__(
        self, url: str, key: str | None, connections: int, trust: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(url)
        is_https = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if is_https else 80)
        self._trust = (trust or trusted(None)) if is_https else None
        self._key = key
        self._places = asyncio.Semaphore(connections)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, case: Case) -> tuple[int, bytes]:
        """Return status and body."""
        async with self._places, asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await self._connection()
            try:
                writer.write(self._head(case))
                writer.write(case.body)
                status, headers = await _read_head(reader)
                body = await reader.readexactly(int(headers[b"content-length"]))
            except BaseException:
                writer.close()
                raise
            if headers.get(b"connection") == b"close":
                writer.close()
            else:
                self._idle.append((reader, writer))
            return status, body

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._idle:
            return self._idle.pop()
        return await asyncio.open_connection(self._host, self._port, limit=1 << 20, ssl=self._trust)

    def _head(self, case: Case) -> bytes:
        told: Mapping[str, object] = {
            "host": f"{self._host}:{self._port}",
            "content-length": len(case.body),
            **headers_of(case, self._key),
        }
        lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    async def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


CLIENTS: dict[str, type[HttpxSender] | type[RawSender]] = {"httpx": HttpxSender, "raw": RawSender}

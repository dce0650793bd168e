"""`GET /`: the page, out of files that `make web` has built; nothing is fetched from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import softxent_service
from softxent_service.telemetry.record import record_of

PATH = "/"

FOLDER = Path(softxent_service.__file__).parent / "web"

INDEX = "index.html"

FILES_ROUTE = "/web/{name}"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Scripts and styles are files of ours, requests go to this service, no text becomes markup."""

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
}

FOREVER = "public, max-age=31536000, immutable"
"""Names of files hold a hash of their content; the index is asked for with its ETag."""


@dataclass(frozen=True)
class PageFile:
    """One file of the page, plain and compressed."""

    content: bytes
    compressed: bytes
    media_type: str
    cache_control: str

    @property
    def etag(self) -> str:
        """Return the ETag of the plain file; the compressed one has another."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    def answer(self, accepted: str, known: str) -> Response:
        """Return the file in a coding of Accept-Encoding; no body where its ETag is known."""
        zipped = accepts_gzip(accepted) and len(self.compressed) < len(self.content)
        etag = f'"{self.etag}-gzip"' if zipped else f'"{self.etag}"'
        headers = {**HEADERS, "cache-control": self.cache_control, "etag": etag}
        if etag in known or known.strip() == "*":
            return Response(status_code=304, headers=headers)
        headers |= {"content-encoding": "gzip"} if zipped else {}
        content = self.compressed if zipped else self.content
        return Response(content, headers=headers, media_type=self.media_type)


@cache
def page_files() -> dict[str, PageFile]:
    """Return the files by the paths they are served at: those of the manifest and no others."""
    manifest = json.loads((FOLDER / "manifest.json").read_bytes())
    return {
        PATH if name == INDEX else f"/web/{name}": _read(name, media_type)
        for name, media_type in manifest.items()
    }


@cache
def page_paths() -> frozenset[str]:
    """Return where the files are served."""
    return frozenset(page_files())


def page_routes() -> list[Route]:
    """Return the routes of the page and of its files."""
    return [Route(path, _serve(path, file)) for path, file in page_files().items()]


def accepts_gzip(accepted: str) -> bool:
    """Return whether Accept-Encoding names gzip with a weight above 0."""
    for item in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name in ("gzip", "*"):
            return not any(p.replace(" ", "") in ("q=0", "q=0.0", "q=0.00") for p in parameters)
    return False


def _serve(path: str, file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    # Metrics count all files as one route: their names change with every release.
    route = path if path == PATH else FILES_ROUTE

    async def answer(request: Request) -> Response:
        record_of(request.scope).route = route
        headers = request.headers
        return file.answer(headers.get("accept-encoding", ""), headers.get("if-none-match", ""))

    return answer


def _read(name: str, media_type: str) -> PageFile:
    content = (FOLDER / name).read_bytes()
    cache_control = "no-cache" if name == INDEX else FOREVER
    return PageFile(content, gzip.compress(content, mtime=0), media_type, cache_control)

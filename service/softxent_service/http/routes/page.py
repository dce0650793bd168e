"""`GET /`: the page for browsers, from the files that `make web` builds."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import softxent_service
from softxent_service.http.errors import NotFoundError

PATH = "/"

FOLDER = Path(softxent_service.__file__).parent / "web"

INDEX = "index.html"

FILES_PATH = "/web/{name}"

LONGEST_NAME = 64
"""Characters of an unknown name that a refusal repeats."""

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
    """Return the files of the manifest by name; no others are served."""
    manifest = json.loads((FOLDER / "manifest.json").read_bytes())
    return {name: _read(name, media_type) for name, media_type in manifest.items()}


def page_routes() -> list[Route]:
    """Return the routes of the page and of its files."""
    page_files()
    return [Route(PATH, _index), Route(FILES_PATH, _file)]


async def _index(request: Request) -> Response:
    return _answer(request, page_files()[INDEX])


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name == INDEX or name not in page_files():
        raise NotFoundError(f"the page has no file {name[:LONGEST_NAME]!r}; GET / names its files")
    return _answer(request, page_files()[name])


def _answer(request: Request, file: PageFile) -> Response:
    headers = request.headers
    return file.answer(headers.get("accept-encoding", ""), headers.get("if-none-match", ""))


def accepts_gzip(accepted: str) -> bool:
    """Return whether Accept-Encoding names gzip with a weight above 0."""
    for item in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name in ("gzip", "*"):
            return not any(p.replace(" ", "") in ("q=0", "q=0.0", "q=0.00") for p in parameters)
    return False


def _read(name: str, media_type: str) -> PageFile:
    content = (FOLDER / name).read_bytes()
    cache_control = "no-cache" if name == INDEX else FOREVER
    return PageFile(content, gzip.compress(content, mtime=0), media_type, cache_control)

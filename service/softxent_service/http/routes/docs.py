"""`GET /docs`: the OpenAPI document, to be read and tried.

All of it comes out of files of the service; nothing is fetched from elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, JSONResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PATH, DOCUMENT = "/docs", "/openapi.json"

FOLDER = Path(fastapi_offline.__file__).parent / "static"

SCRIPT, STYLE = "swagger-ui-bundle.js", "swagger-ui.css"

PATHS = frozenset({DOCUMENT, PATH, f"{PATH}/{SCRIPT}", f"{PATH}/{STYLE}"})

POLICY = (
    "default-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline';"
    " style-src 'self' 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
)
"""Browsers fetch nothing from elsewhere under it; the page's own script is inline."""

_SECURE = {"content-security-policy": POLICY}


def docs_routes(document: dict[str, Any]) -> list[Route]:
    """Return the routes of the page, of its files and of the OpenAPI `document`."""
    return [
        Route(DOCUMENT, _always(JSONResponse(document))),
        Route(PATH, _page),
        *(Route(f"{PATH}/{name}", _file(name)) for name in (SCRIPT, STYLE)),
    ]


def _always(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:
        return response

    return answer


async def _page(_request: Request) -> Response:
    # Relative URLs hold behind any prefix that a proxy may add.
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="softxent",
        swagger_js_url=f"docs/{SCRIPT}",
        swagger_css_url=f"docs/{STYLE}",
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers.update(_SECURE)
    return page


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:
        return FileResponse(FOLDER / name, headers={"cache-control": "public, max-age=3600"})

    return answer

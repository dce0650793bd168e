"""`GET /v1/fixtures`: inputs with exact answers, to check an implementation with."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, computed_field

import softxent_service
from softxent_client.wire import SAFETENSORS
from softxent_service.http import problems
from softxent_service.http.errors import NotFoundError

PATH = "/v1/fixtures"

FOLDER = Path(softxent_service.__file__).parent / "fixtures"

CACHE_CONTROL = "public, max-age=3600"
"""Files change with a release at most, and who has one asks with its ETag."""


class Fixture(BaseModel):
    """One file: a call with its answers."""

    name: str
    description: str
    evaluation: str = Field(description="The route it is a call of.")
    options: dict[str, str] = Field(description="Its options, as query parameters.")
    dtype: str = Field(description="Of its logits, as safetensors names it.")
    shape: list[int] = Field(description="Of its logits.")
    bytes: int
    sha256: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def href(self) -> str:
        """Return the path it is served at."""
        return f"{PATH}/{self.name}"


class Fixtures(BaseModel):
    """Every file there is."""

    numerics: int = Field(description="The numerics version whose bounds the files state.")
    fixtures: list[Fixture]


def fixture_routes(methods: list[str]) -> APIRouter:
    """Return the routes, answering to `methods`."""
    router = APIRouter(tags=["fixtures"])
    route = partial(router.api_route, methods=methods)

    @route(PATH, summary="Inputs with exact answers")
    def index() -> Fixtures:
        return load_index()

    @route(
        PATH + "/{name}",
        summary="One of them, a safetensors file",
        response_class=_File,
        responses=_RESPONSES,
        openapi_extra={"parameters": [_NAME]},
    )
    def file(request: Request) -> Response:
        return answer(request.path_params["name"], request.headers.get("if-none-match", ""))

    return router


def answer(name: str, known: str) -> Response:
    """Return the file called `name`, or no body where its ETag is among those `known`.

    Raises:
        NotFoundError: the index names no such file.
    """
    found = {fixture.name: fixture for fixture in load_index().fixtures}.get(name)
    if found is None:
        raise NotFoundError(f"no fixture has this name; {PATH} lists them all", field="name")
    headers = {"etag": f'"{found.sha256}"', "cache-control": CACHE_CONTROL}
    if headers["etag"] in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    headers["content-disposition"] = f'attachment; filename="{name}.safetensors"'
    return _File((FOLDER / f"{name}.safetensors").read_bytes(), headers=headers)


@cache
def load_index() -> Fixtures:
    """Return the index that was written with the files."""
    return Fixtures.model_validate_json((FOLDER / "index.json").read_bytes())


class _File(Response):
    media_type = SAFETENSORS


_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
"""Any text may be asked for, so the framework need not check it, nor document its own 422."""

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "If-None-Match holds its ETag"},
    404: {
        "description": "No fixture has this name",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
}

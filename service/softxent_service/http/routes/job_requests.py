"""Members, keys and pages of requests about jobs and arrays."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Scope

from softxent_client.wire import MalformedBodyError
from softxent_client.wire.json_reader import BOM, BOM_FORBIDDEN
from softxent_client.wire.schema import SHOWN, repeated
from softxent_service.http.errors import MalformedRequestError
from softxent_service.http.limits.body import Buffer
from softxent_service.jobs.errors import SpecificationError
from softxent_service.jobs.states import STATES

Json = dict[str, Any]

PAGE, LONGEST_PAGE = 50, 500
"""Jobs or arrays of a page: by default, and at most."""


def idempotency_key(scope: Scope) -> str | None:
    """Return the header Idempotency-Key, None without one.

    Raises:
        MalformedRequestError: it is empty, too long, or given twice.
    """
    given = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not given:
        return None
    key: str = given[0].decode("latin-1").strip()
    if len(given) > 1 or not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise MalformedRequestError(
            "Idempotency-Key must be given once, 1 to 255 visible characters",
            field="idempotency-key",
        )
    return key


def read_members(body: Buffer) -> object:
    """Return the JSON value of a body.

    Raises:
        MalformedBodyError: it is no JSON in UTF-8, or begins with a byte order mark.
        SpecificationError: a member is given twice.
    """
    data = bytes(body)
    if data.startswith(BOM):
        raise MalformedBodyError(BOM_FORBIDDEN)
    try:
        # Of bytes the parser would guess the coding, and read UTF-16 too.
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedBodyError("the body is not UTF-8") from None
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, SpecificationError):
            raise
        raise MalformedBodyError(f"the body is not JSON: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = repeated(name for name, _ in pairs) or ""
        raise SpecificationError(
            f"member {twice[:SHOWN]!r} is given more than once", field=twice[:SHOWN]
        )
    return members


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def read_list(query: bytes) -> Json:
    """Read which jobs are asked for.

    Raises:
        SpecificationError: a parameter is unknown, repeated or no legal value.
    """
    given = _parameters(query, ("state", "limit", "cursor"))
    states = given["state"].split(",") if "state" in given else []
    for word in states:
        if word not in STATES:
            raise SpecificationError(
                f"state must be among {', '.join(STATES)}, not {word[:SHOWN]!r}", field="state"
            )
    return {"states": states, "limit": _limit(given), "cursor": given.get("cursor")}


def read_page(query: bytes) -> tuple[int, str | None]:
    """Read how many arrays are asked for, and behind which cursor.

    Raises:
        SpecificationError: a parameter is unknown, repeated or no legal value.
    """
    given = _parameters(query, ("limit", "cursor"))
    return _limit(given), given.get("cursor")


def _parameters(query: bytes, known: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            raise SpecificationError(
                f"unknown parameter {name[:SHOWN]!r}; known are {', '.join(known)}",
                field=name[:SHOWN],
            )
        if name in given:
            raise SpecificationError(f"parameter {name} is given more than once", field=name)
        given[name] = text
    return given


def _limit(given: dict[str, str]) -> int:
    text = given.get("limit", str(PAGE))
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= LONGEST_PAGE:
        raise SpecificationError(f"limit must be in [1, {LONGEST_PAGE}]", field="limit")
    return int(text)


_TEXT: Json = {"type": "string"}

_ID: Json = {"name": "id", "in": "path", "required": True, "schema": _TEXT}

_LAST_EVENT: Json = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that was received; it is not sent again.",
    "schema": _TEXT,
}

_CURSOR: Json = {
    "name": "cursor",
    "in": "query",
    "required": False,
    "description": "The next of the page before.",
    "schema": _TEXT,
}


def _most(what: str) -> Json:
    return {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": f"Most {what} of a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST_PAGE, "default": PAGE},
    }


LIST_PARAMETERS: list[Json] = [
    {
        "name": "state",
        "in": "query",
        "required": False,
        "description": "Only jobs in one of these states.",
        "schema": {"type": "array", "items": {"type": "string", "enum": list(STATES)}},
        "style": "form",
        "explode": False,
    },
    _most("jobs"),
    _CURSOR,
]

ARRAYS_PARAMETERS = [_most("arrays"), _CURSOR]

ID_PARAMETERS = [_ID]

EVENTS_PARAMETERS = [_ID, _LAST_EVENT]

"""The JSON of an Open Inference Protocol request: its members, each checked as it is read.

`null` counts as absent, as several clients write it. Unlike the other JSON form, this one may hold
the bare words NaN and Infinity, which the protocol's own clients write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import simdjson

from softxent_client.wire.errors import MalformedBodyError, UnknownNameError
from softxent_client.wire.json_reader import parse
from softxent_client.wire.json_values import shown
from softxent_client.wire.schema import SHOWN

T = TypeVar("T")

# A string that does not end is one match too: looking for its end from each quote in it again would
# take the square of the time.
_STRING_OR_WORD = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|-?+\b(?:NaN|Infinity)\b', re.DOTALL)
_CALLED = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}


def read_document(text: bytes) -> dict[str, Any]:
    """Return the members of the object; of each input, `data` is left as simdjson's array.

    Raises:
        MalformedBodyError: it is no JSON object.
    """
    root = parse_with_words(simdjson.Parser(), text)
    if not isinstance(root, simdjson.Object):
        raise MalformedBodyError("the JSON is not an object")
    if b'"data"' not in text:
        return dict(root.as_dict())
    members = {name: root.get(name) for name in root}
    inputs = members.pop("inputs", None)
    read = {name: _plain(value) for name, value in members.items()}
    if isinstance(inputs, simdjson.Array):
        read["inputs"] = [_but_data(entry) for entry in inputs]
    return read


def parse_with_words(parser: Any, text: bytes) -> Any:
    """Return simdjson's view of JSON that may hold bare NaN and Infinity.

    Raises:
        MalformedBodyError: it is not such JSON.
    """
    try:
        return parse(parser, text)
    except MalformedBodyError:
        quoted = _STRING_OR_WORD.sub(_quoted, text) if b'"' in text else _all_quoted(text)
        if quoted == text:
            raise
        return parse(parser, quoted)


def _all_quoted(text: bytes) -> bytes:
    for word in (b"NaN", b"Infinity"):
        text = text.replace(word, b'"%s"' % word)
    return text.replace(b'-"Infinity"', b'"-Infinity"')


def _quoted(found: re.Match[bytes]) -> bytes:
    return found[0] if found[0].startswith(b'"') else b'"%s"' % found[0]


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _but_data(entry: Any) -> Any:
    if not isinstance(entry, simdjson.Object):
        return _plain(entry)
    members = {name: entry.get(name) for name in entry}
    return {name: v if name == "data" else _plain(v) for name, v in members.items()}


def member(members: Mapping[str, Any], name: str, kind: type[T], owner: str) -> T | None:
    """Return a member of the JSON type that `kind` stands for, None where it is absent or null.

    Raises:
        MalformedBodyError: it has another type.
    """
    value = members.get(name)
    if value is None:
        return None
    if type(value) is not kind:
        raise MalformedBodyError(
            f"{name} of {owner} must be {_CALLED[kind]}, not {_shown(value)}", field=name
        )
    return value


def required(members: Mapping[str, Any], name: str, kind: type[T], owner: str) -> T:
    """Return a member that must be there.

    Raises:
        MalformedBodyError: it is absent, or has another type.
    """
    value = member(members, name, kind, owner)
    if value is None:
        raise MalformedBodyError(f"{name} of {owner} is missing", field=name)
    return value


def natural(members: Mapping[str, Any], name: str, owner: str) -> int | None:
    """Return an integer that is not negative, None where it is absent or null.

    Raises:
        MalformedBodyError: it is something else.
    """
    value = member(members, name, int, owner)
    if value is not None and value < 0:
        raise MalformedBodyError(f"{name} of {owner} must not be negative: {value}", field=name)
    return value


def objects(members: Mapping[str, Any], name: str, owner: str) -> list[dict[str, Any]]:
    """Return an array of objects, empty where it is absent or null.

    Raises:
        MalformedBodyError: it is something else.
    """
    values = member(members, name, list, owner) or []
    for value in values:
        if type(value) is not dict:
            raise MalformedBodyError(f"{name} of {owner} must be an array of objects", field=name)
    return values


def refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], owner: str) -> None:
    """Refuse parameters that are not known.

    Raises:
        UnknownNameError: there is one that is not null.
    """
    for name, value in given.items():
        if name not in known and value is not None:
            raise UnknownNameError(
                f"unknown parameter {name[:SHOWN]!r} of {owner}; known are {', '.join(known)}",
                field=name[:SHOWN],
            )


def _shown(value: object) -> str | int | float:
    # Here arrays are lists, which the words for JSON's values do not know.
    return "an array" if isinstance(value, list) else shown(value)

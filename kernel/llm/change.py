"""Members of a JSON object set in its text, every other character of it left as it is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kernel.llm.request import Place

LONGEST_CHANGE = 256
"""By how many bytes a body becomes longer at most, with all members that calls of models are given."""
_SPACE = re.compile(r"[ \t\n\r]*", re.ASCII)
_DECODER = json.JSONDecoder()
_SCANNED = json.decoder.scanstring  # type: ignore[attr-defined]


def with_members(text: str, members: Mapping[Place, int | bool]) -> str:
    """The object with these members: in the place of what stood there, or in front of the others.

    `text` is an object that `kernel.json_fields.read_tree` reads; so is what should hold a member, or it is null.
    """
    for place, value in members.items():
        text = _with_member(text, _after_space(text, 0), place, json.dumps(value))
    return text


def _with_member(text: str, at: int, place: Place, value: str) -> str:
    """`at` is where the object begins."""
    name, *inner = place
    spans = _members(text, at)
    if name not in spans:
        comma = "," if spans else ""
        return f"{text[:at + 1]}{json.dumps(name)}:{_nested(inner, value)}{comma}{text[at + 1:]}"
    begin, end = spans[name]
    if inner and text[begin] == "{":
        return _with_member(text, begin, tuple(inner), value)
    return text[:begin] + _nested(inner, value) + text[end:]


def _nested(inner: list[str], value: str) -> str:
    for name in reversed(inner):
        value = f"{{{json.dumps(name)}:{value}}}"
    return value


def _members(text: str, at: int) -> dict[str, tuple[int, int]]:
    """Where the value of each member of the object that begins there begins and ends."""
    spans: dict[str, tuple[int, int]] = {}
    at = _after_space(text, at + 1)
    while text[at] != "}":
        name, at = _SCANNED(text, at + 1)
        begin = _after_space(text, _after_space(text, at) + 1)
        end = _DECODER.raw_decode(text, begin)[1]
        spans[name] = begin, end
        at = _after_space(text, end)
        at = _after_space(text, at + 1) if text[at] == "," else at
    return spans


def _after_space(text: str, at: int) -> int:
    return next(_SPACE.finditer(text, at)).end()

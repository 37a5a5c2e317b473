"""What rules ask of the fields of a request, from text to comparisons: query, headers, content types, JSON, forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kernel.comparison import ABSENT, Comparison, Field, Interval, alternative
from kernel.document import Mapping, Node, Reader
from kernel.errors import PatternError
from kernel.fields import Part

_LONGEST = 200
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)
_MEDIA_TYPES = "write a media type such as application/json or text/*"
# What Governor reads, writes or takes out itself, or what belongs to one connection and not to the request.
_OWN_HEADERS = frozenset({
    "connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "sec-websocket-extensions", "te",
    "trailer", "transfer-encoding", "upgrade",
})
_OWN_PREFIXES = ("proxy-", "x-governor-")


def read_fields(reader: Reader, key: str, node: Node) -> dict[str, Any]:
    """What one of these keys says, as a field of `Conditions`; nothing where it has an error."""
    part = Part(key)
    if part is Part.CONTENT_TYPES:
        kinds = _comparison(reader, node, key, _media_type)
        return {} if kinds is None else {"content_types": kinds}
    entries = reader.entries(node, key)
    if isinstance(node, Mapping) and not node.parts:
        reader.error("E104", node, f'"{key}:" names no field', f"write {key}: {{NAME: VALUE}}, or leave the key out")
    fields: dict[str, Field] = {}
    for name, value in entries:
        read = reader.parsed("E211", name, _NAMES[part])
        values = _comparison(reader, value, f'{key} "{name.text}"', alternative)
        if read in fields:
            reader.error("E101", name, f'"{read}" stands twice in {key}', "a header's name has no case")
        elif read is not None and values is not None:
            fields[read] = Field(read, values)
    return {part.value: tuple(fields.values())}


def _comparison(
    reader: Reader, node: Node, what: str, parse: Callable[[str], str | Interval]
) -> Comparison | None:
    words = reader.words(node, what)
    read = [reader.parsed("E210", word, parse) for word in words if word.text != ABSENT]
    if not words or None in read:
        return None
    globs = dict.fromkeys(each for each in read if isinstance(each, str))
    intervals = dict.fromkeys(each for each in read if isinstance(each, Interval))
    return Comparison(tuple(globs), tuple(intervals), any(word.text == ABSENT for word in words))


def _media_type(text: str) -> str:
    lowered = text.lower()
    if _MEDIA_TYPE.fullmatch(lowered):
        return lowered
    kind = lowered.partition(";")[0].strip()
    if ";" in text and _MEDIA_TYPE.fullmatch(kind):
        raise PatternError(f'"{text}" has parameters, which are not compared', f"write {kind}")
    hint = f"write application/{lowered}" if _HEADER.fullmatch(lowered) and "*" not in lowered else _MEDIA_TYPES
    raise PatternError(f'"{text}" is no media type', hint)


def _json_name(text: str) -> str:
    _check_name(text)
    if text.startswith(("$", "/")) or "[" in text or "*" in text:
        hint = "write names with dots between them, such as user.name; what lies in a list cannot be compared"
        raise PatternError(f'"{text}" is no path of names', hint)
    names = text.split(".")
    if "" in names:
        raise PatternError(f'"{text}" has a dot without names on both sides', f"write {'.'.join(filter(None, names))}")
    return text


def _plain_name(text: str) -> str:
    _check_name(text)
    if "*" in text:
        raise PatternError(f'"{text}": a name has no star', "write each name out")
    return text


def _header_name(text: str) -> str:
    lowered = text.lower()
    _check_name(text)
    if lowered == "content-type":
        raise PatternError('"headers:" does not compare the content type', "write content-types: [application/json]")
    if lowered in _OWN_HEADERS or lowered.startswith(_OWN_PREFIXES):
        raise PatternError(f'Governor itself sees to "{lowered}", and no rule can', "take it out")
    if not _HEADER.fullmatch(lowered) or "*" in lowered:
        raise PatternError(f'"{text}" is not the name of a header', "write a name such as x-tenant")
    return lowered


def _check_name(text: str) -> None:
    if not text or len(text) > _LONGEST or not text.isprintable() or text != text.strip():
        hint = f"one to {_LONGEST} printable characters without spaces around them"
        raise PatternError(f'"{text[:_LONGEST]}" cannot name a field', hint)


_NAMES: dict[Part, Callable[[str], str]] = {
    Part.QUERY: _plain_name,
    Part.HEADERS: _header_name,
    Part.JSON: _json_name,
    Part.FORM: _plain_name,
}

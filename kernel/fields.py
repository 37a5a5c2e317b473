"""The fields of a request that a rule can compare: query, headers, content type, JSON body, form body.

What readers may read in two ways is a gap: never a guess. A field is read when a rule first asks for it, and once.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from kernel.comparison import UNREADABLE, Gap, Value
from kernel.form_fields import read_pairs
from kernel.json_fields import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

type Headers = tuple[tuple[bytes, bytes], ...]

MODEL = "model"
"""The member of a JSON body that names the model which is asked."""

MOST_BODY_BYTES = 1024 * 1024
"""A body that is longer, as it goes over the wire or decoded, is not read for its fields."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"{_WORD}/{_WORD}", re.ASCII)
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\";\s]*)", re.IGNORECASE)
_READABLE_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})
JSON_TYPE, FORM_TYPE = "application/json", "application/x-www-form-urlencoded"


class Part(StrEnum):
    """Where in a request a field stands, by the key of a rule that speaks of it."""

    QUERY = "query"
    HEADERS = "headers"
    CONTENT_TYPES = "content-types"
    JSON = "json"
    FORM = "form"

    @property
    def in_body(self) -> bool:
        return self is Part.JSON or self is Part.FORM


class _Readable(Protocol):
    def value(self, name: str) -> Value: ...


class Fields:
    """The fields of one request: its query as it is sent, its header fields, and its body without content codings.

    A `Gap` in the place of a part makes every field of it one. `model` is the member `model` of a JSON body, where
    somebody else has read it: one of a long body, or of a request in the log.
    """

    __slots__ = ("_body", "_headers", "_parts", "_query", "_values")

    def __init__(
        self, query: str | Gap = "", headers: Headers | Gap = (), body: bytes | Gap = b"",
        model: str | Gap | None = None,
    ) -> None:
        self._query, self._headers, self._body = query, headers, body
        self._parts: dict[Part, _Readable | Gap] = {}
        self._values: dict[tuple[Part, str], Value] = {} if model is None else {(Part.JSON, MODEL): model}

    def value(self, part: Part, name: str) -> Value:
        """The field's value. The content type has the name ""."""
        key = (part, name)
        if key not in self._values:
            self._values[key] = self._read(part, name)
        return self._values[key]

    def _read(self, part: Part, name: str) -> Value:
        if part.in_body and self._body == b"":
            return None
        if part not in self._parts:
            self._parts[part] = self._part(part)
        found = self._parts[part]
        return found if isinstance(found, Gap) else found.value(name)

    def _part(self, part: Part) -> _Readable | Gap:
        match part:
            case Part.QUERY:
                return self._query if isinstance(self._query, Gap) else read_pairs(self._query)
            case Part.HEADERS | Part.CONTENT_TYPES:
                return self._headers if isinstance(self._headers, Gap) else _HeaderFields(self._headers)
            case Part.JSON:
                return self._of_body(_is_json, "JSON", read_json)
            case Part.FORM:
                return self._of_body(lambda kind: kind == FORM_TYPE, FORM_TYPE, _read_form)

    def _of_body(
        self, is_one: Callable[[str], bool], what: str, read: Callable[[bytes], _Readable | Gap]
    ) -> _Readable | Gap:
        """What a body says that is declared to be of this kind."""
        body = self._declared(is_one, what)
        return body if isinstance(body, Gap) else read(body)

    def json_body(self) -> bytes | Gap:
        """The body, where it is declared to be JSON."""
        return self._declared(_is_json, "JSON")

    def _declared(self, is_one: Callable[[str], bool], what: str) -> bytes | Gap:
        if isinstance(self._body, Gap):
            return self._body
        kind = self.value(Part.CONTENT_TYPES, "")
        if isinstance(kind, Gap):
            return kind
        if kind is None or not is_one(kind):
            return Gap(f"the content type is {kind or 'absent'}, not {what}")
        charsets = _CHARSET.findall(_first(self._headers, b"content-type"))
        if not all(charset.lower() in _READABLE_CHARSETS for charset in charsets):
            return Gap("the content type names another charset than UTF-8")
        return self._body


NOT_LOOKED_AT = Fields(UNREADABLE, UNREADABLE, UNREADABLE)


def _is_json(kind: str) -> bool:
    return kind == JSON_TYPE or kind.endswith("+json")


def _read_form(body: bytes) -> _Readable | Gap:
    try:
        return read_pairs(body.decode())
    except UnicodeDecodeError:
        return Gap("the body is not UTF-8")


class _HeaderFields:
    """Header fields by name, and the content type under "". A field that comes twice has no one value."""

    def __init__(self, fields: Headers) -> None:
        self._fields = [(like(name), name.lower(), value) for name, value in fields]
        self._nominated = nominated(fields)

    def value(self, name: str) -> Value:
        if not name:
            return self._content_type()
        wanted = name.encode()
        found = [(own, value) for alike, own, value in self._fields if alike == like(wanted)]
        if like(wanted) in self._nominated:
            return Gap(f"the Connection header lets {name} be taken out on the way")
        if len(found) > 1:
            return Gap(f"there is more than one {name}")
        if not found:
            return None
        own, value = found[0]
        return value.decode("latin-1").strip(" \t") if own == wanted else Gap('some readers take "_" and "-" for one')

    def _content_type(self) -> Value:
        value = self.value("content-type")
        if not isinstance(value, str):
            return value
        kind = value.partition(";")[0].strip().lower()
        return kind if _MEDIA_TYPE.fullmatch(kind) else Gap("the content type is no media type")


def like(name: bytes) -> bytes:
    """A header's name as the most careless reader compares it: CGI and what came after it read "_" as "-"."""
    return name.lower().replace(b"_", b"-")


def nominated(fields: Headers) -> frozenset[bytes]:
    """The fields that whoever stands before the origin takes out, because `Connection` names them."""
    lists = [value for name, value in fields if name.lower() == b"connection"]
    return frozenset(like(name.strip(b" \t")) for each in lists for name in each.split(b","))


def _first(headers: Headers | Gap, name: bytes) -> str:
    """The value of a header field that is there once."""
    if isinstance(headers, Gap):
        return ""
    return next((value.decode("latin-1") for own, value in headers if own.lower() == name), "")


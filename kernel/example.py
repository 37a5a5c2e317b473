"""A request that says given fields, for assertions and for showing a finding. It is read back as it was meant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernel.comparison import number_of
from kernel.fields import FORM_TYPE, JSON_TYPE, Fields, Headers, Part

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CONTENT_TYPE = "content-type"
_WORDS = ("true", "false", "null")

type Values = Mapping[tuple[Part, str], str]


@dataclass(frozen=True, slots=True)
class Example:
    """What a request carries beside method and path."""

    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None

    @property
    def sent_headers(self) -> Headers:
        return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers)

    @property
    def fields(self) -> Fields:
        return Fields(self.query, self.sent_headers, (self.body or "").encode())


NOTHING = Example()


def example(values: Values) -> Example | None:
    """The request with these values and no other fields; None where no request has them all.

    The content type has the name "", as in `Fields`. Where it is not given it is that of the body.
    """
    said = {part: {name: text for (own, name), text in values.items() if own is part} for part in Part}
    kind = said[Part.CONTENT_TYPES].get("")
    body = None
    if said[Part.JSON]:
        kind, body = kind or JSON_TYPE, _json(said[Part.JSON])
    elif said[Part.FORM]:
        kind, body = kind or FORM_TYPE, _pairs(said[Part.FORM])
    headers = (*said[Part.HEADERS].items(), *([(_CONTENT_TYPE, kind)] if kind else []))
    found = Example(_pairs(said[Part.QUERY]), headers, body)
    return found if _says(found, values) else None


def _says(found: Example, values: Values) -> bool:
    try:
        fields = found.fields
        return all(fields.value(part, name) == text for (part, name), text in values.items())
    except UnicodeEncodeError:
        return False


def _json(texts: Mapping[str, str]) -> str:
    root: dict[str, Any] = {}
    for path, text in texts.items():
        *names, last = path.split(".")
        node: Any = root
        for name in names:
            node = node.setdefault(name, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node[last] = text
    return _written(root)


def _written(node: Any) -> str:
    if isinstance(node, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_written(value)}" for name, value in node.items()) + "}"
    return str(node) if node in _WORDS or number_of(node) is not None else json.dumps(node)


def _pairs(texts: Mapping[str, str]) -> str:
    return "&".join(f"{_escaped(name)}={_escaped(text)}" for name, text in texts.items())


def _escaped(text: str) -> str:
    return "".join(c if c in _UNRESERVED else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)

"""What kinds of bodies a set of field values allows: a body has one content type, and its fields one reading."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from kernel.analysis.values import ABSENT_VALUE, UNREADABLE_VALUE, Values
from kernel.comparison import Comparison
from kernel.example import Example, example
from kernel.fields import FORM_TYPE, JSON_TYPE, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

JSON_TYPES, FORM_TYPES = Comparison((JSON_TYPE, "*+json")), Comparison((FORM_TYPE,))
"""What the content type tells of a body. Where a policy speaks of bodies, the content type has kinds for these."""

_CONTENT_TYPE = "content-type"
_UNREADABLE_BODY = "%"  # no JSON, and no form either


class _Body(NamedTuple):
    """A kind of body: the part of which its fields are, and the values that each field can have beside it."""

    part: Part | None
    empty: str | None
    allowed: tuple[int, ...]


class Bodies:
    """The four kinds of bodies: none, JSON, a form, and one without fields that can be read."""

    def __init__(self, values: Sequence[Values]) -> None:
        self._values = values
        self.matter = any(each.part.in_body for each in values)
        self._every = (
            self._body(None, None, None),
            self._body(Part.JSON, "{}", JSON_TYPES),
            self._body(Part.FORM, "&", FORM_TYPES),
            self._body(None, _UNREADABLE_BODY, None),
        ) if self.matter else (self._body(None, None, None),)

    def _body(self, part: Part | None, empty: str | None, types: Comparison | None) -> _Body:
        beside = ABSENT_VALUE if empty is None else UNREADABLE_VALUE
        allowed = [beside if each.part.in_body and each.part is not part else each.every for each in self._values]
        for place, each in enumerate(self._values):
            if each.part is Part.CONTENT_TYPES and types is not None:
                allowed[place] = each.mask(types, wide=False)
        return _Body(part, empty, tuple(allowed))

    def possible(self, masks: Sequence[int]) -> bool:
        """True when some body goes with values of each of these sets."""
        return any(all(mask & each for mask, each in zip(masks, body.allowed, strict=True)) for body in self._every)

    def shown(self, masks: Sequence[int]) -> Example | None:
        """A plain request with these values, as far as one is easily made: what it says is to be read again."""
        for body in self._every:
            wanted = [mask & each for mask, each in zip(masks, body.allowed, strict=True)]
            found = self._example(body, wanted) if all(wanted) else None
            if found is not None:
                return found
        return None

    def _example(self, body: _Body, masks: Sequence[int]) -> Example | None:
        texts: dict[tuple[Part, str], str] = {}
        broken: list[Values] = []
        for each, mask in zip(self._values, masks, strict=True):
            if mask & ABSENT_VALUE:
                continue
            text = each.shown(mask)
            if text is not None:
                texts[each.part, each.name] = text
            elif not each.part.in_body or each.part is body.part:
                broken.append(each)
        found = example(texts)
        return None if found is None else _broken(found, broken, body)


def _broken(found: Example, broken: Sequence[Values], kind: _Body) -> Example:
    """The request with fields that cannot be read, and with a body where it needs one."""
    body = found.body if found.body is not None else kind.empty
    query, headers = [found.query] if found.query else [], list(found.headers)
    for each in broken:
        match each.part:
            case Part.QUERY:
                query.append(_twice(each.name))
            case Part.HEADERS | Part.CONTENT_TYPES:
                headers += [(each.name or _CONTENT_TYPE, "a")] * 2
            case Part.FORM:
                body = f"{body}&{_twice(each.name)}"
            case Part.JSON:
                rest = (body or "{}")[1:]
                body = f"{{{json.dumps(each.name)}: []{rest if rest == '}' else f', {rest}'}"
    return Example("&".join(query), tuple(headers), body)


def _twice(name: str) -> str:
    found = example({(Part.QUERY, name): "a"})
    return "" if found is None else f"{found.query}&{found.query}"

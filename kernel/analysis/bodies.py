"""What kinds of bodies a set of field values allows: a body has one content type, and its fields one reading."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from kernel.analysis.language import EVERY, Lang, Patterns
from kernel.analysis.values import ABSENT_VALUE, UNREADABLE_VALUE, Values
from kernel.example import Example, example
from kernel.fields import FORM_TYPE, JSON_TYPE, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONTENT_TYPE = "content-type"
_UNREADABLE_BODY = "%"  # no JSON, and no form either


class _Body(NamedTuple):
    """A kind of body: what the content type must be, and the part of which its fields are."""

    types: Lang | None
    part: Part | None
    empty: str | None


class Bodies:
    """The four kinds of bodies: none, JSON, a form, and one without fields that can be read."""

    def __init__(self, values: Sequence[Values]) -> None:
        patterns = Patterns()
        self._parts = [each.part for each in values]
        self._kind = next((place for place, each in enumerate(self._parts) if each is Part.CONTENT_TYPES), None)
        self._values = values
        self._any = any(part.in_body for part in self._parts)
        self._every = (
            _Body(None, None, None),
            _Body(Lang(frozenset({patterns.words([JSON_TYPE, "*+json"])})), Part.JSON, "{}"),
            _Body(Lang(frozenset({patterns.words([FORM_TYPE])})), Part.FORM, "&"),
            _Body(None, None, _UNREADABLE_BODY),
        )

    def of(self, masks: Sequence[int], langs: Sequence[Lang]) -> list[_Body]:
        """The kinds of bodies whose fields can all be as they are wanted."""
        if not self._any:
            return list(self._every[:1])
        return [body for body in self._every if self._fits(body, masks, langs)]

    def _fits(self, body: _Body, masks: Sequence[int], langs: Sequence[Lang]) -> bool:
        if body.types is not None and self._kind is not None:
            place = self._kind
            if not self._values[place].left(masks[place] & self._values[place].texts, langs[place].meet(body.types)):
                return False
        return all(mask & self.allowed(body, part) for part, mask in zip(self._parts, masks, strict=True))

    def allowed(self, body: _Body, part: Part) -> int:
        """The kinds of values that a field can have beside such a body."""
        if not part.in_body or part is body.part:
            return -1
        return ABSENT_VALUE if body.empty is None else UNREADABLE_VALUE


def shown_fields(
    values: Sequence[Values], bodies: Bodies, masks: Sequence[int], langs: Sequence[Lang]
) -> Example | None:
    """A plain request with these values, as far as one is easily made: what it says is to be read again."""
    for body in bodies.of(masks, langs):
        found = _Shown(values, bodies, body).example(masks, langs)
        if found is not None:
            return found
    return None


class _Shown:
    def __init__(self, values: Sequence[Values], bodies: Bodies, body: _Body) -> None:
        self._values, self._bodies, self._body = values, bodies, body

    def example(self, masks: Sequence[int], langs: Sequence[Lang]) -> Example | None:
        texts: dict[tuple[Part, str], str] = {}
        broken: list[Values] = []
        for each, mask, lang in zip(self._values, masks, langs, strict=True):
            wanted = mask & self._bodies.allowed(self._body, each.part)
            if each.part is Part.CONTENT_TYPES and self._body.types is not None:
                wanted, types = wanted & each.texts, self._body.types
            else:
                types = EVERY
            if wanted & ABSENT_VALUE:
                continue
            text = each.shortest(wanted & each.texts, lang.meet(types))
            if text is not None:
                texts[each.part, each.name] = text
            elif not each.part.in_body or each.part is self._body.part:
                broken.append(each)
        if self._body.part is not None:
            texts.setdefault((Part.CONTENT_TYPES, ""), JSON_TYPE if self._body.part is Part.JSON else FORM_TYPE)
        found = example(texts)
        return None if found is None else self._broken(found, broken)

    def _broken(self, found: Example, broken: Sequence[Values]) -> Example:
        """The request with fields that cannot be read, and with a body where it needs one."""
        body = found.body if self._body.part is not None and found.body is not None else self._body.empty
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

"""What a field can be, in the kinds that policies tell apart: absent, unreadable, a number between bounds, other text.

A set of values is a set of kinds and a `Lang`: what is absent or unreadable by its kind alone, and the texts of the
kinds that are also words of the language.
"""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kernel.analysis.language import EVERY, Lang, Words
from kernel.comparison import MOST_DIGITS, Gap
from kernel.fields import Part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.analysis.language import Patterns
    from kernel.comparison import Comparison, Interval, Value

ABSENT_VALUE, UNREADABLE_VALUE, OTHER_TEXT = 1, 2, 4
NO_TEXT = ABSENT_VALUE | UNREADABLE_VALUE
_FIRST_NUMBER = 3
_DIGITS = frozenset("0123456789")
_OTHERS = "qabcdefghijklmnoprstuvwxyz0123456789!#$&'+.^_`|~-"
_TYPE_CHARACTER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]", re.ASCII)


class _Numbers(NamedTuple):
    """The number `low` itself where `high` is the same, else those between the two; None is without end."""

    low: int | None
    high: int | None

    def within(self, interval: Interval) -> bool:
        if self.low is not None and self.low == self.high:
            return Decimal(self.low) in interval
        below = interval.low is None or (self.low is not None and self.low >= interval.low)
        return below and (interval.high is None or (self.high is not None and self.high <= interval.high))

    def has(self, low: int, high: int, *, minus: bool) -> bool:
        """True for a number of this sign whose magnitude compares with those of the two bounds as told."""
        if self.low is not None and self.low == self.high:
            return _compared(self.low, low, minus=minus) == 0
        above = self.low is None or _compared(self.low, low, minus=minus) > 0
        return above and (self.high is None or _compared(self.high, high, minus=minus) < 0)


def _compared(bound: int, magnitude: int, *, minus: bool) -> int:
    """How a number compares with a bound, from its sign and how its magnitude compares with that of the bound."""
    if minus is not (bound < 0):
        return -1 if minus else 1
    return -magnitude if minus else magnitude


class _Text(NamedTuple):
    """Where a text stands: in its part of a request, and as a number.

    `whole` and `digits` count digits before the point and in all, `low` and `high` compare what came with the bounds.
    """

    place: str
    phase: str = "start"
    minus: bool = False
    whole: int = 0
    digits: int = 0
    low: int = 0
    high: int = 0


class _Domain(Protocol):
    """Which texts a part of a request can hold: the place after a character, None where no text goes on so."""

    def __call__(self, place: str, character: str, /) -> str | None: ...


def _any_text(_: str, character: str) -> str | None:
    return None if character == "\0" else "ended"


def _header_text(place: str, character: str) -> str | None:
    if character in " \t":
        return None if place == "start" else "space"
    return None if character in "\0\r\n" or ord(character) > 0xFF else "ended"


def _type_text(place: str, character: str) -> str | None:
    if character == "/":
        return "slash" if place == "type" else None
    if not _TYPE_CHARACTER.fullmatch(character):
        return None
    return "type" if place in ("start", "type") else "ended"


_DOMAINS: dict[Part, _Domain] = {
    Part.QUERY: _any_text,
    Part.JSON: _any_text,
    Part.FORM: _any_text,
    Part.HEADERS: _header_text,
    Part.CONTENT_TYPES: _type_text,
}


class _Texts:
    """The texts of one kind that a part can hold: every text, those that are no number, or the numbers of a kind.

    Where not `limited`, numbers may have any number of digits, which makes for far fewer states.
    """

    longest: int | None = None
    start = _Text("start")

    def __init__(self, part: Part, *, counted: bool, numbers: _Numbers | None = None, limited: bool = True) -> None:
        self._domain = _DOMAINS[part]
        self._ends = {"ended"} if part is Part.CONTENT_TYPES else {"start", "ended"}
        self._counted, self._numbers, self._limited = counted, numbers, limited
        bounds = (None, None) if numbers is None else numbers
        self._low, self._high = ("" if bound is None else str(abs(bound)) for bound in bounds)
        self._longest = max(len(self._low), len(self._high)) + 1
        self._steps: dict[tuple[_Text, str], _Text | None] = {}

    def step(self, text: _Text, character: str) -> _Text | None:
        key = text, character
        if key not in self._steps:
            self._steps[key] = self._step(text, character)
        return self._steps[key]

    def _step(self, text: _Text, character: str) -> _Text | None:
        place = self._domain(text.place, character)
        if place is None:
            return None
        if not self._counted:
            return _Text(place)
        after = self._number(text, character)
        if after is not None:
            return after._replace(place=place)
        return _Text(place, "none") if self._numbers is None else None

    def _number(self, text: _Text, character: str) -> _Text | None:
        """The number so far with one character more; None where it is none."""
        if character == "-":
            return text._replace(phase="minus", minus=True) if text.phase == "start" else None
        if character == ".":
            return text._replace(phase="point") if text.phase in ("zero", "whole") else None
        if character not in _DIGITS or text.phase in ("zero", "none") or text.digits == MOST_DIGITS:
            return None
        text = text._replace(digits=text.digits + self._limited)
        if text.phase in ("point", "open", "fraction"):
            return text._replace(phase="open" if character == "0" else "fraction")
        phase = "zero" if character == "0" and text.phase != "whole" else "whole"
        low, high = (_digit(held, bound, text.whole, character)
                     for held, bound in ((text.low, self._low), (text.high, self._high)))
        whole = text.whole + 1 if self._limited else min(text.whole + 1, self._longest)
        return text._replace(phase=phase, whole=whole, low=low, high=high)

    def accepts(self, text: _Text) -> bool:
        if text.place not in self._ends:
            return False
        if not self._counted:
            return True
        is_number = text.phase in ("whole", "fraction") or (text.phase == "zero" and not text.minus)
        if self._numbers is None or not is_number:
            return self._numbers is None and not is_number
        low, high = (_magnitude(text, held, len(bound))
                     for held, bound in ((text.low, self._low), (text.high, self._high)))
        return self._numbers.has(low, high, minus=text.minus)

    def explicit(self, text: _Text) -> frozenset[str]:
        """What must be tried whatever the globs expect: a text that goes on otherwise is no number."""
        if self._domain is _type_text and text.place == "type":
            return frozenset("/")
        return _DIGITS | frozenset("-.") if self._numbers is not None else frozenset()

    def others(self, text: _Text) -> str:
        return _OTHERS


def _digit(held: int, bound: str, place: int, digit: str) -> int:
    """How the digits so far compare with the beginning of a bound."""
    if held or place >= len(bound):
        return held
    return (digit > bound[place]) - (digit < bound[place])


def _magnitude(text: _Text, held: int, length: int) -> int:
    """How a number's magnitude compares with that of a bound of so many digits."""
    if text.whole != length:
        return 1 if text.whole > length else -1
    return held or int(text.phase == "fraction")


class _Kind:
    """The texts of one kind."""

    def __init__(self, part: Part, *, counted: bool = True, numbers: _Numbers | None = None) -> None:
        probe = "q" if numbers is None else "1"
        self._is_number = numbers is not None
        self._only = str(numbers.low) if numbers is not None and numbers.low == numbers.high else None
        self._words = Words(_Texts(part, counted=counted, numbers=numbers), probe)
        self._simpler = Words(_Texts(part, counted=counted, numbers=numbers, limited=False), probe)

    def shortest(self, lang: Lang) -> str | None:
        """A short text of the kind in the language; None where there is none. Raises `TooHard`."""
        if self._only is not None:
            return self._only if self.has(lang, self._only) else None
        found = self._simpler.shortest(lang)
        if found is None:
            return None if self._is_number else self._words.shortest(lang)
        return found if self.has(EVERY, found) else self._words.shortest(lang)

    def has(self, lang: Lang, text: str) -> bool:
        return self._words.has(lang, text)


class Values:
    """The kinds of one field, by where it stands and its name."""

    def __init__(self, part: Part, name: str, comparisons: Iterable[Comparison]) -> None:
        self.part, self.name = part, name
        ends = {end for each in comparisons for span in each.intervals for end in (span.low, span.high)}
        bounds = sorted(end for end in ends if end is not None)
        numbers = [_Numbers(one, two) for one, two in pairwise([None, *bounds, None])] if bounds else []
        numbers += [_Numbers(bound, bound) for bound in bounds]
        self._numbers = [each for each in numbers if _Kind(part, numbers=each).shortest(EVERY) is not None]
        self._kinds = [
            (OTHER_TEXT, _Kind(part, counted=bool(bounds))),
            *((1 << place, _Kind(part, numbers=each)) for place, each in enumerate(self._numbers, _FIRST_NUMBER)),
        ]
        self.texts = OTHER_TEXT | sum(1 << place for place, _ in enumerate(self._numbers, _FIRST_NUMBER))
        self.every = NO_TEXT | self.texts

    def options(self, comparison: Comparison, patterns: Patterns, *, wide: bool) -> list[tuple[int, Lang]]:
        """The sets of values that a comparison covers together. `wide` is the reading of what refuses."""
        mask = ABSENT_VALUE if comparison.absent else 0
        if wide:
            mask |= UNREADABLE_VALUE
        counted = self._counted(comparison, wide=wide)
        if not comparison.globs:
            return [(mask | counted, EVERY)]
        if "*" in comparison.globs:
            return [(mask | self.texts, EVERY)]
        said = mask | self.texts, Lang(frozenset({patterns.words(comparison.globs)}))
        return [said, (counted, EVERY)] if counted else [said]

    def _counted(self, comparison: Comparison, *, wide: bool) -> int:
        if not comparison.intervals:
            return 0
        found = OTHER_TEXT if wide else 0
        for place, each in enumerate(self._numbers, _FIRST_NUMBER):
            found |= any(map(each.within, comparison.intervals)) << place
        return found

    def left(self, mask: int, lang: Lang) -> int:
        """The kinds of the set that have values."""
        if lang is EVERY or lang == EVERY:
            return mask
        return mask & NO_TEXT | sum(
            bit for bit, kind in self._kinds if mask & bit and kind.shortest(lang) is not None)

    def shortest(self, mask: int, lang: Lang) -> str | None:
        """A short text of the set, one that is no number where there is one."""
        found = (kind.shortest(lang) for bit, kind in self._kinds if mask & bit)
        return next((text for text in found if text is not None), None)

    def has(self, mask: int, lang: Lang, value: Value) -> bool:
        """True when the set has the value."""
        if value is None or isinstance(value, Gap):
            return bool(mask & (ABSENT_VALUE if value is None else UNREADABLE_VALUE))
        return any(mask & bit and kind.has(lang, value) for bit, kind in self._kinds)

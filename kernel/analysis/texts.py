"""The texts that a part of a request can hold, character by character, and as numbers how they compare with bounds."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kernel.fields import Part

if TYPE_CHECKING:
    from kernel.comparison import Interval

_DIGITS = frozenset("0123456789")
_PLAIN = "qabcdefghijklmnoprstuvwxyz0123456789!#$&'+.^_`|~-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OTHERS = "".join((_PLAIN, *map(chr, range(0xC0, 0x180))))
_TYPE_CHARACTER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]", re.ASCII)


class Numbers(NamedTuple):
    """The number `low` itself where `high` is the same, else those between the two; None is without end."""

    low: int | None
    high: int | None

    @property
    def only(self) -> int | None:
        """The one number that there is; None where there are more."""
        return self.low if self.low == self.high else None

    def within(self, interval: Interval) -> bool:
        if self.only is not None:
            return Decimal(self.only) in interval
        below = interval.low is None or (self.low is not None and self.low >= interval.low)
        return below and (interval.high is None or (self.high is not None and self.high <= interval.high))

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, Decimal):
            return False
        if self.only is not None:
            return number == self.only
        return (self.low is None or self.low < number) and (self.high is None or number < self.high)

    def has(self, low: int, high: int, *, minus: bool) -> bool:
        """True for a number of this sign whose magnitude compares with those of the two bounds as told."""
        if self.only is not None:
            return _compared(self.only, low, minus=minus) == 0
        above = self.low is None or _compared(self.low, low, minus=minus) > 0
        return above and (self.high is None or _compared(self.high, high, minus=minus) < 0)


def _compared(bound: int, magnitude: int, *, minus: bool) -> int:
    """How a number compares with a bound, from its sign and how its magnitude compares with that of the bound."""
    if minus is not (bound < 0):
        return -1 if minus else 1
    return -magnitude if minus else magnitude


class Text(NamedTuple):
    """Where a text stands: in its part of a request, and as a number.

    `whole` counts digits before the point as far as matters, `low` and `high` compare what came with the bounds.
    """

    place: str
    phase: str = "start"
    minus: bool = False
    whole: int = 0
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


class Texts:
    """The texts of one kind that a part can hold: every text; where numbers are told apart (`counted`), those that are
    no number, or the numbers of a kind. Here a number may have any number of digits.

    Any of `others` stands for the characters that nothing names.
    """

    start = Text("start")

    def __init__(self, part: Part, *, counted: bool, numbers: Numbers | None = None) -> None:
        self._domain = _DOMAINS[part]
        self._ends = {"ended"} if part is Part.CONTENT_TYPES else {"start", "ended"}
        self._counted, self._numbers = counted, numbers
        bounds = (None, None) if numbers is None else numbers
        self._low, self._high = ("" if bound is None else str(abs(bound)) for bound in bounds)
        self._longest = max(len(self._low), len(self._high)) + 1
        self.others = _OTHERS if numbers is None else ""
        self._steps: dict[tuple[Text, str], Text | None] = {}

    def step(self, text: Text, character: str) -> Text | None:
        key = text, character
        if key not in self._steps:
            self._steps[key] = self._step(text, character)
        return self._steps[key]

    def _step(self, text: Text, character: str) -> Text | None:
        place = self._domain(text.place, character)
        if place is None:
            return None
        if not self._counted:
            return Text(place)
        after = self._number(text, character)
        if after is not None:
            return after._replace(place=place)
        return Text(place, "none") if self._numbers is None else None

    def _number(self, text: Text, character: str) -> Text | None:
        """The number so far with one character more; None where it is none."""
        if character == "-":
            return text._replace(phase="minus", minus=True) if text.phase == "start" else None
        if character == ".":
            return text._replace(phase="point") if text.phase in ("zero", "whole") else None
        if character not in _DIGITS or text.phase in ("zero", "none"):
            return None
        if text.phase in ("point", "open", "fraction"):
            return text._replace(phase="open" if character == "0" else "fraction")
        phase = "zero" if character == "0" and text.phase != "whole" else "whole"
        low, high = (_digit(held, bound, text.whole, character)
                     for held, bound in ((text.low, self._low), (text.high, self._high)))
        return text._replace(phase=phase, whole=min(text.whole + 1, self._longest), low=low, high=high)

    def accepts(self, text: Text) -> bool:
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

    def has(self, text: str) -> bool:
        """True for a text of the kind."""
        state: Text | None = self.start
        for character in text:
            state = None if state is None else self.step(state, character)
        return state is not None and self.accepts(state)

    def explicit(self, text: Text) -> frozenset[str]:
        """What must be tried whatever the globs expect: a text that goes on otherwise is no number."""
        if self._domain is _type_text and text.place == "type":
            return frozenset("/")
        return _DIGITS | frozenset("-.") if self._numbers is not None else frozenset()


def _digit(held: int, bound: str, place: int, digit: str) -> int:
    """How the digits so far compare with the beginning of a bound."""
    if held or place >= len(bound):
        return held
    return (digit > bound[place]) - (digit < bound[place])


def _magnitude(text: Text, held: int, length: int) -> int:
    """How a number's magnitude compares with that of a bound of so many digits."""
    if text.whole != length:
        return 1 if text.whole > length else -1
    return held or int(text.phase == "fraction")

"""Comparisons of a field's value: globs, intervals and `absent`, as rules write them and as they hold.

A value is a text, None where the field is absent, or a `Gap` where it cannot be read. What grants (a grant, a hole in
a refusal) never covers a gap; what refuses (a refusal, a limit, a hole in a grant) always does. As a number, every text
but a canonical decimal is a gap: readers disagree about `007`, `+5`, `1e3`, ` 5`, `5abc` and full-width digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from kernel.errors import PatternError
from kernel.glob import word

MOST_DIGITS = 40
CANONICAL_NUMBER = re.compile(r"(?!-0\Z)-?(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?", re.ASCII)
"""The one spelling of a decimal number, where it has at most `MOST_DIGITS` digits. Any other text is no number here."""

ABSENT = "absent"
_LONGEST = 1000
_INTEGER = r"-?(?:0|[1-9][0-9]{0,39})"
_BOUND = re.compile(rf"(<=|>=|<|>) *({_INTEGER})", re.ASCII)
_SPAN = re.compile(rf"({_INTEGER}) *\.\. *({_INTEGER})", re.ASCII)
_MEANT_AS_BOUND = re.compile(r"[<>=!].*|.*[<>]=?", re.DOTALL)
_MEANT_AS_SPAN = re.compile(r"[-+0-9.,_ ]*\.\.[-+0-9.,_ ]*", re.ASCII)
_FORMS = 'write "<= 20000", "< N", ">= N", "> N" or "1..500", with whole numbers'


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands in the place of a value that is not known. `why` goes on from "it cannot be read: "."""

    why: str


UNREADABLE = Gap("it was not looked at")
UNREAD = Gap("it has not come yet")
"""A body before it is read. Whatever it turns out to be, no more passes than passes with it: what grants covers it, and
what refuses does not."""

type Value = str | Gap | None


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers from `low` to `high`, each included unless it is open; None is without end."""

    low: int | None = None
    high: int | None = None
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, number: Decimal) -> bool:
        above = self.low is None or number > self.low or (number == self.low and not self.low_open)
        return above and (self.high is None or number < self.high or (number == self.high and not self.high_open))

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low}..{self.high}"
        if self.low is not None:
            return f"{'>' if self.low_open else '>='} {self.low}"
        return f"{'<' if self.high_open else '<='} {self.high}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a field may be: a text that one of `globs` matches (`*` is any run of characters), a number in one of
    `intervals`, or `absent`."""

    globs: tuple[str, ...] = ()
    intervals: tuple[Interval, ...] = ()
    absent: bool = False

    @property
    def spelled(self) -> list[str]:
        """As a policy writes it."""
        return [*map(str, self.intervals), *self.globs, *([ABSENT] if self.absent else [])]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a query, of the headers, of a form or of a JSON body, and what it may be."""

    name: str
    values: Comparison


def fits(comparison: Comparison, value: Value, *, wide: bool) -> bool:
    """True when the comparison covers the value. `wide` is the reading of what refuses."""
    if value is None:
        return comparison.absent
    if isinstance(value, Gap):
        return wide is not (value is UNREAD)
    if any(word(glob).fits(value) for glob in comparison.globs):
        return True
    if not comparison.intervals:
        return False
    number = number_of(value)
    return wide if number is None else any(number in interval for interval in comparison.intervals)


def number_of(text: str) -> Decimal | None:
    """The number of which the text is the one canonical spelling."""
    if len(text) > MOST_DIGITS + len("-.") or not CANONICAL_NUMBER.fullmatch(text):
        return None
    return Decimal(text) if sum(map(str.isdigit, text)) <= MOST_DIGITS else None


def alternative(text: str) -> str | Interval:
    """What one text of a policy stands for, when it is not `absent`: an interval, or a glob. Raises `PatternError`."""
    _check(text)
    if bound := _BOUND.fullmatch(text):
        sign, number = bound[1], int(bound[2])
        if sign[0] == "<":
            return Interval(high=number, high_open=sign == "<")
        return Interval(low=number, low_open=sign == ">")
    if span := _SPAN.fullmatch(text):
        low, high = int(span[1]), int(span[2])
        if high < low:
            raise PatternError(f'"{text}" runs backwards', f'write "{high}..{low}"')
        return Interval(low, high)
    if _MEANT_AS_BOUND.fullmatch(text):
        raise PatternError(f'"{text}" is no comparison with a whole number', _bound_hint(text))
    if _MEANT_AS_SPAN.fullmatch(text) and any(map(str.isdigit, text)):
        raise PatternError(f'"{text}" is no interval of whole numbers', _FORMS)
    return text


def _check(text: str) -> None:
    if len(text) > _LONGEST:
        raise PatternError(f"a value of {len(text)} characters is too long to compare", f"{_LONGEST} are allowed")
    if not text.isprintable() or text != text.strip():
        raise PatternError(f'"{text}" has spaces around it or characters that do not print', "write plain text")


def _bound_hint(text: str) -> str:
    rest = text.lstrip("=").strip()
    if text.startswith("=") and rest and not _MEANT_AS_BOUND.fullmatch(rest):
        return f'write "{rest}": a plain text is compared as it stands'
    if text.startswith("!"):
        return "a comparison says what is covered: put what is not into except:"
    return _FORMS

"""What a field can be, in the kinds that policies tell apart: absent, unreadable, and texts.

Texts are of one kind where the same globs match them and, as numbers, they are within the same bounds. So a set of
values is a set of kinds, and each kind of texts has a shortest one to show.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from kernel.analysis.automaton import Globs
from kernel.analysis.language import TooHard
from kernel.analysis.texts import Numbers, Texts
from kernel.comparison import MOST_DIGITS, Gap, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kernel.analysis.texts import Text
    from kernel.comparison import Comparison, Value
    from kernel.fields import Part

ABSENT_VALUE, UNREADABLE_VALUE = 1, 2
_FIRST_TEXT = 2
_MOST_STATES = 50_000
_ANY_TEXT = "*"
_LIKE_NUMBERS = re.compile(r"[-.0-9*]*", re.ASCII)


class _Kind(NamedTuple):
    """The texts that these globs match, numbers within these bounds or no numbers. `shown` is a shortest one."""

    matched: int
    numbers: Numbers | None
    shown: str


class Values:
    """The kinds of one field, by where it stands and its name."""

    def __init__(self, part: Part, name: str, comparisons: Sequence[Comparison]) -> None:
        self.part, self.name = part, name
        self._globs = Globs(
            dict.fromkeys(glob for each in comparisons for glob in each.globs if glob != _ANY_TEXT), path=False)
        ends = {end for each in comparisons for span in each.intervals for end in (span.low, span.high)}
        bounds = sorted(end for end in ends if end is not None)
        numbers: list[Numbers | None] = [None]
        if bounds:
            numbers += [Numbers(one, two) for one, two in pairwise([None, *bounds, None])]
            numbers += [Numbers(bound, bound) for bound in bounds]
        self._counted = bool(bounds)
        like_numbers = "".join(filter(_LIKE_NUMBERS.fullmatch, self._globs.texts))
        if self._counted and self._globs.wild and len(like_numbers) >= MOST_DIGITS:
            raise TooHard  # it may take more digits than a number has to be matched by all of these
        self._kinds = tuple(kind for each in numbers for kind in self._of(each))
        self.texts = (1 << (_FIRST_TEXT + len(self._kinds))) - (1 << _FIRST_TEXT)
        self.every = ABSENT_VALUE | UNREADABLE_VALUE | self.texts

    def _of(self, numbers: Numbers | None) -> Iterator[_Kind]:
        globs, every = self._globs, Texts(self.part, counted=False)
        only = None if numbers is None else numbers.only
        literals = globs.literals if only is None else (str(only),)
        found = {globs.matching(text): text for text in literals if every.has(text) and self._is_one(text, numbers)}
        if only is None:
            texts = Texts(self.part, counted=self._counted, numbers=numbers)
            more = _explored(texts, globs, None if globs.wild else {*found, 0})
            found |= {matched: text for matched, text in more.items() if matched not in found}
        for matched, text in found.items():
            yield _Kind(matched, numbers, text)

    def mask(self, comparison: Comparison, *, wide: bool) -> int:
        """The values that a comparison covers. `wide` is the reading of what refuses."""
        found = ABSENT_VALUE * comparison.absent | UNREADABLE_VALUE * wide
        if _ANY_TEXT in comparison.globs:
            return found | self.texts
        matching = self._globs.ends_of(comparison.globs)
        for place, (matched, numbers, _) in enumerate(self._kinds, _FIRST_TEXT):
            counted = wide if numbers is None else any(map(numbers.within, comparison.intervals))
            if matched & matching or (counted and comparison.intervals):
                found |= 1 << place
        return found

    def kind(self, value: Value) -> int:
        """The bit of one value."""
        if value is None:
            return ABSENT_VALUE
        if isinstance(value, Gap):
            return UNREADABLE_VALUE
        matched = self._globs.matching(value)
        return next(
            1 << place for place, kind in enumerate(self._kinds, _FIRST_TEXT)
            if kind.matched == matched and self._is_one(value, kind.numbers)
        )

    def _is_one(self, text: str, numbers: Numbers | None) -> bool:
        """True for a text that is one of these numbers; without numbers, for one that is none."""
        number = number_of(text) if self._counted else None
        return number is None if numbers is None else number in numbers

    def shown(self, mask: int) -> str | None:
        """A short text of the set, one that is no number where there is one; None where it has no text."""
        return next((kind.shown for place, kind in enumerate(self._kinds, _FIRST_TEXT) if mask >> place & 1), None)


def _explored(texts: Texts, globs: Globs, enough: set[int] | None) -> dict[int, str]:
    """A shortest text for each set of globs that match one, until those of `enough` are found. Raises `TooHard`."""
    start = texts.start, globs.start
    seen = {start}
    waiting: deque[tuple[Text, int, str]] = deque([(*start, "")])
    found: dict[int, str] = {}
    while waiting:
        text, states, said = waiting.popleft()
        if texts.accepts(text):
            found.setdefault(globs.matched(states), said)
            if enough is not None and found.keys() >= enough:
                break
        named = texts.explicit(text) | globs.expected(states)
        other = next((c for c in texts.others if c not in named and texts.step(text, c) is not None), "")
        for character in sorted({*named, *other}):
            after = texts.step(text, character)
            if after is not None and (reached := (after, globs.step(states, character))) not in seen:
                seen.add(reached)
                waiting.append((*reached, said + character))
        if len(seen) > _MOST_STATES:
            raise TooHard
    return found

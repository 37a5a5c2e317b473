"""Automata over the characters of agent ids and paths, stepped one character at a time and made only as far as asked.

A glob is a small nondeterministic automaton whose set of states is one integer. What is in canonical form at all is
another automaton, and runs beside every glob. A state is 0 or None where nothing more can come of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kernel.pattern import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Iterable

_STAR, _DEEP, _WITHIN = "star", "deep", "within"
_HEX = frozenset("0123456789ABCDEF")
_PATH_CHARACTER = re.compile(r"[!$&'()*+,\-./0-9:;=@A-Z_a-z~]")
_AGENT_CHARACTER = re.compile(r"[A-Za-z0-9._:@/+-]")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LONGEST_AGENT = 128


class Globs:
    """The words that at least one of the globs matches. In a path `*` stays within a segment and `**` does not."""

    def __init__(self, texts: Iterable[str], *, path: bool) -> None:
        self._path = path
        self._end: dict[str, int] = {}
        self._on: dict[str, int] = {}
        self._star = self._deep = self._within = self._ends = start = 0
        place = 0
        for text in texts:
            start |= 1 << place
            for token in _path_tokens(text) if path else [_STAR if c == "*" else c for c in text]:
                self._add(token, 1 << place)
                place += 1
            self._end[text] = 1 << place
            self._ends |= 1 << place
            place += 1
        self._sure = self._within & (self._ends >> 1)
        self.start = self._closed(start)
        self._steps: dict[tuple[int, str], int] = {}
        self._expected: dict[int, frozenset[str]] = {}

    def _add(self, token: str, bit: int) -> None:
        if token == _STAR:
            self._star |= bit
        elif token == _DEEP:
            self._deep |= bit
        elif token == _WITHIN:
            self._within |= bit
        else:
            self._on[token] = self._on.get(token, 0) | bit

    def _closed(self, states: int) -> int:
        """The states with those that they reach without a character."""
        while True:
            more = states | (states & (self._star | self._within)) << 1 | (states & self._deep) << 2
            if more == states:
                return states
            states = more

    def step(self, states: int, character: str) -> int:
        found = self._steps.get((states, character))
        if found is None:
            found = (states & self._on.get(character, 0)) << 1 | states & self._within
            if not self._path or character != "/":
                found |= states & self._star
            else:
                found |= (states & self._deep) << 1
            found = self._steps[states, character] = self._closed(found)
        return found

    def after(self, states: int, word: str) -> int:
        for character in word:
            states = self.step(states, character)
        return states

    def accepts(self, states: int) -> bool:
        return bool(states & self._ends)

    def matched(self, states: int) -> int:
        """The globs that match what led here, as `ends_of` numbers them."""
        return states & self._ends

    def ends_of(self, texts: Iterable[str]) -> int:
        """These globs, as `matched` tells them."""
        found = 0
        for text in texts:
            found |= self._end[text]
        return found

    def matching(self, word: str) -> int:
        """The globs that match a word, as `ends_of` numbers them."""
        return self.matched(self.after(self.start, word))

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._end)

    @property
    def literals(self) -> tuple[str, ...]:
        return tuple(text for text in self._end if "*" not in text)

    @property
    def wild(self) -> bool:
        """True when there is a star in any of them."""
        return len(self.literals) < len(self._end)

    def surely(self, states: int) -> bool:
        """True when every continuation is accepted."""
        return bool(states & self._sure)

    def expected(self, states: int) -> frozenset[str]:
        """The characters that lead elsewhere than the ones not named here."""
        found = self._expected.get(states)
        if found is None:
            named = {character for character, bits in self._on.items() if bits & states}
            found = self._expected[states] = frozenset(named | {"/"} if self._path else named)
        return found


def _path_tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for segment in text[1:].split("/"):
        if segment == "**":
            tokens += [_DEEP, _WITHIN]
        else:
            tokens += ["/", *(_STAR if c == "*" else c for c in segment)]
    return tokens


class Held(NamedTuple):
    """Where the second reading of a path stands: what of an escape it holds, and whether a slash came last."""

    escape: str = ""
    slashed: bool = False

    def step(self, character: str) -> tuple[Held, str]:
        """What it holds after a character, and what it tells: `%2F` is a slash, and slashes that meet are one."""
        text = self.escape + character
        if text in ("%", "%2"):
            return Held(text, self.slashed), ""
        if text in ("/", "%2F"):
            return Held("", slashed=True), "" if self.slashed else "/"
        return Held(), text

    @property
    def next(self) -> str:
        """The character with which an escape of a slash goes on."""
        return "%2F"[len(self.escape)]


def second_reading(word: str) -> str:
    """A path as its second reading tells it."""
    held, said = Held(), ""
    for character in word:
        held, told = held.step(character)
        said += told
    return said + held.escape


class _Place(NamedTuple):
    """A place in a path: the segment so far in both readings, the escape begun, and whether a `%2F` was seen."""

    first: str
    second: str
    escape: str
    seen: bool


class CanonicalPath:
    """The paths as kernel/normal.py leaves them: with a `%2F` where `split`, without one where not."""

    def __init__(self, *, split: bool) -> None:
        self._split = split
        self.start = _Place("start", "start", "", seen=False)
        self._steps: dict[tuple[_Place, str], _Place | None] = {}

    def step(self, place: _Place, character: str) -> _Place | None:
        key = place, character
        if key not in self._steps:
            self._steps[key] = self._step(place, character)
        return self._steps[key]

    def _step(self, place: _Place, character: str) -> _Place | None:
        if place.first == "start":
            return place._replace(first="", second="") if character == "/" else None
        if place.escape or character == "%":
            return self._escaped(place, place.escape + character)
        if not _PATH_CHARACTER.fullmatch(character):
            return None
        return _both(place, character, character)

    def _escaped(self, place: _Place, escape: str) -> _Place | None:
        if not _HEX.issuperset(escape[1:]):
            return None
        if len(escape) < 3:
            return place._replace(escape=escape)
        if escape == "%2F":
            after = _both(place, "x", "/")
            return after._replace(seen=True) if self._split and after else None
        if escape in ("%00", "%5C") or chr(int(escape[1:], 16)) in _UNRESERVED:
            return None
        told = ";" if escape == "%3B" else "x"
        return _both(place, told, told)

    def accepts(self, place: _Place) -> bool:
        # A segment that is one of the dots in the first reading is so in the second.
        return place.second not in ("start", ".", "..") and not place.escape and place.seen is self._split

    def explicit(self, place: _Place) -> frozenset[str]:
        """What must be tried whatever the globs expect."""
        if place.first == "start":
            return frozenset("/")
        return frozenset(("%", "2", "F")[len(place.escape)]) if self._split else frozenset()

    def others(self, place: _Place) -> str:
        """Characters any of which stands for those that nothing expects."""
        if not place.escape:
            return _PLAIN
        return "EFCDAB982" if len(place.escape) == 1 else "0123456789ABCDEF"

    longest: int | None = None


def _both(place: _Place, first: str, second: str) -> _Place | None:
    one = _grown(place.first, first, joins=False)
    two = _grown(place.second, second, joins=True)
    return None if one is None or two is None else _Place(one, two, "", place.seen)


def _grown(segment: str, character: str, *, joins: bool) -> str | None:
    """The segment with one character more, as far as it matters: "", ".", ".." or "x"."""
    if character == "/":
        return "" if segment == "x" or (joins and not segment) else None
    if character == "." and segment in ("", "."):
        return f"{segment}."
    return None if character == ";" and segment in (".", "..") else "x"


class AgentIds:
    """The ids that an agent can have, but for `anonymous`, which no star reaches."""

    start: tuple[bool, int] = (False, 0)

    def step(self, state: tuple[bool, int], character: str) -> tuple[bool, int] | None:
        plain = character in _PLAIN
        if not _AGENT_CHARACTER.fullmatch(character) or (state == self.start and not plain):
            return None
        place = state[1]
        follows = 0 <= place < len(ANONYMOUS) and ANONYMOUS[place] == character
        return plain, place + 1 if follows else -1

    def accepts(self, state: tuple[bool, int]) -> bool:
        return state[0] and state[1] != len(ANONYMOUS)

    def explicit(self, state: tuple[bool, int]) -> frozenset[str]:
        return frozenset(ANONYMOUS[state[1]]) if 0 <= state[1] < len(ANONYMOUS) else frozenset()

    def others(self, state: tuple[bool, int]) -> str:
        return _PLAIN

    longest: int | None = _LONGEST_AGENT

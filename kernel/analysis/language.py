"""Sets of words told by patterns, and the shortest word of each.

A `Lang` is what all of `pos` match and none of `neg`. Its words are looked for breadth first through the product of the
patterns' automata; equal patterns and beginnings that differ are answered without it.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from kernel.analysis.automaton import AgentIds, CanonicalPath, Globs, SecondReading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST_STATES = 50_000
_GUESSED = 4


class TooHard(Exception):
    """A question needs more work than it is given."""


class Pattern:
    """A list of globs, read in one way. Patterns of one `Patterns` are equal only where they are the same object.

    `keys` are beginnings, one of which each word has after `end` was put behind it.
    """

    def __init__(self, serial: int, texts: tuple[str, ...], *, path: bool, second: bool) -> None:
        self.serial, self.texts, self.second = serial, texts, second
        self._path = path
        self.literal = not any("*" in text for text in texts)
        self.everything = ("/**" if path else "*") in texts
        self.keys = tuple({_path_key(text) if path else _word_key(text) for text in texts})

    def __hash__(self) -> int:
        return self.serial

    def __eq__(self, other: object) -> bool:
        return self is other

    @cached_property
    def automaton(self) -> Globs | SecondReading:
        globs = Globs(self.texts, path=self._path)
        return SecondReading(globs) if self.second else globs

    def apart(self, other: Pattern) -> bool:
        """True when the beginnings show that no word is in both."""
        if self.second is not other.second:
            # A beginning without escapes is the same in both readings.
            first = other if self.second else self
            if any("%" in key for key in first.keys):
                return False
        return not any(one.startswith(two) or two.startswith(one) for one in self.keys for two in other.keys)


def _path_key(text: str) -> str:
    before, star, _ = text.partition("*")
    if not star:
        return f"{text}/"
    return before if not text.startswith("**", len(before)) else before.removesuffix("/") + "/"


def _word_key(text: str) -> str:
    before, star, _ = text.partition("*")
    return before if star else f"{text}\0"


class Patterns:
    """Makes patterns, each once."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[str, ...], bool, bool], Pattern] = {}

    def paths(self, texts: Iterable[str], *, second: bool) -> Pattern:
        return self._pattern(tuple(sorted(set(texts))), path=True, second=second)

    def agents(self, texts: Iterable[str]) -> Pattern:
        return self._pattern(tuple(sorted(set(texts))), path=False, second=False)

    def _pattern(self, texts: tuple[str, ...], *, path: bool, second: bool) -> Pattern:
        key = texts, path, second
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = Pattern(len(self._made), texts, path=path, second=second)
        return made


class Lang(NamedTuple):
    """The words that each pattern of `pos` matches, and none of `neg`."""

    pos: frozenset[Pattern] = frozenset()
    neg: frozenset[Pattern] = frozenset()

    def meet(self, other: Lang) -> Lang:
        if not (other.pos or other.neg):
            return self
        if not (self.pos or self.neg):
            return other
        return Lang(self.pos | other.pos, self.neg | other.neg)

    def within(self, pattern: Pattern) -> Lang:
        return Lang(self.pos | {pattern}, self.neg)

    def without(self, pattern: Pattern) -> Lang:
        return Lang(self.pos, self.neg | {pattern})


EVERY = Lang()


class Words:
    """The words of one kind: agent ids, or paths with or without `%2F`. `probe` is put where a glob is wild."""

    def __init__(self, canonical: AgentIds | CanonicalPath, probe: str) -> None:
        self._canonical: Any = canonical
        self._probe = probe
        self._known: dict[Lang, str | None] = {}
        self._some: dict[Lang, bool] = {}

    def some(self, lang: Lang) -> bool:
        """True when the language has a word. Raises `TooHard`."""
        found = self._some.get(lang)
        if found is None:
            found = self._some[lang] = self._has_some(lang)
        return found

    def _has_some(self, lang: Lang) -> bool:
        pos, neg = lang
        if pos & neg or any(pattern.everything for pattern in neg) or _disjoint(pos):
            return False
        relevant = _relevant(lang)
        if relevant is not lang:
            return self.some(relevant)
        guesses = (guess for pattern in pos for text in pattern.texts[:_GUESSED] for guess in self._guesses(text))
        return any(self.has(lang, guess) for guess in guesses) or self.shortest(lang) is not None

    def _guesses(self, text: str) -> tuple[str, ...]:
        """Words that the glob is likely to have."""
        return text.replace("**", self._probe).replace("*", self._probe), text.replace("**", "q").replace("*", "")

    def shortest(self, lang: Lang) -> str | None:
        """The shortest word of the language; None where it is empty. Raises `TooHard`."""
        if lang not in self._known:
            self._known[lang] = self._shortest(lang)
        return self._known[lang]

    def _shortest(self, lang: Lang) -> str | None:
        if lang.pos & lang.neg or _disjoint(lang.pos):
            return None
        literal = next((p for p in lang.pos if p.literal and not p.second), None)
        if literal is not None:
            fitting = (text for text in literal.texts if self.has(lang, text))
            return min(fitting, key=lambda text: (len(text), text), default=None)
        return _Search(self._canonical, _relevant(lang)).word()

    def has(self, lang: Lang, word: str) -> bool:
        """True when the word is one of this kind and in the language."""
        if not _runs(self._canonical, word) or len(word) > (self._canonical.longest or len(word)):
            return False
        return all(_runs(p.automaton, word) for p in lang.pos) and not any(_runs(p.automaton, word) for p in lang.neg)


def _relevant(lang: Lang) -> Lang:
    """The same language without the patterns that take nothing away."""
    neg = frozenset([each for each in lang.neg if not any(each.apart(pattern) for pattern in lang.pos)])
    return lang if neg == lang.neg else Lang(lang.pos, neg)


def _disjoint(patterns: frozenset[Pattern]) -> bool:
    known = tuple(patterns)
    return any(one.apart(two) for place, one in enumerate(known) for two in known[:place])


def _runs(automaton: Any, word: str) -> bool:
    state = automaton.start
    for character in word:
        state = automaton.step(state, character)
        if state is None:
            return False
    return bool(automaton.accepts(state))


type _State = tuple[Any, ...]


class _Search:
    """One breadth-first search. A state is that of the canonical form, then of each of `pos`, then of each of `neg`."""

    def __init__(self, canonical: Any, lang: Lang) -> None:
        self._canonical = canonical
        key = _serial
        self._pos: list[Any] = [pattern.automaton for pattern in sorted(lang.pos, key=key)]
        self._neg: list[Any] = [pattern.automaton for pattern in sorted(lang.neg, key=key)]

    def word(self) -> str | None:
        start: _State = (self._canonical.start, *(each.start for each in chain(self._pos, self._neg)))
        came: dict[_State, tuple[_State, str] | None] = {start: None}
        waiting = deque([start])
        while waiting:
            state = waiting.popleft()
            if self._accepts(state):
                return self._told(state, came)
            for character in self._characters(state):
                after = self._after(state, character)
                if after is not None and after not in came:
                    came[after] = state, character
                    waiting.append(after)
            if len(came) > _MOST_STATES:
                raise TooHard
        return None

    def _told(self, state: _State, came: dict[_State, tuple[_State, str] | None]) -> str | None:
        said = []
        while (step := came[state]) is not None:
            state, character = step
            said.append(character)
        longest = self._canonical.longest
        return "".join(reversed(said)) if longest is None or len(said) <= longest else None

    def _accepts(self, state: _State) -> bool:
        return (
            self._canonical.accepts(state[0])
            and all(each.accepts(at) for each, at in zip(self._pos, state[1:], strict=False))
            and not any(each.accepts(at) for each, at in self._negative(state))
        )

    def _negative(self, state: _State) -> Iterator[tuple[Any, Any]]:
        return zip(self._neg, state[1 + len(self._pos) :], strict=True)

    def _characters(self, state: _State) -> list[str]:
        every = zip(chain(self._pos, self._neg), state[1:], strict=True)
        named = self._canonical.explicit(state[0]).union(*(each.expected(at) for each, at in every))
        other = next(
            (c for c in self._canonical.others(state[0]) if c not in named and self._canonical.step(state[0], c)), "")
        return sorted({*named, *other})

    def _after(self, state: _State, character: str) -> _State | None:
        canonical = self._canonical.step(state[0], character)
        if canonical is None:
            return None
        after = [canonical]
        for each, at in zip(self._pos, state[1:], strict=False):
            states = each.step(at, character)
            if not (states if isinstance(states, int) else states.states):
                return None
            after.append(states)
        for each, at in self._negative(state):
            states = each.step(at, character)
            if each.surely(states):
                return None
            after.append(states)
        return tuple(after)


def _serial(pattern: Pattern) -> int:
    return pattern.serial

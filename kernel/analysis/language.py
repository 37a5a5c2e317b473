"""Sets of words told by patterns, and the shortest word of each.

A `Lang` is what all of `pos` match and none of `neg`. Its words are looked for breadth first through the product of the
patterns' automata; equal patterns and beginnings that differ are answered without it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from kernel.analysis.automaton import AgentIds, CanonicalPath, Globs, Held, second_reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MOST_OF_A_QUESTION, _MOST_IN_ALL = 20_000, 400_000
_GUESSED = 4
_COMPARED = 32


class TooHard(Exception):
    """A question needs more work than it is given."""


class Allowance:
    """How many states may still be looked at: for the question at hand, and in all."""

    def __init__(self) -> None:
        self._left = self._in_all = _MOST_IN_ALL
        self.renew()

    def renew(self) -> None:
        """Allow as much as one question may take."""
        self._left = min(_MOST_OF_A_QUESTION, self._in_all)

    def spend(self) -> None:
        """Note one state. Raises `TooHard`."""
        self._left -= 1
        self._in_all -= 1
        if self._left < 0:
            raise TooHard


class Pattern:
    """A list of globs, read in one way. Patterns of one `Patterns` are equal only where they are the same object.

    `keys` are beginnings, one of which each word has after `end` was put behind it.
    """

    def __init__(self, serial: int, texts: tuple[str, ...], *, path: bool, second: bool) -> None:
        self.serial, self.texts, self.second = serial, texts, second
        self.path = path
        self.literal = not any("*" in text for text in texts)
        self.everything = ("/**" if path else "*") in texts
        self.keys = tuple({_path_key(text) if path else _word_key(text) for text in texts})

    def __hash__(self) -> int:
        return self.serial

    def __eq__(self, other: object) -> bool:
        return self is other

    @cached_property
    def automaton(self) -> Globs:
        return Globs(self.texts, path=self.path)

    def has(self, word: str) -> bool:
        return bool(self.automaton.matching(second_reading(word) if self.second else word))

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

    def __init__(self, canonical: AgentIds | CanonicalPath, probe: str, allowance: Allowance) -> None:
        self._canonical: Any = canonical
        self._probe, self._allowance = probe, allowance
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
        return next(self.guessed(lang), None) is not None or self.shortest(lang) is not None

    def guessed(self, lang: Lang) -> Iterator[str]:
        """Some words of the language, if any come to mind."""
        texts = [text for pattern in lang.pos for text in pattern.texts[:_GUESSED]]
        for text in texts or ["/**", "*"]:
            filled = text.replace("**", self._probe).replace("*", self._probe)
            for guess in (filled, text.replace("**", "q").replace("*", "")):
                if self.has(lang, guess):
                    yield guess

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
        return _Search(self._canonical, _relevant(lang), self._allowance).word()

    def has(self, lang: Lang, word: str) -> bool:
        """True when the word is one of this kind and in the language."""
        if not _runs(self._canonical, word) or len(word) > (self._canonical.longest or len(word)):
            return False
        return all(each.has(word) for each in lang.pos) and not any(each.has(word) for each in lang.neg)


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


class _State(NamedTuple):
    """Where a search stands: in the canonical form and the second reading, in each of `pos`, and in what `neg` matches.

    Of the positive patterns, and of the negative ones together, those told the first reading come before the others.
    """

    canonical: Any
    held: Held
    pos: tuple[int, ...]
    neg: tuple[int, int]

    def worse(self, other: _State) -> bool:
        """True when every end of a word that does from here does from there, too."""
        return not any(own & ~its for own, its in zip(self.pos, other.pos, strict=True)) and not (
            other.neg[0] & ~self.neg[0] or other.neg[1] & ~self.neg[1])


class _Search:
    """One breadth-first search. A state is left out where one of the first that were reached is as good."""

    def __init__(self, canonical: Any, lang: Lang, allowance: Allowance) -> None:
        self._canonical, self._allowance = canonical, allowance
        pos = sorted(lang.pos, key=lambda pattern: pattern.second)
        self._first = sum(not pattern.second for pattern in pos)
        self._pos = [pattern.automaton for pattern in pos]
        self._neg = tuple(_united([p for p in lang.neg if p.second is second]) for second in (False, True))
        self._reads_twice = any(pattern.second for pattern in chain(lang.pos, lang.neg))

    def word(self) -> str | None:
        start = _State(self._canonical.start, Held(), tuple([each.start for each in self._pos]),
                       (self._neg[0].start, self._neg[1].start))
        came: dict[_State, tuple[_State, str] | None] = {start: None}
        reached: defaultdict[tuple[Any, Held], list[_State]] = defaultdict(list)
        waiting = deque([start])
        while waiting:
            state = waiting.popleft()
            self._allowance.spend()
            if self._accepts(state):
                return self._told(state, came)
            for character in self._characters(state):
                after = self._after(state, character)
                if after is None or after in came:
                    continue
                known = reached[after.canonical, after.held]
                if not any(after.worse(each) for each in known):
                    if len(known) < _COMPARED:
                        known.append(after)
                    came[after] = state, character
                    waiting.append(after)
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
            self._canonical.accepts(state.canonical)
            and all(each.accepts(at) for each, at in zip(self._pos, state.pos, strict=True))
            and not any(each.accepts(at) for each, at in zip(self._neg, state.neg, strict=True))
        )

    def _characters(self, state: _State) -> list[str]:
        """The characters that lead elsewhere than the rest, and one of the rest."""
        named = set(self._canonical.explicit(state.canonical))
        first = [*zip(self._pos[: self._first], state.pos, strict=False), (self._neg[0], state.neg[0])]
        second = [*zip(self._pos[self._first :], state.pos[self._first :], strict=True), (self._neg[1], state.neg[1])]
        for each, at in first:
            named |= each.expected(at)
        if self._reads_twice:
            named.add(state.held.next)
            for each, at in second:
                named |= each.expected(each.after(at, state.held.escape))
        other = next(
            (c for c in self._canonical.others(state.canonical)
             if c not in named and self._canonical.step(state.canonical, c)), "")
        return sorted({*named, *other})

    def _after(self, state: _State, character: str) -> _State | None:
        canonical = self._canonical.step(state.canonical, character)
        if canonical is None:
            return None
        held, told = state.held.step(character) if self._reads_twice else (state.held, "")
        pos = []
        for place, (each, at) in enumerate(zip(self._pos, state.pos, strict=True)):
            states = each.step(at, character) if place < self._first else each.after(at, told)
            if not states:
                return None
            pos.append(states)
        neg = self._neg[0].step(state.neg[0], character), self._neg[1].after(state.neg[1], told)
        if self._neg[0].surely(neg[0]) or self._neg[1].surely(neg[1]):
            return None
        return _State(canonical, held, tuple(pos), neg)


def _united(patterns: Sequence[Pattern]) -> Globs:
    """What at least one of the patterns matches. All of them are of paths, or none."""
    texts = dict.fromkeys(text for pattern in patterns for text in pattern.texts)
    return Globs(texts, path=bool(patterns) and patterns[0].path)

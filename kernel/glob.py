"""How globs match, in time that no path can blow up. `PathSet` answers for a list of path globs at once.

Between two `**` the leftmost place that fits is always a good one, and so it is for the text between two `*`: nothing
is ever tried again, and the time stays in proportion to path times glob.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from kernel.errors import PatternError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kernel.policy import PathGlob


_MOST_OF_BOTH = 256


class Word:
    """A glob without segments: `*` is zero or more characters."""

    __slots__ = ("_first", "_last", "_least", "_middle", "_plain")

    def __init__(self, text: str) -> None:
        parts = text.split("*")
        self._plain = len(parts) == 1
        self._first, self._last = parts[0], parts[-1]
        self._middle = tuple(part for part in parts[1:-1] if part)
        self._least = len(text.replace("*", ""))

    def fits(self, word: str) -> bool:
        if self._plain:
            return word == self._first
        if len(word) < self._least or not word.startswith(self._first) or not word.endswith(self._last):
            return False
        place, end = len(self._first), len(word) - len(self._last)
        for part in self._middle:
            place = word.find(part, place, end) + len(part)
            if place < len(part):
                return False
        return True


def words_meet(one: str, other: str) -> bool:
    """True when some word fits both word globs: a walk over the places to which both can be read at once."""
    seen, left = set[tuple[int, int]](), [(0, 0)]
    while left:
        first, second = left.pop()
        if first == len(one) and second == len(other):
            return True
        for step in _steps(one, other, first, second):
            if step not in seen:
                seen.add(step)
                left.append(step)
    return False


def words_both(one: str, other: str) -> frozenset[str]:
    """Word globs that together match exactly what both of these do. Raises `PatternError` where they would be many."""
    try:
        return frozenset({one}) if one == other else _Both().of(one, other)
    except OverflowError:
        hint = "name the agents, or write fewer stars"
        raise PatternError(f'"{one}" and "{other}" meet in too many ways', hint) from None


class _Both:
    """What is left to match of two word globs, and the globs of both. Raises `OverflowError` for too many."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], frozenset[str]] = {}

    def of(self, one: str, other: str) -> frozenset[str]:
        if not one or not other:
            return frozenset() if (one + other).strip("*") else frozenset({""})
        found = self._known.get((one, other))
        if found is None:
            found = self._known[one, other] = frozenset(self._meeting(one, other))
        if len(found) > _MOST_OF_BOTH:
            raise OverflowError
        return found

    def _meeting(self, one: str, other: str) -> Iterator[str]:
        if one[0] == other[0] == "*":
            # What follows one of the two stars begins first, within the other star.
            rests = self.of(one[1:], other) | self.of(one, other[1:])
            yield from (rest if rest.startswith("*") else f"*{rest}" for rest in rests)
        elif one[0] == "*":
            yield from self._star(one, other)
        elif other[0] == "*":
            yield from self._star(other, one)
        elif one[0] == other[0]:
            yield from (one[0] + rest for rest in self.of(one[1:], other[1:]))

    def _star(self, star: str, plain: str) -> Iterator[str]:
        """A star stands for nothing, or for the next character."""
        yield from self.of(star[1:], plain)
        yield from (plain[0] + rest for rest in self.of(star, plain[1:]))


def _steps(one: str, other: str, first: int, second: int) -> list[tuple[int, int]]:
    """Where the walk may go next: along both, or where one has a star, over it or along the other beside it."""
    here, there = one[first : first + 1], other[second : second + 1]
    if "*" not in (here, there):
        return [(first + 1, second + 1)] if here == there else []
    along = [(first + 1, second)] if here else []
    return [*along, (first, second + 1)] if there else along


class Glob:
    """A path glob, cut at each `**` into runs of segments: the first is bound to the start, the last to the end."""

    __slots__ = ("_first", "_last", "_least", "_middle", "_whole")

    def __init__(self, segments: Iterable[str]) -> None:
        runs: list[list[Word]] = [[]]
        for segment in segments:
            if segment == "**":
                runs.append([])
            else:
                runs[-1].append(Word(segment))
        self._whole = len(runs) == 1
        self._first, self._last = runs[0], [] if self._whole else runs[-1]
        self._middle = tuple(runs[1:-1])
        self._least = sum(map(len, runs))

    def matches(self, segments: Sequence[str]) -> bool:
        """True when the glob matches the path with these segments."""
        count = len(segments)
        if count < self._least or (self._whole and count > self._least):
            return False
        end = count - len(self._last)
        if not _fits(self._first, segments, 0) or not _fits(self._last, segments, end):
            return False
        place = len(self._first)
        for run in self._middle:
            limit = end - len(run)
            while place <= limit and not _fits(run, segments, place):
                place += 1
            if place > limit:
                return False
            place += len(run)
        return True


def _fits(run: list[Word], segments: Sequence[str], place: int) -> bool:
    """True when the segments from `place` on fit the run. There are enough of them."""
    for word in run:
        if not word.fits(segments[place]):
            return False
        place += 1
    return True


class PathSet:
    """The paths that at least one of the globs matches."""

    __slots__ = ("_exact", "_globs", "_within")

    def __init__(self, globs: Iterable[PathGlob]) -> None:
        exact, within, others = set(), [], []
        for glob in globs:
            if "*" not in glob.text:
                exact.add(glob.text)
            elif glob.text.endswith("/**") and "*" not in glob.text[:-2]:
                within.append(glob.text[:-2])
                exact.add(glob.text[:-3])
            else:
                others.append(prepared(glob.segments))
        self._exact, self._within, self._globs = frozenset(exact), tuple(within), tuple(others)

    def has(self, text: str, segments: tuple[str, ...]) -> bool:
        """True when a glob matches the path, given as text and as segments."""
        if text.startswith(self._within) or text in self._exact:
            return True
        for glob in self._globs:  # noqa: SIM110 - a generator would cost more than the match
            if glob.matches(segments):
                return True
        return False


def joined(segments: tuple[str, ...]) -> str:
    """The text of the path with these segments."""
    return "/" + "/".join(segments)


@lru_cache(maxsize=1024)
def prepared(segments: tuple[str, ...]) -> Glob:
    """The glob with these segments, ready to match."""
    return Glob(segments)


@lru_cache(maxsize=1024)
def word(text: str) -> Word:
    """The word glob, ready to match."""
    return Word(text)

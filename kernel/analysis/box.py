"""Boxes: sets of requests, one set of values for each part of a request. Meeting, taking away, and what is left.

A box is never empty once `Boxes.alive` let it through. Every question has an allowance of pieces; one that needs more
raises `TooHard`, and is reported as undecided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.analysis.automaton import AgentIds, CanonicalPath
from kernel.analysis.bodies import Bodies
from kernel.analysis.language import EVERY, Allowance, Lang, Pattern, TooHard, Words
from kernel.analysis.space import NAMED_AGENT, PLAIN_PATH, SPLIT_PATH
from kernel.pattern import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kernel.analysis.values import Values
    from kernel.example import Example
    from kernel.fields import Fields

HOSTS, ADDRESSES, METHODS, SCHEMES, PORTS, READINGS, WHO, SIZE, MOMENT, MODEL, VALUES = range(11)
AGENTS, PATHS = range(2)
_MOST_PIECES = 20_000


class Box(NamedTuple):
    """`masks` are sets of kinds (HOSTS, ADDRESSES, ...), `langs` sets of words (AGENTS, PATHS).

    From VALUES on there is one mask for each field that the policies speak of.
    """

    masks: tuple[int, ...]
    langs: tuple[Lang, ...] = (EVERY, EVERY)

    def narrowed(self, part: int, mask: int) -> Box:
        """The box with another set of kinds in one part."""
        masks = self.masks
        return Box((*masks[:part], mask, *masks[part + 1 :]), self.langs)

    def worded(self, part: int, lang: Lang) -> Box:
        """The box with another set of words in one part."""
        langs = self.langs
        return Box(self.masks, (*langs[:part], lang, *langs[part + 1 :]))


class Boxes:
    """What can be asked of boxes over one space. `values` are the fields that its policies speak of."""

    def __init__(self, values: Sequence[Values] = ()) -> None:
        self._values, self._bodies = tuple(values), Bodies(values)
        self.allowance = Allowance()
        self._agents = Words(AgentIds(), "q", self.allowance)
        self._paths = (
            (PLAIN_PATH, Words(CanonicalPath(split=False), "q", self.allowance)),
            (SPLIT_PATH, Words(CanonicalPath(split=True), "q%2Fq", self.allowance)),
        )

    def alive(self, box: Box) -> Box | None:
        """The box without readings that no path has; None where no request is in it."""
        if 0 in box.masks or (self._bodies.matter and not self._bodies.possible(box.masks[VALUES:])):
            return None
        agents, paths = box.langs
        if agents is not EVERY and box.masks[WHO] & NAMED_AGENT and not self._agents.some(agents):
            return None
        if not (paths.pos or paths.neg):
            return box
        wanted = box.masks[READINGS]
        left = sum(reading for reading, words in self._paths if wanted & reading and words.some(paths))
        if not left:
            return None
        return box if left == wanted else box.narrowed(READINGS, left)

    def carried(self, box: Box) -> Example | None:
        """What a request of the box carries beside method and path; None where none was found."""
        found = self._bodies.shown(box.masks[VALUES:])
        return found if found is not None and self._carries(box, found.fields) else None

    def _carries(self, box: Box, fields: Fields) -> bool:
        """True when the fields of a request are as the box has them."""
        return all(mask & each.kind(fields.value(each.part, each.name))
                   for each, mask in zip(self._values, box.masks[VALUES:], strict=True))

    def agent(self, box: Box) -> str | None:
        """The shortest agent id of the box; None where it holds `anonymous` alone."""
        return self._agents.shortest(box.langs[AGENTS]) if box.masks[WHO] & NAMED_AGENT else None

    def path(self, box: Box) -> str:
        """The shortest path of the box, one without `%2F` where there is one."""
        for reading, words in self._paths:
            found = words.shortest(box.langs[PATHS]) if box.masks[READINGS] & reading else None
            if found is not None:
                return found
        raise AssertionError("the box is empty")

    def has(self, box: Box, masks: Sequence[int], agent: str, path: str) -> bool:
        """True when the request with these kinds (of its fields too), this id and this path is in the box."""
        if not all(own & each for own, each in zip(box.masks, masks, strict=True)):
            return False
        if masks[WHO] == NAMED_AGENT and not self._agents.has(box.langs[AGENTS], agent):
            return False
        return any(masks[READINGS] == reading and words.has(box.langs[PATHS], path) for reading, words in self._paths)

    def meet(self, one: Box, two: Box) -> Box | None:
        """What is in both."""
        masks = []
        for first, second in zip(one.masks, two.masks, strict=True):
            both = first & second
            if not both:
                return None
            masks.append(both)
        langs = tuple([first.meet(second) for first, second in zip(one.langs, two.langs, strict=True)])
        return self.alive(Box(tuple(masks), langs))

    def without(self, box: Box, other: Box) -> Iterator[Box]:
        """What is in `box` and not in `other`, in pieces that do not meet. The two boxes do."""
        rest = box
        for part, mask in enumerate(other.masks):
            outside = rest.masks[part] & ~mask
            if outside:
                piece = rest.narrowed(part, outside)
                yield from self._if_alive(piece) if self._bodies.matter else (piece,)
                rest = rest.narrowed(part, rest.masks[part] & mask)
        for part, lang in enumerate(other.langs):
            own = rest.langs[part]
            for pattern in _ordered(lang.pos - own.pos):
                yield from self._if_alive(rest.worded(part, own.without(pattern)))
                own = own.within(pattern)
                rest = rest.worded(part, own)
            for pattern in _ordered(lang.neg - own.neg):
                yield from self._if_alive(rest.worded(part, own.within(pattern)))
                own = own.without(pattern)
                rest = rest.worded(part, own)

    def _if_alive(self, box: Box) -> Iterator[Box]:
        found = self.alive(box)
        if found is not None:
            yield found

    def left(self, box: Box, covers: Sequence[Box], most: int = _MOST_PIECES) -> Iterator[Box]:
        """What is in `box` and in none of `covers`, in pieces. Raises `TooHard` beyond `most` pieces."""
        waiting = [(box, 0)]
        made = 0
        while waiting:
            piece, place = waiting.pop()
            while place < len(covers) and self.meet(piece, covers[place]) is None:
                place += 1
            if place == len(covers):
                yield piece
                continue
            pieces = [(each, place + 1) for each in self.without(piece, covers[place])]
            made += 1 + len(pieces)
            if made > most:
                raise TooHard
            waiting += reversed(pieces)

    def covered(self, box: Box, covers: Sequence[Box]) -> bool:
        """True when every request of `box` is in one of `covers`."""
        return not self._misses(box, covers) and next(self.left(box, covers), None) is None

    def _misses(self, box: Box, covers: Sequence[Box]) -> bool:
        """True when one of some few requests of the box is in none of `covers`."""
        lowest, highest = ([each & -each for each in box.masks], [1 << (each.bit_length() - 1) for each in box.masks])
        for masks in (lowest, highest):
            if self._bodies.matter and not self._bodies.possible(masks[VALUES:]):
                continue
            agent = next(self._agents.guessed(box.langs[AGENTS]), "") if masks[WHO] == NAMED_AGENT else ANONYMOUS
            for path in dict(self._paths)[masks[READINGS]].guessed(box.langs[PATHS]) if agent else ():
                if not any(self.has(cover, masks, agent, path) for cover in covers):
                    return True
        return False


def _ordered(patterns: frozenset[Pattern]) -> list[Pattern]:
    return sorted(patterns, key=lambda pattern: pattern.serial) if len(patterns) > 1 else list(patterns)

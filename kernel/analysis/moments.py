"""The moments that policies tell apart: those at which the same hours and the same ends hold are one kind."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from kernel.hours import HORIZON_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.hours import Window
    from kernel.policy import Conditions


class Moments:
    """What happens from `now` on, within 400 days of it and of each `expires`. A kind is shown by its first moment."""

    def __init__(self, where: Iterable[Conditions], now: int) -> None:
        timed = [each for each in where if each.has_time]
        windows = list(dict.fromkeys(each.when for each in timed if each.when is not None))
        ends = list(dict.fromkeys(each.expires for each in timed if each.expires is not None))
        looked = list(_around(now, ends))
        spans: dict[Window | int, Iterable[tuple[int, int]]] = {
            each: chain.from_iterable(each.spans(first, last) for first, last in looked) for each in windows}
        spans |= {end: [(now, max(end, now))] for end in ends}
        self._bits: dict[Window | int, int] = {}
        changes: defaultdict[int, int] = defaultdict(int)
        for key, found in spans.items():
            bit = self._bits[key] = 1 << len(self._bits)
            for begin, stop in found:
                changes[begin] ^= bit
                changes[stop] ^= bit
        first: dict[int, int] = {}
        holding = 0
        for at in sorted({*changes, *(begin for begin, _ in looked)}):
            holding ^= changes[at]
            if any(begin <= at < stop for begin, stop in looked):
                first.setdefault(holding, at)
        self._holding = tuple(first)
        self.shown = tuple(first.values())
        self.every = (1 << len(first)) - 1
        self._masks: dict[int, int] = {}

    def mask(self, where: Conditions) -> int:
        """The moments at which its hours have come and its end has not."""
        wanted = 0
        for key in (where.when, where.expires):
            wanted |= 0 if key is None else self._bits[key]
        if wanted not in self._masks:
            self._masks[wanted] = sum(
                1 << place for place, holding in enumerate(self._holding) if wanted & holding == wanted)
        return self._masks[wanted]

    def kind(self, at: int) -> int:
        """The bit of one moment of those that are looked at."""
        holding = sum(
            bit for key, bit in self._bits.items() if (at < key if isinstance(key, int) else key.contains(at)))
        return 1 << self._holding.index(holding)


def _around(now: int, ends: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The times that are looked at, in order and apart from one another."""
    begin, stop = now, now + HORIZON_SECONDS
    for end in sorted(end for end in ends if end > now):
        if end - HORIZON_SECONDS > stop:
            yield begin, stop
            begin = end - HORIZON_SECONDS
        stop = max(stop, end + HORIZON_SECONDS)
    yield begin, stop

"""Finds the boxes that may meet a box, without looking at the rest: by host, then by path, agent or address."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from kernel.analysis.box import ADDRESSES, AGENTS, HOSTS, PATHS, READINGS, Box
from kernel.analysis.space import OTHER_HOST, PLAIN_PATH, SPLIT_PATH, Hosts, bits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kernel.policy import Rule

_FEW = 12
_NARROW = 4  # sets of so few kinds of addresses are looked up one by one
_LAST = "\U0010ffff"


class Entry(NamedTuple):
    """A box, and the rule that it is of: of grants of several tiers that let pass together, the lowest one's."""

    box: Box
    rule: Rule
    above: tuple[Rule, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """From the lowest tier upwards."""
        return (self.rule, *reversed(self.above))


class _Beginnings:
    """Entries under the beginnings of their words in one part, in one reading."""

    def __init__(self, part: int, *, second: bool = False) -> None:
        self._part, self._second = part, second
        self._under: defaultdict[str, list[int]] = defaultdict(list)
        self._sorted: list[str] | None = None

    def add(self, box: Box, place: int) -> None:
        for key in self._keys(box):
            self._under[key].append(place)

    def _keys(self, box: Box) -> tuple[str, ...]:
        read = (pattern for pattern in box.langs[self._part].pos if pattern.second is self._second)
        return max((pattern.keys for pattern in read), key=lambda keys: min(map(len, keys)), default=("",))

    def near(self, box: Box) -> set[int] | None:
        """The places of what may meet the box; None for every place."""
        keys = self._keys(box)
        if "" in keys:
            return None
        if self._sorted is None:
            self._sorted = sorted(self._under)
        found: set[int] = set()
        for key in keys:
            for length in range(len(key)):
                found.update(self._under.get(key[:length], ()))
            for below in self._sorted[bisect_left(self._sorted, key) : bisect_left(self._sorted, key + _LAST)]:
                found.update(self._under[below])
        return found


class _Filed:
    """Entries under their words and their addresses."""

    def __init__(self, entries: Iterable[tuple[Box, int]]) -> None:
        self._words = (_Beginnings(PATHS), _Beginnings(PATHS, second=True), _Beginnings(AGENTS))
        self._at: defaultdict[int, list[int]] = defaultdict(list)
        self._wide: list[int] = []
        for box, place in entries:
            for words in self._words:
                words.add(box, place)
            addresses = box.masks[ADDRESSES]
            if addresses.bit_count() > _NARROW:
                self._wide.append(place)
            else:
                for bit in bits(addresses):
                    self._at[bit].append(place)

    def near(self, box: Box) -> set[int] | None:
        """The places of what may meet the box; None for every place."""
        known = [found for words in self._words if (found := words.near(box)) is not None]
        addresses = box.masks[ADDRESSES]
        if addresses.bit_count() <= _NARROW:
            known.append({*self._wide, *(place for bit in bits(addresses) for place in self._at.get(bit, ()))})
        return set.intersection(*known) if known else None


class _Bucket:
    """Entries that are filed once they are many."""

    def __init__(self) -> None:
        self._entries: dict[int, Box] = {}

    def add(self, box: Box, place: int) -> None:
        self._entries[place] = box

    @cached_property
    def _filed(self) -> _Filed:
        return _Filed((box, place) for place, box in self._entries.items())

    def near(self, box: Box) -> Collection[int]:
        found = self._filed.near(box) if len(self._entries) > _FEW else None
        return self._entries if found is None else found


class Nearby:
    """Boxes, filed."""

    def __init__(self, hosts: Hosts, entries: Iterable[Entry]) -> None:
        self._hosts = hosts
        self.entries = tuple(entries)
        self._buckets: defaultdict[tuple[int | None, int], _Bucket] = defaultdict(_Bucket)
        for place, entry in enumerate(self.entries):
            self._add(entry.box, place)

    def _add(self, box: Box, place: int) -> None:
        mask = box.masks[HOSTS]
        if mask & OTHER_HOST:
            self._buckets[None, box.masks[READINGS]].add(box, place)
            return
        for bit in bits(mask):
            above = self._hosts.parent(bit)
            if above is None or not mask >> above & 1:
                self._buckets[bit, box.masks[READINGS]].add(box, place)

    @cached_property
    def _everywhere(self) -> _Bucket:
        """All of them, for a box that may be at any host."""
        bucket = _Bucket()
        for place, entry in enumerate(self.entries):
            bucket.add(entry.box, place)
        return bucket

    def near(self, box: Box) -> list[Entry]:
        """The entries that may meet the box, in the order in which they were given."""
        mask = box.masks[HOSTS]
        if mask & OTHER_HOST:
            return [self.entries[place] for place in sorted(self._everywhere.near(box))]
        looked: set[int | None] = {None}
        for bit in bits(mask):
            looked.update(self._hosts.upwards(bit))
        found: set[int] = set()
        for under in looked:
            for readings in (PLAIN_PATH, SPLIT_PATH, PLAIN_PATH | SPLIT_PATH):
                if box.masks[READINGS] & readings and (under, readings) in self._buckets:
                    found.update(self._buckets[under, readings].near(box))
        return [self.entries[place] for place in sorted(found)]


def merged(entries: Iterable[Entry]) -> list[Entry]:
    """The same requests in fewer boxes: those that differ only in their addresses, or only in their hosts, are one.

    An entry that was merged has the rule of the first.
    """
    found = list(entries)
    for part in (ADDRESSES, HOSTS):
        groups: dict[object, Entry] = {}
        for entry in found:
            masks = entry.box.masks
            key = masks[:part], masks[part + 1 :], entry.box.langs
            known = groups.get(key)
            box = entry.box if known is None else known.box.narrowed(part, known.box.masks[part] | masks[part])
            groups[key] = Entry(box, entry.rule if known is None else known.rule)
        found = list(groups.values())
    return found

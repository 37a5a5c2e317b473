"""Entries found by what their patterns cannot do without.

Most patterns hold a word that a matching request must have: a whole path segment, the beginning or end of one, an agent
id. A bucket files each entry under its rarest such word, again and again while more than a few share one. What is found
may match; what is not found cannot.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kernel.policy import AgentPattern, PathGlob

_FEW = 4  # testing so many entries costs less than looking for words
_MANY = 64  # a list of more alternatives than this is not filed alternative by alternative

AGENT, SEGMENT = "agent", "segment"

# Dimension, length (0: whole word; n: its first n characters; -n: its last n), and the word or part of it.
Key = tuple[str, int, str]
# A feature is a list of alternatives, one of which a request must meet; an alternative needs all of its keys.
Alternative = frozenset[Key]
Feature = tuple[Alternative, ...]


class Filed(Protocol):
    """What a bucket can file."""

    @property
    def features(self) -> tuple[Feature, ...]: ...


def agent_feature(patterns: tuple[AgentPattern, ...] | None) -> Iterable[Feature]:
    if patterns is not None:
        yield tuple(frozenset(_keys(AGENT, pattern.text)) for pattern in patterns)


def path_feature(globs: tuple[PathGlob, ...] | None) -> Iterable[Feature]:
    if globs is not None:
        yield tuple(
            frozenset(key for segment in glob.segments for key in _keys(SEGMENT, segment)) for glob in globs
        )


def _keys(dimension: str, word: str) -> Iterable[Key]:
    if "*" not in word:
        yield (dimension, 0, word)
        return
    begin, end = word.partition("*")[0], word.rpartition("*")[2]
    if begin:
        yield (dimension, len(begin), begin)
    if end:
        yield (dimension, -len(end), end)


@dataclass(frozen=True, slots=True)
class Bucket[E: Filed]:
    """Entries to be tested always, and tables of buckets by the words of a request."""

    always: tuple[E, ...]
    tables: tuple[tuple[str, int, dict[str, Bucket[E]]], ...] = ()

    def gather(self, agent: str, segments: frozenset[str], found: list[E]) -> None:
        """Add to `found` every entry that may match. An entry may come twice."""
        found += self.always
        for dimension, length, table in self.tables:
            for word in (agent,) if dimension is AGENT else segments:
                part = word if length == 0 else word[:length] if length > 0 else word[length:]
                if part in table:
                    table[part].gather(agent, segments, found)

    def everything(self) -> Iterator[E]:
        """Every entry. One may come twice."""
        yield from self.always
        for _, _, table in self.tables:
            for below in table.values():
                yield from below.everything()


def bucket[E: Filed](entries: Sequence[E]) -> Bucket[E]:
    """The entries, filed."""
    if len(entries) <= _FEW:
        return Bucket(tuple(entries))
    return _file([(entry, entry.features) for entry in entries])


def _file[E: Filed](items: list[tuple[E, tuple[Feature, ...]]]) -> Bucket[E]:
    if len(items) <= _FEW:
        return Bucket(tuple(entry for entry, _ in items))
    counts = Counter(key for _, features in items for feature in features for keys in feature for key in keys)
    always: list[E] = []
    filed: defaultdict[Key, list[tuple[E, tuple[Feature, ...]]]] = defaultdict(list)
    for entry, features in items:
        place = _rarest(features, counts, len(items))
        if place is None:
            always.append(entry)
            continue
        others = features[:place] + features[place + 1 :]
        for keys in features[place]:
            key = min(keys, key=lambda key: (counts[key], key))
            filed[key].append((entry, (*others, (keys - {key},))))
    return Bucket(tuple(always), _tables(filed))


def _rarest(features: tuple[Feature, ...], counts: Counter[Key], total: int) -> int | None:
    """The place of the feature under which the entry meets the fewest others, None when nothing sets it apart."""
    best, place = total, None
    for number, feature in enumerate(features):
        if len(feature) > _MANY or not all(feature):
            continue
        cost = sum(min(counts[key] for key in keys) for keys in feature)
        if cost < best:
            best, place = cost, number
    return place


def _tables[E: Filed](
    filed: dict[Key, list[tuple[E, tuple[Feature, ...]]]],
) -> tuple[tuple[str, int, dict[str, Bucket[E]]], ...]:
    tables: defaultdict[tuple[str, int], dict[str, Bucket[E]]] = defaultdict(dict)
    for (dimension, length, word), items in filed.items():
        tables[dimension, length][word] = _file(items)
    return tuple((dimension, length, table) for (dimension, length), table in tables.items())

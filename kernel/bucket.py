"""Entries found by what their patterns cannot do without.

Most patterns hold a word that a matching request must have: an agent id, a path segment, the beginning or the end of
one. A bucket files each entry under its rarest such word, again and again while more than a few share it. What is found
may match; what is not found cannot.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kernel.policy import AgentPattern, PathGlob

_FEW = 4  # testing so many entries costs less than looking for words
_MANY = 64  # a list of more alternatives than this is not filed alternative by alternative

AGENT, ANYWHERE = "agent", "anywhere"

# Where the word stands: the agent's id, any segment, or the segment with this number (from the end, where negative).
Where = str | int
# Where, how much of the word (0: all; n: its first n characters; -n: its last n), and that part of it.
Key = tuple[Where, int, str]
# A request meets one of the alternatives of each feature, and all keys of an alternative.
Feature = tuple[frozenset[Key], ...]
Features = tuple[Feature, ...]


type _Tables[E: Filed] = dict[tuple[Where, int], dict[str, Bucket[E]]]


class Filed(Protocol):
    """What a bucket can file."""

    def features(self) -> Features: ...


def agent_feature(patterns: tuple[AgentPattern, ...]) -> Feature:
    return tuple([frozenset(_keys(AGENT, pattern.text)) for pattern in patterns])


def path_feature(globs: tuple[PathGlob, ...]) -> Feature:
    return tuple([frozenset(_path_keys(glob.segments)) for glob in globs])


def _path_keys(segments: tuple[str, ...]) -> Iterator[Key]:
    wild = [place for place, segment in enumerate(segments) if segment == "**"]
    first, last = (wild[0], wild[-1]) if wild else (len(segments), len(segments))
    for place, segment in enumerate(segments):
        if place < first:
            yield from _keys(place, segment)
        elif place > last:
            yield from _keys(place - len(segments), segment)
        elif segment != "**":
            yield from _keys(ANYWHERE, segment)


def _keys(where: Where, word: str) -> Iterator[Key]:
    begin, star, rest = word.partition("*")
    if not star:
        yield where, 0, word
        return
    end = rest.rpartition("*")[2]
    if begin:
        yield where, len(begin), begin
    if end:
        yield where, -len(end), end


class Bucket[E: Filed]:
    """Entries to be tested always, and tables of buckets by the words of a request."""

    __slots__ = ("_agents", "_anywhere", "_placed", "always", "filed")

    def __init__(self, always: Iterable[E], tables: _Tables[E]) -> None:
        self.always, self.filed = tuple(always), bool(tables)
        self._agents = tuple((part, table) for (where, part), table in tables.items() if where == AGENT)
        self._anywhere = tuple((part, table) for (where, part), table in tables.items() if where == ANYWHERE)
        self._placed = tuple((where, part, table) for (where, part), table in tables.items() if isinstance(where, int))

    def gather(self, agent: str, segments: tuple[str, ...], found: list[E]) -> None:
        """Add to `found` every entry that may match. An entry may come twice."""
        found += self.always
        for part, table in self._agents:
            _follow(table, agent, part, agent, segments, found)
        count = len(segments)
        for place, part, table in self._placed:
            if -count <= place < count:
                _follow(table, segments[place], part, agent, segments, found)
        for part, table in self._anywhere:
            for word in segments if count < 3 else set(segments):
                _follow(table, word, part, agent, segments, found)

    def everything(self) -> Iterator[E]:
        """Every entry. One may come twice."""
        yield from self.always
        tables = [table for _, table in (*self._agents, *self._anywhere)] + [table for _, _, table in self._placed]
        for table in tables:
            for below in table.values():
                yield from below.everything()


def _follow[E: Filed](
    table: dict[str, Bucket[E]], word: str, part: int, agent: str, segments: tuple[str, ...], found: list[E]
) -> None:
    below = table.get(word if part == 0 else word[:part] if part > 0 else word[part:])
    if below is None:
        return
    if below.filed:
        below.gather(agent, segments, found)
    else:
        found += below.always


def bucket[E: Filed](entries: Sequence[E]) -> Bucket[E]:
    """The entries, filed."""
    if len(entries) <= _FEW:
        return Bucket(entries, {})
    return _file([(entry, entry.features()) for entry in entries])


def _file[E: Filed](items: list[tuple[E, Features]]) -> Bucket[E]:
    if len(items) <= _FEW:
        return Bucket([entry for entry, _ in items], {})
    counts = Counter([key for _, features in items for feature in features for keys in feature for key in keys])
    always: list[E] = []
    filed: defaultdict[Key, list[tuple[E, Features]]] = defaultdict(list)
    for entry, features in items:
        place = _rarest(features, counts, len(items))
        if place is None:
            always.append(entry)
            continue
        others = features[:place] + features[place + 1 :]
        for keys in features[place]:
            key = _chosen(keys, counts)
            filed[key].append((entry, (*others, (keys - {key},))))
    return Bucket(always, _tables(filed))


def _chosen(keys: frozenset[Key], counts: Counter[Key]) -> Key:
    """The key to file under. Of about equally rare ones the one that stands first in the path: when all entries are
    filed by one place, a request looks at one table."""
    rare = 2 * min([counts[key] for key in keys])
    return min([key for key in keys if counts[key] <= rare], key=_order)


def _order(key: Key) -> tuple[bool, int, str]:
    where, _, word = key
    return where == ANYWHERE, where if isinstance(where, int) else 0, word


def _rarest(features: Features, counts: Counter[Key], total: int) -> int | None:
    """The place of the feature under which the entry meets the fewest others, None when nothing sets it apart."""
    best, place = total, None
    for number, feature in enumerate(features):
        if len(feature) > _MANY or not all(feature):
            continue
        cost = sum([min([counts[key] for key in keys]) for keys in feature])
        if cost < best:
            best, place = cost, number
    return place


def _tables[E: Filed](filed: dict[Key, list[tuple[E, Features]]]) -> _Tables[E]:
    tables: defaultdict[tuple[Where, int], dict[str, Bucket[E]]] = defaultdict(dict)
    for (where, part, word), items in filed.items():
        tables[where, part][word] = _file(items)
    return tables

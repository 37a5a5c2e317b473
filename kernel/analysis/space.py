"""The values of a request that policies tell apart: for each of its parts the fewest kinds, numbered as bits.

Two values of one kind are the same to every pattern of the policies at hand, so a set of values is a set of kinds, and
a set of kinds is one integer. Agent ids and the words of paths are not here: kernel/analysis/language.py has them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, count
from typing import TYPE_CHECKING, NamedTuple

from kernel.address import embedded, is_global, named_ranges, wholly_private
from kernel.analysis.bodies import FORM_TYPES, JSON_TYPES
from kernel.analysis.moments import Moments
from kernel.analysis.values import Values
from kernel.clause import compared, parents
from kernel.comparison import Comparison
from kernel.fields import MODEL, Part
from kernel.model_calls import spread
from kernel.normal import OWN_PORTS
from kernel.one_rule import hosts_of
from kernel.policy import AddressRange, HostPattern, HostReach, UrlPattern
from kernel.vocabulary import READS, WRITES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kernel.facts import Address
    from kernel.policy import Conditions, Policy, PortRange, Rule

SCHEMES = tuple(OWN_PORTS)
NAMED_AGENT, ANONYMOUS_AGENT = 1, 2
PLAIN_PATH, SPLIT_PATH = 1, 2
LITERAL_HOST, OTHER_HOST = 1, 2
_FIRST_NAME = 2  # the bits before it are a host that is an address, and a name that no policy speaks of

# Where IPv4 addresses hide in IPv6 ones, kernel/address.py: block, its bits, where the IPv4 address starts. In the last
# two it stands in more than one place, so that one run of addresses is no kind.
_HIDING = ((0x0, 96, 0), (0xFFFF, 96, 0), (0xFFFF0000, 96, 0), (0x0064FF9B << 64, 96, 0), (0x2002, 16, 80))
_MANY_PLACES = ((0x20010000, 32), (0x0064FF9B0001, 48))
_UNNAMED_HOSTS = ("example.org", "example.net", "example.com", "host.test", "host.example", "unnamed")
_LABELS = ("a", "www", "api", "host", "x1")


def bits(mask: int) -> Iterator[int]:
    """The places of the bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def run(first: int, last: int) -> int:
    """The bits from `first` to `last`, both included."""
    return ((1 << (last - first + 1)) - 1) << first if last >= first else 0


class Methods:
    """The methods that policies name, and one that they do not."""

    def __init__(self, where: Iterable[Conditions]) -> None:
        named = sorted({method for each in where for method in each.methods or ()})
        usual = chain(("POST", "PUT", "PATCH"), sorted(WRITES | READS), _numbered("METHOD"))
        spare = next(method for method in usual if method not in named)
        self.all = (*named, spare)
        self.every = run(0, len(named))
        self._place = {method: place for place, method in enumerate(self.all)}

    def mask(self, methods: frozenset[str] | None) -> int:
        return self.every if methods is None else sum(1 << self._place[method] for method in methods)

    def mask_of_named(self, methods: Iterable[str]) -> int:
        """The methods of these that a policy names, and every unnamed one where one of these is unnamed."""
        found = 0
        for method in methods:
            found |= self.kind(method)
        return found

    def kind(self, method: str) -> int:
        """The bit of one method."""
        return 1 << self._place.get(method, len(self.all) - 1)


def _numbered(word: str) -> Iterator[str]:
    """The word with each number behind it, without end."""
    return (f"{word}{number}" for number in count())


class Ports:
    """The ports, cut wherever a policy begins or ends a range."""

    def __init__(self, where: Iterable[Conditions]) -> None:
        cuts = {1}
        for each in where:
            spans = [(ports.first, ports.last) for ports in each.ports or ()]
            spans += [(item.port, item.port) for item in each.to or () if isinstance(item, UrlPattern)]
            for first, last in (*spans, *((port, port) for port in OWN_PORTS.values())):
                cuts |= {first, last + 1}
        self.firsts = sorted(cut for cut in cuts if cut <= 65535)
        self.every = run(0, len(self.firsts) - 1)

    def mask(self, ranges: tuple[PortRange, ...] | None) -> int:
        if ranges is None:
            return self.every
        found = 0
        for each in ranges:
            found |= self.span(each.first, each.last)
        return found

    def span(self, first: int, last: int) -> int:
        """The ports from `first` to `last`, of which both ends are cuts, or of which there is one."""
        return run(bisect_right(self.firsts, first) - 1, bisect_right(self.firsts, last) - 1)


class Hosts:
    """A host that is an address, a name that nobody speaks of, and for each name in a policy itself and what is below.

    Names stand in the order of their labels from the right, so that what lies below a name is one run.
    """

    def __init__(self, where: Iterable[Conditions], more: Iterable[HostPattern]) -> None:
        hosts = (*more, *(hosts_of(item) for each in where for item in each.to or ()))
        names = {host.name for host in hosts if isinstance(host, HostPattern)}
        self.names = tuple(name for _, name in sorted((name.split(".")[::-1], name) for name in names))
        self._place = {name: place for place, name in enumerate(self.names)}
        self._runs: dict[str, tuple[int, int]] = {}
        for place, name in enumerate(self.names):
            end = place + 1
            while end < len(self.names) and self.names[end].endswith(f".{name}"):
                end += 1
            self._runs[name] = place, end
        self.every = run(0, _FIRST_NAME + 2 * len(self.names) - 1) & ~self._too_long()

    def _too_long(self) -> int:
        long = (place for place, name in enumerate(self.names) if len(name) + 2 > 253)
        return sum(1 << (_FIRST_NAME + 2 * place + 1) for place in long)

    def mask(self, pattern: HostPattern) -> int:
        """The names that the pattern covers. A name that no policy speaks of is covered by what is above it."""
        place, end = self._runs[pattern.name]
        itself = 1 << (_FIRST_NAME + 2 * place)
        if pattern.reach is HostReach.EXACT:
            return itself
        below = run(_FIRST_NAME + 2 * place, _FIRST_NAME + 2 * end - 1) & self.every
        return below if pattern.reach is HostReach.SELF_AND_BELOW else below & ~itself

    def kind(self, name: str) -> int:
        """The bit of one name."""
        if name in self._place:
            return 1 << (_FIRST_NAME + 2 * self._place[name])
        above = next((parent for parent in parents(name) if parent in self._place), None)
        return OTHER_HOST if above is None else 1 << (_FIRST_NAME + 2 * self._place[above] + 1)

    def parent(self, bit: int) -> int | None:
        """The bit of what lies directly below the nearest name above this one; None where a policy has no such name."""
        if bit < _FIRST_NAME:
            return None
        above = parents(self.names[(bit - _FIRST_NAME) // 2])
        name = next((each for each in above if each in self._place), None)
        return None if name is None else _FIRST_NAME + 2 * self._place[name] + 1

    def upwards(self, bit: int) -> Iterator[int]:
        """The bits under which boxes that hold this one may be filed: its own, and those of the names above it."""
        yield bit
        if bit >= _FIRST_NAME:
            name = self.names[(bit - _FIRST_NAME) // 2]
            for each in (name, *parents(name)):
                if each in self._place:
                    yield _FIRST_NAME + 2 * self._place[each]
                    yield _FIRST_NAME + 2 * self._place[each] + 1

    def shown(self, bit: int) -> str:
        """A name of this kind."""
        if 1 << bit == OTHER_HOST:
            return next(name for name in chain(_UNNAMED_HOSTS, _numbered("unnamed-")) if self.kind(name) == OTHER_HOST)
        name, below = self.names[(bit - _FIRST_NAME) // 2], (bit - _FIRST_NAME) % 2
        if not below:
            return name
        labels = chain(_LABELS, _numbered("h"))
        return next(longer for label in labels if self.kind(longer := f"{label}.{name}") == 1 << bit)


class _Kind(NamedTuple):
    first: int
    last: int


class Addresses:
    """The addresses, cut wherever a range of a policy or the public internet begins or ends.

    `vague` are kinds of IPv6 addresses that hide IPv4 addresses which the kind does not tell apart.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        ranges = dict.fromkeys(each for rule in rules for each in _ranges(rule))
        public = named_ranges(())["public-internet"]
        spans = {family: _cuts(family, (*ranges, public)) for family in (4, 6)}
        blocks = [_block(prefix, width) for prefix, width, _ in _HIDING]
        blocks += [_block(prefix, width) for prefix, width in _MANY_PLACES]
        spans[6] |= {edge for first, last in blocks for edge in (first, last + 1)}
        written = [each for each in ranges if wholly_private(each)]
        refined = [_Kind(int(n.first), int(n.last)) for each in written for n in each.networks if n.first.version == 6]
        spans[6] |= set(_hidden_cuts(spans[4], refined))
        self._firsts = {4: sorted(c for c in spans[4] if c < 2**32), 6: sorted(c for c in spans[6] if c < 2**128)}
        self._six = len(self._firsts[4])
        self.every = run(0, self._six + len(self._firsts[6]) - 1)
        self.shown: tuple[Address, ...] = (*map(IPv4Address, self._firsts[4]), *map(IPv6Address, self._firsts[6]))
        self.public = sum(1 << place for place, address in enumerate(self.shown) if is_global(address))
        inside = 0
        for kind in refined:
            inside |= self._span(6, kind.first, kind.last)
        many = self._any_of(_MANY_PLACES)
        hiding = self._any_of((prefix, width) for prefix, width, _ in _HIDING)
        self.vague = many | (hiding & ~inside)
        self._inner = [(1 << place, embedded(self.shown[place])) for place in bits(hiding & inside)]

    def _any_of(self, blocks: Iterable[tuple[int, int]]) -> int:
        found = 0
        for prefix, width in blocks:
            found |= self._span(6, *_block(prefix, width))
        return found

    def _span(self, family: int, first: int, last: int) -> int:
        firsts = self._firsts[family]
        shift = self._six if family == 6 else 0
        return run(bisect_left(firsts, first) + shift, bisect_right(firsts, last) - 1 + shift)

    @cache  # noqa: B019 - lives as long as the space, which is made for one question
    def mask(self, spread: AddressRange, *, wide: bool) -> int:
        """The addresses in the range; where `wide`, also those that hide one."""
        found = 0
        for part in spread.networks:
            found |= self._span(part.first.version, int(part.first), int(part.last))
        if wide:
            for bit, inner in self._inner:
                if any(found >> self._kind(each) & 1 for each in inner):
                    found |= bit
        return found

    def _kind(self, address: Address) -> int:
        place = bisect_right(self._firsts[address.version], int(address)) - 1
        return place + (self._six if address.version == 6 else 0)

    def kind(self, address: Address) -> int:
        """The bit of one address."""
        return 1 << self._kind(address)


def _ranges(rule: Rule) -> Iterator[AddressRange]:
    for where in (rule.where, *rule.holes):
        yield from where.address or ()
        for item in where.to or ():
            host = hosts_of(item)
            if isinstance(host, AddressRange):
                yield host


def _cuts(family: int, ranges: Iterable[AddressRange]) -> set[int]:
    parts = [part for each in ranges for part in each.networks if part.first.version == family]
    return {0, *(int(part.first) for part in parts), *(int(part.last) + 1 for part in parts)}


def _block(prefix: int, width: int) -> tuple[int, int]:
    return prefix << (128 - width), (prefix + 1 << (128 - width)) - 1


def _hidden_cuts(cuts: Iterable[int], written: Sequence[_Kind]) -> Iterator[int]:
    """Where kinds of IPv4 addresses begin inside the IPv6 ranges that grants are written for."""
    for prefix, width, shift in _HIDING:
        first, last = _block(prefix, width)
        if not any(kind.first <= last and first <= kind.last for kind in written):
            continue
        for cut in cuts:
            place = first + (cut << shift)
            if any(kind.first < place <= kind.last for kind in written):
                yield place


class Space:
    """The kinds of everything that these policies tell apart from `now` on, and of the hosts `names`."""

    def __init__(
        self, policies: Iterable[Policy], names: Iterable[HostPattern] = (), now: int = 0, more: Iterable[Rule] = ()
    ) -> None:
        rules = [*(rule for policy in policies for rule in policy.items), *more]
        where = [one for rule in rules for each in (rule.where, *rule.holes) for one in _spread(each)]
        self.methods, self.ports, self.hosts = Methods(where), Ports(where), Hosts(where, names)
        self.addresses, self.moments, self.values = Addresses(rules), Moments(where, now), _values(where)
        # The models that the paths of some calls have in them: texts alone, and none that a path could not hold.
        self.models = Values(Part.JSON, MODEL, [Comparison(each.in_path) for each in where if each.in_path])


def _spread(where: Conditions) -> Iterable[Conditions]:
    """The conditions as they are matched, in either reading."""
    return (where,) if where.llm is None else (*spread(where, wide=False), *spread(where, wide=True))


def _values(where: Iterable[Conditions]) -> tuple[Values, ...]:
    found: defaultdict[tuple[Part, str], list[Comparison]] = defaultdict(list)
    for each in where:
        for part, name, comparison in compared(each) if each.compares_fields else ():
            found[part, name].append(comparison)
    if any(part.in_body for part, _ in found):
        found[Part.CONTENT_TYPES, ""] += [JSON_TYPES, FORM_TYPES]
    return tuple(Values(part, name, comparisons) for (part, name), comparisons in found.items())

"""Conditions of a policy made ready for judging: sets instead of patterns.

The answer about a request is a *residue*: None where the conditions cannot hold, else what is left to ask of the
address of the point. Of each list in it, one set must contain the address; `CERTAIN` has no lists.

Which address a range judges depends on the side it serves. What refuses (a refusal, or a hole in a grant) also looks
at the IPv4 addresses embedded in an IPv6 address; what grants (a grant, or a hole in a refusal) does not.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from kernel.address import RangeSet
from kernel.comparison import fits
from kernel.facts import UPGRADES
from kernel.fields import Part
from kernel.glob import PathSet
from kernel.hours import HORIZON_SECONDS
from kernel.model_calls import CallPaths
from kernel.pattern import ANONYMOUS, agent_matches
from kernel.policy import AddressRange, HostPattern, HostReach, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from kernel.comparison import Comparison
    from kernel.facts import Address, Host
    from kernel.fields import Fields
    from kernel.hours import Window
    from kernel.policy import AgentPattern, Conditions, PathGlob, PortRange

# What a request is, but for its destination and path: agent id, method, scheme, port.
Shape = tuple[str, str, str, int]
Residue = tuple[tuple[RangeSet, ...], ...]
type Agents = tuple[AgentPattern, ...] | None

CERTAIN: Residue = ()
_REMEMBERED = 4096
_LONGEST_METHOD = 32  # an agent may invent methods of any length; those are not worth remembering


class Gate(dict[Shape, bool]):
    """Whether agent, method, scheme and port of a request fit: `gate[shape]`, remembered.

    Without patterns an agent is anyone in a refusal and in an exception, and anyone but `anonymous` in a grant.
    Without `upgrades` no request fits that asks to become a WebSocket. `bound` are the only agents that fit at all.
    """

    __slots__ = ("_agents", "_bound", "_everyone", "_methods", "_ports", "_schemes", "_upgrades", "_url", "edges")

    def __init__(
        self, where: Conditions, url: UrlPattern | None, bound: Agents, *, everyone: bool, upgrades: bool
    ) -> None:
        super().__init__()
        self._agents, self._bound, self._everyone, self._upgrades = where.agents, bound, everyone, upgrades
        self._methods, self._schemes = where.methods, where.schemes
        self._ports = None if where.ports is None else _port_set(where.ports)
        self._url = None if url is None else (url.scheme, url.port)
        spans = [(each.first, each.last) for each in where.ports or ()]
        if url is not None:
            spans.append((url.port, url.port))
        # Between one of these ports and the next, all ports are alike here.
        self.edges = frozenset(edge for first, last in spans for edge in (first, last + 1))

    def __missing__(self, shape: Shape) -> bool:
        agent, method, scheme, port = shape
        fits = (
            self.may(agent, port)
            and (self._methods is None or method in self._methods)
            and (self._schemes is None or scheme in self._schemes)
            and (self._upgrades or scheme not in UPGRADES)
            and (self._url is None or self._url[0] == scheme)
        )
        if len(method) <= _LONGEST_METHOD:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[shape] = fits
        return fits

    def may(self, agent: str, port: int) -> bool:
        """True when some request of the agent to this port can fit."""
        return (
            (self._ports is None or port in self._ports)
            and (self._url is None or self._url[1] == port)
            and self._covers(agent)
        )

    def whole(self, agent: str, port: int) -> bool:
        """True when every request of the agent to this port fits."""
        return self._methods is None and self._schemes is None and self._url is None and self.may(agent, port)

    def _covers(self, agent: str) -> bool:
        if self._bound is not None and not any(agent_matches(pattern, agent) for pattern in self._bound):
            return False
        if self._agents is None:
            return self._everyone or agent != ANONYMOUS
        return any(agent_matches(pattern, agent) for pattern in self._agents)


def _port_set(ranges: tuple[PortRange, ...]) -> Container[int]:
    spans = [range(each.first, each.last + 1) for each in ranges]
    return spans[0] if len(spans) == 1 else frozenset(chain(*spans))


class Phase:
    """Whether the hours of some conditions have come and their end has not: as it is at the moment asked last."""

    __slots__ = ("_where", "now", "waits")

    def __init__(self, where: Conditions) -> None:
        self._where = where
        self.now = self.waits = False

    def turn(self, at: int) -> int:
        """Go to a moment. Tells the next one at which the answer may be another."""
        expires, window = self._where.expires, self._where.when
        if expires is not None and at >= expires:
            self.now = self.waits = False
            return at + HORIZON_SECONDS
        self.now = window is None or window.contains(at)
        self.waits = not self.now
        changes = at + HORIZON_SECONDS if window is None else window.changes(at)
        return changes if expires is None else min(changes, expires)


class Shared:
    """Gates and sets made once for all rules of a policy that say the same."""

    def __init__(self) -> None:
        self.phases: dict[tuple[Window | None, int | None, bool], Phase] = {}
        self._gates: dict[object, Gate] = {}
        self._agents: dict[int, tuple[tuple[AgentPattern, ...], tuple[str, ...]]] = {}
        self._ranges: dict[int, tuple[AddressRange, RangeSet]] = {}

    def gate(
        self,
        where: Conditions,
        url: UrlPattern | None = None,
        bound: Agents = None,
        *,
        everyone: bool = True,
        upgrades: bool = True,
    ) -> Gate:
        agents = None if where.agents is None else tuple([pattern.text for pattern in where.agents])
        ports = None if where.ports is None else tuple([(each.first, each.last) for each in where.ports])
        ends = None if url is None else (url.scheme, url.port)
        key = (agents, bound, where.methods, where.schemes, ports, ends, everyone, upgrades)
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = Gate(where, url, bound, everyone=everyone, upgrades=upgrades)
        return gate

    def phase(self, where: Conditions, *, of_grant: bool = False) -> Phase | None:
        """The times of some conditions; None where they say none. Those of grants are kept apart from all others."""
        if not where.has_time:
            return None
        key = (where.when, where.expires, of_grant)
        phase = self.phases.get(key)
        if phase is None:
            phase = self.phases[key] = Phase(where)
        return phase

    def ranges(self, spread: AddressRange) -> RangeSet:
        """The set of one range. Named ranges come as one object; it is kept, so that no other can have its id."""
        if id(spread) not in self._ranges:
            self._ranges[id(spread)] = (spread, RangeSet(spread.networks))
        return self._ranges[id(spread)][1]

    def address(self, where: Conditions) -> Residue:
        """What `address:` asks."""
        return CERTAIN if where.address is None else (tuple(map(self.ranges, where.address)),)


class HostSet:
    """The names that at least one host pattern matches."""

    __slots__ = ("_below", "_exact")

    def __init__(self, patterns: Iterable[HostPattern]) -> None:
        known = tuple(patterns)
        self._exact = frozenset(p.name for p in known if p.reach is not HostReach.BELOW)
        self._below = frozenset(p.name for p in known if p.reach is not HostReach.EXACT)

    def __contains__(self, host: Host) -> bool:
        if host.address is not None:
            return False
        return host.name in self._exact or any(parent in self._below for parent in parents(host.name))


def parents(name: str) -> list[str]:
    """The names above a name: for a.b.c they are b.c and c."""
    found = []
    while dot := name.find(".") + 1:
        name = name[dot:]
        found.append(name)
    return found


class FieldTest:
    """What conditions ask of a request's fields. `wide` is the reading of what refuses (kernel/comparison.py)."""

    __slots__ = ("_asked", "_wide")

    def __init__(self, asked: tuple[tuple[Part, str, Comparison], ...], *, wide: bool) -> None:
        self._asked, self._wide = asked, wide

    def passes(self, fields: Fields) -> bool:
        return all(
            fits(comparison, fields.value(part, name), wide=self._wide) for part, name, comparison in self._asked)


def compared(where: Conditions) -> tuple[tuple[Part, str, Comparison], ...]:
    """Every field that conditions speak of, what is at hand before the body first."""
    said = ((Part.QUERY, where.query), (Part.HEADERS, where.headers), (Part.JSON, where.json), (Part.FORM, where.form))
    kind = () if where.content_types is None else ((Part.CONTENT_TYPES, "", where.content_types),)
    return (*kind, *((part, field.name, field.values) for part, fields in said for field in fields or ()))


def field_test(where: Conditions, *, wide: bool) -> FieldTest | None:
    """What conditions ask of the fields; None where they ask nothing."""
    return FieldTest(compared(where), wide=wide) if where.compares_fields else None


class Hole:
    """An `except:`. A range in its `to` judges the address of the point, for names as well as for literals.

    `of_grant` says whose hole it is: one in a grant refuses.
    """

    __slots__ = ("_address", "_fields", "_gate", "_hosts", "_paths", "_phase", "_ranges", "_to", "_urls")

    def __init__(self, where: Conditions, shared: Shared, *, of_grant: bool) -> None:
        self._gate = shared.gate(where)
        self._paths = path_sets(where)
        self._fields, self._phase = field_test(where, wide=of_grant), shared.phase(where)
        self._address = shared.address(where)
        items = where.to or ()
        self._to = where.to is not None
        self._hosts = HostSet(item for item in items if isinstance(item, HostPattern))
        self._ranges = tuple(shared.ranges(item) for item in items if isinstance(item, AddressRange))
        self._urls = tuple(_HoleUrl(item, shared) for item in items if isinstance(item, UrlPattern))

    def residue(
        self, shape: Shape, host: Host, text: str, segments: tuple[str, ...], fields: Fields
    ) -> Residue | None:
        """What is left to ask of the address."""
        if not self._gate[shape] or not all(paths.has(text, segments) for paths in self._paths):
            return None
        if self._fields is not None and not self._fields.passes(fields):
            return None
        if self._phase is not None and not self._phase.now:
            return None
        if not self._to or host in self._hosts:
            return self._address
        reached = [url.host for url in self._urls if url.fits(shape, text, segments)]
        if any(isinstance(each, HostSet) and host in each for each in reached):
            return self._address
        ranges = (*self._ranges, *(each for each in reached if isinstance(each, RangeSet)))
        return (*self._address, ranges) if ranges else None

    @property
    def edges(self) -> frozenset[int]:
        """The ports at which it may begin or end to hold."""
        return self._gate.edges

    def swallows(self, agent: str, host: Host, port: int) -> bool:
        """True when no request of the agent to this host and port escapes the hole."""
        if self._fields is not None or self._phase is not None or self._paths or self._address:
            return False
        return (not self._to or host in self._hosts) and self._gate.whole(agent, port)


class _HoleUrl:
    __slots__ = ("_paths", "_port", "_scheme", "host")

    def __init__(self, item: UrlPattern, shared: Shared) -> None:
        self._scheme, self._port, self._paths = item.scheme, item.port, PathSet((item.path,))
        host = item.host
        self.host = HostSet((host,)) if isinstance(host, HostPattern) else shared.ranges(host)

    def fits(self, shape: Shape, text: str, segments: tuple[str, ...]) -> bool:
        return shape[2:] == (self._scheme, self._port) and self._paths.has(text, segments)


def inside(residue: Residue, address: Address, inner: tuple[Address, ...]) -> bool:
    """True when the residue is content with the address or, list by list, with one of those embedded in it."""
    every = (address, *inner)
    return all(any(each in ranges for ranges in either for each in every) for either in residue)


def path_sets(where: Conditions, url: UrlPattern | None = None) -> tuple[PathSet | CallPaths, ...]:
    """The sets of paths, each of which a path must be in."""
    globs = (where.paths, where.calls if where.in_path is None else None, None if url is None else (url.path,))
    found = [paths for each in globs if (paths := _path_set(each)) is not None]
    return (*found, *([CallPaths(where.calls or (), where.in_path)] if where.in_path is not None else []))


def _path_set(globs: tuple[PathGlob, ...] | None) -> PathSet | None:
    """The paths that the globs match; None where that is every path."""
    if globs is None or any(glob.text == "/**" for glob in globs):
        return None
    return PathSet(globs)

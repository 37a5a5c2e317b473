"""Conditions of a policy made ready for judging: sets instead of patterns, and one answer about all that is known.

The answer about a request is a *residue*: None where the conditions cannot hold, else what is left to ask of the
address of the point. Of each list in it, one set must contain the address; `CERTAIN` has no lists.

Which address a range judges depends on the side it serves. What refuses (a refusal, or a hole in a grant) also looks
at the IPv4 addresses embedded in an IPv6 address; what grants (a grant, or a hole in a refusal) does not.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from kernel.address import RangeSet
from kernel.glob import PathSet
from kernel.pattern import ANONYMOUS, agent_matches
from kernel.policy import AddressRange, HostPattern, HostReach, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from kernel.facts import Address, Host, RequestFacts
    from kernel.policy import AgentPattern, Conditions, Destination, PathGlob, PortRange

Residue = tuple[tuple[RangeSet, ...], ...]

CERTAIN: Residue = ()
_REMEMBERED_AGENTS = 4096


class AgentSet(dict[str, bool]):
    """Whether an agent is covered: `agents[agent_id]`. Without patterns it covers everyone but `anonymous`."""

    __slots__ = ("_patterns",)

    def __init__(self, patterns: tuple[AgentPattern, ...] | None) -> None:
        super().__init__()
        self._patterns = patterns

    def __missing__(self, agent: str) -> bool:
        if self._patterns is None:
            covered = agent != ANONYMOUS
        else:
            covered = any(agent_matches(pattern, agent) for pattern in self._patterns)
        if len(self) >= _REMEMBERED_AGENTS:
            self.clear()
        self[agent] = covered
        return covered


class Shared:
    """Sets made once for all rules of a policy that say the same."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, ...] | None, AgentSet] = {}
        self._ranges: dict[int, tuple[AddressRange, RangeSet]] = {}

    def agents(self, patterns: tuple[AgentPattern, ...] | None) -> AgentSet:
        key = None if patterns is None else tuple(pattern.text for pattern in patterns)
        if key not in self._agents:
            self._agents[key] = AgentSet(patterns)
        return self._agents[key]

    def ranges(self, spread: AddressRange) -> RangeSet:
        """The set of one range. Named ranges come as one object; it is kept, so that no other can have its id."""
        if id(spread) not in self._ranges:
            self._ranges[id(spread)] = (spread, RangeSet(spread.networks))
        return self._ranges[id(spread)][1]


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


@lru_cache(maxsize=1024)
def port_set(ranges: tuple[PortRange, ...]) -> Container[int]:
    """The ports of the ranges; asking is quick."""
    spans = [range(each.first, each.last + 1) for each in ranges]
    return spans[0] if len(spans) == 1 else frozenset(chain(*spans))


class Plain:
    """What a request's agent, method, scheme, port and path must be, and the ranges its address must be in."""

    __slots__ = ("address", "agents", "methods", "paths", "ports", "schemes")

    def __init__(self, where: Conditions, shared: Shared) -> None:
        self.agents: AgentSet | None = shared.agents(where.agents)
        self.methods = where.methods
        self.schemes = where.schemes
        self.ports = None if where.ports is None else port_set(where.ports)
        self.paths = _path_set(where.paths)
        self.address = CERTAIN if where.address is None else (tuple(map(shared.ranges, where.address)),)

    def lets(self, facts: RequestFacts, text: str) -> bool:
        """True when everything but the address fits the request, its path read as `text`."""
        return (
            (self.agents is None or self.agents[facts.agent.id])
            and (self.methods is None or facts.method in self.methods)
            and (self.schemes is None or facts.scheme in self.schemes)
            and (self.ports is None or facts.port in self.ports)
            and (self.paths is None or text in self.paths)
        )

    def may(self, agent: str, port: int) -> bool:
        """True when some request of the agent to this port can fit."""
        return (self.agents is None or self.agents[agent]) and (self.ports is None or port in self.ports)

    def whole(self, agent: str, port: int) -> bool:
        """True when every request of the agent to this port fits, whatever its address."""
        return (
            self.may(agent, port)
            and self.methods is None
            and self.schemes is None
            and self.paths is None
            and not self.address
        )


class Url:
    """A URL pattern without its host: scheme, port and path at once."""

    __slots__ = ("paths", "port", "scheme")

    def __init__(self, pattern: UrlPattern) -> None:
        self.scheme, self.port, self.paths = pattern.scheme, pattern.port, PathSet((pattern.path,))

    def lets(self, facts: RequestFacts, text: str) -> bool:
        return facts.port == self.port and facts.scheme == self.scheme and text in self.paths


class Hole(Plain):
    """An `except:`. A range in its `to` judges the address of the point, for names as well as for literals."""

    __slots__ = ("_hosts", "_ranges", "_to", "_urls")

    def __init__(self, where: Conditions, shared: Shared) -> None:
        super().__init__(where, shared)
        if where.agents is None:
            self.agents = None
        items = where.to or ()
        self._to = where.to is not None
        self._hosts = HostSet(item for item in items if isinstance(item, HostPattern))
        self._ranges = tuple(shared.ranges(item) for item in items if isinstance(item, AddressRange))
        self._urls = tuple(_hole_url(item, shared) for item in items if isinstance(item, UrlPattern))

    def residue(self, facts: RequestFacts, text: str) -> Residue | None:
        """What is left to ask of the address."""
        if not self.lets(facts, text):
            return None
        if not self._to or facts.host in self._hosts:
            return self.address
        reached = [host for url, host in self._urls if url.lets(facts, text)]
        if any(isinstance(host, HostSet) and facts.host in host for host in reached):
            return self.address
        ranges = (*self._ranges, *(host for host in reached if isinstance(host, RangeSet)))
        return (*self.address, ranges) if ranges else None

    def swallows(self, agent: str, host: Host, port: int) -> bool:
        """True when no request of the agent to this host and port escapes the hole."""
        return self.whole(agent, port) and (not self._to or host in self._hosts)


def _hole_url(item: UrlPattern, shared: Shared) -> tuple[Url, HostSet | RangeSet]:
    host = item.host
    return Url(item), HostSet((host,)) if isinstance(host, HostPattern) else shared.ranges(host)


def inside(residue: Residue, address: Address, inner: tuple[Address, ...]) -> bool:
    """True when the residue is content with the address or, list by list, with one of those embedded in it."""
    every = (address, *inner)
    return all(any(each in ranges for ranges in ranges_list for each in every) for ranges_list in residue)


def _path_set(globs: tuple[PathGlob, ...] | None) -> PathSet | None:
    if globs is None or any(glob.text == "/**" for glob in globs):
        return None
    return PathSet(globs)


def hosts_of(item: Destination) -> HostPattern | AddressRange:
    """The host part of a destination."""
    return item.host if isinstance(item, UrlPattern) else item

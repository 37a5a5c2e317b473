"""What agents may reach, read from the rules: each grant with the refusals that may take a part of it away.

A refusal that certainly covers a grant removes it; one that may touch it is listed beside it. What is said here is said
of rules; `governor policy explain` answers for one request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

from kernel.address import range_contains, wholly_private
from kernel.facts import Host
from kernel.glob import words_meet
from kernel.pattern import ANONYMOUS, agent_matches, agents_meet, host_matches
from kernel.policy import (
    AddressRange,
    AgentPattern,
    Conditions,
    Destination,
    HostPattern,
    HostReach,
    PathGlob,
    Policy,
    PortRange,
    Rule,
    UrlPattern,
)
from kernel.tiers import binds


@dataclass(frozen=True, slots=True)
class Access:
    """One grant. `where` is what is left of its conditions for the agent or host that was asked for."""

    rule: Rule
    where: Conditions
    but_not: tuple[Rule, ...]


def accesses(policy: Policy, agent: str | None = None, host: Host | None = None) -> list[Access]:
    """The grants that cover the agent and the host, as far as one was given, in the order of the policy.

    Of a policy of several tiers these are the grants of each; what passes is what each tier grants that must.
    """
    bound = {n for n, tier in enumerate(policy.tiers) if agent is None or binds(tier, agent)}
    rules = [rule for rule in (*policy.nevers, *policy.rules) if rule.tier in bound]
    refuses = [rule for rule in rules if rule.verb.refuses and not rule.observed]
    refusals = [rule for rule in refuses if _speaks_of(rule, agent, host)]
    certain = [rule for rule in refusals if agent is not None or policy.tiers[rule.tier].binds is None]
    found = []
    for rule in rules:
        if rule.verb.grants and _speaks_of(rule, agent, host):
            where = _narrowed(rule.where, host)
            if not any(_covers(refusal, where, agent) for refusal in certain):
                touching = tuple(refusal for refusal in refusals if _touches(refusal.where, where, agent))
                found.append(Access(rule, where, touching))
    return found


def _speaks_of(rule: Rule, agent: str | None, host: Host | None) -> bool:
    if agent is not None and not _names(rule.where.agents, agent, grants=rule.verb.grants):
        return False
    to = rule.where.to
    return host is None or to is None or any(_leads_to(item, host, grants=rule.verb.grants) for item in to)


def _names(agents: tuple[AgentPattern, ...] | None, agent: str, *, grants: bool) -> bool:
    if agents is None:
        return not grants or agent != ANONYMOUS
    return any(agent_matches(pattern, agent) for pattern in agents)


def _leads_to(item: Destination, host: Host, *, grants: bool) -> bool:
    """True when the item may mean the host: of a name nobody knows here where it resolves to."""
    target = item.host if isinstance(item, UrlPattern) else item
    if isinstance(target, HostPattern):
        return host_matches(target, host)
    return not grants if host.address is None else range_contains(target, host.address)


def _narrowed(where: Conditions, host: Host | None) -> Conditions:
    if host is None or where.to is None:
        return where
    return replace(where, to=tuple(item for item in where.to if _leads_to(item, host, grants=True)))


# A refusal that asks for more than this covers nothing for certain.
_COMPARED = {"agents", "to", "methods", "schemes", "ports", "paths"}
_NOT_COMPARED = [each.name for each in fields(Conditions) if each.name not in _COMPARED]


def _covers(refusal: Rule, grant: Conditions, agent: str | None) -> bool:
    """True when the refusal certainly takes the whole grant away."""
    where = refusal.where
    agents = where.agents is None or agent is not None or _within(grant.agents, where.agents)
    more = any(getattr(where, name) is not None for name in _NOT_COMPARED)
    return (not refusal.holes and not more and agents
            and _within(None if _begins_otherwise(grant) else grant.methods, where.methods)
            and _within(grant.schemes, where.schemes)
            and _within(grant.ports, where.ports)
            and _within(grant.paths, where.paths)
            and (where.to is None or (grant.to is not None and all(_inside(item, where.to) for item in grant.to))))


def _within[T](smaller: Iterable[T] | None, larger: Iterable[T] | None) -> bool:
    return larger is None or (smaller is not None and set(smaller) <= set(larger))


def _inside(item: Destination, to: tuple[Destination, ...]) -> bool:
    """True when one of the host patterns covers the whole item."""
    host = item.host if isinstance(item, UrlPattern) else item
    return isinstance(host, HostPattern) and any(
        isinstance(each, HostPattern) and _host_inside(host, each) for each in to)


def _host_inside(smaller: HostPattern, larger: HostPattern) -> bool:
    if smaller == larger:
        return True
    if larger.reach is HostReach.EXACT:
        return False
    same = smaller.name == larger.name and (
        larger.reach is HostReach.SELF_AND_BELOW or smaller.reach is HostReach.BELOW)
    return same or smaller.name.endswith(f".{larger.name}")


def _touches(refusal: Conditions, grant: Conditions, agent: str | None) -> bool:
    """False only where the two certainly have no request in common."""
    return ((_meet(refusal.methods, grant.methods) or _begins_otherwise(grant))
            and _meet(refusal.schemes, grant.schemes)
            and (agent is not None or agents_meet(refusal.agents, grant.agents))
            and _any_pair(refusal.ports, grant.ports, _ports_meet)
            and _any_pair(refusal.paths, grant.paths, _paths_meet)
            and (refusal.to is None or any(_meets(item, grant) for item in refusal.to))
            and (refusal.address is None or any(_range_meets(each, grant) for each in refusal.address)))


def _begins_otherwise(grant: Conditions) -> bool:
    """True where clients may begin with calls that have methods of their own."""
    return grant.llm is not None and grant.llm.housekeeping


def _meet[T](one: frozenset[T] | None, other: frozenset[T] | None) -> bool:
    return one is None or other is None or bool(one & other)


def _any_pair[T](one: tuple[T, ...] | None, other: tuple[T, ...] | None, meet: Callable[[T, T], bool]) -> bool:
    return one is None or other is None or any(meet(a, b) for a in one for b in other)


def _paths_meet(one: PathGlob, other: PathGlob) -> bool:
    # As words, in which a star crosses segments: more than the globs cover, never less.
    return words_meet(one.text.replace("/**", "*"), other.text.replace("/**", "*"))


def _ports_meet(one: PortRange, other: PortRange) -> bool:
    return one.first <= other.last and other.first <= one.last


def _meets(item: Destination, grant: Conditions) -> bool:
    host = item.host if isinstance(item, UrlPattern) else item
    if isinstance(host, AddressRange):
        return _range_meets(host, grant)
    return any(isinstance(each, HostPattern) and _hosts_meet(host, each) for each in _hosts(grant)) or grant.to is None


def _range_meets(spread: AddressRange, grant: Conditions) -> bool:
    """True when the grant may lead to an address of the range."""
    literal = [each for each in _hosts(grant) if isinstance(each, AddressRange)]
    if any(_ranges_meet(spread, each) for each in literal):
        return True
    if grant.to is not None and len(literal) == len(grant.to):
        return False
    if grant.address is not None:
        return any(_ranges_meet(spread, each) for each in grant.address)
    # Without `address` a name is followed to the public internet alone.
    return not wholly_private(spread)


def _hosts(grant: Conditions) -> list[HostPattern | AddressRange]:
    return [item.host if isinstance(item, UrlPattern) else item for item in grant.to or ()]


def _ranges_meet(one: AddressRange, other: AddressRange) -> bool:
    return any(a.first.version == b.first.version and int(a.first) <= int(b.last) and int(b.first) <= int(a.last)
               for a in one.networks for b in other.networks)


def _hosts_meet(one: HostPattern, other: HostPattern) -> bool:
    if one.name == other.name:
        return {one.reach, other.reach} != {HostReach.EXACT, HostReach.BELOW}
    if len(one.name) < len(other.name):
        one, other = other, one
    return other.reach is not HostReach.EXACT and one.name.endswith(f".{other.name}")

"""The meaning of a policy, told slowly: every rule is asked at every point, and nothing is prepared or remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernel.address import embedded, is_global, named_ranges
from kernel.policy import AddressRange, HostPattern, HostReach, UrlPattern, Verb
from kernel.verdict import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.facts import Address, RequestFacts
    from kernel.policy import AgentPattern, Conditions, Policy, Rule

PUBLIC = named_ranges(())["public-internet"]
SEVERITY = [Code.ALLOW, Code.DEFAULT_DENY, Code.PRIVATE_ADDRESS, Code.RULE_DENY, Code.NEVER]


@dataclass(frozen=True)
class Answer:
    code: Code
    rule: str | None
    groups: tuple[str, ...]
    address: Address | None


@dataclass(frozen=True)
class Point:
    facts: RequestFacts
    segments: tuple[str, ...]
    address: Address


def judge(policy: Policy, facts: RequestFacts, addresses: Sequence[Address], own: set[tuple[Address, int]]) -> Answer:
    """The strictest answer over all addresses; of equally strict refusals the one whose rule comes first."""
    answers = [_at_address(policy, facts, address, own) for address in addresses]
    strictest = max(SEVERITY.index(answer.code) for answer in answers)
    left = [answer for answer in answers if SEVERITY.index(answer.code) == strictest]
    if left[0].code not in (Code.NEVER, Code.RULE_DENY):
        return left[0]
    order = [None, *(rule.name for rule in rules_of(policy))]
    return min(left, key=lambda answer: order.index(answer.rule))


def _at_address(policy: Policy, facts: RequestFacts, address: Address, own: set[tuple[Address, int]]) -> Answer:
    held = [rule for rule in rules_of(policy) if holds(rule, facts, address)]
    groups = tuple(rule.name for rule in held)
    if (address, facts.port) in own:
        return Answer(Code.NEVER, None, groups, address)
    for verb, code in ((Verb.NEVER, Code.NEVER), (Verb.DENY, Code.RULE_DENY)):
        for rule in held:
            if rule.verb is verb:
                return Answer(code, rule.name, groups, address)
    if not is_global(address) and not any(_was_written_for(rule, facts, address) for rule in held):
        return Answer(Code.PRIVATE_ADDRESS, None, groups, address)
    if held:
        return Answer(Code.ALLOW, held[0].name, groups, address)
    return Answer(Code.DEFAULT_DENY, None, groups, address)


def rules_of(policy: Policy) -> list[Rule]:
    return sorted([*policy.rules, *policy.nevers], key=lambda rule: rule.number)


def holds(rule: Rule, facts: RequestFacts, address: Address) -> bool:
    """A grant holds when it holds under every reading of the path, a refusal when under any."""
    readings = [_holds_at(rule, Point(facts, segments, address)) for segments in facts.path.readings]
    return all(readings) if rule.verb.grants else any(readings)


def _holds_at(rule: Rule, point: Point) -> bool:
    refuses = not rule.verb.grants
    if rule.verb.grants and rule.where.agents is None and point.facts.agent.id == "anonymous":
        return False
    if not _fit(rule.where, point, wide=refuses, literal_only=rule.verb.grants):
        return False
    return not any(_fit(hole, point, wide=not refuses, literal_only=False) for hole in rule.holes)


def _fit(where: Conditions, point: Point, *, wide: bool, literal_only: bool) -> bool:
    facts = point.facts
    if where.agents is not None and not any(_agent(pattern, facts.agent.id) for pattern in where.agents):
        return False
    if where.methods is not None and facts.method not in where.methods:
        return False
    if where.schemes is not None and facts.scheme not in where.schemes:
        return False
    if where.ports is not None and not any(each.first <= facts.port <= each.last for each in where.ports):
        return False
    if where.paths is not None and not any(glob_matches(each.segments, point.segments) for each in where.paths):
        return False
    if where.address is not None and not any(_in_range(each, point.address, wide) for each in where.address):
        return False
    return where.to is None or any(_destination(each, point, wide, literal_only) for each in where.to)


def _destination(item: HostPattern | AddressRange | UrlPattern, point: Point, wide: bool, literal_only: bool) -> bool:
    if isinstance(item, HostPattern):
        return _host(item, point)
    if isinstance(item, AddressRange):
        return not (literal_only and point.facts.host.address is None) and _in_range(item, point.address, wide)
    here = item.scheme == point.facts.scheme and item.port == point.facts.port
    return (
        here and glob_matches(item.path.segments, point.segments) and _destination(item.host, point, wide, literal_only)
    )


def _host(pattern: HostPattern, point: Point) -> bool:
    if point.facts.host.address is not None:
        return False
    labels, own = pattern.name.split("."), point.facts.host.name.split(".")
    below = len(own) > len(labels) and own[len(own) - len(labels) :] == labels
    match pattern.reach:
        case HostReach.EXACT:
            return own == labels
        case HostReach.BELOW:
            return below
        case HostReach.SELF_AND_BELOW:
            return below or own == labels


def _in_range(spread: AddressRange, address: Address, wide: bool) -> bool:
    judged = [address, *embedded(address)] if wide else [address]
    return any(
        each.version == part.first.version and int(part.first) <= int(each) <= int(part.last)
        for each in judged
        for part in spread.networks
    )


def _agent(pattern: AgentPattern, agent: str) -> bool:
    if agent == "anonymous":
        return pattern.text == "anonymous"
    return word_matches(pattern.text, agent)


def _was_written_for(rule: Rule, facts: RequestFacts, address: Address) -> bool:
    """A range of the grant that covers the address holds no global one; of URL patterns all that cover it."""
    if any(_in_range(each, address, False) and _is_inside(each) for each in rule.where.address or ()):
        return True
    if facts.host.address is None:
        return False
    hosts = [(item, item.host if isinstance(item, UrlPattern) else item) for item in rule.where.to or ()]
    near = [(item, host) for item, host in hosts if isinstance(host, AddressRange) and _in_range(host, address, False)]
    plain = any(item is host and _is_inside(host) for item, host in near)
    return plain or (bool(near) and all(_is_inside(host) for _, host in near))


def _is_inside(spread: AddressRange) -> bool:
    return not any(
        part.first.version == public.first.version
        and int(part.first) <= int(public.last)
        and int(public.first) <= int(part.last)
        for part in spread.networks
        for public in PUBLIC.networks
    )


def glob_matches(glob: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    if not glob:
        return not segments
    if glob[0] == "**":
        return any(glob_matches(glob[1:], segments[taken:]) for taken in range(len(segments) + 1))
    return bool(segments) and word_matches(glob[0], segments[0]) and glob_matches(glob[1:], segments[1:])


def word_matches(glob: str, word: str) -> bool:
    if not glob:
        return not word
    if glob[0] == "*":
        return any(word_matches(glob[1:], word[taken:]) for taken in range(len(word) + 1))
    return bool(word) and glob[0] == word[0] and word_matches(glob[1:], word[1:])

"""How far a halt can spread along the declared edges: circles, and the worst reach of one halt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from kernel.ahead.said import Ahead, Cascade, Clause, Prevention
from kernel.document import quote
from kernel.findings import Finding, Severity
from kernel.pattern import agent_matches, agents_meet
from kernel.policy import AgentPattern, Policy

_SHOWN = 8

type Edges = Mapping[str, frozenset[str]]


def cascade_findings(policy: Policy, ahead: Ahead, known: Collection[str]) -> Iterator[Finding]:
    """The findings on `cascade:`. `known` are the registered agents."""
    cascade = ahead.cascade
    if cascade is None or cascade.on_halt is None:
        return
    yield from _silent(policy, cascade, ahead.clauses)
    edges = _edges(cascade)
    yield from _circles(cascade, edges)
    yield from _reach(policy, cascade, edges, known)


def _silent(policy: Policy, cascade: Cascade, clauses: Mapping[str, Clause]) -> Iterator[Finding]:
    risky = any(rule.risk for rule in policy.rules) or any(clause.contains for clause in clauses.values())
    if cascade.on_halt is not None and "OVERRISK" in cascade.on_halt.reasons and not risky:
        hint = "give a rule risk: POINTS, or leave the reason out"
        message = "no agent here ever halts for OVERRISK: no rule adds to its risk"
        yield Finding("W501", Severity.WARNING, cascade.position, message, hint)


def _edges(cascade: Cascade) -> Edges:
    """For each name those that are acted upon when it halts. Names that share an agent halt with one another."""
    members = cascade.members
    return {
        name: frozenset(
            dependent for dependent, needs in cascade.depends.items()
            if any(agents_meet(members[name].agents, members[need].agents) for need in needs))
        for name in members
    }


def _circles(cascade: Cascade, edges: Edges) -> Iterator[Finding]:
    on_halt = cascade.on_halt
    if on_halt is None or on_halt.do is not Prevention.HALT:
        return
    ever = {name: _reached(edges, name, len(edges)) for name in edges}
    reported: set[frozenset[str]] = set()
    for name in edges:
        circle = frozenset(other for other in ever[name] if name in ever[other])
        if circle and circle not in reported and circle <= _reached(edges, name, on_halt.hops) | {name}:
            reported.add(circle)
            shown = ", ".join(sorted(circle)[:_SHOWN])
            message = f"a halt goes round in a circle: {shown} depend on one another, and one halt halts them all"
            hint = "break the circle, or write do: throttle"
            yield Finding("E601", Severity.ERROR, cascade.position, message, hint)


def _reached(edges: Edges, start: str, hops: int) -> frozenset[str]:
    """The names that a halt of `start` reaches in at most so many hops; `start` itself where it comes round."""
    found: frozenset[str] = frozenset()
    here = frozenset({start})
    for _ in range(hops):
        there = frozenset().union(*(edges[name] for name in here)) - found
        if not there:
            break
        found, here = found | there, there
    return found


def _reach(policy: Policy, cascade: Cascade, edges: Edges, known: Collection[str]) -> Iterator[Finding]:
    on_halt, percent = cascade.on_halt, cascade.blast_percent
    everybody = _agents([pattern for group in policy.groups.values() for pattern in group], known)
    if on_halt is None or percent is None or everybody is None:
        return
    members = cascade.members
    reached = {
        name: _agents([each for other in _reached(edges, name, on_halt.hops) for each in members[other].agents], known)
        for name in edges
    }
    counted = {name: len(agents) for name, agents in reached.items() if agents is not None}
    if not counted:
        return
    worst = max(counted, key=lambda name: (counted[name], name))
    allowed = max(1, len(everybody) * percent // 100)
    if counted[worst] > allowed:
        hops = "1 hop" if on_halt.hops == 1 else f"{on_halt.hops} hops"
        names = ", ".join(sorted(reached[worst] or ())[:_SHOWN])
        message = (
            f"a halt of {quote(worst)} reaches {counted[worst]} of {len(everybody)} agents in {hops} ({names}), and "
            f"blast-radius: {percent}% allows {allowed}")
        hint = "raise blast-radius, lower hops, or take edges out of depends"
        yield Finding("E601", Severity.ERROR, cascade.position, message, hint)


def _agents(patterns: Collection[AgentPattern], known: Collection[str]) -> frozenset[str] | None:
    """The agents that the patterns stand for; None where that is not known, as nobody is registered."""
    if not known and any("*" in pattern.text for pattern in patterns):
        return None
    written = {pattern.text for pattern in patterns if "*" not in pattern.text}
    matched = {agent for agent in known if any(agent_matches(pattern, agent) for pattern in patterns)}
    return frozenset(written | matched)

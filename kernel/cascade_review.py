"""What is doubtful in `cascade:`: what never happens, circles, and a halt that reaches more than may be held back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from kernel.ahead.said import Ahead
from kernel.bounds import Bounds
from kernel.contagion import Cascade, Prevention
from kernel.document import quote
from kernel.findings import Finding, Severity
from kernel.pattern import agents_meet
from kernel.policy import Policy
from kernel.reach import worst_reach
from kernel.verdict import Code

_SHOWN = 8

type Edges = Mapping[str, frozenset[str]]


def cascade_findings(policy: Policy, known: Collection[str]) -> Iterator[Finding]:
    """The findings on `cascade:`. `known` are the registered agents."""
    cascade = policy.cascade
    if cascade is None:
        return
    yield from _silent(policy, cascade)
    yield from _circles(cascade, _edges(cascade))
    yield from _reach(policy, cascade, known)


def _silent(policy: Policy, cascade: Cascade) -> Iterator[Finding]:
    if cascade.depends and cascade.on_halt is None:
        yield _useless(cascade, "depends says who needs whom, and nothing follows from it", "say on-halt:")
    if cascade.on_halt is not None and not cascade.depends:
        yield _useless(cascade, "nobody needs anybody, so no halt spreads", "say depends: {GROUP: [GROUP]}")
    if cascade.breaker is not None and not cascade.groups:
        yield _useless(cascade, "circuit-breaker counts the halts of a group, and there is none", "say agents:")
    for reason in sorted(() if cascade.on_halt is None else cascade.on_halt.reasons):
        why_never = _why_never(policy, reason)
        if why_never is not None:
            problem, hint = why_never
            message = f"no agent here ever halts for {reason}: {problem}"
            yield _useless(cascade, message, f"{hint}, or leave the reason out")


def _why_never(policy: Policy, reason: str) -> tuple[str, str] | None:
    """Why no agent is ever halted for a contagious reason, and what to write; None where one may be."""
    clauses = (policy.ahead or Ahead()).clauses
    risky = any(rule.risk for rule in policy.rules) or any(clause.contains for clause in clauses.values())
    if reason == Code.OVERRISK and not risky:
        return "no rule adds to its risk", "give a rule risk: POINTS"
    if reason not in Bounds(policy).halts_for():
        counter = "risk" if reason == Code.OVERRISK else "exploration"
        return "no counter and no budget halts for it", f"say counters: {{{counter}: {{limit: 100, then: halt}}}}"
    return None


def _useless(cascade: Cascade, message: str, hint: str) -> Finding:
    return Finding("W501", Severity.WARNING, cascade.position, message, hint)


def _edges(cascade: Cascade) -> Edges:
    """For each name those that are acted upon when it halts. Names that share an agent halt with one another."""
    members = cascade.members
    return {
        name: frozenset(
            dependent for dependent, needs in cascade.depends.items()
            if any(agents_meet(members[name], members[need]) for need in needs))
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


def _reach(policy: Policy, cascade: Cascade, known: Collection[str]) -> Iterator[Finding]:
    """A halt that would hold back more agents than may be; not asked where it is not known how many there are."""
    found = worst_reach(policy, known)
    if found is None or found.unknown or not found.slowed_instead:
        return
    shown = ", ".join(found.reached[:_SHOWN])
    message = (
        f"a halt of {quote(found.worst)} reaches {len(found.reached)} of {found.agents} agents in {found.in_hops} "
        f"({shown}), and blast-radius: {cascade.blast_percent}% lets a process hold back {found.radius}")
    hint = "the others are only slowed down: raise blast-radius, lower hops, or take edges out of depends"
    yield Finding("W602", Severity.WARNING, cascade.position, message, hint)

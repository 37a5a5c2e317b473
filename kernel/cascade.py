"""What the halt of one agent does to others: which preventive acts follow from it, in which order, for which cause.

Pure: it asks the policy's `cascade:`, the halt, and how agents stand at that moment, which the log tells. So a replay
finds the same acts. Only halts that an agent earned itself spread; what follows from them is never a cause again, so
that no halt goes further than its hops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from kernel import entry
from kernel.contagion import Cascade, Prevention
from kernel.pattern import agent_matches
from kernel.transition import KERNEL, written
from kernel.verdict import Code

if TYPE_CHECKING:
    from kernel.folding import States
    from kernel.policy import AgentPattern
    from kernel.state import Halt, Standing

MICROS = 1_000_000
ACTIVE_US = 3600 * MICROS
"""Who asked for nothing for so long is not active: it took nothing from an agent that is halted now."""


class Section(StrEnum):
    """The part of `cascade:` that an act follows from."""

    ON_HALT = "on-halt"
    BREAKER = "circuit-breaker"


class Act(NamedTuple):
    """One preventive act. `path` goes from the origin to the agent, in `hop` steps.

    `degraded`: it was to be more, and the blast radius did not allow that.
    """

    agent: str
    do: Prevention
    origin: str
    path: tuple[str, ...]
    hop: int
    by: Section
    degraded: bool = False


class Roll(NamedTuple):
    """How agents stand at a moment. `earned` says since when those are halted who earned it (microseconds since 1970).

    `held` are those that another's halt holds back, each with how; who was halted so is among them and in `halted`.
    """

    active: frozenset[str]
    halted: frozenset[str] = frozenset()
    earned: Mapping[str, int] = {}
    held: Mapping[str, Prevention] = {}


def roll_at(states: States, now_us: int) -> Roll:
    """How agents stand at a moment. Who asks for something on trial is active, too."""
    halts: dict[str, Halt] = {}
    held: dict[str, Prevention] = {}
    for name, standing in states.real.agents.items():
        if standing.halt is not None:
            halts[name] = standing.halt
            if standing.halt.reason == Code.CASCADE:
                held[name] = Prevention.HALT
        elif standing.preventive is not None and standing.preventive.is_in_force(now_us):
            held[name] = standing.preventive.action
    seen = chain(states.real.seen.items(), states.shadow.seen.items())
    return Roll(
        frozenset(name for name, seen_us in seen if now_us - seen_us < ACTIVE_US), frozenset(halts),
        {name: halt.since_us for name, halt in halts.items() if is_earned(halt)}, held)


def is_earned(halt: Halt) -> bool:
    """True where an agent's own conduct halted it: no operator, and no other agent's halt."""
    return halt.by == KERNEL and halt.reason != Code.CASCADE


def radius(cascade: Cascade, active: int) -> int:
    """How many agents a process may hold back at a time, of those that are active there: one always."""
    return max(1, active * cascade.blast_percent // 100)


def follows(cascade: Cascade, roll: Roll, origin: str, halt: Halt) -> list[Act]:
    """The acts that follow from a halt, in the order in which they are done: by hop, then by agent, one for each."""
    if not is_earned(halt):
        return []
    members = _Members(cascade, roll.active | {origin})
    wanted: dict[str, Act] = {}
    for act in (*_along_edges(cascade, members, origin, halt), *_of_breaker(cascade, roll, members, origin, halt)):
        known = wanted.get(act.agent)
        if known is None or act.do.severity > known.do.severity:
            wanted[act.agent] = act
    ordered = sorted((act for act in wanted.values() if _adds(roll, act)), key=lambda act: (act.hop, act.agent))
    return list(_within_radius(cascade, roll, ordered))


class _Members:
    """The active agents that names of the policy stand for, looked up once."""

    def __init__(self, cascade: Cascade, active: Iterable[str]) -> None:
        self._cascade, self._active = cascade, active
        self._known: dict[str, frozenset[str]] = {}

    def of(self, name: str) -> frozenset[str]:
        """Those that a name of `depends` stands for."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self.matching(self._cascade.members[name])
        return found

    def matching(self, patterns: tuple[AgentPattern, ...]) -> frozenset[str]:
        return frozenset(agent for agent in self._active if is_one_of(patterns, agent))


def is_one_of(patterns: tuple[AgentPattern, ...], agent: str) -> bool:
    """True when one of the patterns covers the agent."""
    return any(agent_matches(pattern, agent) for pattern in patterns)


def _along_edges(cascade: Cascade, members: _Members, origin: str, halt: Halt) -> Iterator[Act]:
    """What a contagious halt does to those that need the agent, step by step, each by the first of its paths."""
    on_halt = cascade.on_halt
    if on_halt is None or halt.reason not in on_halt.reasons:
        return
    here: Mapping[str, tuple[str, ...]] = {origin: (origin,)}
    reached = {origin}
    for hop in range(1, on_halt.hops + 1):
        here = _next(cascade, members, here, reached)
        reached |= here.keys()
        for agent, path in here.items():
            yield Act(agent, on_halt.do, origin, path, hop, Section.ON_HALT)


def _next(
    cascade: Cascade, members: _Members, here: Mapping[str, tuple[str, ...]], reached: set[str]
) -> dict[str, tuple[str, ...]]:
    """Who needs one of these agents and was not reached yet, each with the path to it."""
    there: dict[str, tuple[str, ...]] = {}
    for dependent, needs in cascade.depends.items():
        # Few are here, and many may be active: only who depends is looked for among all of these.
        patterns = tuple(pattern for need in needs for pattern in cascade.members[need])
        needed = [path for agent, path in here.items() if is_one_of(patterns, agent)]
        for agent in members.of(dependent) - reached if needed else ():
            path = (*min(needed), agent)
            there[agent] = min(path, there.get(agent, path))
    return there


def _of_breaker(cascade: Cascade, roll: Roll, members: _Members, origin: str, halt: Halt) -> Iterator[Act]:
    """What the last of several halts in a group does to the others of the group."""
    breaker = cascade.breaker
    if breaker is None:
        return
    since_us = halt.since_us - breaker.within_seconds * MICROS
    late = [agent for agent, at_us in roll.earned.items() if at_us > since_us]
    for patterns in cascade.groups.values():
        if is_one_of(patterns, origin) and sum(is_one_of(patterns, agent) for agent in late) >= breaker.halts:
            for agent in members.matching(patterns) - {origin}:
                yield Act(agent, breaker.do, origin, (origin, agent), 1, Section.BREAKER)


def _adds(roll: Roll, act: Act) -> bool:
    """False for who is halted, or is held back by more than this already."""
    held = roll.held.get(act.agent)
    return act.agent not in roll.halted and (held is None or act.do.severity >= held.severity)


def _within_radius(cascade: Cascade, roll: Roll, acts: Iterable[Act]) -> Iterator[Act]:
    """The acts, of which no more hold an agent back than may be held back at a time; the others slow it down."""
    held = {agent for agent, do in roll.held.items() if do.holds_back}
    most = radius(cascade, len(roll.active))
    for act in acts:
        if not act.do.holds_back or act.agent in held:
            yield act
        elif len(held) < most:
            held.add(act.agent)
            yield act
        else:
            yield act._replace(do=Prevention.THROTTLE, degraded=True)


def entries_after(cascade: Cascade, roll: Roll, origin: str, halt: Halt, *, on_trial: bool) -> list[entry.Body]:
    """The entries of all that follows from a halt, in their order. Of a policy on trial nothing takes effect."""
    said = cascade.only_observed() if on_trial else cascade
    return [_entry(said, act, halt) for act in follows(said, roll, origin, halt)]


def _entry(cascade: Cascade, act: Act, halt: Halt) -> entry.Body:
    until = None if act.do is Prevention.HALT else written(halt.since_us + cascade.seconds * MICROS)
    return entry.preventive(act.agent, act.do, until, act.origin, act.path, act.hop, halt.entry, act.by,
                            degraded=act.degraded)


def cause_of(standing: Standing, now_us: int) -> entry.Body | None:
    """The chain of causes that every decision of an agent under restriction tells; None where nothing restricts it."""
    held, halt = standing.preventive, standing.halt
    if held is None or held.action is Prevention.OBSERVE:
        return None
    if halt.reason != Code.CASCADE if halt is not None else not held.is_in_force(now_us):
        return None
    return {"origin": held.origin, "path": list(held.path), "hop": held.hop, "entry": held.entry}

"""Builders of cascades, and a reading of them that was written apart from the kernel's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernel.cascade import Roll
from kernel.contagion import Breaker, Cascade, OnHalt, Prevention
from kernel.pattern import agent_pattern
from kernel.policy import Position
from kernel.state import Halt
from kernel.transition import KERNEL
from kernel.verdict import Code

AT = Position("policy.yaml", 1, 1)
MICROS = 1_000_000
NOW = 1_800_000_000 * MICROS


def cascade(depends: Mapping[str, Sequence[str]], do: str = "quarantine", hops: int = 1, seconds: int = 600,
            percent: int = 100, breaker: tuple[int, int, str] | None = None, **groups: Sequence[str]) -> Cascade:
    """Names that are no group stand for the agent of that id."""
    names = {*depends, *(need for needs in depends.values() for need in needs)}
    patterns = {name: tuple(agent_pattern(each) for each in groups.get(name, [name])) for name in names | groups.keys()}
    stop = None if breaker is None else Breaker(breaker[0], breaker[1], Prevention(breaker[2]))
    return Cascade(
        AT, {name: tuple(needs) for name, needs in depends.items()}, {name: patterns[name] for name in names},
        {name: patterns[name] for name in groups} if stop else {},
        OnHalt(frozenset({"OVERRISK", "EXPLORATION_DRIFT"}), Prevention(do), hops, seconds), stop, percent)


def halt(reason: str = "OVERRISK", by: str = KERNEL, at_us: int = NOW) -> Halt:
    return Halt(Code(reason), at_us, None, by, (), "main/7")


def roll(active: str, halted: str = "", earned: Mapping[str, int] | None = None,
         held: Mapping[str, str] | None = None) -> Roll:
    """Agents are words."""
    restricted = {name: Prevention(do) for name, do in (held or {}).items()}
    return Roll(frozenset(active.split()), frozenset(halted.split()), earned or {}, restricted)


def distances(edges: Mapping[str, frozenset[str]], origin: str) -> dict[str, int]:
    """How many steps each agent is away; `edges` gives those that need an agent."""
    found, here, steps = {origin: 0}, [origin], 0
    while here:
        steps += 1
        here = sorted({other for agent in here for other in edges[agent]} - found.keys())
        found |= dict.fromkeys(here, steps)
    return found

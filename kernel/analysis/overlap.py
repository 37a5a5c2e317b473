"""Whether two patterns of agent ids cover one agent between them."""

from __future__ import annotations

from kernel.pattern import ANONYMOUS, agent_matches
from kernel.policy import AgentPattern

type Agents = tuple[AgentPattern, ...] | None


def agents_overlap(first: Agents, second: Agents) -> bool:
    """True when some agent is covered by both; None covers every agent."""
    if first is None or second is None:
        return True
    return any(patterns_meet(one, other) for one in first for other in second)


def patterns_meet(one: AgentPattern, other: AgentPattern) -> bool:
    """True when some agent id fits both patterns."""
    if "*" not in one.text or one.text == ANONYMOUS:
        return agent_matches(other, one.text)
    if "*" not in other.text:
        return agent_matches(one, other.text)
    return _globs_meet(one.text, other.text)


def _globs_meet(one: str, other: str) -> bool:
    """True when some word fits both globs: a walk over the places to which both can be read at once."""
    seen, left = {(0, 0)}, [(0, 0)]
    while left:
        first, second = left.pop()
        if first == len(one) and second == len(other):
            return True
        for step in _steps(one, other, first, second):
            if step not in seen:
                seen.add(step)
                left.append(step)
    return False


def _steps(one: str, other: str, first: int, second: int) -> list[tuple[int, int]]:
    """Where the walk may go next: over an empty star, along a star with the other's next character, or along both."""
    here, there = one[first : first + 1], other[second : second + 1]
    steps = []
    if here == "*":
        steps.append((first + 1, second))
        if there:
            steps.append((first, second + 1))
    if there == "*":
        steps.append((first, second + 1))
        if here:
            steps.append((first + 1, second))
    if here and here == there:
        steps.append((first + 1, second + 1))
    return steps

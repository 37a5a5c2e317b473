"""The worst that one halt can bring about, found by trying: as if one process served all agents that are known."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from kernel.cascade import Act, Roll, follows, is_one_of, radius
from kernel.contagion import Cascade
from kernel.policy import Policy
from kernel.state import Halt
from kernel.transition import KERNEL


class Reach(NamedTuple):
    """Whose halt reaches most: `reached` in so many `hops`, by hop and name, of so many `agents` that are known.

    `radius` is how many that process may hold back, `slowed_instead` how many are slowed down in the place of that.
    `unknown` are the groups of patterns that no known agent fits: nobody knows how many agents those are.
    """

    worst: str
    reached: tuple[str, ...]
    agents: int
    radius: int
    hops: int
    slowed_instead: int
    unknown: tuple[str, ...]

    @property
    def in_hops(self) -> str:
        return "1 hop" if self.hops == 1 else f"{self.hops} hops"


def worst_reach(policy: Policy, known: Collection[str]) -> Reach | None:
    """The reach of the worst single halt, the first of those that are as bad; None where nothing follows from a halt.

    `known` are the registered agents; those whose ids the policy writes count, too.
    """
    cascade = policy.cascade
    if cascade is None or not cascade.follows_one_halt:
        return None
    patterns = [each for group in policy.groups.values() for each in group]
    agents = frozenset(known) | {each.text for each in patterns if "*" not in each.text}
    unknown = tuple(name for name, group in policy.groups.items() if any(
        "*" in each.text and not any(is_one_of((each,), agent) for agent in agents) for each in group))
    tried = [(origin, _tried(cascade, agents, origin)) for origin in _origins(cascade, agents)]
    worst, acts = min(tried, key=lambda each: (-len(each[1]), each[0]), default=("", []))
    return Reach(worst, tuple(act.agent for act in acts), len(agents), radius(cascade, len(agents)),
                 max((act.hop for act in acts), default=0), sum(act.degraded for act in acts), unknown)


def _origins(cascade: Cascade, agents: Collection[str]) -> list[str]:
    """The first of the agents that each set of names stands for: the halts of all of them reach as many."""
    named = {**cascade.members, **cascade.groups}
    first: dict[frozenset[str], str] = {}
    for agent in sorted(agents):
        first.setdefault(frozenset(name for name, of in named.items() if is_one_of(of, agent)), agent)
    return sorted(first.values())


def _tried(cascade: Cascade, agents: frozenset[str], origin: str) -> list[Act]:
    reasons = sorted(cascade.on_halt.reasons) if cascade.on_halt is not None else []
    halt = Halt(reasons[0] if reasons else "", 0, None, KERNEL)
    return follows(cascade, Roll(agents, frozenset({origin}), {origin: 0}), origin, halt)

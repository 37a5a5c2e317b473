"""What an agent can reach under a policy, and who can reach a destination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernel.analysis.box import AGENTS, HOSTS, WHO
from kernel.analysis.language import Lang, TooHard
from kernel.analysis.phrase import how, to, who
from kernel.analysis.region import Region
from kernel.analysis.shapes import Shapes, unread
from kernel.analysis.space import ANONYMOUS_AGENT, NAMED_AGENT
from kernel.pattern import ANONYMOUS
from kernel.policy import HostPattern, HostReach

if TYPE_CHECKING:
    from kernel.analysis.box import Box
    from kernel.facts import Host
    from kernel.findings import Witness
    from kernel.policy import Policy, Rule


@dataclass(frozen=True, slots=True)
class Row:
    """What one grant lets through. `refusals` are the rules that take a part of it back."""

    rule: str
    agents: str
    methods: str
    destinations: str
    refusals: tuple[str, ...]
    witness: Witness


@dataclass(frozen=True, slots=True)
class Reach:
    """The grants of which something passes, in the order of the policy, and what could not be decided."""

    rows: tuple[Row, ...]
    undecided: tuple[str, ...]


def reach_of_agent(policy: Policy, agent: str) -> Reach:
    """What the agent can reach."""
    shapes = Shapes([policy])
    if agent == ANONYMOUS:
        return _reach(policy, shapes, WHO, ANONYMOUS_AGENT)
    return _reach(policy, shapes, WHO, NAMED_AGENT, Lang(frozenset({shapes.patterns.agents([agent])})))


def reach_to_name(policy: Policy, host: Host) -> Reach:
    """Who can reach the host of this name, at an address of the public internet or at one that a rule opens."""
    named = HostPattern(host.name, HostReach.EXACT)
    shapes = Shapes([policy], names=[named])
    return _reach(policy, shapes, HOSTS, shapes.space.hosts.mask(named))


def _reach(policy: Policy, shapes: Shapes, part: int, mask: int, agents: Lang | None = None) -> Reach:
    rows: list[Row] = []
    undecided = [f"rule {rule.name}: it speaks of fields or times" for rule in filter(unread, policy.items)]
    region = Region(policy, shapes)
    undecided += [f"rule {rule.name}: what hides behind some addresses that it opens" for rule in region.vague]
    for rule in policy.rules:
        if not rule.verb.grants:
            continue
        try:
            passing = _passing(region, rule, part, mask, agents)
        except TooHard:
            undecided.append(f"rule {rule.name}: what of it passes")
            continue
        if passing is not None:
            asked, shown = passing
            near = (each for each in region.refusals.near(asked) if region.boxes.meet(asked, each.box))
            refusals = tuple(dict.fromkeys(each.rule.name for each in near))
            rows.append(Row(rule.name, who(policy, rule), how(rule), to(rule), refusals, region.witness(shown)))
    return Reach(tuple(rows), tuple(undecided))


def _passing(region: Region, rule: Rule, part: int, mask: int, agents: Lang | None) -> tuple[Box, Box] | None:
    """The first box of the grant of which something passes, narrowed to what is asked, and what of it passes."""
    for box in region.boxes_of(rule):
        asked = box.narrowed(part, box.masks[part] & mask)
        if agents is not None:
            asked = asked.worded(AGENTS, asked.langs[AGENTS].meet(agents))
        alive = region.boxes.alive(asked)
        found = None if alive is None else next(region.passing(alive), None)
        if alive is not None and found is not None:
            return alive, found
    return None

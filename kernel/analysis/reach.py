"""What an agent can reach under a policy, and who can reach a destination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernel.analysis.box import AGENTS, HOSTS, WHO
from kernel.analysis.language import Lang, TooHard
from kernel.analysis.phrase import how, to, who
from kernel.analysis.region import Region
from kernel.analysis.shapes import Shapes
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


def reach_of_agent(policy: Policy, agent: str, now: int = 0) -> Reach:
    """What the agent can reach from `now` on."""
    shapes = Shapes([policy], now=now)
    if agent == ANONYMOUS:
        return _reach(policy, shapes, WHO, ANONYMOUS_AGENT)
    return _reach(policy, shapes, WHO, NAMED_AGENT, Lang(frozenset({shapes.patterns.words([agent])})))


def reach_to_name(policy: Policy, host: Host, now: int = 0) -> Reach:
    """Who can reach the host of this name from `now` on, at a public address or at one that a rule opens."""
    named = HostPattern(host.name, HostReach.EXACT)
    shapes = Shapes([policy], names=[named], now=now)
    return _reach(policy, shapes, HOSTS, shapes.space.hosts.mask(named))


def _reach(policy: Policy, shapes: Shapes, part: int, mask: int, agents: Lang | None = None) -> Reach:
    if policy.narrows:
        return Reach((), ("the policy as a whole: it has tiers",))
    rows: list[Row] = []
    region = Region(policy, shapes)
    undecided = [f"rule {rule.name}: what hides behind some addresses that it opens" for rule in region.vague]
    for rule in policy.rules:
        if not rule.verb.grants:
            continue
        try:
            passing = _passing(region, rule, part, mask, agents)
        except TooHard:
            undecided.append(f"rule {rule.name}: what of it passes")
            continue
        if passing is not None:
            asked, witness = passing
            if witness is None:
                undecided.append(f"rule {rule.name}: no request was found that has the fields it wants")
                continue
            near = (each for each in region.refusals.near(asked) if region.boxes.meet(asked, each.box))
            refusals = tuple(dict.fromkeys(each.rule.name for each in near))
            rows.append(Row(rule.name, who(policy, rule), how(rule), to(rule), refusals, witness))
    return Reach(tuple(rows), tuple(undecided))


def _passing(
    region: Region, rule: Rule, part: int, mask: int, agents: Lang | None
) -> tuple[Box, Witness | None] | None:
    """A box of the grant of which something passes, narrowed to what is asked, and a request of it that passes."""
    unseen: Box | None = None
    for box in region.boxes_of(rule):
        asked = box.narrowed(part, box.masks[part] & mask)
        if agents is not None:
            asked = asked.worded(AGENTS, asked.langs[AGENTS].meet(agents))
        alive = region.boxes.alive(asked)
        for piece in region.passing(alive) if alive is not None else ():
            unseen = alive
            witness = region.witness(piece)
            if witness is not None and alive is not None:
                return alive, witness
    return None if unseen is None else (unseen, None)

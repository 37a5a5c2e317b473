"""What a simulated swarm is to be: how large, under which policy, in which weather."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from kernel.budget import Budget, Effect, Every
from kernel.contagion import Cascade, OnHalt, Prevention
from kernel.measures import Rate
from kernel.policy import AgentPattern, Policy, Position
from kernel.verdict import Code
from tests.kernel.accounting import at, budget, policy, rate
from tests.swarm.network import CALM, USUAL, Weather

_LEADS, _KEPT = (AgentPattern("lead-*"),), (AgentPattern("kept-*"),)


class Agent(NamedTuple):
    """Most of a team's requests come through the proxy of the team."""

    name: str
    team: int


@dataclass(frozen=True)
class Plan:
    """`requests` is how many each agent makes on average, `allowed` the share of them for which there is a budget."""

    agents: int = 200
    proxies: int = 10
    teams: int = 20
    seconds: float = 40.0
    requests: float = 6.0
    allowed: float = 0.4
    weather: Weather = USUAL
    cuts: float = 0.5
    """How many partitions there are for each proxy, and twice as many as deaths."""
    risky: int = 6
    """How many leads earn a halt."""
    acts: int = 12
    """How often an operator does something."""
    do: Prevention = Prevention.QUARANTINE
    alone: bool = True
    """Whether some agents have budgets and rates of their own."""


def calm(proxies: int) -> Plan:
    """A swarm to which nothing happens, of twenty agents for each proxy."""
    return Plan(agents=20 * proxies, proxies=proxies, teams=proxies, requests=5.0, allowed=2.0, weather=CALM, cuts=0.0,
                risky=0, acts=0, alone=False)


def agents_of(plan: Plan) -> Iterator[Agent]:
    """A lead for each team, and its crew, of which every tenth is kept by a budget of its own."""
    for team in range(plan.teams):
        yield Agent(f"lead-{team}", team)
    for number in range(plan.agents - plan.teams):
        team = number % plan.teams
        yield Agent(f"{'kept' if number // plan.teams % 10 == 0 else 'crew'}-{team}-{number}", team)


def policy_of(plan: Plan) -> Policy:
    """Budgets that all share, some of single agents, risk that halts, and teams that need their leads."""
    rates = replace(rate(Rate(2, 1), Rate(max(1, plan.teams // 8), 1), burst=8), agents=_LEADS)
    said = policy(*_budgets(plan), rates=(rates,) if plan.alone else ())
    return replace(said, cascade=_cascade(plan))


def _budgets(plan: Plan) -> Iterator[Budget]:
    asked = round(plan.agents * plan.requests)
    yield budget(together={"requests": round(asked * plan.allowed)}, every=Every.HOUR, name="all")
    yield budget(together={"bytes": asked * 2**21}, name="traffic")
    if plan.alone:
        yield budget(each={"requests": 5}, name="own", agents=_KEPT)
    yield budget(each={"risk": 30}, every=Every.SESSION, name="conduct", when_used=[at(100, Effect.HALT)])


def _cascade(plan: Plan) -> Cascade:
    """A team needs its lead, and every other lead the one before."""
    teams = range(plan.teams)
    depends = {f"team-{team}": (f"lead-{team}",) for team in teams}
    depends |= {f"lead-{team}": (f"lead-{team - 1}",) for team in teams[1::2]}
    members = {f"lead-{team}": (AgentPattern(f"lead-{team}"),) for team in teams}
    members |= {f"team-{team}": (AgentPattern(f"crew-{team}-*"), AgentPattern(f"kept-{team}-*")) for team in teams}
    on_halt = OnHalt(frozenset({Code.OVERRISK}), plan.do, hops=2, seconds=600)
    return Cascade(Position("policy.yaml", 1, 1), depends, members, {}, on_halt)

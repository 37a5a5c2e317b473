"""What of a policy bounds an agent: amounts of budgets, rates, and counts of what it does by itself."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from kernel.arithmetic import KINDS, interval
from kernel.budget import Budget, Counter, Effect, Every, Threshold, Unit
from kernel.hours import DAY_SECONDS, UTC_ZONE
from kernel.pattern import agent_matches
from kernel.profiles import counters
from kernel.state import TOGETHER, AccountKey, PaceKey, Standing
from kernel.verdict import Code

if TYPE_CHECKING:
    from kernel.hours import Zone
    from kernel.measures import Rate
    from kernel.policy import AgentPattern, Policy

MICROS = 1_000_000
_WEEK_SECONDS = 7 * DAY_SECONDS
# 1970 began on a Thursday, and a week begins on a Monday.
_FIRST_MONDAY_SECONDS = 4 * DAY_SECONDS
# What a counter that leads to a throttle lets through.
SLOW_MICROS, SLOW_COUNT = 60 * MICROS, 6
COUNTER = " counter"
"""Behind a counter's name in its account and its rate, which no budget has: no name in a policy has a space."""
_KINDS = tuple(Every)
_REASONS = {
    "risk": Code.OVERRISK, "exploration": Code.EXPLORATION_DRIFT, "steps": Code.EXTERNAL,
    "persistence": Code.PERSISTENCE_LIMIT, "stagnation": Code.STAGNATION,
}  # fmt: skip
_COUNTED = {"risk": Unit.RISK, "exploration": Unit.NEW_HOSTS, "steps": Unit.REQUESTS}


class Bound(NamedTuple):
    """One amount. `each`: of every agent by itself. `reason` is why somebody is halted who used it up.

    `counter`: it was not written as a budget, and refuses with its own reason.
    """

    budget: str
    unit: Unit
    limit: int
    each: bool
    every: Every
    zone: Zone
    when_used: tuple[Threshold, ...]
    reason: Code
    counter: bool = False

    def key(self, agent: str) -> AccountKey:
        return self.budget, self.unit, agent if self.each else TOGETHER

    def window(self, standing: Standing, now_us: int) -> int:
        """The number of the window that a moment lies in, later ones of its kind having greater numbers."""
        return self._window(standing, now_us) * KINDS + _KINDS.index(self.every)

    def _window(self, standing: Standing, now_us: int) -> int:
        """The windows of this kind before a moment. Of all agents together a session never ends."""
        if self.every is Every.SESSION:
            return standing.epoch + standing.session if self.each else 0
        seconds = now_us // MICROS
        if self.every is Every.HOUR:
            return seconds // 3600
        local = seconds + self.zone.offset(seconds)
        return local // DAY_SECONDS if self.every is Every.DAY else (local - _FIRST_MONDAY_SECONDS) // _WEEK_SECONDS

    def most(self) -> tuple[int, Effect]:
        """How much is counted, and what follows when more is asked for: TELL where it then passes uncounted."""
        if self.counter and self.when_used[0].effect in (Effect.TELL, Effect.THROTTLE):
            return self.limit, Effect.TELL
        for threshold in self.when_used:
            if threshold.effect in (Effect.DENY, Effect.HALT) and threshold.percent <= 100:
                # Nobody is halted for what its neighbours have used of an account that all share.
                return self.limit * threshold.percent // 100, threshold.effect if self.each else Effect.DENY
        return self.limit, Effect.DENY


class Pace(NamedTuple):
    """A rate: one request in `each_us` microseconds, and `burst` of them at once."""

    name: str
    each: bool
    each_us: int
    burst: int

    def key(self, agent: str) -> PaceKey:
        return self.name, agent if self.each else TOGETHER


class Repeats(NamedTuple):
    """How often one request may be repeated within a while, and what follows then."""

    name: str
    limit: int
    within_us: int
    then: Effect
    reason: Code


class Bounded(NamedTuple):
    """Everything that bounds one agent."""

    bounds: tuple[Bound, ...] = ()
    paces: tuple[Pace, ...] = ()
    refused: Repeats | None = None
    repeated: Repeats | None = None

    @property
    def counts_requests(self) -> bool:
        """True where it matters which request is the same as another."""
        return self.refused is not None or self.repeated is not None

    @property
    def units(self) -> frozenset[Unit]:
        """What is counted of the agent."""
        return frozenset(bound.unit for bound in self.bounds)


class Bounds:
    """What a policy says for each agent."""

    def __init__(self, policy: Policy) -> None:
        counted = counters(policy.profile, policy.counters)
        counts = [_count(each) for each in counted.values() if each.name in _COUNTED]
        self._bounds = [*((each.agents, _bounds(each)) for each in policy.budgets), (None, counts)]
        self._paces = [(each.agents, _paces(each.name, each.each, each.together, each.burst)) for each in policy.rates]
        self._refused, self._repeated = _repeats(counted.get("persistence")), _repeats(counted.get("stagnation"))
        self._throttles = {rule.name: pace(rule.name, rule.rate) for rule in policy.rules if rule.rate is not None}
        self._risks = {rule.name: rule.risk for rule in policy.rules if rule.risk}
        self._known: dict[str, Bounded] = {}
        self._shared: dict[tuple[int, ...], Bounded] = {}

    def of(self, agent: str) -> Bounded:
        found = self._known.get(agent)
        if found is None:
            bounds = [each for agents, each in self._bounds if _is_for(agents, agent)]
            paces = [each for agents, each in self._paces if _is_for(agents, agent)]
            new = Bounded(tuple(chain(*bounds)), tuple(chain(*paces)), self._refused, self._repeated)
            # Agents whom the same items bind share what is kept of them.
            found = self._known[agent] = self._shared.setdefault(tuple(map(id, (*bounds, *paces))), new)
        return found

    def amounts(self) -> list[Bound]:
        """Every amount of every budget, whomever it is for."""
        return [bound for _, bounds in self._bounds for bound in bounds if not bound.counter]

    def halts_for(self) -> frozenset[Code]:
        """The reasons for which an agent is halted that has used up an amount."""
        everything = chain(*(bounds for _, bounds in self._bounds))
        return frozenset(bound.reason for bound in everything if bound.most()[1] is Effect.HALT)

    def of_system(self) -> list[Bound]:
        """The amounts of the system's own accounts: of budgets for all agents, what they may use together."""
        return [bound for agents, bounds in self._bounds for bound in bounds if agents is None and not bound.each]

    def throttles(self, groups: tuple[str, ...]) -> tuple[Pace, ...]:
        """The rates of the throttles among the rules that hold."""
        return tuple(self._throttles[name] for name in groups if name in self._throttles) if self._throttles else ()

    def risk(self, groups: tuple[str, ...]) -> int:
        """The points that the rules that hold cost."""
        return sum(self._risks.get(name, 0) for name in groups) if self._risks else 0


def pace(name: str, rate: Rate, burst: int | None = None, *, each: bool = True) -> Pace:
    """A rate as it is kept. Without a word a second's worth may come at once, and one request always."""
    micros = rate.seconds * MICROS
    return Pace(name, each, interval(rate.count, micros), burst or max(1, rate.count // rate.seconds))


def slowed(name: str, threshold: Threshold | None, *, each: bool) -> Pace:
    """The rate at which somebody goes on who has used up a share of something."""
    if threshold is not None and threshold.rate is not None:
        return pace(name, threshold.rate, each=each)
    return Pace(name, each, interval(SLOW_COUNT, SLOW_MICROS), 1)


def _is_for(agents: tuple[AgentPattern, ...] | None, agent: str) -> bool:
    return agents is None or any(agent_matches(pattern, agent) for pattern in agents)


def _bounds(budget: Budget) -> list[Bound]:
    return [
        Bound(budget.name, unit, limit, each, budget.every, budget.zone, budget.when_used, _reason(unit))
        for amounts, each in ((budget.each, True), (budget.together, False)) for unit, limit in amounts.items()
    ]


def _reason(unit: Unit) -> Code:
    return {Unit.RISK: Code.OVERRISK, Unit.NEW_HOSTS: Code.EXPLORATION_DRIFT}.get(unit, Code.EXHAUSTION)


def _count(counter: Counter) -> Bound:
    thresholds = (Threshold(100, counter.then),)
    return Bound(counter.name + COUNTER, _COUNTED[counter.name], counter.limit, each=True, every=Every.SESSION,
                 zone=UTC_ZONE, when_used=thresholds, reason=_REASONS[counter.name], counter=True)


def _paces(name: str, each: Rate | None, together: Rate | None, burst: int | None) -> list[Pace]:
    said = ((each, True), (together, False))
    return [pace(name, rate, burst, each=own) for rate, own in said if rate is not None]


def _repeats(counter: Counter | None) -> Repeats | None:
    if counter is None:
        return None
    within = counter.within_seconds or 3600
    return Repeats(counter.name, counter.limit, within * MICROS, counter.then, _REASONS[counter.name])

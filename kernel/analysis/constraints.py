"""What budgets, rates and counters hold agents to, one bound at a time, and which bounds another policy holds them to.

A bound of one policy is *implied* by the other where a bound there is as tight, for at least the same agents and in the
same window: whatever the one stops, the other has stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.account_prose import counter_in_words
from kernel.bounds import Pace, pace
from kernel.budget import Counter, Effect, Every
from kernel.profiles import counters
from kernel.words import agents_in_words, amount_in_words, rate_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kernel.budget import Budget, RateLimit, Unit
    from kernel.measures import Rate
    from kernel.policy import AgentPattern, Policy

type Agents = tuple[AgentPattern, ...] | None
type Within = Callable[[Agents, Agents], bool]
"""Whether every agent of the first is one of the second."""

_SEVERITY = {effect: place for place, effect in enumerate(Effect)}


class Scope(NamedTuple):
    """For whom something is bounded: each of these agents by itself, or all of them together."""

    agents: Agents
    each: bool

    def within(self, other: Scope, is_within: Within) -> bool:
        """True when the other bounds at least as many: what all use together is no less than what one of them does."""
        return (self.each or not other.each) and is_within(self.agents, other.agents)


class Amount(NamedTuple):
    """How much may be used up, and what follows at `most`: DENY or HALT, or THROTTLE to a pace."""

    name: str
    scope: Scope
    unit: Unit
    window: tuple[Every, str]
    most: int
    effect: Effect
    rate: Rate | None

    def implied_by(self, other: Bound, is_within: Within) -> bool:
        if not isinstance(other, Amount) or (other.unit, other.window) != (self.unit, self.window):
            return False
        if other.most > self.most or not self.scope.within(other.scope, is_within):
            return False
        if self.rate is not None and other.rate is not None:
            return is_slower(pace("", other.rate), pace("", self.rate))
        return _SEVERITY[other.effect] >= _SEVERITY[self.effect]

    def in_words(self, policy: Policy) -> str:
        what = {Effect.DENY: "refuses", Effect.HALT: "halts"}.get(self.effect, "slows down")
        slowly = "" if self.rate is None else f" to {rate_in_words(self.rate)}"
        every, zone = self.window
        return (f"{what}{slowly} after {amount_in_words(self.unit, self.most)} of {_whose(self.scope, policy)} "
                f"in a {every}{f' ({zone})' if zone else ''}")


class Pacing(NamedTuple):
    """How often may be asked."""

    name: str
    scope: Scope
    rate: Rate
    burst: int | None

    def implied_by(self, other: Bound, is_within: Within) -> bool:
        return isinstance(other, Pacing) and self.scope.within(other.scope, is_within) and is_slower(
            pace("", other.rate, other.burst), pace("", self.rate, self.burst))

    def in_words(self, policy: Policy) -> str:
        burst = "" if self.burst is None else f", {self.burst:,} at once"
        return f"holds {_whose(self.scope, policy)} to {rate_in_words(self.rate)}{burst}"


class Count(NamedTuple):
    """What is counted of every agent, and slows it down, refuses or halts it."""

    name: str
    counter: Counter

    def implied_by(self, other: Bound, is_within: Within) -> bool:
        own = self.counter
        return (isinstance(other, Count) and other.name == self.name and other.counter.limit <= own.limit
                and (other.counter.within_seconds or 0) >= (own.within_seconds or 0)
                and _SEVERITY[other.counter.then] >= _SEVERITY[own.then])

    def in_words(self, policy: Policy) -> str:
        return f"says: {counter_in_words(self.counter)}"


type Bound = Amount | Pacing | Count


def bounds_of(policy: Policy) -> Iterator[Bound]:
    """Everything that bounds agents, whatever they ask. What is only told bounds nobody."""
    for budget in policy.budgets:
        yield from _amounts(budget)
    for limit in policy.rates:
        yield from _pacings(limit)
    for name, counter in counters(policy.profile, policy.counters).items():
        if counter.then is not Effect.TELL:
            yield Count(name, counter)


def _amounts(budget: Budget) -> Iterator[Amount]:
    window = budget.every, budget.zone.name if budget.every.renews else ""
    end = next(((each.percent, each.effect) for each in budget.when_used if each.ends), (100, Effect.DENY))
    slow = [(each.percent, each.effect, each.rate) for each in budget.when_used
            if each.rate is not None and each.percent < end[0]]
    for amounts, each in ((budget.each, True), (budget.together, False)):
        for unit, limit in amounts.items():
            for percent, effect, rate in (*slow, (*end, None)):
                most = limit * percent // 100
                yield Amount(budget.name, Scope(budget.agents, each), unit, window, most, effect, rate)


def _pacings(limit: RateLimit) -> Iterator[Pacing]:
    for rate, each in ((limit.each, True), (limit.together, False)):
        if rate is not None:
            yield Pacing(limit.name, Scope(limit.agents, each), rate, limit.burst)


def is_slower(one: Pace, other: Pace) -> bool:
    """True when whatever passes at the one pace passes at the other."""
    return one.each_us >= other.each_us and one.burst <= other.burst


def tells(policy: Policy) -> dict[str, tuple[int, ...]]:
    """At which shares each budget tells what is left."""
    return {budget.name: tuple(each.percent for each in budget.when_used if each.effect is Effect.TELL)
            for budget in policy.budgets}


def _whose(scope: Scope, policy: Policy) -> str:
    if scope.agents is None:
        return "every agent" if scope.each else "all agents together"
    who = agents_in_words(scope.agents, policy.groups)
    return f"each of {who}" if scope.each else f"{who} together"

"""Budgets, rates and counters in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kernel.bounds import MICROS, SLOW_COUNT, SLOW_MICROS
from kernel.budget import Budget, Counter, Effect, RateLimit, Threshold, Unit
from kernel.document import joined, printable
from kernel.measures import Rate
from kernel.policy import AgentPattern, Policy
from kernel.profiles import counters
from kernel.words import Groups, agents_in_words, amount_in_words, capital, duration_in_words, rate_in_words

_EFFECTS = {
    Effect.TELL: "agents are told what is left",
    Effect.THROTTLE: "requests are slowed down",
    Effect.DENY: "requests are refused",
    Effect.HALT: "the agent that asks is halted until an operator releases it",
}
_SLOWLY = Rate(SLOW_COUNT, SLOW_MICROS // MICROS)
_AFTER = {
    Effect.TELL: "is told so, and goes on",
    Effect.THROTTLE: f"is slowed down to {rate_in_words(_SLOWLY)}",
    Effect.DENY: "is refused what goes beyond that",
    Effect.HALT: "is halted until an operator releases it",
}
_COUNTED = {
    "risk": "comes to {} points of risk in a session",
    "exploration": "asks {} different destinations in a session",
    "persistence": "is refused the same request {} times",
    "stagnation": "makes the same request {} times with the same outcome",
    "steps": "makes {} requests in a session",
}


def budget_in_words(budget: Budget, groups: Groups) -> str:
    """What agents may use up, and what follows."""
    every = "in a session" if not budget.every.renews else f"in each {budget.every} by the clocks of {budget.zone.name}"
    spent = [f"{capital(whom)} may use {_amounts(amounts)} {every}"
             for whom, amounts in ((_each(budget.agents, groups), budget.each),
                                   (_together(budget.agents, groups), budget.together)) if amounts]
    spent += [_SYSTEMS] if budget.agents is None and budget.together else []
    effects = [*map(_threshold, budget.when_used), *([] if any(each.ends for each in budget.when_used) else [_ENDS])]
    return " ".join(f"{each}." for each in [*spent, *effects])


def _threshold(threshold: Threshold) -> str:
    pace = "" if threshold.rate is None else f" to {rate_in_words(threshold.rate)}"
    return f"At {threshold.percent} % {_EFFECTS[threshold.effect]}{pace}"


_SYSTEMS = "What all use together is the system's account, and governor status shows what is left of it"
_ENDS = f"When it is used up {_EFFECTS[Effect.DENY]}"


def _amounts(amounts: Mapping[Unit, int]) -> str:
    return joined([amount_in_words(unit, amount) for unit, amount in amounts.items()], "and")


def rates_in_words(limit: RateLimit, groups: Groups) -> str:
    """How often agents may ask."""
    rates: list[tuple[str, Rate | None]] = [
        (_each(limit.agents, groups), limit.each), (_together(limit.agents, groups), limit.together)]
    said = [f"{whom} may ask {rate_in_words(rate)}" for whom, rate in rates if rate is not None]
    burst = "" if limit.burst is None else f", {limit.burst:,} at once"
    return f"{capital(joined(said, 'and'))}{burst}."


def _each(agents: tuple[AgentPattern, ...] | None, groups: Groups) -> str:
    return "every agent" if agents is None else f"each of {agents_in_words(agents, groups)}"


def _together(agents: tuple[AgentPattern, ...] | None, groups: Groups) -> str:
    return "all agents together" if agents is None else f"together {agents_in_words(agents, groups)}"


def counters_in_words(policy: Policy) -> Iterator[str]:
    """What is counted of every agent: what the policy says itself, and what its profile says."""
    if policy.profile is not None:
        yield f"What no counter of the policy says is as in the profile {policy.profile}."
    said = {counter.name for counter in policy.counters}
    for counter in counters(policy.profile, policy.counters).values():
        yield counter_in_words(counter) + ("" if counter.name in said else f" (profile {policy.profile})") + "."


def prices_in_words(policy: Policy) -> Iterator[str]:
    """What the policy itself says of prices, and what a budget of money or tokens does with a model that has none."""
    for provider, priced in policy.prices.own.items():
        for each in priced:
            cost = each.price
            spent = [f"{_usd(amount)} {what}" for amount, what in (
                (cost.input, "for input"), (cost.cached, "for input that was cached"),
                (cost.written, "for input that is cached"), (cost.output, "for output"))]
            named = f"{joined(each.models, 'or')} of {printable(provider)}"
            yield (f"A million tokens of {named} cost {joined(spent, 'and')}; it takes {cost.context:,} tokens and "
                   f"gives {cost.longest_output:,} at most.")
    if policy.counts_spend:
        yield "A model without a known price is not asked at all where a budget of money or tokens counts."


def _usd(amount: int) -> str:
    return amount_in_words(Unit.USD, amount)


def counter_in_words(counter: Counter) -> str:
    """What follows when a counter reaches its limit, without the full stop."""
    within = "" if counter.within_seconds is None else f" within {duration_in_words(counter.within_seconds)}"
    return f"An agent that {_COUNTED[counter.name].format(f'{counter.limit:,}')}{within} {_AFTER[counter.then]}"

"""What is wrong with budgets and rates, by arithmetic and by asking which rules reach them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kernel import normal
from kernel.ahead.prose import amount_in_words
from kernel.ahead.said import Ahead, Clause
from kernel.budget import Budget, Effect, RateLimit, Unit
from kernel.document import quote
from kernel.facts import Host
from kernel.findings import Finding, Severity
from kernel.pattern import agent_matches, agents_meet, host_matches
from kernel.policy import AddressRange, AgentPattern, Policy, Rule, UrlPattern

_MODEL_UNITS = frozenset({Unit.USD, Unit.TOKENS})
_ENDS = frozenset({Effect.DENY, Effect.HALT})


def account_findings(policy: Policy, ahead: Ahead, model_hosts: Collection[str]) -> Iterator[Finding]:
    """The findings on budgets and rates. `model_hosts` are the hosts at which money and tokens are spent."""
    for budget in ahead.budgets:
        yield from _unreached(policy, ahead, budget, model_hosts)
        yield from _amounts(budget)
        yield from _thresholds(budget)
    yield from _promised(ahead.budgets)
    for rate in ahead.rates:
        yield from _rate(rate)


def _unreached(policy: Policy, ahead: Ahead, budget: Budget, model_hosts: Collection[str]) -> Iterator[Finding]:
    near = [rule for rule in policy.rules if agents_meet(rule.where.agents, budget.agents)]
    hosts = [normal.host(name) for name in model_hosts]
    for unit in sorted(budget.units):
        if unit is Unit.RISK:
            reached = any(_is_risky(ahead.clauses.get(rule.name)) for rule in near)
            hint = "give a rule risk: POINTS"
        elif unit in _MODEL_UNITS:
            reached = any(rule.verb.grants and _asks_models(rule, ahead.clauses.get(rule.name), hosts) for rule in near)
            hint = "no rule lets these agents reach a model API"
        else:
            reached = any(rule.verb.grants for rule in near)
            hint = "no rule grants these agents anything"
        if not reached:
            yield _warning("W501", budget, f"nothing ever counts against {unit} of budget {quote(budget.name)}", hint)


def _is_risky(clause: Clause | None) -> bool:
    return clause is not None and (clause.risk is not None or bool(clause.contains))


def _asks_models(rule: Rule, clause: Clause | None, hosts: list[Host]) -> bool:
    if rule.where.to is None or (clause is not None and clause.llm is not None):
        return True
    named = [item.host if isinstance(item, UrlPattern) else item for item in rule.where.to]
    return any(
        isinstance(item, AddressRange) or any(host_matches(item, host) for host in hosts) for item in named)


def _amounts(budget: Budget) -> Iterator[Finding]:
    for unit, each in budget.each.items():
        together = budget.together.get(unit)
        if together is not None and each > together:
            used = amount_in_words(unit, each)
            message = f"one agent may use {used} of budget {quote(budget.name)}, all together fewer"
            yield _warning("W501", budget, message, f"together: {amount_in_words(unit, together)} is reached before")
    stops = any(threshold.effect in _ENDS and threshold.percent <= 100 for threshold in budget.when_used)
    if Unit.USD in budget.units and not stops:
        yield Finding(
            "E502", Severity.ERROR, budget.position,
            f"budget {quote(budget.name)} is about money, and does not say what ends it", "add when-used: {100%: deny}")


def _thresholds(budget: Budget) -> Iterator[Finding]:
    ended = None
    for threshold in budget.when_used:
        if threshold.percent > 100:
            message = f"{threshold.percent}% of budget {quote(budget.name)} can never be used"
            yield _warning("W501", budget, message, "write 100% or less")
        elif ended is not None and threshold.percent > ended:
            message = f"{threshold.percent}% of budget {quote(budget.name)} is never reached"
            yield _warning("W501", budget, message, f"at {ended}% nothing passes any more")
        if threshold.effect in _ENDS and ended is None:
            ended = threshold.percent
        if threshold.effect is Effect.HALT and budget.every.renews:
            message = f"budget {quote(budget.name)} begins anew every {budget.every}, and a halt does not end with it"
            yield _warning("W503", budget, message, "write deny, or every: session")


def _promised(budgets: tuple[Budget, ...]) -> Iterator[Finding]:
    """Budgets of single agents that together hold more than the budget over all of them."""
    for whole in budgets:
        for unit, most in whole.together.items():
            parts = [part for part in budgets if part is not whole and _is_part(part, whole, unit)]
            promised = sum(part.together[unit] for part in parts)
            if promised > most:
                names = ", ".join(part.name for part in parts)
                held = amount_in_words(unit, promised)
                message = f"the budgets {names} hold {held}, and {quote(whole.name)} over them fewer"
                yield _warning("W501", whole, message, f"it holds {amount_in_words(unit, most)}")


def _is_part(part: Budget, whole: Budget, unit: Unit) -> bool:
    """True when every agent of `part` also draws on `whole`, in the same unit and window."""
    if part.every is not whole.every or unit not in part.together or part.agents is None:
        return False
    if whole.agents is None:
        return True
    return part.agents != whole.agents and all(
        any(_is_within(one, over) for over in whole.agents) for one in part.agents)


def _is_within(one: AgentPattern, over: AgentPattern) -> bool:
    return one == over or ("*" not in one.text and agent_matches(over, one.text))


def _rate(rate: RateLimit) -> Iterator[Finding]:
    each, together = rate.each, rate.together
    if each is not None and together is not None and each.count * together.seconds > together.count * each.seconds:
        message = f"one agent may ask faster than all of them together in {rate.name}"
        yield Finding("W501", Severity.WARNING, rate.position, message, "the rate in each: is never reached")


def _warning(code: str, budget: Budget, message: str, hint: str) -> Finding:
    return Finding(code, Severity.WARNING, budget.position, message, hint)

"""What is doubtful in budgets, rates and counters, by arithmetic and by asking which rules reach them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kernel import normal
from kernel.ahead.said import Ahead, Clause
from kernel.budget import SPENT, Budget, Counter, Effect, Every, RateLimit, Unit
from kernel.document import quote
from kernel.facts import Host
from kernel.findings import Finding, Severity
from kernel.one_rule import hosts_of
from kernel.pattern import agent_matches, agents_meet, host_matches
from kernel.policy import AddressRange, AgentPattern, HostPattern, HostReach, Policy, Rule
from kernel.profiles import counters
from kernel.words import amount_in_words

_NO_CLAUSE = Clause()


def account_findings(policy: Policy, model_hosts: Collection[str] = ()) -> Iterator[Finding]:
    """The findings on budgets, rates and counters. `model_hosts` are the hosts at which money and tokens are spent."""
    for budget in policy.budgets:
        yield from _unreached(policy, budget, model_hosts)
        yield from _amounts(budget)
        yield from _thresholds(budget)
    yield from _promised(policy.budgets)
    for rate in policy.rates:
        yield from _rate(rate)
    for counter in policy.counters:
        yield from _uncounted(policy, counter)
    yield from _costs_nothing(policy)


def _unreached(policy: Policy, budget: Budget, model_hosts: Collection[str]) -> Iterator[Finding]:
    near = [rule for rule in policy.rules if _meets(policy, rule, budget.agents)]
    hosts = [normal.host(name) for name in (*model_hosts, *policy.prices.hosts)]
    for unit in sorted(budget.units):
        if unit is Unit.RISK:
            reached = any(_is_risky(policy, rule) for rule in near)
            hint = "give a rule risk: POINTS"
        elif unit in SPENT:
            reached = any(rule.verb.grants and _asks_models(rule, hosts) for rule in near)
            hint = "no rule lets these agents reach a model API"
        else:
            reached = any(rule.verb.grants for rule in near)
            hint = "no rule grants these agents anything"
        if not reached:
            yield _warning("W501", budget, f"nothing ever counts against {unit} of budget {quote(budget.name)}", hint)


def _meets(policy: Policy, rule: Rule, agents: tuple[AgentPattern, ...] | None) -> bool:
    return agents_meet(rule.where.agents, agents) and agents_meet(policy.tiers[rule.tier].binds, agents)


def _clause(policy: Policy, rule: Rule) -> Clause:
    return (policy.ahead or Ahead()).clauses.get(rule.name, _NO_CLAUSE)


def _is_risky(policy: Policy, rule: Rule) -> bool:
    return bool(rule.risk or _clause(policy, rule).contains)


def _asks_models(rule: Rule, hosts: list[Host]) -> bool:
    if rule.where.to is None or rule.where.llm is not None:
        return True
    named = [hosts_of(item) for item in rule.where.to]
    return any(
        isinstance(item, AddressRange) or any(host_matches(item, host) for host in hosts) for item in named)


def _amounts(budget: Budget) -> Iterator[Finding]:
    for unit, each in budget.each.items():
        together = budget.together.get(unit)
        if together is not None and each > together:
            used = amount_in_words(unit, each)
            message = f"one agent may use {used} of budget {quote(budget.name)}, all together fewer"
            yield _warning("W501", budget, message, f"together: {amount_in_words(unit, together)} is reached before")


def _thresholds(budget: Budget) -> Iterator[Finding]:
    ended = None
    for threshold in budget.when_used:
        if threshold.percent > 100:
            message = f"{threshold.percent}% of budget {quote(budget.name)} can never be used"
            yield _warning("W501", budget, message, "write 100% or less")
        elif ended is not None and threshold.percent > ended:
            message = f"{threshold.percent}% of budget {quote(budget.name)} is never reached"
            yield _warning("W501", budget, message, f"at {ended}% nothing passes any more")
        if threshold.ends and ended is None:
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


def _uncounted(policy: Policy, counter: Counter) -> Iterator[Finding]:
    """A counter with a limit that no agent can come to."""
    if counter.name == "risk" and not any(_is_risky(policy, rule) for rule in policy.rules):
        yield _of_counter(counter, "nothing ever counts against risk", "give a rule risk: POINTS")
        return
    for budget in policy.budgets:
        most = _ends_before(budget, counter)
        if most is not None:
            hint = f"budget {quote(budget.name)} lets every agent come to {amount_in_words(*most)}"
            yield _of_counter(counter, f"{counter.name} never comes to {counter.limit:,}", hint)
            return
    asked = _places(policy) if counter.name == "exploration" else None
    if asked is not None and asked < counter.limit:
        hint = f"the rules name {asked} host{'' if asked == 1 else 's'}"
        yield _of_counter(counter, f"exploration never comes to {counter.limit:,}", hint)
    for limit in policy.rates if counter.name == "stagnation" else ():
        most_asked = _most_asked(limit, counter.within_seconds or 0)
        if most_asked is not None and most_asked < counter.limit:
            hint = f"{limit.name} lets an agent ask {most_asked:,} times in that time"
            yield _of_counter(counter, f"stagnation never comes to {counter.limit:,}", hint)
            return


_COUNTED = {"risk": Unit.RISK, "exploration": Unit.NEW_HOSTS, "steps": Unit.REQUESTS}


def _ends_before(budget: Budget, counter: Counter) -> tuple[Unit, int] | None:
    """What a budget of every agent's session lets pass, where that is less than the counter's limit."""
    unit = _COUNTED.get(counter.name)
    if unit is None or budget.agents is not None or budget.every is not Every.SESSION or unit not in budget.each:
        return None
    percent = next((each.percent for each in budget.when_used if each.ends), 100)
    most = budget.each[unit] * percent // 100
    return (unit, most) if most < counter.limit else None


def _places(policy: Policy) -> int | None:
    """How many hosts the grants name; None where they cannot be counted."""
    names = set()
    for rule in policy.rules:
        for item in (rule.where.to or (None,)) if rule.verb.grants else ():
            host = None if item is None else hosts_of(item)
            if not isinstance(host, HostPattern) or host.reach is not HostReach.EXACT:
                return None
            names.add(host.name)
    return len(names)


def _most_asked(limit: RateLimit, seconds: int) -> int | None:
    """How often a rate lets an agent ask in some seconds; None where it is not for every agent by itself."""
    if limit.agents is not None or limit.each is None:
        return None
    return (limit.burst or limit.each.count) + limit.each.count * seconds // limit.each.seconds


def _costs_nothing(policy: Policy) -> Iterator[Finding]:
    """Points of risk that no account counts."""
    if "risk" in counters(policy.profile, policy.counters):
        return
    counted = [budget.agents for budget in policy.budgets if Unit.RISK in budget.units]
    for rule in policy.rules:
        if rule.risk and not any(_meets(policy, rule, agents) for agents in counted):
            message = f"rule {quote(rule.name)} costs risk, and nothing counts it"
            hint = "say profile: balanced, counters: {risk: ...}, or a budget of risk"
            yield Finding("W501", Severity.WARNING, rule.position, message, hint, (rule.name,))


def _of_counter(counter: Counter, message: str, hint: str) -> Finding:
    assert counter.position is not None
    return Finding("W501", Severity.WARNING, counter.position, message, hint)


def _warning(code: str, budget: Budget, message: str, hint: str) -> Finding:
    return Finding(code, Severity.WARNING, budget.position, message, hint)

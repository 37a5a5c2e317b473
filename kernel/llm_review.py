"""What is doubtful in rules for model APIs: clients that cannot begin, and models that no budget can count."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kernel.budget import SPENT
from kernel.document import did_you_mean, quote
from kernel.findings import Finding, Severity, Witness
from kernel.glob import words_meet
from kernel.llm_terms import Call
from kernel.match import Index
from kernel.pattern import agents_meet, host_matches
from kernel.policy import HostPattern, Policy, Rule, UrlPattern
from kernel.question import answer, facts_of


def llm_findings(policy: Policy, calls: Collection[Call]) -> Iterator[Finding]:
    """The findings on grants with `llm:`. `calls` are the harmless ones with which clients begin, by provider."""
    index = Index(policy)
    # A call with a star in its path is about one of many things, and no client begins with that.
    firsts = [call for call in calls if "*" not in call.path.text]
    for rule in policy.rules:
        if rule.verb.grants and rule.where.llm is not None:
            yield from _startless(index, rule, firsts)
            yield from _unpriced(policy, rule)


def _startless(index: Index, rule: Rule, calls: Collection[Call]) -> Iterator[Finding]:
    """W310: the agents of the rule can make none of the calls that its hosts answer."""
    agent = _some_agent(rule)
    at_hosts = [call for call in calls if _reaches(rule, call)]
    if at_hosts and not any(_passes(index, agent, call) for call in at_hosts):
        first = at_hosts[0]
        said = rule.where.llm is not None and rule.where.llm.housekeeping
        yield Finding(
            "W310", Severity.WARNING, rule.position,
            f"rule {quote(rule.name)} lets no start-up call through, and clients fail before they ask anything",
            "name the host in to:, and no path" if said else "add also: housekeeping to llm",
            (rule.name,), Witness(agent, first.method, first.url.text))


def _some_agent(rule: Rule) -> str:
    return rule.where.agents[0].text.replace("*", "1") if rule.where.agents else "local"


def _reaches(rule: Rule, call: Call) -> bool:
    host = facts_of("local", call.method, call.url.text).host
    named = [item.host if isinstance(item, UrlPattern) else item for item in rule.where.to or ()]
    return any(isinstance(item, HostPattern) and host_matches(item, host) for item in named)


def _passes(index: Index, agent: str, call: Call) -> bool:
    return answer(index, facts_of(agent, call.method, call.url.text)).verdict.lets_through


def _unpriced(policy: Policy, rule: Rule) -> Iterator[Finding]:
    """W311: a model that the rule names has no price, and a budget of money or tokens is for its agents."""
    counting = [budget for budget in policy.budgets
                if budget.units & SPENT and agents_meet(rule.where.agents, budget.agents)]
    known = policy.prices.models
    for model in (rule.where.llm and rule.where.llm.models) or () if counting else ():
        if not any(words_meet(model, glob) for glob in known):
            message = f"no price is known of the model {model}, and budget {quote(counting[0].name)} refuses to ask it"
            hint = did_you_mean(model, [each for each in known if "*" not in each]) or "say what it costs in prices:"
            yield Finding("W311", Severity.WARNING, rule.position, message, hint, (rule.name,))

"""Whether clients of a model API can begin: before the first question they ask for the list of models and the like."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from kernel.ahead.outlook import as_if
from kernel.ahead.said import Ahead
from kernel.document import quote
from kernel.findings import Finding, Severity, Witness
from kernel.match import Index
from kernel.pattern import host_matches
from kernel.policy import HostPattern, Policy, Rule, UrlPattern
from kernel.question import answer, facts_of


@dataclass(frozen=True, slots=True)
class Call:
    """A request that reads nothing of worth and changes nothing."""

    method: str
    url: str


def startup_findings(policy: Policy, ahead: Ahead, calls: Collection[Call]) -> Iterator[Finding]:
    """A warning for each allow with `llm:` whose agents can make none of the calls that its hosts answer."""
    index = Index(as_if(policy, ()))
    for rule in policy.rules:
        clause = ahead.clauses.get(rule.name)
        if not rule.verb.grants or clause is None or clause.llm is None or clause.llm.housekeeping:
            continue
        agent = _some_agent(rule)
        at_hosts = [call for call in calls if _reaches(rule, call)]
        if at_hosts and not any(_passes(index, agent, call) for call in at_hosts):
            first = at_hosts[0]
            yield Finding(
                "W310", Severity.WARNING, rule.position,
                f"rule {quote(rule.name)} lets no start-up call through, and clients fail before they ask anything",
                "add also: housekeeping to llm", (rule.name,), Witness(agent, first.method, first.url))


def _some_agent(rule: Rule) -> str:
    return rule.where.agents[0].text.replace("*", "1") if rule.where.agents else "local"


def _reaches(rule: Rule, call: Call) -> bool:
    host = facts_of("local", call.method, call.url).host
    named = [item.host if isinstance(item, UrlPattern) else item for item in rule.where.to or ()]
    return any(isinstance(item, HostPattern) and host_matches(item, host) for item in named)


def _passes(index: Index, agent: str, call: Call) -> bool:
    return answer(index, facts_of(agent, call.method, call.url)).verdict.lets_through

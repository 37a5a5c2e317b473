"""One request asked of a policy that is not being made: for assertions, cases and explanations. Nothing is resolved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from kernel import normal
from kernel.comparison import Gap
from kernel.decide import Judgement, address_stage, name_stage
from kernel.document import printable
from kernel.errors import NonCanonical
from kernel.facts import Address, Agent, RequestFacts
from kernel.fields import Fields, Headers
from kernel.findings import Finding, Severity, Witness
from kernel.match import Index
from kernel.policy import Assertion, Conditions, Policy, Rule

STAND_IN = IPv4Address("192.0.32.8")
"""Stands for "some address of the public internet" where a name's address is not given. It is IANA's own."""


def facts_of(
    agent: str,
    method: str,
    url: str,
    body_bytes: int = 0,
    headers: Headers | Gap = (),
    body: bytes | Gap = b"",
    *,
    at: int = 0,
) -> RequestFacts:
    """The request as the matcher sees it. Raises `NonCanonical` for a URL that is refused whatever a policy says.

    `body_bytes` is the size of the body as it is sent, `body` what it says without content codings.
    """
    scheme, host, port, path, query = normal.url(url)
    fields = Fields(query, headers, body)
    return RequestFacts(Agent(agent, "none"), method, scheme, host, port, path, query, body_bytes, fields=fields, at=at)


def answer(index: Index, facts: RequestFacts, address: Address | None = None) -> Judgement:
    """The verdict, as if the host's only address were `address`; a literal host stands for itself."""
    found = name_stage(index, facts)
    if found is not None:
        return found
    return address_stage(index, facts, [facts.host.address or address or STAND_IN], frozenset())


def judge_assertions(policy: Policy) -> Iterator[Finding]:
    """A finding for each assertion that does not hold, with the request that shows it.

    Whatever has a time is taken as it lets most through, so that a policy that loads today loads tomorrow: a grant as
    if its hours had come and its end had not, a refusal as if it were over.
    """
    if policy.assertions:
        index = Index(most_generous(policy))
        for assertion in policy.assertions:
            yield from _judged(index, assertion)


def most_generous(policy: Policy) -> Policy:
    """The policy at any time, with whatever has a time as it lets most through."""
    if not any(where.has_time for rule in policy.items for where in (rule.where, *rule.holes)):
        return policy
    return replace(
        policy,
        rules=tuple(_timeless(rule) for rule in policy.rules if rule.verb.grants or not rule.where.has_time),
        nevers=tuple(_timeless(never) for never in policy.nevers if not never.where.has_time),
        limits=tuple(_timeless(limit) for limit in policy.limits if not limit.where.has_time),
    )


def _timeless(rule: Rule) -> Rule:
    """A rule at its most generous: the holes of a grant are over, those of a refusal have come."""
    holes = [hole for hole in rule.holes if not (rule.verb.grants and hole.has_time)]
    return replace(rule, where=_at_any_time(rule.where), holes=tuple(map(_at_any_time, holes)))


def _at_any_time(where: Conditions) -> Conditions:
    return replace(where, when=None, expires=None)


def _judged(index: Index, assertion: Assertion) -> Iterable[Finding]:
    said = assertion.said
    body = (said.body or "").encode()
    try:
        facts = facts_of(assertion.agent, assertion.method, assertion.url, len(body), said.sent_headers, body)
    except NonCanonical as refused:
        message = f"no request can go to {printable(assertion.url)}: {refused.problem}"
        yield Finding("P802", Severity.ERROR, assertion.position, message)
        return
    judgement = answer(index, facts, assertion.address)
    verdict = judgement.verdict
    if verdict.lets_through is assertion.allowed:
        return
    asked = f"{assertion.agent} {assertion.method} {printable(assertion.url)}"
    by = f"rule {verdict.rule}" if verdict.rule else verdict.reason
    wanted, found = ("allowed", "refused") if assertion.allowed else ("denied", "granted")
    address = None if judgement.address is None else str(judgement.address)
    yield Finding(
        "P801", Severity.ERROR, assertion.position, f"{asked} must be {wanted}, and is {found} ({verdict.code}, {by})",
        rules=(verdict.rule,) if verdict.rule else (),
        witness=Witness(assertion.agent, assertion.method, assertion.url, address, said.headers, said.body))

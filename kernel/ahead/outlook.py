"""A policy that was read ahead, judged as if this or that rule's conditions without effect were fulfilled."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from kernel.analysis.review import Review, Tables, review
from kernel.policy import Policy, Rule


def as_if(policy: Policy, fulfilled: Collection[str]) -> Policy:
    """The policy without the rules whose conditions cannot be judged yet, but for those that are named."""
    return _keeping(policy, lambda rule: rule.name in fulfilled)


def at_most(policy: Policy) -> Policy:
    """The policy that lets through whatever the conditions that cannot be judged yet might let through."""
    return _keeping(policy, lambda rule: rule.verb.grants)


def review_at_most(policy: Policy, tables: Tables, now: int) -> Review:
    """The review of `at_most`. What a rule covers whose conditions cannot be judged is not known, so it makes no other
    rule needless."""
    found = review(at_most(policy), tables, now)
    unjudged = policy.ahead.open_rules if policy.ahead is not None else frozenset()
    return replace(found, findings=tuple(
        each for each in found.findings if each.code != "W302" or unjudged.isdisjoint(each.rules)))


def _keeping(policy: Policy, keeps: Callable[[Rule], bool]) -> Policy:
    unjudged = policy.ahead.open_rules if policy.ahead is not None else frozenset()
    if not unjudged:
        return policy
    return replace(
        policy,
        rules=tuple(rule for rule in policy.rules if rule.name not in unjudged or keeps(rule)),
        nevers=tuple(never for never in policy.nevers if never.name not in unjudged or keeps(never)),
    )

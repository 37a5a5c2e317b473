"""What is done with a verdict while a policy, or one of its rules, is on trial: it is written down, and not enforced.

A policy says `mode: observe` with `until:`, a deny says `observe: yes` with `expires:`. What a verdict is stands in
kernel/decide.py; here stands which refusals a request passes in spite of, and which it never does.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from kernel.decide import INSIDE, NO_UPGRADE
from kernel.facts import UPGRADES
from kernel.measures import DEFAULT
from kernel.one_rule import opens
from kernel.tiers import suffice
from kernel.verdict import Code, Judgement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kernel.facts import Address, RequestFacts
    from kernel.match import Index
    from kernel.measures import Cap, Measures


class Mode(StrEnum):
    """Whether what a policy refuses is refused."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


OBSERVED = frozenset({
    Code.RULE_DENY, Code.DEFAULT_DENY, Code.OUT_OF_HOURS, Code.URL_TOO_LONG, Code.BODY_TOO_LARGE,
    Code.BUDGET_EXHAUSTED, Code.RATE_LIMITED, Code.EXHAUSTION, Code.OVERRISK, Code.EXPLORATION_DRIFT,
    Code.PERSISTENCE_LIMIT, Code.STAGNATION, Code.EXTERNAL,
})
"""What a policy refuses by itself: for its rules, and for what it counts. In spite of these a request passes in mode
observe, and of no other code."""


def mode_at(observed_until: int | None, at: int) -> Mode:
    """The mode of a policy at a moment, in seconds since 1970: it enforces by itself once its trial is over."""
    return Mode.OBSERVE if observed_until is not None and at < observed_until else Mode.ENFORCE


def enforced(index: Index, facts: RequestFacts, addresses: Sequence[Address], judged: Judgement,
             until: int | None) -> Judgement:
    """The judgement of a request in mode observe.

    `judged` is what the policy says of these addresses. Where that is one of `OBSERVED`, the milder refusals which it
    hides are looked for: an inside address that no grant was written for, and a WebSocket that nothing measures. What
    passes is asked for again at `until`, the end of the trial.
    """
    passing = replace(judged, measures=widened(judged.measures), until=until)
    if judged.verdict.lets_through:
        return passing
    if judged.verdict.code not in OBSERVED:
        return judged
    candidates, literal = index.by_name(facts), facts.host.address is not None
    needed = index.asked(facts.agent.id)
    for address in addresses:
        held = index.at(facts, candidates, address)
        grants = [index.rules[number] for number in held if index.rules[number].verb.grants]
        inside = not index.place(address).is_global
        if inside and not suffice(needed, [rule for rule in grants if opens(rule, address, literal=literal)]):
            return Judgement(INSIDE, index.names(held), address, index.measures(held))
        if facts.scheme in UPGRADES and not suffice(needed, grants):
            return Judgement(NO_UPGRADE, index.names(held), address, index.measures(held))
    return passing


def widened(measures: Measures) -> Measures:
    """The measures of a request in mode observe: no size that a rule says, but the one that is always held."""
    return replace(measures, max_request=widest(measures.max_request), max_response=None, max_url=None,
                   max_output_tokens=None)


def widest(cap: Cap) -> Cap:
    """The cap on what is read of a body in mode observe."""
    return max(cap, DEFAULT.max_request, key=lambda each: each.most)


def observing(said: str, groups: Iterable[str], observed: frozenset[str]) -> str:
    """The reason of a verdict, with the denies that would have refused if they were not on trial."""
    names = [name for name in groups if name in observed]
    return f"{said}; observed: {', '.join(names)}" if names else said

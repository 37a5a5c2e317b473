"""Verdicts, from the rules that hold. A name is judged first; what it resolves to is judged before anything is dialled.

At one address the strictest of these wins: a never, a deny, an inside address that no grant was written for, a grant;
where none is, nothing allows the request. A request is judged at each of its addresses, and the strictest verdict is
its verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.address import is_global
from kernel.match import opens, verdict_of
from kernel.verdict import Action, Code, Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kernel.facts import Address, RequestFacts
    from kernel.match import Index
    from kernel.policy import Rule

NOTHING_ALLOWS = Verdict(Action.DENY, Code.DEFAULT_DENY, None, "no rule allows this")
INSIDE = Verdict(Action.DENY, Code.PRIVATE_ADDRESS, None, "the address is not on the public internet")
OWN = Verdict(Action.DENY, Code.NEVER, None, "Governor itself listens there")
NO_ADDRESS = Verdict(Action.DENY, Code.RESOLVE_FAILED, None, "the host has no address")

__all__ = ["INSIDE", "NOTHING_ALLOWS", "NO_ADDRESS", "OWN", "Judgement", "address_stage", "from_groups", "name_stage"]

_STRICTNESS = {
    Code.NEVER: 4,
    Code.RULE_DENY: 3,
    Code.PRIVATE_ADDRESS: 2,
    Code.DEFAULT_DENY: 1,
    Code.ALLOW: 0,
    Code.RESOLVE_FAILED: -1,  # only where there is no address to judge
}
_REFUSING = (Code.NEVER, Code.RULE_DENY)
_REMEMBERED = 64


def name_stage(index: Index, facts: RequestFacts) -> Judgement | None:
    """The refusal of a name that need not be resolved. None: go on to the addresses."""
    if facts.host.address is not None:
        return None
    candidates = index.by_name(facts)
    held = index.certain(candidates)
    verdict = _of_rules([index.verdicts[number] for number in held])
    if verdict.code in _REFUSING:
        return Judgement(verdict, index.names(held), None)
    return None if held or index.may_grant(candidates) else Judgement(NOTHING_ALLOWS, (), None)


def address_stage(
    index: Index, facts: RequestFacts, addresses: Sequence[Address], own: frozenset[tuple[Address, int]]
) -> Judgement:
    """The verdict over all addresses that the host stands for. `own`: where Governor itself listens."""
    candidates = index.by_name(facts)
    literal = facts.host.address is not None
    decided = None
    for address in addresses:
        held = index.at(facts, candidates, address)
        if own and (address, facts.port) in own:
            judged = Judgement(OWN, index.names(held), address)
        else:
            judged = index.place(address).judged.get(held) or _judged(index, held, address, literal)
        if decided is None or _stricter(index, judged.verdict, decided.verdict):
            decided = judged
    return decided or Judgement(NO_ADDRESS, (), None)


def _judged(index: Index, held: tuple[int, ...], address: Address, literal: bool) -> Judgement:
    """The verdict where these rules hold; remembered where it cannot depend on how the host was written."""
    place = index.place(address)
    verdict = _of_rules([index.verdicts[number] for number in held])
    refused = verdict.code in _REFUSING
    if not refused and not place.is_global:
        verdict = _inside(verdict, (index.rules[number] for number in held), address, literal)
    judgement = Judgement(verdict, index.names(held), address)
    if refused or place.is_global:
        if len(place.judged) >= _REMEMBERED:
            place.judged.clear()
        place.judged[held] = judgement
    return judgement


def from_groups(
    rules: Mapping[str, Rule], groups: Iterable[str], address: Address | None, literal: bool
) -> Verdict:
    """The verdict at an address where exactly these rules hold; `address` is None for a verdict on the name alone.

    This is what `address_stage` says at its deciding address, unless Governor itself listens there (`OWN`). Raises
    KeyError for a group that is not a rule of the policy.
    """
    held = sorted((rules[name] for name in groups), key=lambda rule: rule.number)
    verdict = _of_rules([verdict_of(rule) for rule in held])
    if address is None or verdict.code in _REFUSING or is_global(address):
        return verdict
    return _inside(verdict, held, address, literal)


def _of_rules(said: Sequence[Verdict]) -> Verdict:
    """The strictest of what the rules that hold say; the first of equals."""
    if len(said) == 1:
        return said[0]
    return max(said, key=lambda verdict: _STRICTNESS[verdict.code], default=NOTHING_ALLOWS)


def _inside(verdict: Verdict, held: Iterable[Rule], address: Address, literal: bool) -> Verdict:
    """The verdict at an address that is not global, where no rule refuses."""
    grants = (rule for rule in held if rule.verb.grants)
    return verdict if any(opens(rule, address, literal=literal) for rule in grants) else INSIDE


def _stricter(index: Index, verdict: Verdict, than: Verdict) -> bool:
    if verdict.code is not than.code:
        return _STRICTNESS[verdict.code] > _STRICTNESS[than.code]
    return verdict.code in _REFUSING and index.rank(verdict.rule) < index.rank(than.rule)

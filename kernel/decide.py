"""Verdicts, from the rules that hold. A name is judged first; what it resolves to is judged before anything is dialled.

At one address the strictest of these wins: a never, a deny, an inside address that no grant was written for, a grant;
where none is, nothing allows the request. A request is judged at each of its addresses, and the strictest verdict is
its verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from kernel.address import embedded, is_global
from kernel.match import opens, verdict_of
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kernel.facts import Address, RequestFacts
    from kernel.match import Index
    from kernel.policy import Rule

NOTHING_ALLOWS = Verdict(Action.DENY, Code.DEFAULT_DENY, None, "no rule allows this")
INSIDE = Verdict(Action.DENY, Code.PRIVATE_ADDRESS, None, "the address is not on the public internet")
OWN = Verdict(Action.DENY, Code.NEVER, None, "Governor itself listens there")
NO_ADDRESS = Verdict(Action.DENY, Code.RESOLVE_FAILED, None, "the host has no address")

_STRICTNESS = {
    Code.NEVER: 4,
    Code.RULE_DENY: 3,
    Code.PRIVATE_ADDRESS: 2,
    Code.DEFAULT_DENY: 1,
    Code.ALLOW: 0,
    Code.RESOLVE_FAILED: -1,  # only where there is no address to judge
}
_REFUSING = (Code.NEVER, Code.RULE_DENY)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its evidence: the rules that hold at the deciding address, None where no address was judged."""

    verdict: Verdict
    groups: tuple[str, ...]
    address: Address | None


def name_stage(index: Index, facts: RequestFacts) -> Judgement | None:
    """The refusal of a name that need not be resolved. None: go on to the addresses."""
    if facts.host.address is not None:
        return None
    readings = index.by_name(facts)
    held = readings[0].certain if len(readings) == 1 else index.join(*(each.certain for each in readings))
    verdict = _of_rules([index.verdicts[number] for number in held])
    if verdict.code in _REFUSING:
        return Judgement(verdict, index.names(held), None)
    possible = [{*each.certain, *(hanging.rule for hanging in each.pending if hanging.grants)} for each in readings]
    return None if set.intersection(*possible) else Judgement(NOTHING_ALLOWS, (), None)


def address_stage(
    index: Index, facts: RequestFacts, addresses: Sequence[Address], own: frozenset[tuple[Address, int]]
) -> Judgement:
    """The verdict over all addresses that the host stands for. `own`: where Governor itself listens."""
    candidates = index.by_name(facts)
    literal = facts.host.address is not None
    decided = None
    for address in addresses:
        held = index.at(facts, candidates, address)
        if own and _is_own(own, address, facts.port):
            verdict = OWN
        else:
            verdict = _of_rules([index.verdicts[number] for number in held])
            if verdict.code not in _REFUSING and not index.is_global(address):
                verdict = _inside(verdict, (index.rules[number] for number in held), address, literal)
        if decided is None or _stricter(index, verdict, decided.verdict):
            decided = Judgement(verdict, index.names(held), address)
    return decided or Judgement(NO_ADDRESS, (), None)


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
    return verdict.code in _REFUSING and index.place(verdict.rule) < index.place(than.rule)


def _is_own(own: frozenset[tuple[Address, int]], address: Address, port: int) -> bool:
    if port not in _ports(own):
        return False
    if address.is_unspecified:
        return True  # 0.0.0.0 reaches whatever listens on this machine
    return any((each, port) in own for each in (address, *embedded(address)))


@lru_cache(maxsize=16)
def _ports(own: frozenset[tuple[Address, int]]) -> frozenset[int]:
    return frozenset(port for _, port in own)

"""Verdicts, from the rules that hold. A name is judged first; what it resolves to is judged before anything is dialled.

At one address the strictest of these wins: a never, a halt, a deny, an inside address that no grant was written for, an
ask, a throttle, an allow; where none is, nothing allows the request. A policy of several tiers wants a grant of each
tier that binds the agent, one that was written for the address where that is an inside one. What a grant lets through
can still be larger than it may be. A request is judged at each of its addresses, and the strictest verdict is its
verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kernel.address import is_global
from kernel.facts import UPGRADES
from kernel.hours import told
from kernel.measures import Cap, Measures, tightest
from kernel.one_rule import measures_of, opens, verdict_of
from kernel.policy import Verb
from kernel.tiers import asked, lacking, suffice
from kernel.verdict import Action, Code, Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kernel.facts import Address, RequestFacts
    from kernel.match import Index
    from kernel.policy import Rule, Tier

NOTHING_ALLOWS = Verdict(Action.DENY, Code.DEFAULT_DENY, None, "no rule allows this")
NO_UPGRADE = Verdict(Action.DENY, Code.UPGRADE_REFUSED, None, "no rule allows a WebSocket here")
INSIDE = Verdict(Action.DENY, Code.PRIVATE_ADDRESS, None, "the address is not on the public internet")
OWN = Verdict(Action.DENY, Code.NEVER, None, "Governor itself listens there")
NO_ADDRESS = Verdict(Action.DENY, Code.RESOLVE_FAILED, None, "the host has no address")

__all__ = ["INSIDE", "NOTHING_ALLOWS", "NO_ADDRESS", "NO_UPGRADE", "OWN", "Expected", "Judgement", "address_stage",
           "expected", "from_groups", "name_stage"]  # fmt: skip

_STRICTNESS = {
    Code.NEVER: 8,
    Code.RULE_HALT: 7,
    Code.RULE_DENY: 6,
    Code.PRIVATE_ADDRESS: 5,
    Code.DEFAULT_DENY: 4,
    Code.OUT_OF_HOURS: 4,  # in the place of the two others, or of PRIVATE_ADDRESS
    Code.UPGRADE_REFUSED: 4,  # the same for a request that asks to become a WebSocket
    Code.URL_TOO_LONG: 3,
    Code.BODY_TOO_LARGE: 2,
    Code.APPROVAL_PENDING: 1,
    Code.ALLOW: 0,
    Code.RESOLVE_FAILED: -1,  # only where there is no address to judge
}
_REFUSING = (Code.NEVER, Code.RULE_DENY, Code.RULE_HALT)
_GRANTING = (Code.ALLOW, Code.APPROVAL_PENDING)
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a request from its headers alone.

    `refused` is the refusal that neither body nor address can lift. `max_request` is the largest that may still apply:
    no more of the body need be read. `may_stream` is True where a grant that says `stream-request` may hold.
    """

    refused: Judgement | None
    max_request: Cap
    may_stream: bool


def expected(index: Index, facts: RequestFacts, own: frozenset[tuple[Address, int]] = frozenset()) -> Expected:
    """What is known before the body is read and a name is resolved.

    `facts.body_bytes` is the announced length, 0 where none is. Of a host that is an address all is known; `own` is
    where Governor itself listens.
    """
    if facts.host.address is None:
        refused, best = name_stage(index, facts), index.measures(index.at_best(index.by_name(facts)))
    else:
        judged = address_stage(index, facts, (facts.host.address,), own)
        refused, best = None if judged.verdict.lets_through else judged, judged.measures
    return Expected(refused, best.max_request, best.stream_request)


def name_stage(index: Index, facts: RequestFacts) -> Judgement | None:
    """The refusal of a name that need not be resolved. None: go on to the addresses."""
    if facts.host.address is not None:
        return None
    candidates = index.by_name(facts)
    held = index.certain(candidates)
    verdict = _of_rules(index.verdicts(held, literal=False))
    if verdict.code in _REFUSING:
        return Judgement(verdict, index.names(held), None, index.measures(held))
    granted = verdict.code in _GRANTING and not index.tiered
    if not granted and not index.may_grant(facts.agent.id, candidates):
        verdict = _unallowed(facts.scheme)
        if index.timed:
            left = lacking(index.asked(facts.agent.id), index.possible_grants(candidates))
            verdict = _too_early(index.out_of_hours(facts, None), left, facts.at) or verdict
        return Judgement(verdict, index.names(held), None, index.measures(held))
    if not _may_exceed(index, facts):
        return None
    at_best = index.at_best(candidates)
    measures = index.measures(at_best)
    excess = _excess(measures, facts.body_bytes, facts.url_bytes, index.told)
    return None if excess is None else Judgement(excess, index.names(at_best), None, measures)


def address_stage(
    index: Index, facts: RequestFacts, addresses: Sequence[Address], own: frozenset[tuple[Address, int]]
) -> Judgement:
    """The verdict over all addresses that the host stands for. `own`: where Governor itself listens."""
    candidates = index.by_name(facts)
    literal = facts.host.address is not None
    plain = (
        facts.scheme not in UPGRADES and not index.timed and not index.tiered and not _may_exceed(index, facts)
    )
    decided = None
    for address in addresses:
        held = index.at(facts, candidates, address)
        if own and (address, facts.port) in own:
            judged = Judgement(OWN, index.names(held), address, index.measures(held))
        else:
            judged = index.place(address).judged.get(held) or _judged(index, held, address, literal)
            if not plain:
                judged = _of_request(index, facts, judged, address, held)
        decided = judged if decided is None else _both(index, decided, judged)
    decided = decided or Judgement(NO_ADDRESS, (), None)
    if index.timed and decided.verdict.lets_through:
        return replace(decided, until=index.changes(facts.at))
    return decided


def _both(index: Index, first: Judgement, second: Judgement) -> Judgement:
    """The judgement of a request that may go to either of two places: the stricter one, within the measures of both."""
    stricter = second if _stricter(index, second.verdict, first.verdict) else first
    if first.measures is second.measures or stricter.verdict.code not in _GRANTING:
        return stricter
    return replace(stricter, measures=tightest(first.measures, second.measures))


def _judged(index: Index, held: tuple[int, ...], address: Address, literal: bool) -> Judgement:
    """The verdict where these rules hold; remembered where it cannot depend on how the host was written."""
    place = index.place(address)
    verdict = _of_rules(index.verdicts(held, literal=literal))
    refused = verdict.code in _REFUSING
    if not refused and not place.is_global:
        verdict = _inside(verdict, (index.rules[number] for number in held), address, literal)
    judgement = Judgement(verdict, index.names(held), address, index.measures(held))
    if index.says_one and (refused or place.is_global):
        if len(place.judged) >= _REMEMBERED:
            place.judged.clear()
        place.judged[held] = judgement
    return judgement


def _may_exceed(index: Index, facts: RequestFacts) -> bool:
    """True when the request is larger than the smallest cap of the policy."""
    return facts.body_bytes > index.least_request or (
        index.least_url is not None and facts.url_bytes > index.least_url
    )


def _of_request(
    index: Index, facts: RequestFacts, judged: Judgement, address: Address, held: tuple[int, ...]
) -> Judgement:
    """The judgement with what the rules that hold do not say alone: who asks for what upgrade, of what size, when."""
    verdict = judged.verdict
    if index.tiered and verdict.code in _GRANTING and _left(index, facts, address, held):
        verdict = NOTHING_ALLOWS if index.place(address).is_global else INSIDE
    if index.timed and verdict in (NOTHING_ALLOWS, INSIDE):
        verdict = _early(index, facts, address, held) or verdict
    if verdict is NOTHING_ALLOWS:
        verdict = _unallowed(facts.scheme)
    elif verdict.code in _GRANTING:
        verdict = _excess(judged.measures, facts.body_bytes, facts.url_bytes, index.told) or verdict
    return judged if verdict is judged.verdict else replace(judged, verdict=verdict)


def _left(index: Index, facts: RequestFacts, address: Address, held: Iterable[int]) -> list[int]:
    """The tiers that must grant what is asked at this address, and do not where these rules hold."""
    grants = [rule for number in held if (rule := index.rules[number]).verb.grants]
    if not index.place(address).is_global:
        grants = _written_for(grants, address, facts.host.address is not None)
    return lacking(index.asked(facts.agent.id), grants)


def _written_for(rules: Iterable[Rule], address: Address, literal: bool) -> list[Rule]:
    return [rule for rule in rules if opens(rule, address, literal=literal)]


def _early(index: Index, facts: RequestFacts, address: Address, held: tuple[int, ...]) -> Verdict | None:
    """The refusal at an address of a request that is let through at another time."""
    waiting = index.out_of_hours(facts, address)
    if not index.place(address).is_global:
        waiting = _written_for(waiting, address, facts.host.address is not None)
    return _too_early(waiting, _left(index, facts, address, held), facts.at)


def _too_early(waiting: Sequence[Rule], left: Sequence[int], at: int) -> Verdict | None:
    """The refusal of what these grants let through at another time.

    `left` are the tiers that do not grant it now. Named is the grant that begins next; of several tiers, the last of
    theirs to begin.
    """
    next_of_each = [_next([rule for rule in waiting if rule.tier == tier], at) for tier in left]
    coming = [each for each in next_of_each if each is not None]
    if not coming or len(coming) < len(left):
        return None
    begins, rule = max(coming, key=_when)
    reason = f"it is outside the hours of rule {rule.name}; they begin again at {told(begins)}"
    return Verdict(Action.DENY, Code.OUT_OF_HOURS, rule.name, reason, rule.tell)


def _next(waiting: Sequence[Rule], at: int) -> tuple[int, Rule] | None:
    """Of these grants the first to begin, and when it does."""
    known = [(rule.where.when.opens(at), rule) for rule in waiting if rule.where.when is not None]
    coming = [(begins, rule) for begins, rule in known if begins is not None and rule.where.in_effect(begins)]
    return min(coming, key=_when, default=None)


def _when(coming: tuple[int, Rule]) -> tuple[int, int]:
    begins, rule = coming
    return begins, rule.number


def from_groups(
    rules: Mapping[str, Rule],
    groups: Iterable[str],
    address: Address | None,
    literal: bool,
    *,
    tiers: Sequence[Tier],
    agent: str,
    scheme: str,
    body_bytes: int,
    url_bytes: int,
) -> Verdict:
    """The verdict at an address where exactly these rules hold; `address` is None for a verdict on the name alone.

    `rules` are the rules, nevers and limits of the policy by name, `tiers` its tiers; the agent's id, the scheme and
    the sizes are the request's. This is what `address_stage` says at its deciding address, unless Governor itself
    listens there (`OWN`); where that says OUT_OF_HOURS, it is the refusal that it would be without hours. Raises
    KeyError for a group that is not a rule of the policy.
    """
    held = sorted((rules[name] for name in groups), key=lambda rule: rule.number)
    deciding = (rule for rule in held if rule.verb is not Verb.LIMIT and not rule.observed)
    verdict = _of_rules([verdict_of(rule, literal=literal) for rule in deciding])
    if verdict.code in _REFUSING:
        return verdict
    grants, otherwise = [rule for rule in held if rule.verb.grants], _unallowed(scheme)
    if address is not None and not is_global(address):
        grants, otherwise = _written_for(grants, address, literal), INSIDE
    if not suffice(asked(tiers, agent), grants):
        return otherwise
    return _excess(measures_of(held), body_bytes, url_bytes, lambda name: name and rules[name].tell) or verdict


def _of_rules(said: Sequence[Verdict]) -> Verdict:
    """The strictest of what the rules that hold say; the first of equals."""
    if len(said) == 1:
        return said[0]
    return max(said, key=_strictness, default=NOTHING_ALLOWS)


def _strictness(verdict: Verdict) -> tuple[int, bool]:
    # A throttle passes with the code of an allow.
    return _STRICTNESS[verdict.code], verdict.action is Action.THROTTLE


def _unallowed(scheme: str) -> Verdict:
    return NO_UPGRADE if scheme in UPGRADES else NOTHING_ALLOWS


def _excess(
    measures: Measures, body_bytes: int, url_bytes: int, told: Callable[[str | None], str | None]
) -> Verdict | None:
    """The refusal of a request that is larger than it may be."""
    for code, what, size, cap in (
        (Code.URL_TOO_LONG, "URL", url_bytes, measures.max_url),
        (Code.BODY_TOO_LARGE, "body", body_bytes, measures.max_request),
    ):
        if cap is not None and size > cap.most:
            return Verdict(Action.DENY, code, cap.by, f"the {what} is larger than {cap.most} bytes", told(cap.by))
    return None


def _inside(verdict: Verdict, held: Iterable[Rule], address: Address, literal: bool) -> Verdict:
    """The verdict at an address that is not global, where no rule refuses."""
    grants = (rule for rule in held if rule.verb.grants)
    return verdict if any(opens(rule, address, literal=literal) for rule in grants) else INSIDE


def _stricter(index: Index, verdict: Verdict, than: Verdict) -> bool:
    if verdict.code is not than.code or verdict.action is not than.action:
        return _strictness(verdict) > _strictness(than)
    return verdict.code in _REFUSING and index.rank(verdict.rule) < index.rank(than.rule)

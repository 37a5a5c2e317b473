"""A decision of the log as it was asked: what its entry, and the vault where that has the values, tell of the request.

What stands nowhere is not guessed. Query, headers and body are in no log, but for the model that a call asks: where
they could decide, both answers are had, the one that lets most pass and the one that lets least pass. The length of a
URL is known from below alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from kernel import normal
from kernel.bounds import Bounds
from kernel.comparison import UNREAD, UNREADABLE, Gap
from kernel.decide import INSIDE, NO_UPGRADE, address_stage, from_groups, name_stage
from kernel.facts import OWN_NAME, UPGRADES, Agent, Host, RequestFacts
from kernel.fields import Fields
from kernel.match import Index
from kernel.one_rule import opens
from kernel.policy import UrlPattern
from kernel.tiers import suffice
from kernel.trial import OBSERVED
from kernel.verdict import Action, Code, Judgement, Verdict

if TYPE_CHECKING:
    from kernel.facts import Address
    from kernel.policy import Policy, Rule

type Entry = Mapping[str, Any]
type Values = Mapping[str, object]
"""What the vault holds for one entry, by name: a text each; of a secret path the globs that it matched."""

NOT_KEPT: Values = {}
FIELDS_DECIDE = "query, headers or body decide"
SLACK_SECONDS = 60
"""How far the clock that a request was judged by may be from the one of the log: a greater difference is a jump."""

RULED = frozenset({
    Code.ALLOW, Code.TUNNEL, Code.RULE_DENY, Code.DEFAULT_DENY, Code.NEVER, Code.PRIVATE_ADDRESS, Code.RULE_HALT,
    Code.APPROVAL_PENDING, Code.UPGRADE_REFUSED, Code.OUT_OF_HOURS, Code.URL_TOO_LONG, Code.BODY_TOO_LARGE,
})
"""What the rules say of a request."""
COUNTED = frozenset({
    Code.AGENT_HALTED, Code.BUDGET_EXHAUSTED, Code.RATE_LIMITED, Code.QUARANTINED, Code.CLOCK_JUMP, Code.EXHAUSTION,
    Code.OVERRISK, Code.EXPLORATION_DRIFT, Code.PERSISTENCE_LIMIT, Code.STAGNATION, Code.EXTERNAL, Code.OPERATOR,
    Code.CASCADE, Code.CONTRACT_VIOLATION,
})
"""What the accounts say of it. Every other code is a fact from outside, and refuses."""

_HIDDEN_BY_HOURS = frozenset({Code.DEFAULT_DENY, Code.UPGRADE_REFUSED, Code.PRIVATE_ADDRESS})
_WITH_A_RULE = frozenset({Code.BUSY, Code.BODY_TOO_LARGE})
_LONGER_THAN_ANY = 2**62
_REMEMBERED = 65536
_NO_MODEL = Gap("it could not be read")


class Judging:
    """A policy as a replay asks it."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.index, self.bounds = policy, Index(policy), Bounds(policy)
        self.rules: Mapping[str, Rule] = {rule.name: rule for rule in policy.items}
        conditions = [each for rule in policy.items for each in (rule.where, *rule.holes)]
        self.asks_path = any(
            each.paths is not None or each.llm is not None
            or any(isinstance(item, UrlPattern) for item in each.to or ())
            for each in conditions)
        self._longest_url = max((rule.terms.max_url or 0 for rule in policy.items), default=0)
        self._ruled: dict[tuple[object, ...], Verdict] = {}

    def number(self, name: str) -> int:
        """The place of a rule in the policy."""
        return self.rules[name].number

    def ruled(self, entry: Entry, groups: tuple[str, ...], at: int, url_bytes: int, *, on_trial: bool) -> Verdict:
        """What the rules say of a request for which exactly these hold. KeyError where one is none of the policy."""
        code, facts = entry["code"], entry["in"]
        if is_given(entry):
            return self._given(entry)
        body_bytes = facts["body_bytes"] or 0
        if code == Code.URL_TOO_LONG:
            url_bytes = _LONGER_THAN_ANY
        verdict = self._from_groups(entry, groups, body_bytes, url_bytes, on_trial=on_trial)
        if code == Code.OUT_OF_HOURS and verdict.code in _HIDDEN_BY_HOURS and self._waits(entry["rule"], at):
            return Verdict(Action.DENY, Code.OUT_OF_HOURS, entry["rule"])
        return verdict

    def _from_groups(self, entry: Entry, groups: tuple[str, ...], body_bytes: int, url_bytes: int, *,
                     on_trial: bool) -> Verdict:
        index, facts, agent = self.index, entry["in"], entry["agent"]["id"]
        least = index.least_url
        small = body_bytes <= index.least_request and (least is None or url_bytes <= least)
        sizes = None if small else (body_bytes, url_bytes)
        asked = index.asked(agent) if index.tiered else None
        key = (groups, facts["address"], facts["host"], facts["scheme"], sizes, asked, on_trial)
        found = self._ruled.get(key)
        if found is None:
            address, literal = address_of(facts["address"]), address_of(facts["host"]) is not None
            found = from_groups(
                self.rules, groups, address, literal, tiers=self.policy.tiers, agent=agent,
                scheme=facts["scheme"] or "", body_bytes=body_bytes, url_bytes=url_bytes)
            if on_trial and found.code in OBSERVED and address is not None:
                found = self._held_on_trial(groups, address, agent, facts["scheme"], literal=literal) or found
            if len(self._ruled) >= _REMEMBERED:
                self._ruled.clear()
            self._ruled[key] = found
        return found

    def _held_on_trial(
        self, groups: tuple[str, ...], address: Address, agent: str, scheme: str, *, literal: bool
    ) -> Verdict | None:
        """The milder refusal that is enforced on trial in the place of a verdict that hides it."""
        needed = self.index.asked(agent)
        grants = [rule for name in groups if (rule := self.rules[name]).verb.grants]
        inside = not self.index.place(address).is_global
        if inside and not suffice(needed, [rule for rule in grants if opens(rule, address, literal=literal)]):
            return INSIDE
        return NO_UPGRADE if scheme in UPGRADES and not suffice(needed, grants) else None

    def _given(self, entry: Entry) -> Verdict:
        """A fact from outside: a refusal that names no rule, or the limit that it was measured by."""
        rule = entry["rule"] if entry["code"] in _WITH_A_RULE and entry["rule"] in self.rules else None
        return Verdict(Action.DENY, Code(entry["code"]), rule)

    def _waits(self, name: str | None, at: int) -> bool:
        """True for a grant whose hours have not come."""
        rule = self.rules.get(name or "")
        return rule is not None and rule.verb.grants and any(
            not rule.where.in_effect(moment) for moment in (at - SLACK_SECONDS, at, at + SLACK_SECONDS))

    def facts(self, entry: Entry, values: Values, at: int) -> RequestFacts | None:
        """The request, as far as it is kept; None where its path or its host is not."""
        return self._facts(entry, values, values.get("path"), at)

    def facts_of_any_path(self, entry: Entry, values: Values, at: int) -> RequestFacts | None:
        """The request with another path where its own is not kept and no rule asks for one."""
        path = values.get("path")
        return self._facts(entry, values, path if self.asks_path or isinstance(path, str) else "/", at)

    def _facts(self, entry: Entry, values: Values, path: object, at: int) -> RequestFacts | None:
        seen, agent = entry["in"], entry["agent"]
        host = values.get("host") if "host$c" in seen else seen["host"]
        if not isinstance(path, str) or not isinstance(host, str) or seen["scheme"] is None:
            return None
        query = "x" * self._longest_url if entry["code"] == Code.URL_TOO_LONG else ""
        return RequestFacts(
            Agent(agent["id"], agent["by"]), seen["method"], seen["scheme"], _host(host), seen["port"],
            normal.path(path), query, seen["body_bytes"] or 0, seen["content_type"] or "", at=at)


def is_given(entry: Entry) -> bool:
    """True where no rule and no account says what the verdict is."""
    code, facts = entry["code"], entry["in"]
    if code not in RULED and code not in COUNTED:
        return True
    if code == Code.NEVER:
        # Governor never connects to itself: which addresses are its own is a fact from outside.
        return entry["rule"] is None and facts["address"] is not None
    return code == Code.BODY_TOO_LARGE and facts["scheme"] is None


def is_own(entry: Entry) -> bool:
    """True for a request that Governor answers itself."""
    return entry["in"]["host"] == OWN_NAME and entry["code"] == Code.ALLOW and entry["rule"] is None


class Matched(NamedTuple):
    """How a request is judged, with the fields that let most of it pass and with those that let least."""

    best: Judgement | None
    least: Judgement | None

    def fits(self, groups: tuple[str, ...]) -> bool:
        """True where these rules may be all that hold: with some fields or other."""
        if self.best is not None and self.best.groups == groups:
            return True
        return self.must <= frozenset(groups) <= self.may

    @property
    def may(self) -> frozenset[str]:
        return frozenset(name for way in self if way is not None for name in way.groups)

    @property
    def must(self) -> frozenset[str]:
        if self.best is None or self.least is None:
            return frozenset()
        return frozenset(self.best.groups).intersection(self.least.groups)

    @property
    def certain(self) -> bool:
        """True where no field matters."""
        return self.best is self.least or (
            self.best is not None and self.least is not None and self.best.groups == self.least.groups)


def matched(judging: Judging, entry: Entry, facts: RequestFacts) -> Matched:
    """The rules that hold for a request at the address that decided."""
    index, address = judging.index, address_of(entry["in"]["address"])
    ways = [_stage(index, each, address) for each in extremes(index, entry, facts)]
    return Matched(ways[0], ways[-1])


def extremes(index: Index, entry: Entry, facts: RequestFacts) -> tuple[RequestFacts, ...]:
    """The request with fields that let most pass, and with those that let least; as it is where none is asked for.

    Which model it asks is known where the entry says it. Grants cover what has not come yet, and refusals do not.
    """
    if not index.needs_fields:
        return (facts,)
    asked = model_of(entry)
    return tuple(replace(facts, fields=Fields(each, each, each, asked)) for each in (UNREAD, UNREADABLE))


def model_of(entry: Entry) -> str | Gap | None:
    """The model that a call of a model API asks, as it was judged; None where the entry is of no such call."""
    told = entry.get("llm")
    if not isinstance(told, Mapping):
        return None
    model = told.get("model")
    return model if isinstance(model, str) else _NO_MODEL


def has_groups(entry: Entry) -> bool:
    """True where the entry says which rules held; a refusal from outside, or of who is halted, asked none."""
    return bool(entry["groups"]) or (entry["code"] in RULED and not is_given(entry))


def _stage(index: Index, facts: RequestFacts, address: Address | None) -> Judgement | None:
    if address is None:
        return name_stage(index, facts)
    return address_stage(index, facts, (address,), frozenset())


def moments(index: Index, at: int) -> tuple[int, ...]:
    """When a request may have been judged that the log has at this second: more than one where hours begin or end."""
    if not index.timed or index.changes(at - SLACK_SECONDS) > at + SLACK_SECONDS:
        return (at,)
    return at, at - SLACK_SECONDS, at + SLACK_SECONDS


@lru_cache(maxsize=4096)
def address_of(text: object) -> Address | None:
    """The address that a text is; None where it is a name, or no text."""
    try:
        return ip_address(text) if isinstance(text, str) else None
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _host(name: str) -> Host:
    """A host from its canonical name."""
    return Host(name, address_of(name))


"""The meaning of a policy, told slowly: every rule is asked at every point, and nothing is prepared or remembered."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from math import inf
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from kernel.address import embedded, is_global, named_ranges
from kernel.comparison import UNREAD, Gap
from kernel.policy import AddressRange, HostPattern, HostReach, UrlPattern, Verb
from kernel.verdict import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.comparison import Comparison, Interval
    from kernel.facts import Address, RequestFacts
    from kernel.llm_terms import Call
    from kernel.measures import Rate
    from kernel.policy import AgentPattern, Conditions, Policy, Rule

PUBLIC = named_ranges(())["public-internet"]
SEVERITY = [
    {Code.ALLOW}, {Code.BODY_TOO_LARGE}, {Code.URL_TOO_LONG},
    {Code.UPGRADE_REFUSED, Code.DEFAULT_DENY, Code.OUT_OF_HOURS}, {Code.PRIVATE_ADDRESS}, {Code.RULE_DENY},
    {Code.RULE_HALT}, {Code.NEVER},
]  # fmt: skip
UNSAID = {"max_request": 16 * 1024 * 1024, "max_response": inf, "max_url": inf, "in_flight": inf,
          "max_output_tokens": inf}


@dataclass(frozen=True)
class Answer:
    code: Code
    rule: str | None
    groups: tuple[str, ...]
    address: Address | None
    slowed: bool = False


@dataclass(frozen=True)
class Point:
    facts: RequestFacts
    segments: tuple[str, ...]
    address: Address


def judge(policy: Policy, facts: RequestFacts, addresses: Sequence[Address], own: set[tuple[Address, int]]) -> Answer:
    """The strictest answer over all addresses; of equally strict refusals the one whose rule comes first."""
    answers = [_at_address(policy, facts, address, own) for address in addresses]
    strictest = max(map(_severity, answers))
    left = [answer for answer in answers if _severity(answer) == strictest]
    if left[0].code not in (Code.NEVER, Code.RULE_DENY, Code.RULE_HALT):
        return next((answer for answer in left if answer.slowed), left[0])
    order = [None, *(rule.name for rule in rules_of(policy))]
    return min(left, key=lambda answer: order.index(answer.rule))


def _severity(answer: Answer) -> int:
    return next(place for place, codes in enumerate(SEVERITY) if answer.code in codes)


def _at_address(policy: Policy, facts: RequestFacts, address: Address, own: set[tuple[Address, int]]) -> Answer:
    held = [rule for rule in rules_of(policy) if holds_for(policy, rule, facts, address)]
    limits = [limit for limit in policy.limits if holds_for(policy, limit, facts, address)]
    groups = tuple(rule.name for rule in (*held, *limits))
    if (address, facts.port) in own:
        return Answer(Code.NEVER, None, groups, address)
    verbs = ((Verb.NEVER, Code.NEVER), (Verb.HALT, Code.RULE_HALT), (Verb.DENY, Code.RULE_DENY))
    for verb, code in verbs:
        for rule in held:
            if verb_for(rule, facts) is verb:
                return Answer(code, rule.name, groups, address)
    passes = [rule for rule in held if is_global(address) or _was_written_for(rule, facts, address)]
    left = [number for number in asked(policy, facts) if not any(rule.tier == number for rule in passes)]
    if not passes or left:
        firsts = [early_at(policy, facts, address, number)[:1] for number in left]
        if firsts and all(firsts):
            return Answer(Code.OUT_OF_HOURS, max(first for (first,) in firsts)[2].name, groups, address)
        if not is_global(address):
            return Answer(Code.PRIVATE_ADDRESS, None, groups, address)
        code = Code.UPGRADE_REFUSED if facts.scheme in ("ws", "wss") else Code.DEFAULT_DENY
        return Answer(code, None, groups, address)
    for measure, size, code in (
        ("max_url", len(url_of(facts)), Code.URL_TOO_LONG), ("max_request", facts.body_bytes, Code.BODY_TOO_LARGE),
    ):  # fmt: skip
        most, by = cap(measure, tier_by_tier(held), limits)
        if size > most:
            return Answer(code, by, groups, address)
    slows = [rule for rule in held if rule.verb is Verb.THROTTLE]
    return Answer(Code.ALLOW, (slows or held)[0].name, groups, address, bool(slows))


def verb_for(rule: Rule, facts: RequestFacts) -> Verb:
    """What the rule does: where a name leads ends no agent, since others say it."""
    places = [rule.where, *rule.holes]
    named = [getattr(item, "host", item) for where in places for item in where.to or ()]
    speaks = any(isinstance(item, AddressRange) for item in named) or any(where.address for where in places)
    return Verb.DENY if rule.verb is Verb.HALT and speaks and facts.host.address is None else rule.verb


def asked(policy: Policy, facts: RequestFacts) -> list[int]:
    """The tiers that bind the agent and do not let pass what they do not speak of."""
    return [number for number, tier in enumerate(policy.tiers) if not tier.passes and bound(policy, number, facts)]


def bound(policy: Policy, number: int, facts: RequestFacts) -> bool:
    binds = policy.tiers[number].binds
    return binds is None or any(_agent(pattern, facts.agent.id) for pattern in binds)


def early_at(policy: Policy, facts: RequestFacts, address: Address, tier: int) -> list[tuple[int, int, Rule]]:
    """The grants of a tier that would hold here once their hours come, in the order in which they come."""
    coming = []
    for rule in rules_of(policy):
        begins = rule.where.when.opens(facts.at) if rule.where.when is not None else None
        if rule.tier != tier or not rule.verb.grants or begins in (None, facts.at):
            continue
        if rule.where.expires is not None and rule.where.expires <= begins:
            continue
        timeless = replace(rule, where=replace(rule.where, when=None))
        if not (is_global(address) or _was_written_for(rule, facts, address)):
            continue
        if holds_for(policy, timeless, facts, address):
            coming.append((begins, rule.number, rule))
    return sorted(coming)


def url_of(facts: RequestFacts) -> str:
    query = f"?{facts.query}" if facts.query else ""
    return f"{facts.scheme}://{facts.host.name}{facts.path.text}{query}"


def tier_by_tier(rules: Sequence[Rule]) -> list[list[Rule]]:
    """The grants among the rules, those of each tier apart."""
    grants = [rule for rule in rules if rule.verb.grants]
    return [[rule for rule in grants if rule.tier == tier] for tier in sorted({rule.tier for rule in grants})]


def cap(measure: str, tiers: Sequence[Sequence[Rule]], limits: Sequence[Rule]) -> tuple[float, str | None]:
    """How much of a measure passes, and who says so; infinity where nobody does."""
    each = [_cap(measure, grants, limits) for grants in tiers] or [_cap(measure, (), limits)]
    return min(each, key=lambda one: one[0])


def _cap(measure: str, grants: Sequence[Rule], limits: Sequence[Rule]) -> tuple[float, str | None]:
    granted = [_said(measure, rule) for rule in grants] or [(UNSAID[measure], None)]
    if measure == "in_flight":
        granted = [(inf, None)]
    most = max(size for size, _ in granted)
    by = next(name for size, name in granted if size == most)
    for limit in limits:
        said = getattr(limit.terms, measure)
        if said is not None and said < most:
            most, by = said, limit.name
    return most, by


def _said(measure: str, rule: Rule) -> tuple[float, str | None]:
    said = getattr(rule.terms, measure)
    return (UNSAID[measure], None) if said is None else (said, rule.name)


def websocket(tiers: Sequence[Sequence[Rule]]) -> tuple[float, float] | None:
    """The longest frame and the most messages in a second that some grant with `websocket:` of each tier lets pass."""
    each = [_websocket(grants) for grants in tiers]
    if not each or None in each:
        return None
    return min(frame for frame, _ in each), min(rate for _, rate in each)


def _websocket(grants: Sequence[Rule]) -> tuple[float, float] | None:
    said = [rule.terms.websocket for rule in grants if rule.terms.websocket is not None]
    if not said:
        return None
    frames = [inf if each.max_frame_bytes is None else each.max_frame_bytes for each in said]
    return max(frames), max(per_second(each.max_rate) for each in said)


def per_second(rate: Rate | None) -> float:
    return inf if rate is None else rate.count / rate.seconds


def rules_of(policy: Policy) -> list[Rule]:
    return sorted([*policy.rules, *policy.nevers], key=lambda rule: rule.number)


def holds_for(policy: Policy, rule: Rule, facts: RequestFacts, address: Address) -> bool:
    """True when the rule holds, and its tier binds the agent."""
    return bound(policy, rule.tier, facts) and holds(rule, facts, address)


def holds(rule: Rule, facts: RequestFacts, address: Address) -> bool:
    """A grant holds when it holds under every reading of the path, a refusal when under any."""
    # A limit means what it means in a refusal.
    if rule.verb.grants and facts.scheme in ("ws", "wss") and rule.terms.websocket is None:
        return False
    readings = [_holds_at(rule, Point(facts, segments, address)) for segments in facts.path.readings]
    return all(readings) if rule.verb.grants else any(readings)


def _holds_at(rule: Rule, point: Point) -> bool:
    refuses = not rule.verb.grants
    if rule.verb.grants and rule.where.agents is None and point.facts.agent.id == "anonymous":
        return False
    if not _fit(rule.where, point, wide=refuses, literal_only=rule.verb.grants):
        return False
    return not any(_fit(hole, point, wide=not refuses, literal_only=False) for hole in rule.holes)


def _fit(where: Conditions, point: Point, *, wide: bool, literal_only: bool) -> bool:
    facts = point.facts
    if where.expires is not None and facts.at >= where.expires:
        return False
    if where.when is not None and not where.when.contains(facts.at):
        return False
    if where.agents is not None and not any(_agent(pattern, facts.agent.id) for pattern in where.agents):
        return False
    if not _asks(where, point, wide):
        return False
    if where.schemes is not None and facts.scheme not in where.schemes:
        return False
    if where.ports is not None and not any(each.first <= facts.port <= each.last for each in where.ports):
        return False
    if where.paths is not None and not any(glob_matches(each.segments, point.segments) for each in where.paths):
        return False
    if where.address is not None and not any(_in_range(each, point.address, wide) for each in where.address):
        return False
    if not all(_comparison(values, sent_value(facts, part, name), wide) for part, name, values in _compared(where)):
        return False
    return where.to is None or any(_destination(each, point, wide, literal_only) for each in where.to)


def _asks(where: Conditions, point: Point, wide: bool) -> bool:
    """The method fits, and so does the call of a model; one with which clients begin has a method of its own."""
    if where.llm is not None and any(_is_first(call, point) for call in where.llm.calls):
        return True
    fits = where.methods is None or point.facts.method in where.methods
    return fits and (where.llm is None or _asks_model(where.llm.models, point, wide))


def _is_first(call: Call, point: Point) -> bool:
    """A call with which clients begin: it has a method of its own."""
    return call.method == point.facts.method and glob_matches(call.url.path.segments, point.segments)


_ENDPOINTS = "chat/completions|completions|embeddings|messages|responses"
_IN_BODY = re.compile(
    rf"(?:/[^/]*)?/v1/(?:{_ENDPOINTS})|/chat/completions|/v1beta/openai/(?:chat/completions|embeddings)")
_IN_BODY_WIDE = re.compile(rf"{_IN_BODY.pattern}|/v1/complete")
_IN_PATH = re.compile(r"/v1(?:alpha|beta)?/models/([^/]*):(?:generateContent|streamGenerateContent)")
_IN_PATH_WIDE = re.compile(r"/v1(?:alpha|beta)?/models/([^/]*)(?::|%3A)"
                           r"(?:generateContent|streamGenerateContent|embedContent|batchEmbedContents)")


def _asks_model(models: tuple[str, ...] | None, point: Point, wide: bool) -> bool:
    path = "/" + "/".join(point.segments)
    if point.facts.method != "POST":
        return False
    in_path = (_IN_PATH_WIDE if wide else _IN_PATH).fullmatch(path)
    if in_path is not None:
        return models is None or any(word_matches(glob, in_path[1]) for glob in models)
    if not (_IN_BODY_WIDE if wide else _IN_BODY).fullmatch(path):
        return False
    model = sent_value(point.facts, "json", "model")
    if wide and models is None:
        return True
    if not isinstance(model, str):
        return (not wide) if model is UNREAD else wide
    return models is None or any(word_matches(glob, model) for glob in models)


def _compared(where: Conditions) -> list[tuple[str, str, Comparison]]:
    parts = {"query": where.query, "headers": where.headers, "json": where.json, "form": where.form}
    found = [(part, field.name, field.values) for part, fields in parts.items() for field in fields or ()]
    return found if where.content_types is None else [*found, ("kind", "", where.content_types)]


def sent_value(facts: RequestFacts, part: str, name: str) -> object:
    """A text, None for absent, UNREAD, or False for unreadable."""
    headers = [(own.decode(), value.decode()) for own, value in facts.fields._headers]
    body = facts.fields._body
    kinds = [value for own, value in headers if own == "content-type"]
    match part:
        case "query":
            return _only([value for own, value in parse_qsl(facts.query, keep_blank_values=True) if own == name])
        case "headers":
            return _only([value for own, value in headers if own == name])
        case "kind":
            return _only(kinds)
    if body == b"":
        return None
    if isinstance(body, Gap):
        return UNREAD if body is UNREAD else False
    if part == "form":
        pairs = parse_qsl(body.decode(), keep_blank_values=True)
        is_form = kinds == ["application/x-www-form-urlencoded"]
        return _only([value for own, value in pairs if own == name]) if is_form else False
    is_json = len(kinds) == 1 and (kinds[0] == "application/json" or kinds[0].endswith("+json"))
    return _in_json(body, name) if is_json else False


def _only(values: list[str]) -> str | bool | None:
    return False if len(values) > 1 else values[0] if values else None


def _in_json(body: bytes, name: str) -> object:
    try:
        pairs = json.loads(body, object_pairs_hook=list, parse_int=str, parse_float=str)
    except ValueError:
        return False
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return False
    if len(dict(pairs)) < len(pairs):
        return False
    value = dict(pairs).get(name)
    return value if isinstance(value, str) or value is None else False


def _comparison(values: Comparison, found: object, wide: bool) -> bool:
    if found is None:
        return values.absent
    if found is UNREAD:
        return not wide
    if found is False:
        return wide
    if any(word_matches(glob, found) for glob in values.globs):
        return True
    if not values.intervals:
        return False
    if not _is_plain_number(found):
        return wide
    return any(_within(Decimal(found), each) for each in values.intervals)


def _is_plain_number(text: str) -> bool:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    return number.is_finite() and text != "-0" and f"{number.normalize():f}" == text


def _within(number: Decimal, interval: Interval) -> bool:
    low = -inf if interval.low is None else interval.low
    high = inf if interval.high is None else interval.high
    return low <= number <= high and not (
        (interval.low_open and number == low) or (interval.high_open and number == high))


def _destination(item: HostPattern | AddressRange | UrlPattern, point: Point, wide: bool, literal_only: bool) -> bool:
    if isinstance(item, HostPattern):
        return _host(item, point)
    if isinstance(item, AddressRange):
        return not (literal_only and point.facts.host.address is None) and _in_range(item, point.address, wide)
    here = item.scheme == point.facts.scheme and item.port == point.facts.port
    return (
        here and glob_matches(item.path.segments, point.segments) and _destination(item.host, point, wide, literal_only)
    )


def _host(pattern: HostPattern, point: Point) -> bool:
    if point.facts.host.address is not None:
        return False
    labels, own = pattern.name.split("."), point.facts.host.name.split(".")
    below = len(own) > len(labels) and own[len(own) - len(labels) :] == labels
    match pattern.reach:
        case HostReach.EXACT:
            return own == labels
        case HostReach.BELOW:
            return below
        case HostReach.SELF_AND_BELOW:
            return below or own == labels


def _in_range(spread: AddressRange, address: Address, wide: bool) -> bool:
    judged = [address, *embedded(address)] if wide else [address]
    return any(
        each.version == part.first.version and int(part.first) <= int(each) <= int(part.last)
        for each in judged
        for part in spread.networks
    )


def _agent(pattern: AgentPattern, agent: str) -> bool:
    if agent == "anonymous":
        return pattern.text == "anonymous"
    return word_matches(pattern.text, agent)


def _was_written_for(rule: Rule, facts: RequestFacts, address: Address) -> bool:
    """A range of the grant that covers the address holds no global one; of URL patterns all that cover it."""
    if any(_in_range(each, address, False) and _is_inside(each) for each in rule.where.address or ()):
        return True
    if facts.host.address is None:
        return False
    hosts = [(item, item.host if isinstance(item, UrlPattern) else item) for item in rule.where.to or ()]
    near = [(item, host) for item, host in hosts if isinstance(host, AddressRange) and _in_range(host, address, False)]
    plain = any(item is host and _is_inside(host) for item, host in near)
    return plain or (bool(near) and all(_is_inside(host) for _, host in near))


def _is_inside(spread: AddressRange) -> bool:
    return not any(
        part.first.version == public.first.version
        and int(part.first) <= int(public.last)
        and int(public.first) <= int(part.last)
        for part in spread.networks
        for public in PUBLIC.networks
    )


def glob_matches(glob: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    if not glob:
        return not segments
    if glob[0] == "**":
        return any(glob_matches(glob[1:], segments[taken:]) for taken in range(len(segments) + 1))
    return bool(segments) and word_matches(glob[0], segments[0]) and glob_matches(glob[1:], segments[1:])


def word_matches(glob: str, word: str) -> bool:
    if not glob:
        return not word
    if glob[0] == "*":
        return any(word_matches(glob[1:], word[taken:]) for taken in range(len(word) + 1))
    return bool(word) and glob[0] == word[0] and word_matches(glob[1:], word[1:])

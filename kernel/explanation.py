"""Why a policy answers as it does: which rules nearly held for a request, and what would let it through.

The verdict is the matcher's (kernel/decide.py); here are only the words about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernel.address import range_contains
from kernel.bounds import Bounds
from kernel.budget import Unit
from kernel.clause import compared, path_sets
from kernel.comparison import Gap, Value, fits
from kernel.decide import Judgement
from kernel.document import joined, quote
from kernel.facts import UPGRADES, Address, RequestFacts
from kernel.fields import Part
from kernel.glob import joined as segmented
from kernel.hours import told
from kernel.measures import Measures
from kernel.model_calls import spread
from kernel.normal import OWN_PORTS
from kernel.pattern import ANONYMOUS, agent_matches, host_matches, path_matches
from kernel.policy import (
    Conditions,
    Destination,
    HostPattern,
    PathGlob,
    Policy,
    PortRange,
    Rule,
    Tier,
    UrlPattern,
    Verb,
)
from kernel.tiers import asked, binds, lacking
from kernel.verdict import Code, Verdict
from kernel.words import amount_in_words, size_in_words

_SHOWN_RULES = 5
_SHOWN_ITEMS = 4


@dataclass(frozen=True, slots=True)
class Miss:
    """A rule whose `to` fits the request, and what of it does not fit."""

    rule: Rule
    reasons: tuple[str, ...]


def near_misses(policy: Policy, facts: RequestFacts, address: Address) -> list[Miss]:
    """The rules that speak of the request's host and do not hold, the nearest first. Limits speak of no host."""
    found = []
    for rule in (*policy.rules, *policy.nevers):
        if _reaches(rule.where.to, facts, address, grants=rule.verb.grants):
            reasons = (*_unbound(policy.tiers[rule.tier], facts), *_reasons(rule, facts, address))
            if reasons:
                found.append(Miss(rule, reasons))
    return sorted(found, key=lambda miss: (len(miss.reasons), miss.rule.where.to is None))[:_SHOWN_RULES]


def would_allow(policy: Policy, facts: RequestFacts, judgement: Judgement, misses: list[Miss]) -> list[str]:
    """What would have to change for the request to pass, one sentence each; nothing where it passes."""
    verdict = judgement.verdict
    if verdict.lets_through:
        return []
    held = [rule for rule in policy.items if rule.name in judgement.groups]
    sentences = [f"Except this request from {_called(rule)} ({rule.position}): it refuses what others allow."
                 for rule in held if rule.verb.refuses and not rule.observed]
    if verdict.code is Code.OUT_OF_HOURS:
        return [f"Ask again when its hours have come: {verdict.reason}."]
    if verdict.code is Code.PRIVATE_ADDRESS and judgement.address is not None:
        inside = f"{judgement.address} is an inside address"
        return [*sentences, f"{inside}: an allow for {facts.host.name} needs address: {judgement.address}."]
    if verdict.code in _EXCESS:
        return [_smaller(verdict, facts, next((rule for rule in held if rule.name == verdict.rule), None))]
    if verdict.code is Code.APPROVAL_PENDING:
        asking = next(rule for rule in held if rule.name == verdict.rule)
        return [f"Somebody approves it: {_called(asking)} ({asking.position}) asks."]
    left = lacking(asked(policy.tiers, facts.agent.id), (rule for rule in held if rule.verb.grants))
    if len(policy.tiers) > 1:
        sentences += _of_tiers(policy, facts, misses, left)
    elif not any(rule.verb.grants for rule in held):
        sentences += _grants(facts, misses)
    return sentences


def _of_tiers(policy: Policy, facts: RequestFacts, misses: list[Miss], left: list[int]) -> Iterator[str]:
    """What each tier that must grant, and does not, would have to say."""
    if not asked(policy.tiers, facts.agent.id):
        yield f"No tier that could allow anything binds {facts.agent.id}: one of them needs it in for:."
    for tier in left:
        yield f"Tier {policy.tiers[tier].name} ({policy.tiers[tier].file}) must allow it, too, and does not."
        yield from _grants(facts, [miss for miss in misses if miss.rule.tier == tier])


_EXCESS = {Code.BODY_TOO_LARGE: ("body", "max-request"), Code.URL_TOO_LONG: ("URL", "max-url")}


def _smaller(verdict: Verdict, facts: RequestFacts, rule: Rule | None) -> str:
    """What a request that is too large may be, and who would have to allow more."""
    what, key = _EXCESS[verdict.code]
    size = facts.body_bytes if verdict.code is Code.BODY_TOO_LARGE else facts.url_bytes
    if rule is None:
        return f"The {what} has {size} bytes and no rule allows so many: the allow for it needs {key}: {size}."
    held = f"The {what} has {size} bytes, and {key} of {_called(rule)} ({rule.position}) is smaller"
    return f"{held}: raise it, or except this request." if rule.verb is Verb.LIMIT else f"{held}: raise it."


def measured(measures: Measures) -> list[str]:
    """What applies to a request that passes, a few words each; nothing of what has no bound."""
    sizes = (("request", measures.max_request), ("response", measures.max_response), ("URL", measures.max_url))
    found = [f"{what} at most {size_in_words(cap.most)} ({cap.by or 'default'})" for what, cap in sizes
             if cap is not None]
    if measures.in_flight is not None:
        found.append(f"in flight at most {measures.in_flight.most} at a time ({measures.in_flight.by or 'default'})")
    if measures.max_output_tokens is not None:
        found.append(f"a model's answer at most {measures.max_output_tokens.most:,} tokens "
                     f"({measures.max_output_tokens.by or 'default'})")
    websocket = measures.websocket
    if websocket is not None and websocket.max_frame_bytes is not None:
        found.append(f"a frame at most {size_in_words(websocket.max_frame_bytes)}")
    if websocket is not None and websocket.max_rate is not None:
        found.append(f"at most {websocket.max_rate.count} messages in {websocket.max_rate.seconds} s")
    return [*found, "streamed as it comes"] if measures.stream_request else found


def draws_on(policy: Policy, facts: RequestFacts, judgement: Judgement) -> list[str]:
    """What the request would use up if it were made, a few words each: nothing is known here of what is left.

    One that is refused uses up nothing but points of risk.
    """
    bounds = Bounds(policy)
    bounded, found = bounds.of(facts.agent.id), []
    if judgement.verdict.lets_through:
        paces = (*bounded.paces, *bounds.throttles(judgement.groups))
        units: dict[str, list[str]] = {}
        for bound in bounded.bounds:
            if bound.unit is not Unit.RISK and not bound.counter:
                units.setdefault(bound.budget, []).append(f"{bound.unit} {'of each' if bound.each else 'together'}")
        found += [f"{name} ({', '.join(said)})" for name, said in units.items()]
        found += dict.fromkeys(pace.name for pace in paces)
    points = bounds.risk(judgement.groups)
    accounts = [bound.budget for bound in bounded.bounds if bound.unit is Unit.RISK]
    if points and accounts:
        found.append(f"{amount_in_words(Unit.RISK, points)} on {joined(accounts, 'and')}")
    return found


def _grants(facts: RequestFacts, misses: list[Miss]) -> Iterator[str]:
    nearest = [miss for miss in misses if miss.rule.verb.grants]
    for miss in nearest[:2]:
        reasons = " and ".join(miss.reasons)
        yield f"Rule {miss.rule.name} ({miss.rule.position}) would allow it, but {reasons}."
    if not nearest:
        port = "" if facts.port == OWN_PORTS[facts.scheme] else f", ports: {facts.port}"
        scheme = "" if facts.scheme in ("https", "wss") else f", schemes: {facts.scheme}"
        upgrade = ", websocket: {}" if facts.scheme in UPGRADES else ""
        asked = f"to: {facts.host.name}, methods: [{facts.method}]{scheme}{port}{upgrade}"
        yield f"No rule allows anything to {facts.host.name}: it needs an allow with {asked}."


def _called(rule: Rule) -> str:
    return f"rule {rule.name}" if rule.verb not in (Verb.NEVER, Verb.LIMIT) else rule.name


def _unbound(tier: Tier, facts: RequestFacts) -> tuple[str, ...]:
    if binds(tier, facts.agent.id):
        return ()
    return (f"its tier is for {_listed([pattern.text for pattern in tier.binds or ()])}",)


def _reasons(rule: Rule, facts: RequestFacts, address: Address) -> Iterator[str]:
    """Which keys of a rule do not fit the request, in words."""
    if rule.verb.grants and rule.where.agents is None and facts.agent.id == ANONYMOUS:
        yield "it does not name anonymous in from"
    if rule.verb.grants and facts.scheme in UPGRADES and rule.terms.websocket is None:
        yield "it does not say websocket"
    yield from _misfits(rule.where, facts, address, every_reading=rule.verb.grants)
    if any(_pierces(hole, rule, facts, address) for hole in rule.holes):
        yield "its except covers this request"


def _pierces(hole: Conditions, rule: Rule, facts: RequestFacts, address: Address) -> bool:
    # A grant is lost when its hole holds under any reading; a refusal only when it holds under all of them.
    return _reaches(hole.to, facts, address, grants=False) and not any(
        _misfits(hole, facts, address, every_reading=not rule.verb.grants))


def _misfits(where: Conditions, facts: RequestFacts, address: Address, *, every_reading: bool) -> Iterator[str]:
    agent = facts.agent.id
    if where.agents is not None and not any(agent_matches(pattern, agent) for pattern in where.agents):
        yield f"the agent is {agent} and it wants {_listed([pattern.text for pattern in where.agents])}"
    if where.methods is not None and facts.method not in where.methods and not _is_first_call(where, facts):
        yield f"the method is {facts.method} and it wants {_listed(sorted(where.methods))}"
    if where.schemes is not None and facts.scheme not in where.schemes:
        yield f"the scheme is {facts.scheme} and it wants {_listed(sorted(where.schemes))}"
    if where.ports is not None and not any(each.first <= facts.port <= each.last for each in where.ports):
        yield f"the port is {facts.port} and it wants {_listed([_port(each) for each in where.ports])}"
    if where.paths is not None and not _fits_paths(where.paths, facts, every_reading=every_reading):
        yield f"the path is {facts.path.text} and it wants {_listed([glob.text for glob in where.paths])}"
    yield from _unfit_model(where, facts, wide=not every_reading)
    if where.address is not None and not any(range_contains(each, address) for each in where.address):
        yield f"the address is {address} and it wants {_listed([each.text for each in where.address])}"
    yield from _unfit_fields(where, facts, wide=not every_reading)
    yield from _untimely(where, facts.at)
    urls = [item for item in where.to or () if isinstance(item, UrlPattern)]
    if urls and len(urls) == len(where.to or ()) and not any(_fits_url(url, facts) for url in urls):
        yield f"the URL is another than {_listed([url.text for url in urls])}"


def _unfit_fields(where: Conditions, facts: RequestFacts, *, wide: bool) -> Iterator[str]:
    for part, name, comparison in compared(where):
        value = facts.fields.value(part, name)
        if not fits(comparison, value, wide=wide):
            what = "content type" if part is Part.CONTENT_TYPES else f"{_KINDS[part]} {name}"
            yield f"the {what} is {_read(value)} and it wants {_listed(comparison.spelled)}"


def _unfit_model(where: Conditions, facts: RequestFacts, *, wide: bool) -> Iterator[str]:
    """What keeps the request from being one of the calls that `llm:` means."""
    if where.llm is None:
        return
    near = [each for each in spread(Conditions(llm=where.llm), wide=wide)
            if facts.method in (each.methods or ()) and _is_call(each, facts, every_reading=not wide)]
    unfit = [list(_unfit_fields(each, facts, wide=wide)) for each in near]
    if not near:
        models = where.llm.models
        yield f"it is no call of {'a model' if models is None else f'the model {_listed(models)}'}"
    elif all(unfit):
        yield from unfit[0]


def _is_call(where: Conditions, facts: RequestFacts, *, every_reading: bool) -> bool:
    sets = path_sets(where)
    fits = [all(paths.has(segmented(reading), reading) for paths in sets) for reading in facts.path.readings]
    return all(fits) if every_reading else any(fits)


def _is_first_call(where: Conditions, facts: RequestFacts) -> bool:
    """True for a call with which clients begin: it has a method of its own."""
    calls = () if where.llm is None else where.llm.calls
    return any(call.method == facts.method and _fits_paths((call.path,), facts, every_reading=True) for call in calls)


_KINDS = {Part.QUERY: "query field", Part.HEADERS: "header", Part.JSON: "JSON field", Part.FORM: "form field"}


def _read(value: Value) -> str:
    if isinstance(value, Gap):
        return f"unreadable ({value.why})"
    return "absent" if value is None else quote(value)


def _untimely(where: Conditions, at: int) -> Iterator[str]:
    if where.when is not None and not where.when.contains(at):
        yield f"the time is {told(at)} and it wants {where.when}"
    if where.expires is not None and at >= where.expires:
        yield f"it ended at {told(where.expires)}"


def _fits_url(url: UrlPattern, facts: RequestFacts) -> bool:
    return (url.scheme == facts.scheme and url.port == facts.port
            and _fits_paths((url.path,), facts, every_reading=True))


def _fits_paths(globs: tuple[PathGlob, ...], facts: RequestFacts, *, every_reading: bool) -> bool:
    fits = [any(path_matches(glob, reading) for glob in globs) for reading in facts.path.readings]
    return all(fits) if every_reading else any(fits)


def _reaches(to: tuple[Destination, ...] | None, facts: RequestFacts, address: Address, *, grants: bool) -> bool:
    return to is None or any(_covers(item, facts, address, grants=grants) for item in to)


def _covers(item: Destination, facts: RequestFacts, address: Address, *, grants: bool) -> bool:
    host = item.host if isinstance(item, UrlPattern) else item
    if isinstance(host, HostPattern):
        return host_matches(host, facts.host)
    return range_contains(host, address) and not (grants and facts.host.address is None)


def _listed(items: Iterable[str]) -> str:
    return joined(items, "or", _SHOWN_ITEMS)


def _port(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"

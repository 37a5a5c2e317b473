"""A policy in sentences, for a reader who does not program: what each rule says, and the words for its parts.

A condition is one function in `_PARTS`; so is a measure in `_MEASURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain

from kernel.account_prose import budget_in_words, counters_in_words, prices_in_words, rates_in_words
from kernel.budget import Unit
from kernel.cascade_prose import cascade_in_words
from kernel.comparison import Comparison, Field, Interval
from kernel.dns import SERVICE_TYPES, Dns
from kernel.document import joined, printable
from kernel.hours import clock, told
from kernel.identity_prose import identity_in_words
from kernel.measures import Terms
from kernel.normal import OWN_PORTS
from kernel.policy import (
    AddressRange,
    AgentPattern,
    Assertion,
    Conditions,
    Destination,
    HostPattern,
    HostReach,
    PathGlob,
    Policy,
    PortRange,
    Position,
    Rule,
    UrlPattern,
    Verb,
)
from kernel.vocabulary import READS, WRITES
from kernel.words import PERIODS, Groups, agents_in_words, amount_in_words, capital, rate_in_words, size_in_words

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, with the item that it is about; None where it is about the whole policy."""

    text: str
    rule: str | None = None
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Paragraph:
    title: str
    sentences: tuple[Sentence, ...]


def in_words(policy: Policy) -> list[Paragraph]:
    """The whole policy: what holds for all, each group of agents, what nobody may, caps, budgets, assertions."""
    found = [
        Paragraph("In general", tuple(_in_general(policy))),
        *_for_agents(policy),
        Paragraph("Never, whatever a rule allows", tuple(_item(never, policy.groups) for never in policy.nevers)),
        Paragraph("Caps on what is allowed", tuple(_item(limit, policy.groups) for limit in policy.limits)),
        Paragraph("What agents may use up", tuple(
            Sentence(budget_in_words(each, policy.groups), each.name, each.position) for each in policy.budgets)),
        Paragraph("How often agents may ask", tuple(
            Sentence(rates_in_words(each, policy.groups), each.name, each.position) for each in policy.rates)),
        Paragraph("What is counted of every agent", tuple(map(Sentence, counters_in_words(policy)))),
        Paragraph("What models cost here", tuple(map(Sentence, prices_in_words(policy)))),
        Paragraph("Names that are looked up", tuple(_looked_up(policy))),
        Paragraph("When an agent is halted", tuple(map(Sentence, cascade_in_words(policy.cascade)))),
        Paragraph("Checked at each load", (
            *(_asserted(assertion) for assertion in policy.assertions),
            *(_claimed(claim, policy.groups) for claim in policy.claims))),
    ]
    return [paragraph for paragraph in found if paragraph.sentences]


def _in_general(policy: Policy) -> Iterator[Sentence]:
    if policy.observed_until is not None:
        yield Sentence(f"Until {told(policy.observed_until)} this policy is on trial: what its rules refuse passes and "
                       "is written down. Refused is what stands under never, what ends an agent, and inside addresses.")
    yield Sentence("What nothing below allows is refused. The order of the rules does not matter: a refusal beats "
                   "whatever allows the same request.")
    yield from _tiers(policy)
    yield from map(Sentence, identity_in_words(policy.identity))
    if policy.contact:
        yield Sentence(f"Whoever is refused is told to ask {policy.contact}.")
    if any("*" in text for text in _globs(policy)):
        yield Sentence("In a path, * stands for any characters within one part and ** for any number of parts; in the "
                       "name of an agent, * stands for any characters.")


def _tiers(policy: Policy) -> Iterator[Sentence]:
    if len(policy.tiers) > 1:
        yield Sentence("Each tier narrows: what an agent asks must be allowed by every tier that binds it, and refused "
                       "by none.")
    for tier in policy.tiers:
        if policy.narrows or tier.passes:
            whom = "every agent" if tier.binds is None else agents_in_words(tier.binds, policy.groups)
            only = "; it only refuses and caps" if tier.passes else ""
            yield Sentence(printable(f"Tier {tier.name} ({tier.file}) binds {whom}{only}."))


def _looked_up(policy: Policy) -> Iterator[Sentence]:
    """What each tier says of names, where it says something."""
    for tier, said in zip(policy.tiers, policy.dns, strict=True):
        if said is not None:
            whose = f"Tier {tier.name}: " if len(policy.tiers) > 1 else ""
            yield Sentence(f"{whose}{_dns(said)}")


def _dns(said: Dns) -> str:
    if not said.answers:
        return "No name is answered."
    types = joined(sorted(said.types), "and") if said.types else "no type"
    services = sorted(said.types & SERVICE_TYPES)
    return (f"Only names to which some rule could lead are answered, with records of {types}, where they have at most "
            f"{said.most_labels:,} labels and {said.most_characters:,} characters, or are written out here."
            + (f" {joined(services, 'and')} are answered as absent." if services else ""))


def _globs(policy: Policy) -> Iterator[str]:
    for rule in policy.items:
        for where in (rule.where, *rule.holes):
            yield from (pattern.text for pattern in where.agents or ())
            yield from (glob.text.removesuffix("/**") for glob in where.paths or ())
            yield from (item.path.text.removesuffix("/**") for item in where.to or () if isinstance(item, UrlPattern))


def _for_agents(policy: Policy) -> Iterator[Paragraph]:
    """A paragraph for each set of agents that rules speak of, in the order of the policy."""
    said: dict[tuple[AgentPattern, ...] | None, list[Rule]] = {}
    for rule in policy.rules:
        said.setdefault(rule.where.agents, []).append(rule)
    for agents, rules in said.items():
        title = "Every agent" if agents is None else agents_in_words(agents, policy.groups, members=True)
        yield Paragraph(title, tuple(_item(rule, policy.groups) for rule in rules))


def _item(rule: Rule, groups: Groups) -> Sentence:
    """What one rule, never or limit says."""
    said = f"{_OPENINGS[rule.verb]} {_request(rule.where, grants=rule.verb.grants)}"
    if rule.verb is Verb.LIMIT and rule.where.agents is not None:
        said += f" by {agents_in_words(rule.where.agents, groups)}"
    caps = [part for measure in _MEASURES if (part := measure(rule.terms)) is not None]
    sentences = ["; ".join([said, *(f"except {_hole(hole, groups)}" for hole in rule.holes)])]
    sentences += [capital(", ".join(caps))] if caps else []
    sentences += [f"At most {rate_in_words(rule.rate)}"] if rule.rate is not None else []
    sentences += [f"Each costs its agent {amount_in_words(Unit.RISK, rule.risk)}"] if rule.risk else []
    sentences += ["Paths are secrets there: none is kept"] if rule.secret_paths else []
    sentences += ["It is no news: one in an hour is written down, and the others are counted"] if rule.quiet else []
    sentences += [_ON_TRIAL] if rule.observed else []
    sentences += [f'The agent is told: "{rule.tell}"'] if rule.tell else []
    sentences += [f"Why: {printable(rule.why)}"] if rule.why else []
    return Sentence(" ".join(f"{each.rstrip('.')}." for each in sentences), rule.name, rule.position)


_ON_TRIAL = "It is on trial: nothing is refused for it, and that it holds is written down"
_OPENINGS = {
    Verb.ALLOW: "Allowed:",
    Verb.ASK: "A human is asked about:",
    Verb.THROTTLE: "Allowed at a slower pace:",
    Verb.DENY: "Refused:",
    Verb.HALT: "This ends an agent until an operator releases it:",
    Verb.NEVER: "Never:",
    Verb.LIMIT: "For",
}


def _request(where: Conditions, *, grants: bool) -> str:
    """The requests that conditions speak of, whoever makes them."""
    return ", ".join([methods_in_words(where.methods) + _to(where, grants=grants), *_parts(where)])


def _hole(where: Conditions, groups: Groups) -> str:
    """The requests that an exception speaks of, and who makes them."""
    head = methods_in_words(where.methods) if where.methods is not None or where.to is not None else ""
    by = [] if where.agents is None else [f"by {agents_in_words(where.agents, groups)}"]
    return ", ".join([*filter(None, [head + _to(where, grants=False)]), *_parts(where), *by])


def _to(where: Conditions, *, grants: bool) -> str:
    if where.to is None:
        return ""
    told = [destination_in_words(item) if grants or not isinstance(item, AddressRange)
            # What refuses judges where a name leads, too.
            else f"whatever leads to {destination_in_words(item)}" for item in where.to]
    return f" to {joined(told, 'or')}"


def _parts(where: Conditions) -> Iterator[str]:
    return (part for function in _PARTS if (part := function(where)) is not None)


def _paths(where: Conditions) -> str | None:
    if where.paths is None:
        return None
    return f"where the path is {joined([path_in_words(glob) for glob in where.paths], 'or')}"


def _address(where: Conditions) -> str | None:
    if where.address is None:
        return None
    return f"where the name leads to {joined([_range(each) for each in where.address], 'or')}"


def _schemes(where: Conditions) -> str | None:
    return None if where.schemes is None else f"over {joined(sorted(where.schemes), 'or')}"


def _ports(where: Conditions) -> str | None:
    usual = {PortRange(OWN_PORTS[scheme], OWN_PORTS[scheme]) for scheme in where.schemes or ()}
    if where.ports is None or set(where.ports) == usual:
        return None
    return f"on port {joined([_port(each) for each in where.ports], 'or')}"


def _query(where: Conditions) -> str | None:
    return _fields("the query's", where.query)


def _headers(where: Conditions) -> str | None:
    return _fields("the header", where.headers)


def _content_types(where: Conditions) -> str | None:
    return None if where.content_types is None else f"where the content type is {_compared(where.content_types)}"


def _json(where: Conditions) -> str | None:
    return _fields("the JSON body's", where.json)


def _form(where: Conditions) -> str | None:
    return _fields("the form's", where.form)


def _fields(part: str, said: Sequence[Field] | None) -> str | None:
    if said is None:
        return None
    return f"where {joined([f'{part} {printable(each.name)} is {_compared(each.values)}' for each in said], 'and')}"


def _compared(values: Comparison) -> str:
    """What a field may be, in words."""
    told = [_interval(interval) for interval in values.intervals]
    told += ["anything that can be read" if glob == "*" else f'"{glob}"' for glob in values.globs]
    return joined([*told, *(["absent"] if values.absent else [])], "or")


def _interval(interval: Interval) -> str:
    if interval.low is None:
        return f"{'below' if interval.high_open else 'at most'} {interval.high}"
    if interval.high is None:
        return f"{'above' if interval.low_open else 'at least'} {interval.low}"
    return f"from {interval.low} to {interval.high}"


def _llm(where: Conditions) -> str | None:
    if where.llm is None:
        return None
    models = where.llm.models
    asked = "any model" if models is None else f"the model{'' if len(models) == 1 else 's'} {joined(models, 'or')}"
    return f"only calls of {asked}{' and the harmless calls with which clients begin' if where.llm.calls else ''}"


def _when(where: Conditions) -> str | None:
    if where.when is None:
        return None
    window = where.when
    days = "on every day" if len(window.days) == len(_DAYS) else f"on {joined(_runs(window.days), 'and')}"
    hours = "" if window.is_whole_day else f" from {clock(window.first_minute)} to {clock(window.last_minute)}"
    dates = [date.fromordinal(day).isoformat() for day in sorted(window.not_on)]
    return f"{days}{hours} by the clocks of {window.zone.name}{f' but not on {joined(dates, "or")}' if dates else ''}"


def _runs(days: Iterable[int]) -> list[str]:
    """Days by name, three or more in a row by the first and the last."""
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    told = ([f"{_DAYS[run[0]]} to {_DAYS[run[-1]]}"] if len(run) > 2 else [_DAYS[day] for day in run] for run in runs)
    return list(chain.from_iterable(told))


def _expires(where: Conditions) -> str | None:
    return None if where.expires is None else f"until {told(where.expires)}"


_PARTS: tuple[Callable[[Conditions], str | None], ...] = (
    _paths, _llm, _query, _headers, _content_types, _json, _form, _address, _schemes, _ports, _when, _expires,
)  # fmt: skip


def conditions_in_words(where: Conditions) -> str:
    """What a rule asks beside agent, destination, method and path; nothing where it is just https."""
    return ", ".join(part for part in _parts(replace(where, paths=None)) if part != "over https")


def methods_in_words(methods: frozenset[str] | None) -> str:
    """`reading (GET, HEAD or OPTIONS)`, `POST requests`, `any request`."""
    if methods is None:
        return "any request"
    listed = joined(sorted(methods), "or")
    if methods in (READS, WRITES):
        return f"{'reading' if methods == READS else 'writing'} ({listed})"
    return f"{listed} requests"


def destination_in_words(item: Destination) -> str:
    """A destination with its dots and stars spelled out."""
    match item:
        case HostPattern():
            return _host(item)
        case AddressRange():
            return _range(item)
        case UrlPattern():
            host = _host(item.host) if isinstance(item.host, HostPattern) else _range(item.host)
            port = "" if item.port == OWN_PORTS[item.scheme] else f", port {item.port}"
            path = "" if item.path.text == "/**" else f", path {path_in_words(item.path)}"
            return f"{host} (over {item.scheme}{port}{path})"


def _host(pattern: HostPattern) -> str:
    spelled = {
        HostReach.EXACT: "{}",
        HostReach.BELOW: "everything below {} (not {} itself)",
        HostReach.SELF_AND_BELOW: "{} and everything below it",
    }
    return spelled[pattern.reach].replace("{}", pattern.name)


def _range(spread: AddressRange) -> str:
    single = len(spread.networks) == 1 and spread.networks[0].first == spread.networks[0].last
    if single:
        return f"the address {spread.text}"
    return f"the addresses in {spread.text}" if "/" in spread.text else f"the {spread.text} addresses"


def path_in_words(glob: PathGlob) -> str:
    """`/a/**` as what it is; other stars stay, and mean what the page on policies says."""
    if glob.text == "/**":
        return "any"
    return f"{glob.text[:-3]} and everything below it" if glob.text.endswith("/**") else glob.text


def _port(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first} to {ports.last}"


def _max_request(terms: Terms) -> str | None:
    if terms.max_request == 0:
        return "without a body"
    return None if terms.max_request is None else f"a request's body at most {size_in_words(terms.max_request)}"


def _max_response(terms: Terms) -> str | None:
    return None if terms.max_response is None else f"an answer's body at most {size_in_words(terms.max_response)}"


def _max_url(terms: Terms) -> str | None:
    return None if terms.max_url is None else f"a URL at most {size_in_words(terms.max_url)}"


def _in_flight(terms: Terms) -> str | None:
    return None if terms.in_flight is None else f"at most {terms.in_flight} at a time"


def _websocket(terms: Terms) -> str | None:
    if terms.websocket is None:
        return None
    frame, rate = terms.websocket.max_frame_bytes, terms.websocket.max_rate
    caps = [f"messages of at most {size_in_words(frame)}"] if frame is not None else []
    caps += [f"at most {rate.count} messages {PERIODS[rate.seconds]}"] if rate is not None else []
    return " with ".join(["the connection may become a WebSocket", *([joined(caps, "and")] if caps else [])])


def _streaming(terms: Terms) -> str | None:
    return "the body goes out while it is still coming in" if terms.stream_request else None


def _max_output(terms: Terms) -> str | None:
    return None if terms.max_output_tokens is None else f"a model's answer at most {terms.max_output_tokens:,} tokens"


def _min_output(terms: Terms) -> str | None:
    if terms.min_output_tokens is None:
        return None
    return f"a model's answer cut down to no fewer than {terms.min_output_tokens:,} tokens where a budget pays for less"


_MEASURES: tuple[Callable[[Terms], str | None], ...] = (
    _max_request, _max_response, _max_url, _in_flight, _websocket, _streaming, _max_output, _min_output,
)  # fmt: skip


def _asserted(assertion: Assertion) -> Sentence:
    request = f"{assertion.agent} {assertion.method} {printable(assertion.url)}"
    where = "" if assertion.address is None else f", at the address {assertion.address},"
    wanted = "allowed" if assertion.allowed else "refused"
    return Sentence(f"The request {request}{where} must be {wanted}.", None, assertion.position)


def _claimed(claim: Rule, groups: Groups) -> Sentence:
    by = "" if claim.where.agents is None else f" by {agents_in_words(claim.where.agents, groups)}"
    wanted = "allowed" if claim.verb.grants else "refused"
    holes = "".join(f"; except {_hole(hole, groups)}" for hole in claim.holes)
    said = f"All of this must be {wanted}: {_request(claim.where, grants=claim.verb.grants)}{by}{holes}."
    return Sentence(said, None, claim.position)

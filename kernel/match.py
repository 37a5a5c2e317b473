"""The index of a policy: which rules hold for a request, found without looking at the rest.

A rule is split into entries, one for each item of its `to` and each kind of call that its `llm:` means; each entry is
filed under its host or its range of addresses, and there by the words it cannot do without (kernel/bucket.py). What a
range in `to` judges: in the conditions of a grant only a host that is an address literal, everywhere else the address
of the point.
`tests/kernel/reference_matcher.py` says the same slowly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kernel.bucket import Bucket, agent_feature, bucket, path_feature
from kernel.clause import CERTAIN, Hole, Shape, Shared, compared, field_test, inside, parents, path_sets
from kernel.glob import joined
from kernel.measures import DEFAULT, NOTHING_SAID
from kernel.model_calls import spread
from kernel.one_rule import hosts_of, measures_of, opens, verdict_of
from kernel.places import Place, Places
from kernel.policy import AddressRange, HostReach, UrlPattern, Verb
from kernel.tiers import asked, suffice
from kernel.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.bucket import Features
    from kernel.clause import Agents, Residue
    from kernel.facts import Address, Host, RequestFacts
    from kernel.fields import Fields
    from kernel.measures import Measures
    from kernel.policy import Conditions, Destination, Policy, Rule

_LAST_PORT = 65535
_REMEMBERED_HOSTS = 32768
_REMEMBERED_MEASURES = 4096
_REMEMBERED_AGENTS = 4096


class Pending(NamedTuple):
    """An entry that holds at an address with which `must` is content, and none of `holes`."""

    rule: int
    grants: bool
    must: Residue
    holes: tuple[Residue, ...]

    def holds(self, address: Address, inner: tuple[Address, ...]) -> bool:
        # What refuses also looks at embedded addresses: the range of a refusal, the hole of a grant.
        judged, pierced = ((), inner) if self.grants else (inner, ())
        return inside(self.must, address, judged) and not any(inside(hole, address, pierced) for hole in self.holes)


class Entry:
    """A rule at one item of its `to`. Where it is filed says that the host or the range of that item fits."""

    __slots__ = (
        "_address", "_bound", "_fields", "_gate", "_holes", "_item", "_literal", "_paths", "_phase", "_verb", "_where",
        "certain", "grants", "rule",
    )

    def __init__(
        self, certain: Pending, rule: Rule, item: Destination | None, holes: tuple[Hole, ...], shared: Shared,
        bound: Agents, where: Conditions,
    ) -> None:
        self.certain, self.rule, self.grants = certain, certain.rule, certain.grants
        self._where, self._verb, self._item, self._holes, self._bound = where, rule.verb, item, holes, bound
        url = item if isinstance(item, UrlPattern) else None
        # What leaves is let out by no more than was asked for: a grant covers a WebSocket where it says `websocket:`.
        upgrades = not self.grants or rule.terms.websocket is not None
        self._gate = shared.gate(where, url, bound, everyone=not self.grants, upgrades=upgrades)
        self._paths = path_sets(where, url)
        self._address = shared.address(where)
        self._fields = field_test(where, wide=not self.grants)
        self._phase = shared.phase(where, of_grant=self.grants)
        self._literal = self.grants and item is not None and isinstance(hosts_of(item), AddressRange)

    def features(self) -> Features:
        """What a request must have for this entry to hold."""
        where, item = self._where, self._item
        agents = tuple([agent_feature(each) for each in (where.agents, self._bound) if each is not None])
        paths = tuple([path_feature(each) for each in (where.paths, where.calls) if each is not None])
        return (*agents, *paths, path_feature((item.path,))) if isinstance(item, UrlPattern) else (*agents, *paths)

    def asked(
        self, shape: Shape, host: Host, text: str, segments: tuple[str, ...], fields: Fields
    ) -> Pending | None:
        """What is left to ask of the address; None where no address makes the entry hold."""
        if not self._gate[shape] or (self._literal and host.address is None):
            return None
        for paths in self._paths:
            if not paths.has(text, segments):
                return None
        if self._fields is not None and not self._fields.passes(fields):
            return None
        if self._phase is not None and not self._phase.now:
            return None
        if not self._holes:
            return Pending(self.rule, self.grants, self._address, ()) if self._address else self.certain
        left = [hole.residue(shape, host, text, segments, fields) for hole in self._holes]
        holes = tuple([residue for residue in left if residue is not None])
        if CERTAIN in holes:
            return None
        return Pending(self.rule, self.grants, self._address, holes) if self._address or holes else self.certain

    @property
    def refuses(self) -> bool:
        return self._verb.refuses

    @property
    def enforced(self) -> bool:
        """True for what refuses also while a policy is on trial."""
        return self._verb in (Verb.NEVER, Verb.HALT)

    @property
    def is_over(self) -> bool:
        """True when its end has come: no hour of it is still to come."""
        return self._phase is not None and not (self._phase.now or self._phase.waits)

    @property
    def edges(self) -> frozenset[int]:
        """The ports at which it may begin or end to hold."""
        return self._gate.edges.union(*[hole.edges for hole in self._holes])

    def may_hold(self, agent: str, host: Host, port: int, at: Address | None = None) -> bool:
        """True when this entry can hold for a request of the agent to this host and port, at some address or this."""
        return (
            self._gate.may(agent, port)
            and not (self._literal and host.address is None)
            and (at is None or inside(self._address, at, ()))
            and not any(hole.swallows(agent, host, port) for hole in self._holes)
        )

    def holds_always(self, agent: str, port: int, at: Address | None = None, inner: tuple[Address, ...] = ()) -> bool:
        """True when this entry holds for every request of the agent to this port, whatever the address; or at this
        one, in which those of `inner` are embedded."""
        if self._paths or self._holes or self._fields is not None or self._phase is not None:
            return False
        if self._address and (at is None or not inside(self._address, at, inner)):
            return False
        return self._gate.whole(agent, port)


# One reading of a request's path: its shape, text and segments, the rules that hold at every address, the entries that
# hang on the address, and the request's fields. A bare tuple, because one is made for every request.
Reading = tuple[Shape, str, tuple[str, ...], tuple[int, ...], Sequence[Pending], "Fields"]
Candidates = tuple[Reading, ...]


class Index:
    """A policy made ready for judging. `rules` are its rules and nevers in the order of the policy, then its limits.

    `least_request` and `least_url` are the smallest caps of the policy: what is no larger is under all of them.
    `needs_fields` and `needs_body` say whether some rule compares any field of a request, or one of its body.
    `quiet` and `observed` are the names of the refusals that say so, `timed` says whether anything of it has a time,
    `tiered` whether it has more than one tier. `says_one`: no rule says of a name something else than of an address.
    """

    def __init__(self, policy: Policy) -> None:
        self._tiers, self.tiered = policy.tiers, len(policy.tiers) > 1
        self._asked: dict[str, frozenset[int]] = {}
        deciding = sorted((*policy.nevers, *policy.rules), key=_number)
        self.rules = (*deciding, *sorted(policy.limits, key=_number))
        # Of what each rule says where the host is an address, and where it is a name.
        self._literal, self._named_says = (
            tuple([verdict_of(rule, literal=literal) for rule in deciding]) for literal in (True, False))
        self.says_one = self._literal == self._named_says
        self._limits_from = len(deciding)
        terms = [rule.terms for rule in self.rules if rule.terms is not NOTHING_SAID]
        self._has_terms = bool(terms)
        asked = [each for rule in self.rules for each in (rule.where, *rule.holes)]
        parts = {part for each in asked for one in spread(each, wide=False) if one.compares_fields
                 for part, _, _ in compared(one)}
        self.needs_fields, self.needs_body = bool(parts), any(part.in_body for part in parts)
        sizes = [each.max_request for each in terms if each.max_request is not None]
        self.least_request = min([DEFAULT.max_request.most, *sizes])
        self.least_url = min([each.max_url for each in terms if each.max_url is not None], default=None)
        self._measures: dict[tuple[int, ...], Measures] = {}
        self._names = tuple(rule.name for rule in self.rules)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self.quiet = frozenset(rule.name for rule in self.rules if rule.quiet)
        self.observed = frozenset(rule.name for rule in self.rules if rule.observed)
        self._silent = frozenset(number for number, rule in enumerate(self.rules) if rule.observed)
        self._shared = Shared()
        self._places: Places[Entry] = Places()
        exact: defaultdict[str, list[Entry]] = defaultdict(list)
        below: defaultdict[str, list[Entry]] = defaultdict(list)
        everywhere: list[Entry] = []
        for number, rule in enumerate(self.rules):
            for item, entry in self._entries(number, rule):
                host = None if item is None else hosts_of(item)
                if isinstance(host, AddressRange):
                    self._places.add(host, entry, inner=not entry.grants)
                elif host is None:
                    everywhere.append(entry)
                else:
                    if host.reach is not HostReach.BELOW:
                        exact[host.name].append(entry)
                    if host.reach is not HostReach.EXACT:
                        below[host.name].append(entry)
        self._places.close()
        self._phases = tuple(self._shared.phases.values())
        self._of_grants = tuple([phase for (*_, of_grant), phase in self._shared.phases.items() if of_grant])
        self.timed = bool(self._phases)
        # Within [since, until) no time of the policy begins or ends.
        self._since = self._until = 0
        self._exact = {name: bucket(entries) for name, entries in exact.items()}
        self._below = {name: bucket(entries) for name, entries in below.items()}
        self._everywhere = (bucket(everywhere),) if everywhere else ()
        self._hosts: dict[str, tuple[Bucket[Entry], ...]] = {}
        # The name stage and the address stage ask about the same request, mostly one right after the other.
        self._last: tuple[RequestFacts, Candidates] | None = None

    def _entries(self, number: int, rule: Rule) -> Iterator[tuple[Destination | None, Entry]]:
        grants = rule.verb.grants
        holes = tuple([Hole(one, self._shared, of_grant=grants)
                       for each in rule.holes for one in spread(each, wide=grants)])
        certain = Pending(number, grants, CERTAIN, ())
        for where in spread(rule.where, wide=not grants):
            for item in (None,) if where.to is None else where.to:
                yield item, Entry(certain, rule, item, holes, self._shared, self._tiers[rule.tier].binds, where)

    def by_name(self, facts: RequestFacts) -> Candidates:
        """What the request's own words say, before any address is known."""
        if self.timed:
            self._turn(facts.at)
        last = self._last
        if last is not None and last[0] is facts:
            return last[1]
        found = self._candidates(facts)
        self._last = (facts, found)
        return found

    def _turn(self, at: int) -> None:
        """Have everything that has a time hold or not as it does at a moment."""
        if not self._since <= at < self._until:
            self._until = min([phase.turn(at) for phase in self._phases])
            self._since = at

    def _candidates(self, facts: RequestFacts) -> Candidates:
        buckets = self._named(facts.host)
        path = facts.path
        found: Candidates = (_reading(buckets, facts, path.text, path.segments),)
        if path.split is not None:
            found += (_reading(buckets, facts, joined(path.split), path.split),)
        return found

    def changes(self, at: int) -> int:
        """The next moment at which something of this policy may begin or end to hold."""
        self._turn(at)
        return self._until

    def out_of_hours(self, facts: RequestFacts, address: Address | None) -> list[Rule]:
        """The grants that would hold if all hours of grants had come; at some address, where none is given."""
        self._turn(facts.at)
        waiting = [phase for phase in self._of_grants if phase.waits]
        if not waiting:
            return []
        for phase in waiting:
            phase.now = True
        try:
            candidates = self._candidates(facts)
            held = self._possible_grants(candidates) if address is None else self.at(facts, candidates, address)
        finally:
            for phase in waiting:
                phase.now = False
        rules = [self.rules[number] for number in sorted(held)]
        return [rule for rule in rules if rule.verb.grants and not rule.where.in_effect(facts.at)]

    def _named(self, host: Host) -> tuple[Bucket[Entry], ...]:
        """The buckets of the host's name and of what lies above it, and the one for every host."""
        if host.address is not None:
            return self._everywhere
        found = self._hosts.get(host.name)
        if found is None:
            found = self._look_up(host.name)
            if len(self._hosts) >= _REMEMBERED_HOSTS:
                self._hosts.clear()
            self._hosts[host.name] = found
        return found

    def _look_up(self, name: str) -> tuple[Bucket[Entry], ...]:
        own = (self._exact[name],) if name in self._exact else ()
        above = (self._below[parent] for parent in parents(name) if parent in self._below)
        return (*own, *above, *self._everywhere)

    def place(self, address: Address) -> Place[Entry]:
        """The address as this index knows it."""
        return self._places.at(address)

    def at(self, facts: RequestFacts, candidates: Candidates, address: Address) -> tuple[int, ...]:
        """The numbers of the rules that hold at this address, in the order of the policy."""
        place = self._places.at(address)
        if len(candidates) == 1:
            reading = candidates[0]
            if not reading[4] and not place.buckets:
                return reading[3]
            return tuple(sorted(_held(reading, facts.host, place, address)))
        first, second = (_held(reading, facts.host, place, address) for reading in candidates)
        return self.join(first, second)

    def certain(self, candidates: Candidates) -> tuple[int, ...]:
        """The rules that hold whatever the address."""
        return candidates[0][3] if len(candidates) == 1 else self.join(*(reading[3] for reading in candidates))

    def asked(self, agent_id: str) -> frozenset[int]:
        """The tiers of which each must grant what the agent asks."""
        found = self._asked.get(agent_id)
        if found is None:
            found = asked(self._tiers, agent_id)
            if len(self._asked) >= _REMEMBERED_AGENTS:
                self._asked.clear()
            self._asked[agent_id] = found
        return found

    def may_grant(self, agent_id: str, candidates: Candidates) -> bool:
        """True when at some address a grant may hold, and one of each tier that must grant."""
        return self._suffice(agent_id, self._possible_grants(candidates))

    def _suffice(self, agent_id: str, grants: Sequence[int]) -> bool:
        if not self.tiered:
            return bool(grants)
        return suffice(self.asked(agent_id), [self.rules[number] for number in grants])

    def possible_grants(self, candidates: Candidates) -> list[Rule]:
        """The grants that may hold at some address."""
        return [self.rules[number] for number in self._possible_grants(candidates)]

    def _possible_grants(self, candidates: Candidates) -> list[int]:
        held = ({*certain, *(each.rule for each in pending)} for *_, certain, pending, _ in candidates)
        return [number for number in set.intersection(*held) if self.rules[number].verb.grants]

    def at_best(self, candidates: Candidates) -> tuple[int, ...]:
        """The grants that may hold at some address, and the limits that hold at every address."""
        limits = [number for number in self.certain(candidates) if number >= self._limits_from]
        return (*sorted(self._possible_grants(candidates)), *limits)

    def verdicts(self, numbers: Iterable[int], *, literal: bool) -> list[Verdict]:
        """What these rules say of a host that is an address, or a name. Limits and denies on trial say nothing."""
        said = self._literal if literal else self._named_says
        if self._silent:
            numbers = [number for number in numbers if number not in self._silent]
        return [said[number] for number in numbers if number < self._limits_from]

    def measures(self, numbers: tuple[int, ...]) -> Measures:
        """What applies where these rules hold."""
        if not self._has_terms:
            return DEFAULT
        found = self._measures.get(numbers)
        if found is None:
            found = measures_of([self.rules[number] for number in numbers])
            if len(self._measures) >= _REMEMBERED_MEASURES:
                self._measures.clear()
            self._measures[numbers] = found
        return found

    def told(self, name: str | None) -> str | None:
        """What the rule of this name tells the agent."""
        return None if name is None else self.rules[self._numbers[name]].tell

    def join(self, first: Iterable[int], second: Iterable[int]) -> tuple[int, ...]:
        """What holds under two readings: a grant must hold under both, a refusal under either."""
        one, two = frozenset(first), frozenset(second)
        return tuple(sorted(n for n in one | two if not self.rules[n].verb.grants or (n in one and n in two)))

    def names(self, numbers: tuple[int, ...]) -> tuple[str, ...]:
        """The ids of these rules."""
        return tuple([self._names[number] for number in numbers])

    def rank(self, name: str | None) -> int:
        """Where in the policy the rule stands; what no rule says stands before all of them."""
        return -1 if name is None else self._numbers[name]

    def connect_reaches(self, agent_id: str, host: Host, port: int) -> bool:
        """False only when every request of the agent to this host and port would be refused, whatever the address."""
        return self._may_pass(self._about(host, host.address), agent_id, host, port, host.address)

    def name_reaches(self, agent_id: str, name: Host, at: int, address: Address | None = None, *,
                     on_trial: bool = False) -> bool:
        """False only when every request of the agent to this name would be refused, whatever its port.

        `at` is the second since 1970; hours that are still to come count as come. With `address` the name is taken to
        lead there and nowhere else. `on_trial`: what passes in spite of its refusal counts as passing.
        """
        entries = self._of_name(name, at, address)
        if not on_trial and not any(entry.grants for entry in entries):
            return False
        return any(self._may_pass(entries, agent_id, name, port, address, on_trial=on_trial)
                   for port in _ports(entries))

    def is_named(self, name: Host) -> bool:
        """True when some item of the policy has this very name."""
        return name.name in self._exact

    def name_refusals(self, agent_id: str, name: Host, at: int) -> tuple[int, ...]:
        """The rules that refuse every request of the agent to this name, whatever its port and address."""
        entries = self._of_name(name, at)
        ports = _ports(entries)
        return tuple(sorted({entry.rule for entry in entries if entry.refuses and all(
            entry.holds_always(agent_id, port) for port in ports)}))

    def _of_name(self, name: Host, at: int, address: Address | None = None) -> list[Entry]:
        """What may be said of a name at a second, where it leads to this address."""
        if self.timed:
            self._turn(at)
        return [entry for entry in self._about(name, address) if not entry.is_over]

    def _about(self, host: Host, address: Address | None) -> list[Entry]:
        """What may be said of a host, and of this address; what a rule on trial says is not said."""
        buckets = self._named(host)
        if address is not None:
            buckets += self._places.at(address).buckets
        return [entry for each in buckets for entry in each.everything() if entry.rule not in self._silent]

    def _may_pass(self, entries: Sequence[Entry], agent_id: str, host: Host, port: int, at: Address | None, *,
                  on_trial: bool = False) -> bool:
        """False only when these refuse every request of the agent to this host and port, at any address or this one."""
        place = None if at is None else self._places.at(at)
        inner = () if place is None else place.inner
        if any(entry.refuses and (entry.enforced or not on_trial) and entry.holds_always(agent_id, port, at, inner)
               for entry in entries):
            return False
        hidden = place is not None and not place.is_global
        if on_trial and not hidden:
            return True
        granting = {entry.rule for entry in entries if entry.grants and entry.may_hold(agent_id, host, port, at)}
        if hidden and at is not None:
            literal = host.address is not None
            granting = {number for number in granting if opens(self.rules[number], at, literal=literal)}
        return self._suffice(agent_id, tuple(granting))


def _ports(entries: Sequence[Entry]) -> frozenset[int]:
    """Ports that stand for all: between one of them and the next, no entry begins or ends to hold."""
    return frozenset({1, *(port for entry in entries for port in entry.edges if port <= _LAST_PORT)})


def _number(rule: Rule) -> int:
    return rule.number


def _reading(buckets: Iterable[Bucket[Entry]], facts: RequestFacts, text: str, segments: tuple[str, ...]) -> Reading:
    host, fields = facts.host, facts.fields
    shape = (facts.agent.id, facts.method, facts.scheme, facts.port)
    certain: list[int] = []
    pending: list[Pending] = []
    for each in buckets:
        for entry in _gathered(each, shape[0], segments) if each.filed else each.always:
            asked = entry.asked(shape, host, text, segments, fields)
            if asked is None:
                continue
            if asked is entry.certain:
                certain.append(entry.rule)
            else:
                pending.append(asked)
    ordered = tuple(certain) if len(certain) < 2 else tuple(sorted(set(certain)))
    return shape, text, segments, ordered, pending, fields


def _gathered(each: Bucket[Entry], agent: str, segments: tuple[str, ...]) -> list[Entry]:
    found: list[Entry] = []
    each.gather(agent, segments, found)
    return found


def _held(reading: Reading, host: Host, place: Place[Entry], address: Address) -> set[int]:
    shape, text, segments, certain, pending, fields = reading
    held = set(certain)
    held.update(each.rule for each in pending if each.holds(address, place.inner))
    for each in place.buckets:
        for entry in _gathered(each, shape[0], segments):
            asked = entry.asked(shape, host, text, segments, fields)
            if asked is not None and asked.holds(address, place.inner):
                held.add(entry.rule)
    return held

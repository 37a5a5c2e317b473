"""The index and the decision say what the reference matcher says."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel import clause, match
from kernel.comparison import UNREAD, UNREADABLE, Gap
from kernel.decide import address_stage, expected, from_groups, name_stage
from kernel.facts import Address, RequestFacts
from kernel.fields import Fields
from kernel.hours import HORIZON_SECONDS, UTC_ZONE, Window
from kernel.match import Entry, Index
from kernel.measures import Cap, Measures, Terms, tightest
from kernel.pattern import address_range, agent_pattern, host_pattern, path_glob, url_pattern
from kernel.policy import Conditions, Policy, PortRange, Position, Rule, Tier, Verb
from kernel.question import facts_of
from kernel.tiers import binds
from kernel.verdict import Action, Code, Judgement, Verdict
from tests.conftest import scaled
from tests.kernel import reference_matcher as reference
from tests.kernel.strategies import (
    ADDRESSES,
    BODIES,
    MOMENTS,
    NAMED,
    PUBLIC_ADDRESSES,
    answers,
    asking_policies,
    asking_requests,
    compared_policies,
    crowded_policies,
    open_policies,
    policies,
    requests,
    tiered_policies,
)

PER_POLICY = 6
PASSING = ["x.com", "a.x.com", "8.8.8.8"]


def _agree(policy: Policy, data: st.DataObject, aimed: st.SearchStrategy, found_at: list[Address]) -> None:
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(aimed)
        addresses = data.draw(answers(facts, found_at))
        own = data.draw(st.frozensets(st.tuples(st.sampled_from(ADDRESSES[:6]), st.just(8443)), max_size=1))

        judged = address_stage(index, facts, addresses, own)
        wanted = reference.judge(policy, facts, addresses, set(own))

        slowed = judged.verdict.action is Action.THROTTLE
        found = reference.Answer(judged.verdict.code, judged.verdict.rule, judged.groups, judged.address, slowed)
        assert found == wanted
        assert judged.verdict.lets_through == (wanted.code is Code.ALLOW)
        out_of_hours = judged.verdict.code is Code.OUT_OF_HOURS
        if not out_of_hours and (judged.verdict.rule or not own):
            assert _again(policy, facts, judged) == judged.verdict
        if judged.verdict.lets_through:
            _lasts(policy, index, facts, addresses, own, judged)
            _measures_agree(policy, facts, addresses, judged.measures)


def _lasts(policy: Policy, index: Index, facts: RequestFacts, addresses: list[Address],
           own: frozenset[tuple[Address, int]], judged: Judgement) -> None:
    """Until its time is over, the judgement stays the same."""
    assert (judged.until is None) == (not index.timed)
    assert judged.until is None or judged.until > facts.at
    for at in MOMENTS:
        if facts.at <= at and (judged.until is None or at < judged.until):
            later = reference.judge(policy, replace(facts, at=at), addresses, set(own))
            assert (later.code, later.groups) == (judged.verdict.code, judged.groups)


def _again(policy: Policy, facts: RequestFacts, judged: Judgement) -> Verdict:
    literal = facts.host.address is not None
    rules = {rule.name: rule for rule in policy.items}
    return from_groups(rules, judged.groups, judged.address, literal, tiers=policy.tiers, agent=facts.agent.id,
                       scheme=facts.scheme, body_bytes=facts.body_bytes, url_bytes=facts.url_bytes)


def _measures_agree(policy: Policy, facts: RequestFacts, addresses: list[Address], found: Measures) -> None:
    held = [[rule for rule in policy.items if reference.holds_for(policy, rule, facts, address)]
            for address in addresses]
    split = [(reference.tier_by_tier(each), [rule for rule in each if rule in policy.limits]) for each in held]
    for measure in reference.UNSAID:
        cap = getattr(found, measure)
        wanted = min(reference.cap(measure, *each)[0] for each in split)
        assert (inf if cap is None else cap.most) == wanted
        assert cap is None or (wanted, cap.by) in [reference.cap(measure, *each) for each in split]
    assert found.min_output_tokens == max(
        min((rule.terms.min_output_tokens or 256 for rule in grants), default=256)
        for tiers, _ in split for grants in tiers)
    assert found.stream_request == all(
        any(rule.terms.stream_request for rule in grants) for tiers, _ in split for grants in tiers)
    websockets = [reference.websocket(tiers) for tiers, _ in split]
    if None in websockets:
        assert found.websocket is None
    else:
        frame, rate = found.websocket.max_frame_bytes, found.websocket.max_rate
        assert (inf if frame is None else frame) == min(frame for frame, _ in websockets)
        assert reference.per_second(rate) == min(rate for _, rate in websockets)


@settings(max_examples=scaled(36))
@given(policies, st.data())
def test_the_index_says_what_the_reference_says(policy, data):
    _agree(policy, data, requests(), ADDRESSES)


@settings(max_examples=scaled(48))
@given(asking_policies, st.data())
def test_rules_for_models_hold_for_the_calls_that_the_reference_says(policy, data):
    _agree(policy, data, asking_requests(), PUBLIC_ADDRESSES)


@settings(max_examples=scaled(24))
@given(crowded_policies, st.data())
def test_many_rules_on_one_host_are_told_apart_without_losing_one(policy, data):
    _agree(policy, data, requests(["x.com"]), ADDRESSES)


def test_many_rules_on_one_range_are_told_apart_by_agent_without_losing_one():
    names = [f"agent-{number}" for number in range(40)]
    ten = (address_range("10.0.0.0/8", NAMED),)
    rules = tuple(
        Rule(number, name, Verb.ALLOW, Conditions((agent_pattern(name),), ten), (), Position("p.yaml", number + 1, 1))
        for number, name in enumerate(names))
    index = Index(Policy("0" * 64, ("p.yaml",), rules))
    for name in names:
        judged = address_stage(index, facts_of(name, "GET", "https://10.1.2.3/"), [ADDRESSES[0]], frozenset())

        assert judged.groups == (name,)


def test_what_rules_say_alike_is_made_ready_once():
    shared, bound = clause.Shared(), (agent_pattern("a-*"),)
    said = [Conditions(**{key: value}) for key, value in (
        ("agents", bound), ("methods", frozenset({"GET"})), ("schemes", frozenset({"https"})),
        ("ports", (PortRange(1, 2),)))]
    texts = ("https://x.com/", "https://y.com/a", "wss://x.com/", "https://x.com:1/")
    urls = [url_pattern(text, NAMED) for text in texts]

    gates = [*map(shared.gate, said), *(shared.gate(Conditions(), url) for url in urls)]
    gates += [shared.gate(Conditions(), bound=bound), shared.gate(Conditions(), everyone=False),
              shared.gate(Conditions(), upgrades=False), shared.gate(Conditions())]

    assert list(map(id, map(shared.gate, said))) == list(map(id, gates[:4]))
    assert gates[4] is gates[5]
    assert len({id(gate) for gate in gates}) == len(gates) - 1
    ten = address_range("10.0.0.0/8", NAMED)
    assert shared.ranges(ten) is shared.ranges(ten)
    weekdays = Conditions(when=Window(frozenset(range(5)), 0, 1440, UTC_ZONE))
    assert shared.phase(weekdays) is shared.phase(weekdays)
    assert shared.phase(weekdays, of_grant=True) is not shared.phase(weekdays)
    assert shared.phase(Conditions()) is None


HOUR = 3600
OFFICE = Window(frozenset(range(7)), 8 * 60, 18 * 60, UTC_ZONE)


@pytest.mark.parametrize(("said", "hour", "now", "waits", "until"), [
    pytest.param({"expires": 9 * HOUR}, 8, True, False, 9, id="before its end"),
    pytest.param({"expires": 9 * HOUR}, 9, False, False, 9 + HORIZON_SECONDS // HOUR, id="at its end"),
    pytest.param({"when": OFFICE}, 7, False, True, 8, id="before its hours"),
    pytest.param({"when": OFFICE}, 8, True, False, 18, id="in its hours"),
    pytest.param({"when": OFFICE}, 18, False, True, 32, id="after its hours"),
    pytest.param({"when": OFFICE, "expires": 10 * HOUR}, 9, True, False, 10, id="an end within its hours"),
    pytest.param({"when": OFFICE, "expires": 20 * HOUR}, 9, True, False, 18, id="an end after its hours"),
    pytest.param({"when": OFFICE, "expires": 6 * HOUR}, 7, False, False, 7 + HORIZON_SECONDS // HOUR,
                 id="an end before its hours"),
])
def test_times_hold_until_the_next_moment_at_which_they_may_not(said, hour, now, waits, until):
    phase = clause.Phase(Conditions(**said))

    changes = phase.turn(hour * HOUR)

    assert (phase.now, phase.waits, changes) == (now, waits, until * HOUR)


@pytest.mark.parametrize(("where", "binds", "agent", "path"), [
    pytest.param(lambda n: {"agents": (agent_pattern(f"a-{n}"),)}, None, "a-7", "/", id="their agents"),
    pytest.param(lambda n: {"paths": (path_glob(f"/{n}/**"),)}, None, "a", "/7/x", id="their paths"),
    pytest.param(lambda n: {"to": (url_pattern(f"https://x.com/{n}/**", NAMED),)}, None, "a", "/7/x", id="their URLs"),
    pytest.param(lambda n: {}, lambda n: (agent_pattern(f"a-{n}"),), "a-7", "/", id="the agents of their tiers"),
])
def test_of_many_rules_on_one_host_only_those_are_looked_at_that_may_hold(where, binds, agent, path):
    rules = tuple(
        Rule(n, f"r{n}", Verb.ALLOW, Conditions(**{"to": (host_pattern("x.com"),)} | where(n)), (),
             Position("p.yaml", n + 1, 1), tier=n if binds else 0) for n in range(40))
    tiers = tuple(Tier(binds=binds(n)) for n in range(40)) if binds else (Tier(),)
    facts = facts_of(agent, "GET", f"https://x.com{path}")
    (filed,) = Index(Policy("", (), rules, tiers=tiers))._named(facts.host)
    found: list[Entry] = []

    filed.gather(agent, facts.path.segments, found)

    assert [entry.rule for entry in found] == [7]


@settings(max_examples=scaled(36))
@given(open_policies, st.data())
def test_what_passes_is_measured_as_the_reference_measures_it(policy, data):
    _agree(policy, data, requests(PASSING), PUBLIC_ADDRESSES)


@settings(max_examples=scaled(48))
@given(tiered_policies, st.data())
def test_tiers_narrow_as_the_reference_narrows(policy, data):
    _agree(policy, data, requests(PASSING), PUBLIC_ADDRESSES)


@settings(max_examples=scaled(36))
@given(tiered_policies, st.data())
def test_tiers_narrow_at_every_address_as_the_reference_narrows(policy, data):
    _agree(policy, data, requests(), ADDRESSES)


@settings(max_examples=scaled(36))
@given(tiered_policies, st.data())
def test_every_tier_lets_pass_at_most_what_the_policy_without_it_lets_pass(policy, data):
    below = [rule for rule in policy.items if rule.tier < len(policy.tiers) - 1]
    upper, whole = Index(replace(_renumbered(policy, below), tiers=policy.tiers[:-1])), Index(policy)
    bound = policy.tiers[-1]
    for _ in range(PER_POLICY):
        facts = data.draw(requests(PASSING))
        addresses = data.draw(answers(facts, PUBLIC_ADDRESSES))
        under_all = address_stage(whole, facts, addresses, frozenset()).verdict
        under_upper = address_stage(upper, facts, addresses, frozenset()).verdict

        # A tier that only refuses lets nothing pass by itself.
        if any(tier.binds is None and not tier.passes for tier in policy.tiers[:-1]):
            assert under_upper.lets_through or not under_all.lets_through
        if not binds(bound, facts.agent.id):
            assert under_all.lets_through == under_upper.lets_through


@settings(max_examples=scaled(36))
@given(compared_policies, st.data())
def test_fields_are_compared_as_the_reference_compares_them(policy, data):
    _agree(policy, data, requests(PASSING), PUBLIC_ADDRESSES)


def test_what_an_index_remembers_is_bounded_and_stays_right(monkeypatch):
    for name in ("_REMEMBERED_HOSTS", "_REMEMBERED_MEASURES", "_REMEMBERED_AGENTS"):
        monkeypatch.setattr(match, name, 3)
    monkeypatch.setattr(clause, "_REMEMBERED", 3)
    agents = [f"a-{number}" for number in range(8)]
    rules = tuple(
        Rule(number, name, Verb.ALLOW, Conditions((agent_pattern(name),)), (), Position("p.yaml", number + 1, 1),
             terms=Terms(max_request=number)) for number, name in enumerate(agents))
    rules += (Rule(8, "never", Verb.DENY, Conditions(methods=frozenset({"NEVER"})), (), Position("p.yaml", 9, 1)),)
    index = Index(Policy("", (), rules, tiers=(Tier("platform"), Tier("team", passes=True))))
    sizes = defaultdict[str, set[int]](set)
    for number in [*range(8), *range(8)]:
        facts = facts_of(agents[number], f"M{number}", f"https://{number}.example/")
        judged = address_stage(index, facts, [PUBLIC_ADDRESSES[0]], frozenset())

        assert (judged.groups, judged.measures.max_request) == ((agents[number],), Cap(number, agents[number]))
        for what in ("_hosts", "_measures", "_asked"):
            sizes[what].add(len(getattr(index, what)))
        sizes["gates"].update(map(len, index._shared._gates.values()))
    again = index.by_name(facts)
    assert index.by_name(facts) is again
    assert index.at(facts, again, PUBLIC_ADDRESSES[0]) is index.certain(again)
    assert index.measures((7,)) is index.measures((7,))
    assert index.asked("a-7") is index.asked("a-7")
    assert index._named(facts.host) is index._named(facts.host)
    assert sizes == {"_hosts": {1, 2, 3}, "_measures": {1, 2, 3}, "_asked": {1, 2, 3}, "gates": {0, 1, 2, 3}}


def _ignores_addresses(rule: Rule) -> bool:
    return all(
        each.address is None and not any(hasattr(getattr(item, "host", item), "networks") for item in each.to or ())
        for each in (rule.where, *rule.holes)
    )


@settings(max_examples=scaled(24))
@given(policies | tiered_policies, st.data())
def test_a_name_is_refused_early_only_when_it_is_refused_at_every_address(policy, data):
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(requests())
        early = name_stage(index, facts)
        later = [reference.judge(policy, facts, [address], set()) for address in ADDRESSES]

        if facts.host.address is not None:
            assert early is None
        elif early is not None:
            assert early.address is None
            assert all(answer.code is not Code.ALLOW for answer in later)
            out_of_hours = early.verdict.code is Code.OUT_OF_HOURS
            assert out_of_hours or _again(policy, facts, early) == early.verdict
            # A size is refused under the most generous grant that any address could bring, and so is a time.
            by_size = early.verdict.code in (Code.BODY_TOO_LARGE, Code.URL_TOO_LONG)
            assert by_size or out_of_hours or all(early.verdict.rule in (None, *answer.groups) for answer in later)


@settings(max_examples=scaled(24))
@given(policies | tiered_policies, st.data())
def test_a_name_is_not_resolved_when_rules_on_names_alone_refuse_it(policy, data):
    rules, nevers, limits = (
        tuple(filter(_ignores_addresses, each)) for each in (policy.rules, policy.nevers, policy.limits))
    policy = replace(policy, rules=rules, nevers=nevers, limits=limits)
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(requests(["x.com", "a.x.com", "b.a.x.com", "z.net"]))
        wanted = reference.judge(policy, facts, [ADDRESSES[2]], set())
        early = name_stage(index, facts)

        if wanted.code is Code.ALLOW:
            assert early is None
        else:
            assert early is not None
            assert (early.verdict.code, early.verdict.rule) == (wanted.code, wanted.rule)
            assert early.groups == wanted.groups
            out_of_hours = early.verdict.code is Code.OUT_OF_HOURS
            assert out_of_hours or _again(policy, facts, early) == early.verdict


@settings(max_examples=scaled(24))
@given(policies | open_policies | tiered_policies, st.data())
def test_what_is_expected_at_the_headers_is_never_less_than_what_holds_at_an_address(policy, data):
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(requests())
        hoped = expected(index, facts)
        for address in [facts.host.address] if facts.host.address else ADDRESSES:
            judged = address_stage(index, facts, [address], frozenset())

            assert not (hoped.refused and judged.verdict.lets_through)
            if judged.verdict.lets_through or judged.verdict.code is Code.BODY_TOO_LARGE:
                assert judged.measures.max_request.most <= hoped.max_request.most
                assert hoped.may_stream or not judged.measures.stream_request
        if facts.body_bytes > hoped.max_request.most:
            assert hoped.refused


some_bodies = st.lists(st.sampled_from(BODIES), min_size=3, max_size=3, unique=True)


def _with_body(facts: RequestFacts, body: bytes | Gap) -> RequestFacts:
    return replace(facts, fields=Fields(facts.query, facts.fields._headers, body))


@settings(max_examples=scaled(36))
@given(compared_policies | policies, st.data())
def test_what_is_expected_before_the_body_is_never_less_than_what_holds_with_it(policy, data):
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(requests(PASSING))
        hoped = expected(index, _with_body(facts, UNREAD))
        for body in data.draw(some_bodies):
            judged = address_stage(index, _with_body(facts, body), [PUBLIC_ADDRESSES[0]], frozenset())

            assert not (hoped.refused and judged.verdict.lets_through)
            if judged.verdict.lets_through:
                assert judged.measures.max_request.most <= hoped.max_request.most
                assert hoped.may_stream or not judged.measures.stream_request


@settings(max_examples=scaled(36))
@given(compared_policies | policies, st.data())
def test_what_passes_unread_or_unreadable_would_pass_with_any_body(policy, data):
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(requests(PASSING))
        addresses = data.draw(answers(facts, PUBLIC_ADDRESSES))
        blind = address_stage(index, _with_body(facts, UNREADABLE), addresses, frozenset())
        for body in data.draw(some_bodies):
            judged = address_stage(index, _with_body(facts, body), addresses, frozenset())

            if blind.verdict.lets_through:
                assert judged.verdict.lets_through
                assert judged.measures.max_request.most >= blind.measures.max_request.most


def _renumbered(policy: Policy, order: list[Rule]) -> Policy:
    placed = [replace(rule, number=number) for number, rule in enumerate(order)]
    return replace(
        policy,
        rules=tuple(rule for rule in placed if rule.verb not in (Verb.NEVER, Verb.LIMIT)),
        nevers=tuple(rule for rule in placed if rule.verb is Verb.NEVER),
        limits=tuple(rule for rule in placed if rule.verb is Verb.LIMIT),
    )


def _sizes(measures: Measures) -> Measures:
    """The measures without the name of who set them."""
    caps = {name: cap and replace(cap, by=None) for name in reference.UNSAID if (cap := getattr(measures, name))}
    return replace(measures, **caps)


@settings(max_examples=scaled(24))
@given(open_policies, st.data())
def test_order_never_matters(policy, data):
    index, shuffled = Index(policy), Index(_renumbered(policy, data.draw(st.permutations(policy.items))))
    for _ in range(PER_POLICY):
        facts = data.draw(requests(PASSING))
        addresses = data.draw(answers(facts, PUBLIC_ADDRESSES))

        one, other = (address_stage(each, facts, addresses, frozenset()) for each in (index, shuffled))

        assert one.verdict.code is other.verdict.code
        if one.verdict.lets_through:
            assert set(one.groups) == set(other.groups)
            assert _sizes(one.measures) == _sizes(other.measures)


@settings(max_examples=scaled(24))
@given(open_policies, st.data())
def test_a_limit_never_widens(policy, data):
    limited, free = Index(policy), Index(replace(policy, limits=()))
    for _ in range(PER_POLICY):
        facts = data.draw(requests(PASSING))
        addresses = data.draw(answers(facts, PUBLIC_ADDRESSES))

        judged, unlimited = (address_stage(each, facts, addresses, frozenset()) for each in (limited, free))

        if judged.verdict.lets_through:
            assert unlimited.verdict.lets_through
            narrowed = _sizes(judged.measures)
            assert _sizes(tightest(judged.measures, unlimited.measures)) == narrowed
        elif judged.verdict.code not in (Code.BODY_TOO_LARGE, Code.URL_TOO_LONG):
            assert judged.verdict == unlimited.verdict


@settings(max_examples=scaled(24))
@given(open_policies | compared_policies, st.data())
def test_a_tunnel_is_given_up_only_when_nothing_inside_could_pass(policy, data):
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(requests(PASSING))
        if index.connect_reaches(facts.agent.id, facts.host, facts.port):
            continue
        for address in [facts.host.address] if facts.host.address else ADDRESSES:
            assert reference.judge(policy, facts, [address], set()).code is not Code.ALLOW

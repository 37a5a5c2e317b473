"""The engine says of each rule, and of each policy, what the slow matcher says."""

from __future__ import annotations

from datetime import UTC, date, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from addons.yaml_nodes import compose
from kernel.analysis.automaton import CanonicalPath
from kernel.analysis.box import Box
from kernel.analysis.language import Allowance, Lang, Patterns, TooHard, Words
from kernel.analysis.moments import Moments
from kernel.analysis.region import Region, kinds
from kernel.analysis.shapes import Shapes
from kernel.comparison import UNREAD
from kernel.compiler import compile_policy
from kernel.facts import RequestFacts
from kernel.findings import Witness
from kernel.hours import UTC_ZONE, Window
from kernel.policy import Conditions, Policy
from kernel.question import facts_of
from kernel.verdict import Code
from tests.conftest import scaled
from tests.kernel.reference_matcher import holds, judge
from tests.kernel.strategies import (
    MOMENTS,
    NAMED,
    answers,
    asking_policies,
    asking_requests,
    compared_policies,
    crowded_policies,
    policies,
    requests,
    tiered_policies,
)

BEFORE = MOMENTS[0]


def is_unread(shapes: Shapes, facts: RequestFacts) -> bool:
    """True where a body has not come yet: the boxes are of requests as they are in the end."""
    return any(facts.fields.value(each.part, each.name) is UNREAD for each in shapes.space.values)


def region_of(policy: Policy) -> Region:
    return Region(policy, Shapes([policy], now=BEFORE))


def at(shapes: Shapes, box: Box, masks: tuple[int, ...]) -> Box | None:
    """What of the box is of these kinds."""
    return shapes.boxes.meet(box, Box(masks))


def decided(region: Region, box: Box) -> list[Box]:
    """What of the box passes; where that takes too much work there is nothing to test."""
    region.boxes.allowance.renew()
    try:
        return list(region.passing(box))
    except TooHard:
        reject()


def facts_of_witness(witness: Witness) -> RequestFacts:
    body = (witness.body or "").encode()
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in witness.headers)
    at = BEFORE if witness.at is None else witness.at
    return facts_of(witness.agent, witness.method, witness.url, len(body), headers, body, at=at)


REFUSED = {Code.NEVER, Code.RULE_DENY, Code.RULE_HALT, Code.PRIVATE_ADDRESS, Code.DEFAULT_DENY, Code.UPGRADE_REFUSED,
           Code.OUT_OF_HOURS}


@settings(max_examples=scaled(20), deadline=None)
@given(st.data())
def test_the_boxes_of_a_rule_hold_a_request_exactly_when_the_rule_holds(data):
    policy: Policy = data.draw(policies | crowded_policies | compared_policies | asking_policies)
    region = region_of(policy)
    shapes = region.shapes

    for facts in data.draw(st.lists(requests() | asking_requests(), min_size=1, max_size=20)):
        address = data.draw(answers(facts))[0]
        masks = kinds(shapes, facts, address)
        if masks[1] & shapes.space.addresses.vague or is_unread(shapes, facts):
            continue
        for rule in policy.items:
            shapes.boxes.allowance.renew()
            held = any(shapes.boxes.has(box, masks, facts.agent.id, facts.path.text) for box in shapes.of(rule))

            assert held is holds(rule, facts, address), (rule, facts, address)


@settings(max_examples=scaled(20), deadline=None)
@given(st.data())
def test_what_passes_is_what_the_slow_matcher_lets_pass(data):
    policy: Policy = data.draw(policies | crowded_policies | compared_policies | tiered_policies | asking_policies)
    region = region_of(policy)
    shapes = region.shapes

    for facts in data.draw(st.lists(requests() | asking_requests(), min_size=1, max_size=20)):
        address = data.draw(answers(facts))[0]
        masks = kinds(shapes, facts, address)
        if masks[1] & shapes.space.addresses.vague or is_unread(shapes, facts):
            continue
        near = [box for entry in region.grants.entries if (box := at(shapes, entry.box, masks)) is not None]
        passing = (piece for box in near for piece in decided(region, box))
        passes = any(shapes.boxes.has(box, masks, facts.agent.id, facts.path.text) for box in passing)

        assert passes is (judge(policy, facts, [address], set()).code not in REFUSED), (facts, address)


@pytest.mark.parametrize(("rules", "path", "address", "passes"), [
    pytest.param("{paths: ['/*']}", "/a%2Fb", "8.8.8.8", False, id="a grant needs both readings"),
    pytest.param("{paths: ['/**']}", "/a%2Fb", "8.8.8.8", True, id="a grant that has both"),
    pytest.param("{paths: ['/a%2Fb', /a/b]}", "/a%2Fb", "8.8.8.8", True, id="each reading by another glob"),
    pytest.param("{} - {paths: [/a/b]}", "/a%2Fb", "8.8.8.8", False, id="a refusal needs one reading"),
    pytest.param("{address: '64:ff9b::/96'} - {to: 10.0.0.0/8}", "/", "64:ff9b::808:808", True, id="another hidden"),
    pytest.param("{address: '64:ff9b::/96'} - {to: 10.0.0.0/8}", "/", "64:ff9b::a01:203", False, id="a hidden one"),
])
def test_readings_and_hidden_addresses(rules, path, address, passes):
    grant, _, refusal = rules.partition(" - ")
    said = f"rules:\n- {{allow: a, to: x.com, methods: [GET], {grant[1:]}\n"
    said += f"- {{deny: d, {refusal[1:]}\n" if refusal else ""
    document = compose(f"version: 1\n{said}".encode(), "p.yaml")
    policy = compile_policy([document], NAMED, "0" * 64).policy
    facts = facts_of("local", "GET", f"https://x.com{path}")
    region = Region(policy, Shapes([policy]))
    masks = kinds(region.shapes, facts, ip_address(address))

    passing = [piece for entry in region.grants.entries for piece in region.passing(entry.box)]

    assert any(region.boxes.has(box, masks, "local", facts.path.text) for box in passing) is passes


@pytest.mark.parametrize(("first", "second", "meet"), [
    ("/a%2Fb/**", "/a/b/**", True),
    ("/a%2Fb", "/a/b", True),
    ("/a/**", "/a/b/**", True),
    ("/c/**", "/a/b/**", False),
])
def test_beginnings_tell_readings_apart_only_without_escapes(first, second, meet):
    patterns = Patterns()
    one, two = patterns.paths([first], second=False), patterns.paths([second], second=True)
    lang = Lang(frozenset({one, two}))
    kinds_of_paths = [Words(CanonicalPath(split=split), "q", Allowance()) for split in (True, False)]

    assert any(words.some(lang) for words in kinds_of_paths) is meet
    assert one.apart(two) <= (not meet)


def test_hours_that_differ_by_one_day_are_told_apart_on_that_day():
    days, day = frozenset(range(7)), date(2026, 1, 9)
    always, but_one = (Window(days, 0, 120, UTC_ZONE, frozenset(out)) for out in ([], [day.toordinal()]))
    moments = Moments([Conditions(when=always), Conditions(when=but_one)], BEFORE)
    midnight = int(datetime(2026, 1, 9, tzinfo=UTC).timestamp())

    for where, wanted in ((Conditions(when=always), True), (Conditions(when=but_one), False)):
        assert bool(moments.mask(where) & moments.kind(midnight)) is wanted

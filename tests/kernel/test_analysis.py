"""The engine says of each rule, and of each policy, what the slow matcher says."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.analysis.region import kinds, regions
from kernel.analysis.shapes import unread
from kernel.policy import Policy
from kernel.verdict import Code
from tests.kernel.reference_matcher import holds, judge
from tests.kernel.strategies import answers, crowded_policies, policies, requests


def readable(policy: Policy) -> Policy:
    """The policy without the rules that speak of fields."""
    kinds_of_rules = (policy.rules, policy.nevers, policy.limits)
    rules, nevers, limits = (tuple(rule for rule in each if not unread(rule)) for each in kinds_of_rules)
    return replace(policy, rules=rules, nevers=nevers, limits=limits)


REFUSED = {Code.NEVER, Code.RULE_DENY, Code.PRIVATE_ADDRESS, Code.DEFAULT_DENY, Code.UPGRADE_REFUSED}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_boxes_of_a_rule_hold_a_request_exactly_when_the_rule_holds(data):
    policy: Policy = data.draw(policies | crowded_policies)
    (region,) = regions([policy])
    shapes = region.shapes

    for facts in data.draw(st.lists(requests(), min_size=1, max_size=20)):
        address = data.draw(answers(facts))[0]
        masks = kinds(shapes, facts, address)
        if masks[1] & shapes.space.addresses.vague:
            continue
        for rule in (each for each in policy.items if not unread(each)):
            held = any(shapes.boxes.has(box, masks, facts.agent.id, facts.path.text) for box in shapes.of(rule))

            assert held is holds(rule, facts, address), (rule, facts, address)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_passes_is_what_the_slow_matcher_lets_pass(data):
    policy: Policy = data.draw(policies | crowded_policies)
    policy = readable(policy)
    (region,) = regions([policy])
    shapes = region.shapes
    passing = [piece for entry in region.grants.entries for piece in region.passing(entry.box)]

    for facts in data.draw(st.lists(requests(), min_size=1, max_size=20)):
        address = data.draw(answers(facts))[0]
        masks = kinds(shapes, facts, address)
        if masks[1] & shapes.space.addresses.vague:
            continue
        passes = any(shapes.boxes.has(box, masks, facts.agent.id, facts.path.text) for box in passing)

        assert passes is (judge(policy, facts, [address], set()).code not in REFUSED), (facts, address)

"""A difference is told exactly: what it says changes does change, and where it says that nothing does, nothing does."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from addons.yaml_nodes import compose
from kernel.address import named_ranges
from kernel.analysis.difference import Difference, Relation, difference
from kernel.bounds import pace
from kernel.compiler import compile_policy
from kernel.facts import Address, RequestFacts
from kernel.findings import Witness
from kernel.policy import Policy, Verb
from kernel.question import STAND_IN
from kernel.verdict import Code
from tests.conftest import scaled
from tests.kernel.reference_matcher import holds_for, judge
from tests.kernel.strategies import (
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
from tests.kernel.test_analysis import BEFORE, facts_of_witness

SIZES = {Code.ALLOW, Code.BODY_TOO_LARGE, Code.URL_TOO_LONG}


def code_of(policy: Policy, witness: Witness) -> Code:
    facts = facts_of_witness(witness)
    address = facts.host.address or (STAND_IN if witness.address is None else ip_address(witness.address))
    return judge(policy, facts, [address], set()).code


LOOSENS, TIGHTENS = ({relation, Relation.INCOMPARABLE} for relation in (Relation.LOOSER, Relation.STRICTER))


def pace_of(policy: Policy, facts: RequestFacts, address: Address) -> int:
    """How long the slowest throttle that holds makes a client wait after a request, in microseconds."""
    rates = [rule.rate for rule in policy.rules if rule.rate is not None and holds_for(policy, rule, facts, address)]
    return max((pace("", rate).each_us for rate in rates), default=0)


def checked(old: Policy, new: Policy) -> Difference:
    found = difference(old, new, BEFORE)
    for change in found.newly_allowed:
        assert (code_of(old, change.witness) in SIZES, code_of(new, change.witness) in SIZES) == (False, True), change
    for change in found.newly_denied:
        assert (code_of(old, change.witness) in SIZES, code_of(new, change.witness) in SIZES) == (True, False), change
    for change in found.changed:
        one, two = code_of(old, change.witness), code_of(new, change.witness)
        if "ends an agent" in change.message:
            assert (one is Code.RULE_HALT) is not (two is Code.RULE_HALT), change
            continue
        assert (one in SIZES and two in SIZES) or (one not in SIZES and two not in SIZES and one is not two), change
    return found


pairs = st.tuples(policies, policies) | st.tuples(open_policies, open_policies) | st.tuples(crowded_policies, policies)
pairs |= st.tuples(asking_policies, asking_policies)
pairs |= st.tuples(compared_policies, compared_policies) | st.tuples(tiered_policies, tiered_policies | policies)


@settings(max_examples=scaled(6), deadline=None)
@given(st.data())
def test_a_difference_holds_for_every_request(data):
    old, new = data.draw(pairs)
    found = checked(old, new)

    for facts in data.draw(st.lists(requests(unread=False) | asking_requests(unread=False), min_size=1, max_size=20)):
        address = data.draw(answers(facts))[0]
        one, two = (judge(policy, facts, [address], set()).code for policy in (old, new))
        if found.undecided:
            continue
        if one is two:
            tighter = pace_of(old, facts, address) - pace_of(new, facts, address)
            assert one is not Code.ALLOW or tighter <= 0 or found.relation in LOOSENS, facts
            assert one is not Code.ALLOW or tighter >= 0 or found.relation in TIGHTENS, facts
            continue
        assert one is not Code.RULE_HALT or found.relation in LOOSENS, facts
        assert two is not Code.RULE_HALT or found.relation in TIGHTENS, facts
        if one is Code.ALLOW or (one in SIZES and two not in SIZES):
            assert found.relation in (Relation.STRICTER, Relation.INCOMPARABLE), (one, two, facts)
        elif two is Code.ALLOW or (two in SIZES and one not in SIZES):
            assert found.relation in (Relation.LOOSER, Relation.INCOMPARABLE), (one, two, facts)
        else:
            assert found.changed or found.relation is Relation.INCOMPARABLE, (one, two, facts)


@settings(max_examples=scaled(8), deadline=None)
@given(policies | open_policies | tiered_policies)
def test_a_policy_equals_itself(policy):
    found = difference(policy, policy, BEFORE)

    assert found.relation in (Relation.EQUAL, Relation.UNDECIDED)
    assert (found.newly_allowed, found.newly_denied, found.changed) == ((), (), ())


@settings(max_examples=scaled(8), deadline=None)
@given(policies)
def test_without_its_rules_nothing_passes_that_passed(policy):
    less = Policy(policy.digest, policy.files, policy.rules[1:], policy.nevers, limits=policy.limits)
    found = checked(policy, less)

    # Without a throttle less passes, and what an allow lets pass there passes more often.
    first = policy.rules[:1]
    if first and first[0].verb is Verb.ALLOW:
        assert found.relation is not Relation.INCOMPARABLE
        assert not found.newly_allowed


def test_who_may_no_longer_ask_a_model_in_a_path_is_shown_that_path():
    rule = '{allow: a, to: a.example.org, methods: [POST], paths: ["/v1beta/models/m:generateContent"]}'
    old, new = (compile_policy([compose(f"version: 1\nrules: [{each}]".encode(), "p.yaml")], named_ranges([]), "0" * 64)
                for each in (rule, "{deny: b, to: a.example.org}"))

    assert [change.witness.url for change in checked(old.policy, new.policy).newly_denied] == [
        "https://a.example.org/v1beta/models/m:generateContent"]

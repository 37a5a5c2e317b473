"""A difference is told exactly: what it says changes does change, and where it says that nothing does, nothing does."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.analysis.difference import Difference, Relation, difference
from kernel.findings import Witness
from kernel.policy import Policy
from kernel.question import STAND_IN
from kernel.verdict import Code
from tests.conftest import scaled
from tests.kernel.reference_matcher import judge
from tests.kernel.strategies import (
    answers,
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


def checked(old: Policy, new: Policy) -> Difference:
    found = difference(old, new, BEFORE)
    for change in found.newly_allowed:
        assert (code_of(old, change.witness) in SIZES, code_of(new, change.witness) in SIZES) == (False, True), change
    for change in found.newly_denied:
        assert (code_of(old, change.witness) in SIZES, code_of(new, change.witness) in SIZES) == (True, False), change
    for change in found.changed:
        one, two = code_of(old, change.witness), code_of(new, change.witness)
        assert (one in SIZES and two in SIZES) or (one not in SIZES and two not in SIZES and one is not two), change
    return found


pairs = st.tuples(policies, policies) | st.tuples(open_policies, open_policies) | st.tuples(crowded_policies, policies)
pairs |= st.tuples(compared_policies, compared_policies) | st.tuples(tiered_policies, tiered_policies | policies)


@settings(max_examples=scaled(6), deadline=None)
@given(st.data())
def test_a_difference_holds_for_every_request(data):
    old, new = data.draw(pairs)
    found = checked(old, new)

    for facts in data.draw(st.lists(requests(), min_size=1, max_size=20)):
        address = data.draw(answers(facts))[0]
        one, two = (judge(policy, facts, [address], set()).code for policy in (old, new))
        if one is two or found.undecided:
            continue
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

    first = policy.rules[:1]
    if first and first[0].verb.grants:
        assert found.relation is not Relation.INCOMPARABLE
        assert not found.newly_allowed

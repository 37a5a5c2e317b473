"""The index and the decision say what the reference matcher says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.decide import address_stage, from_groups, name_stage
from kernel.match import Index
from kernel.policy import Policy, Rule
from kernel.verdict import Code
from tests.conftest import scaled
from tests.kernel import reference_matcher as reference
from tests.kernel.strategies import ADDRESSES, answers, crowded_policies, policies, requests

PER_POLICY = 6


def _agree(policy: Policy, data: st.DataObject, aimed: st.SearchStrategy) -> None:
    index = Index(policy)
    by_name = {rule.name: rule for rule in index.rules}
    for _ in range(PER_POLICY):
        facts = data.draw(aimed)
        addresses = data.draw(answers(facts))
        own = data.draw(st.frozensets(st.tuples(st.sampled_from(ADDRESSES[:6]), st.just(8443)), max_size=1))

        judged = address_stage(index, facts, addresses, own)
        expected = reference.judge(policy, facts, addresses, set(own))

        found = reference.Answer(judged.verdict.code, judged.verdict.rule, judged.groups, judged.address)
        assert found == expected
        assert judged.verdict.lets_through == (expected.code is Code.ALLOW)
        if judged.verdict.rule or not own:
            literal = facts.host.address is not None
            assert from_groups(by_name, judged.groups, judged.address, literal) == judged.verdict


@settings(max_examples=scaled(100))
@given(policies, st.data())
def test_the_index_says_what_the_reference_says(policy, data):
    _agree(policy, data, requests())


@settings(max_examples=scaled(40))
@given(crowded_policies, st.data())
def test_many_rules_on_one_host_are_told_apart_without_losing_one(policy, data):
    _agree(policy, data, requests(["x.com"]))


def _ignores_addresses(rule: Rule) -> bool:
    return all(
        each.address is None and not any(hasattr(getattr(item, "host", item), "networks") for item in each.to or ())
        for each in (rule.where, *rule.holes)
    )


@settings(max_examples=scaled(40))
@given(policies, st.data())
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
            assert all(early.verdict.rule in (None, *answer.groups) for answer in later)


@settings(max_examples=scaled(40))
@given(policies, st.data())
def test_a_name_is_not_resolved_when_rules_on_names_alone_refuse_it(policy, data):
    plain = tuple(rule for rule in policy.rules if _ignores_addresses(rule))
    nevers = tuple(rule for rule in policy.nevers if _ignores_addresses(rule))
    index = Index(Policy("", (), plain, nevers))
    for _ in range(PER_POLICY):
        facts = data.draw(requests(["x.com", "a.x.com", "b.a.x.com", "z.net"]))
        expected = reference.judge(Policy("", (), plain, nevers), facts, [ADDRESSES[2]], set())
        early = name_stage(index, facts)

        if expected.code is Code.ALLOW:
            assert early is None
        else:
            assert early is not None
            assert (early.verdict.code, early.verdict.rule) == (expected.code, expected.rule)
            assert early.groups == expected.groups
            assert from_groups({rule.name: rule for rule in index.rules}, early.groups, None, False) == early.verdict


@settings(max_examples=scaled(40))
@given(policies, st.data())
def test_a_tunnel_is_given_up_only_when_nothing_inside_could_pass(policy, data):
    index = Index(policy)
    for _ in range(PER_POLICY):
        facts = data.draw(requests())
        if index.connect_reaches(facts.agent.id, facts.host, facts.port):
            continue
        for address in [facts.host.address] if facts.host.address else ADDRESSES:
            assert reference.judge(policy, facts, [address], set()).code is not Code.ALLOW

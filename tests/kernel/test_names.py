"""Which names are answered: those where a request could pass, with the addresses at which one could, and no others."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.policy_files import read_policy
from kernel import names
from kernel.dns import NOTHING_SAID, Dns
from kernel.errors import NonCanonical
from kernel.facts import Host
from kernel.match import Index
from kernel.verdict import Action, Code
from tests.addons.policies import compiled
from tests.conftest import scaled
from tests.kernel import reference_matcher as reference
from tests.kernel.strategies import ADDRESSES, open_policies, policies, requests, tiered_policies

PUBLIC, INSIDE, METADATA = ip_address("192.0.32.8"), ip_address("10.1.2.3"), ip_address("169.254.169.254")
A, AAAA, TXT, HTTPS = 1, 28, 16, 65
NOON = 1_767_268_800  # a Thursday, 12:00 UTC

POLICY = """\
version: 1
agents: {coders: [coder-*]}
rules:
  - {allow: api, from: coders, to: [api.example.org, "*.wild.example.org"], methods: [GET], paths: ["/v1/**"]}
  - {allow: odd-port, from: coders, to: odd.example.org, methods: any, ports: 8443}
  - {allow: by-url, to: "https://url.example.org/x/**", methods: any}
  - {allow: by-address, to: 198.51.100.7, methods: any}
  - {allow: inside, to: [inside.example.org, both.example.org], address: 10.1.0.0/16, methods: any}
  - {allow: also, to: both.example.org, methods: any}
  - {deny: one-path, to: api.example.org, paths: ["/v1/secret"]}
  - {deny: gone, to: gone.wild.example.org}
  - {halt: turned, to: halt.wild.example.org}
  - {deny: all-ports-but-one, to: ports.wild.example.org, ports: 1-442}
  - {deny: the-rest, to: ports.wild.example.org, ports: 444-65535}
  - {allow: everywhere, to: [between.example.org, first.example.org], methods: any, ports: 1-65535}
  - {deny: below, to: between.example.org, ports: 1-8079}
  - {deny: above, to: between.example.org, ports: 8081-65535}
  - {deny: all-but-the-first, to: first.example.org, ports: 2-65535}
  - {allow: ended, to: ended.example.org, methods: any, expires: 2020-01-01}
  - {allow: at-night, to: night.example.org, methods: any, when: {hours: "22:00-23:00", timezone: UTC}}
  - {allow: observed, to: trial.example.org, methods: any}
  - {deny: on-trial, to: trial.example.org, observe: yes, expires: 2039-01-01}
never:
  - {to: never.wild.example.org}
  - {to: halves.wild.example.org, ports: 1-1000}
  - {to: halves.wild.example.org, ports: 1001-65535}
  - {to: metadata}
"""


@pytest.fixture(scope="module")
def index() -> Index:
    return Index(compiled(POLICY).policy)


def verdict(index, name, record=A, agent="coder-1", said=NOTHING_SAID):
    return names.name_verdict(index, said, agent, Host(name), record, NOON).verdict


@pytest.mark.parametrize(("name", "agent"), [
    ("api.example.org", "coder-1"), ("a.wild.example.org", "coder-1"), ("odd.example.org", "coder-1"),
    ("url.example.org", "other"), ("inside.example.org", "other"), ("ports.wild.example.org", "coder-1"),
    ("night.example.org", "other"), ("trial.example.org", "other"), ("between.example.org", "other"),
    ("first.example.org", "other"),
])
def test_a_name_is_answered_where_some_request_could_pass_at_some_time(index, name, agent):
    assert verdict(index, name, agent=agent).code is Code.ALLOW


@pytest.mark.parametrize(("name", "agent", "code", "rule"), [
    ("api.example.org", "other", Code.DEFAULT_DENY, None),
    ("unknown.example.org", "coder-1", Code.DEFAULT_DENY, None),
    ("wild.example.org", "coder-1", Code.DEFAULT_DENY, None),
    ("ended.example.org", "coder-1", Code.DEFAULT_DENY, None),
    ("gone.wild.example.org", "coder-1", Code.RULE_DENY, "gone"),
    ("halt.wild.example.org", "coder-1", Code.RULE_HALT, "turned"),
    ("never.wild.example.org", "coder-1", Code.NEVER, "never-1"),
    pytest.param("halves.wild.example.org", "coder-1", Code.NEVER, None, id="two nevers, neither at every port"),
])
def test_every_other_name_is_refused_and_ends_nobody(index, name, agent, code, rule):
    found = verdict(index, name, agent=agent)

    assert (found.action, found.code, found.rule) == (Action.DENY, code, rule)


@pytest.mark.parametrize(("said", "name", "record", "expected"), [
    (Dns(answers=False), "api.example.org", A, names.NOTHING_ANSWERED),
    (Dns(), "api.example.org", TXT, names.OTHER_TYPE),
    (Dns(), "api.example.org", HTTPS, names.OTHER_TYPE),
    (Dns(types=frozenset({"A", "HTTPS"})), "api.example.org", HTTPS, names.ANSWERED),
    (Dns(types=frozenset({"A"})), "api.example.org", AAAA, names.OTHER_TYPE),
    (Dns(), "a.b.c.wild.example.org", A, names.ANSWERED),
    (Dns(), "a.b.c.d.wild.example.org", A, names.TOO_LONG),
    (Dns(), f"{'a' * 40}.{'b' * 42}.wild.example.org", A, names.ANSWERED),
    (Dns(), f"{'a' * 40}.{'b' * 43}.wild.example.org", A, names.TOO_LONG),
    (Dns(most_labels=2), "api.example.org", A, names.ANSWERED),
    (Dns(most_characters=5), "api.example.org", A, names.ANSWERED),
    (Dns(most_labels=3), "a.wild.example.org", A, names.TOO_LONG),
    (Dns(answers=False), "governor.internal", A, names.ITS_OWN),
    (Dns(), "governor.internal", AAAA, names.ITS_OWN),
    (Dns(), "governor.internal", TXT, names.OTHER_TYPE),
])
def test_what_the_section_says_bounds_what_is_answered(index, said, name, record, expected):
    assert verdict(index, name, record, said=said) is expected


@pytest.mark.parametrize(("name", "told"), [
    ("api.example.org", (PUBLIC,)), ("inside.example.org", (INSIDE,)), ("both.example.org", (PUBLIC, INSIDE)),
])
def test_those_addresses_are_told_at_which_something_could_pass(index, name, told):
    found = names.told(index, "coder-1", Host(name), (PUBLIC, METADATA, INSIDE), NOON, on_trial=False)

    assert found == told


def test_on_trial_a_name_is_kept_back_only_by_what_holds_in_spite_of_it(index):
    def passes(name, address=None):
        return index.name_reaches("other", Host(name), NOON, address, on_trial=True)

    assert passes("unknown.example.org")
    assert passes("gone.wild.example.org")
    assert passes("unknown.example.org", PUBLIC)
    assert not passes("never.wild.example.org")
    assert not passes("halt.wild.example.org")
    assert not passes("unknown.example.org", INSIDE)
    assert not passes("unknown.example.org", METADATA)
    assert passes("inside.example.org", INSIDE)


def test_each_tier_must_be_able_to_allow_a_name():
    texts = ("version: 1\ntier: platform\nrules: [{allow: a, to: [x.example.org, y.example.org], methods: any}]\n",
             "version: 1\ntier: team\nfor: [t-*]\nrules: [{allow: b, to: x.example.org, methods: any, ports: 443}]\n")
    both = Index(read_policy([(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)]).policy)

    assert verdict(both, "x.example.org", agent="t-1").code is Code.ALLOW
    assert verdict(both, "y.example.org", agent="t-1").code is Code.DEFAULT_DENY
    assert verdict(both, "y.example.org", agent="u-1").code is Code.ALLOW


@pytest.mark.parametrize("labels", [
    (), (b"",), (b"a.b", b"org"), (b"a b",), (b"\xff",), (b"*", b"example"), (b"10", b"1", b"2", b"3"),
    (b"0x7f000001",),
])
def test_what_is_no_host_name_names_nothing(labels):
    with pytest.raises(NonCanonical):
        names.named(labels)


def test_a_name_is_the_same_in_any_letters():
    assert names.named((b"eXaMpLe", b"ORG")) == Host("example.org")


@settings(max_examples=scaled(40))
@given(policies | open_policies | tiered_policies, st.data())
def test_where_a_name_is_not_answered_no_request_to_it_would_pass(policy, data):
    index = Index(policy)
    for _ in range(6):
        facts, address = data.draw(requests(["x.com", "a.x.com", "b.a.x.com"])), data.draw(st.sampled_from(ADDRESSES))
        if reference.judge(policy, facts, [address], set()).code is Code.ALLOW:
            assert index.name_reaches(facts.agent.id, facts.host, facts.at)
            assert index.name_reaches(facts.agent.id, facts.host, facts.at, address)
            assert index.name_reaches(facts.agent.id, facts.host, facts.at, address, on_trial=True)

"""Assertions about many requests are proved, or refuted by one of them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from addons.yaml_nodes import compose
from kernel.analysis.claims import refuted
from kernel.compiler import compile_policy
from kernel.errors import PolicyError
from kernel.findings import Finding
from kernel.policy import Policy, Position, Rule, Verb
from kernel.question import STAND_IN, most_generous
from tests.conftest import scaled
from tests.kernel.reference_matcher import holds, judge
from tests.kernel.strategies import answers, open_policies, policies, requests
from tests.kernel.test_analysis_review import SIZES, judged

HEAD = """\
version: 1
agents: {coders: [claude-*]}
rules:
  - {allow: read, from: coders, to: .example.org, methods: reads}
  - {allow: write, from: coders, to: a.example.org, methods: writes, paths: ["/in/**"]}
  - {allow: hours, from: coders, to: t.example.org, methods: [PUT], when: {days: mon, timezone: UTC}}
  - {deny: no, to: b.example.org, paths: ["/x"]}
  - {allow: inside, from: coders, to: in.example.net, address: 10.0.0.0/8, methods: reads}
"""
EXCEPT_IN = 'except: [{to: a.example.org, paths: ["/in/**"]}, {to: t.example.org, methods: [PUT]}]'


def findings(claim: str, head: str = HEAD) -> list[Finding]:
    try:
        compile_policy([compose(f"{head}assert:\n  - {claim}\n".encode(), "p.yaml")], {}, "0" * 64)
    except PolicyError as refused:
        return [each for each in refused.findings if each.severity.value == "error"]
    return []


@pytest.mark.parametrize("claim", [
    f'denied: {{from: coders, to: "*.example.org", methods: writes, {EXCEPT_IN}}}',
    "denied: {to: other.example.org, from: local}",
    "denied: {methods: [DELETE], schemes: [http]}",
    "allowed: {from: coders, to: [a.example.org, c.example.org], methods: reads}",
    "allowed: {from: coders, to: b.example.org, methods: reads, except: {paths: [/x]}}",
    "allowed: {from: coders, to: in.example.net, address: 10.1.0.0/16, methods: [GET]}",
    "denied: {to: in.example.net, address: 192.168.0.0/16}",
])
def test_what_holds_for_all_its_requests_loads(claim):
    assert findings(claim) == []


@pytest.mark.parametrize(("claim", "url", "method"), [
    ('denied: {from: coders, to: "*.example.org", methods: [POST]}', "https://a.example.org/in", "POST"),
    ("denied: {to: t.example.org, methods: writes}", "https://t.example.org/", "PUT"),
    ("allowed: {from: coders, to: b.example.org, methods: reads}", "https://b.example.org/x", "GET"),
    ("allowed: {from: coders, to: c.example.org, methods: [GET, POST]}", "https://c.example.org/", "POST"),
    ("allowed: {from: coders, to: c.example.org, methods: reads, schemes: [http]}", "http://c.example.org/", "GET"),
    ("allowed: {to: c.example.org, methods: reads}", "https://c.example.org/", "GET"),
])
def test_what_does_not_hold_for_all_is_refuted_by_a_request(claim, url, method):
    (found,) = findings(claim)

    assert (found.code, found.position.line) == ("P801", 10)
    assert (found.witness.url, found.witness.method) == (url, method)


NARROWER = "(narrow the assertion, or make several of it)"
HIDING = HEAD.replace("10.0.0.0/8", "'64:ff9b:1::/48'")


@pytest.mark.parametrize(("claim", "said", "rules", "head"), [
    pytest.param("denied: {to: a.example.org, methods: [POST]}",
                 "all of it must be denied, and here is a request that is not (rule write)", ("write",), HEAD,
                 id="a rule allows some of it"),
    pytest.param("allowed: {from: coders, to: b.example.org, methods: reads}",
                 "all of it must be allowed, and here is a request that is not", ("read",), HEAD,
                 id="a rule allows a part, and another refuses the rest"),
    pytest.param("allowed: {from: coders, to: b.example.org, methods: [POST]}",
                 "all of it must be allowed, and here is a request that is not", (), HEAD, id="no rule allows it"),
    pytest.param("denied: {to: a.example.org, paths: [/x], except: {paths: [/x]}}",
                 "no request is meant: two of its keys exclude each other", (), HEAD, id="no request is meant"),
    pytest.param("denied: {to: c.example.org}", f"it cannot be proved that all of it is denied {NARROWER}", (), HIDING,
                 id="denied, where addresses hide others"),
    pytest.param("allowed: {from: coders, to: c.example.org, methods: reads}",
                 f"it cannot be proved that all of it is allowed {NARROWER}", (), HIDING,
                 id="allowed, where addresses hide others"),
])
def test_a_claim_that_is_not_proved_is_told_in_full(claim, said, rules, head):
    (found,) = findings(claim, head)

    assert (str(found), found.rules) == (f"p.yaml:10:5: P801 {said}", rules)


@pytest.mark.parametrize(("claim", "code", "column"), [
    ("denied: {from: coders, to: a.example.org, method: GET, paths: [/x]}", "E108", 67),
    ("denied: {to: a.example.org, method: GET}", "E104", 13),
    ("denied: {to: a.example.org, when: {days: mon}}", "E112", 33),
    ("denied: {to: a.example.org, paths: [/x], except: {paths: [/x]}}", "P801", 5),
    ("denied: {}", "E104", 13),
])
def test_what_is_no_assertion_is_refused_in_its_place(claim, code, column):
    (found,) = findings(claim)

    assert (found.code, found.position.column) == (code, column)


def _claim(rule: Rule, verb: Verb) -> Rule:
    return Rule(0, "assertion in line 1", verb, rule.where, rule.holes, Position("p.yaml", 1, 1))


@settings(max_examples=scaled(10), deadline=None)
@given(policies | open_policies, st.sampled_from([Verb.ALLOW, Verb.NEVER]), st.data())
def test_a_claim_is_refuted_exactly_by_requests_that_speak_against_it(policy, verb, data):
    policy = most_generous(policy)
    assume(policy.rules)
    claim = _claim(data.draw(st.sampled_from(policy.rules)), verb)
    found = list(refuted(Policy(policy.digest, policy.files, policy.rules, policy.nevers, limits=policy.limits,
                                claims=(claim,))))

    for finding in found:
        if finding.witness is not None:
            code, _ = judged(policy, finding.witness)
            assert (code in SIZES) is (verb is Verb.NEVER)
    if not found:
        for facts in data.draw(st.lists(requests(), min_size=1, max_size=15)):
            address = data.draw(answers(facts))[0]
            if holds(claim, facts, address) and (verb is Verb.NEVER or address == STAND_IN):
                assert (judge(policy, facts, [address], set()).code in SIZES) is (verb is Verb.ALLOW)

# ruff: noqa: E501 - a policy of the tables stands in one line
"""A review finds what is wrong at the line where it is, and says nothing of what is right."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.yaml_nodes import compose
from kernel.address import named_ranges
from kernel.analysis.review import Tables, errors_at_load, review
from kernel.compiler import compile_policy
from kernel.errors import PolicyError
from kernel.facts import Address, RequestFacts
from kernel.findings import Finding, Severity, Witness
from kernel.pattern import host_pattern
from kernel.policy import Policy
from kernel.question import STAND_IN
from kernel.suffix import Suffixes
from kernel.tiers import binds
from kernel.verdict import Code
from tests.conftest import scaled
from tests.kernel.reference_matcher import holds, judge
from tests.kernel.strategies import answers, compared_policies, crowded_policies, policies, requests, tiered_policies
from tests.kernel.test_analysis import BEFORE, facts_of_witness

TABLES = Tables((host_pattern("gist.github.com"), host_pattern(".paste.example")), Suffixes(["com", "org", "github.io"]))
SIZES = {Code.ALLOW, Code.BODY_TOO_LARGE, Code.URL_TOO_LONG}


def policy_of(rules: str, after: str = "") -> Policy:
    text = f"version: 1\nagents: {{coders: [claude-*, codex-*]}}\nrules:\n{rules}\n{after}"
    document = compose(text.encode(), "p.yaml")
    return compile_policy([document], named_ranges(["169.254.169.254"]), "0" * 64).policy


def judged(policy: Policy, witness: Witness) -> tuple[Code, set[str]]:
    facts = facts_of_witness(witness)
    address = facts.host.address or (STAND_IN if witness.address is None else ip_address(witness.address))
    return judge(policy, facts, [address], set()).code, holding(policy, facts, address)


def holding(policy: Policy, facts: RequestFacts, address: Address) -> set[str]:
    bound = (rule for rule in policy.items if binds(policy.tiers[rule.tier], facts.agent.id))
    return {rule.name for rule in bound if holds(rule, facts, address)}


FIELDS = "{allow: a, to: a.example.org, methods: [POST]"
WEEKEND = "{days: [sat-sun], timezone: UTC}"
READ = "- {allow: read, to: a.example.org, methods: reads, paths: [\"/x/**\"]}"
FAULTS = [
    ("W301", 2, READ, "- {allow: dead, to: b.example.org, methods: reads}", "- {deny: all, to: .example.org, except: {to: a.example.org}}"),
    ("W301", 2, READ, "- {allow: dead, to: b.example.org, methods: [GET, HEAD]}", "- {deny: g, to: b.example.org, methods: [GET]}", "- {deny: h, to: b.example.org, methods: [HEAD]}"),
    ("W301", 2, READ, '- {allow: dead, to: b.example.org, methods: [GET], paths: ["/a/*"]}', '- {deny: p, to: b.example.org, paths: ["/a/**"]}'),
    ("W301", 2, READ, "- {allow: dead, from: claude-1, to: b.example.org, methods: [GET]}", "- {deny: c, from: coders, to: b.example.org}"),
    ("W301", 2, READ, '- {allow: dead, to: "http://b.example.org/x", methods: [GET]}', "- {deny: clear, schemes: [http]}"),
    ("W301", 2, READ, "- {allow: dead, to: b.example.org, methods: [GET], ports: 8000-8010}", "- {deny: ports, ports: [8000-8005, 8006-9000]}"),
    ("W301", 2, READ, "- {allow: dead, to: 9.9.9.9, methods: [GET]}", "- {deny: nine, to: 9.0.0.0/8}"),
    ("W302", 2, READ, "- {allow: again, to: a.example.org, methods: [GET], paths: [\"/x/y\"]}"),
    ("W302", 2, READ, READ.replace("read,", "twice,")),
    ("W302", 3, READ, '- {allow: odd, to: b.example.org, methods: [GET], paths: ["/**"]}', '- {allow: part, to: b.example.org, methods: [GET], paths: ["/**/q"]}'),
    ("W302", 2, "- {deny: wide, to: .example.org}", "- {deny: narrow, to: b.example.org}"),
    ("W302", 4, READ, "- {allow: g, to: b.example.org, methods: [GET]}", "- {allow: h, to: b.example.org, methods: [HEAD]}", "- {allow: gh, to: b.example.org, methods: [GET, HEAD]}"),
    ("W302", 2, READ, "- {allow: sub, from: claude-7, to: a.example.org, methods: [GET], paths: [\"/x/**\"]}"),
    ("W302", 3, "- {deny: ten, to: 10.0.0.0/9}", "- {deny: more, to: 10.128.0.0/9}", "- {deny: within, to: 10.0.0.0/8}"),
    ("W303", 2, READ, '- {deny: typo, to: a.example.org, paths: ["/xx/**"]}'),
    ("W303", 3, READ, "- {allow: c, from: claude-*, to: c.example.org, methods: reads}", "- {deny: who, from: cluade-*, to: c.example.org}"),
    ("I304", 2, READ, '- {deny: part, to: a.example.org, paths: ["/x/secret/**"]}'),
    ("I304", 2, READ, "- {deny: heads, methods: [HEAD]}"),
    ("W305", 2, READ, "- {allow: nothing, to: b.example.org, methods: [GET], except: {methods: reads}}"),
    ("W305", 2, READ, '- {deny: nothing, to: b.example.org, paths: ["/a/*"], except: {paths: ["/a/**"]}}'),
    ("W305", 2, READ, '- {deny: nothing, to: b.example.org, except: {to: .example.org}}'),
    ("W305", 2, READ, '- {allow: nothing, to: b.example.org, methods: [GET], paths: ["/a%2Fb"]}'),
    ("W401", 2, READ, "- {allow: wide, to: .com, methods: [GET]}"),
    ("W401", 2, READ, '- {allow: wide, to: "*.github.io", methods: [GET]}'),
    ("W401", 2, READ, "- {allow: wide, from: coders, methods: [GET]}"),
    ("W401", 2, READ, "- {allow: wide, to: public-internet, methods: [GET]}"),
    ("E403", 2, READ, "- {allow: post, to: gist.github.com, methods: [POST]}"),
    ("E403", 2, READ, "- {allow: post, to: .github.com, methods: any}"),
    ("E403", 2, READ, "- {allow: post, to: x.paste.example, methods: [PUT]}"),
    ("W404", 2, READ, "- {allow: clear, to: b.example.org, methods: [GET], schemes: [http]}"),
    ("W404", 2, READ, "- {allow: ports, to: b.example.org, methods: [GET], ports: 1-65535}"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]} {fault[-1]}")
def test_a_fault_is_found_at_its_line(fault):
    code, line, *rules = fault
    policy = policy_of("\n".join(f"  {rule}" for rule in rules))

    found = review(policy, TABLES)

    assert [(each.code, each.position.line - 3) for each in found.findings if each.code != "I304"] == [
        (code, line)] * (code != "I304")
    assert code in [each.code for each in found.findings]
    assert found.undecided == ()
    for finding in found.findings:
        _check(policy, finding)


def _check(policy: Policy, finding: Finding) -> None:
    """The witness is judged as the finding claims."""
    if finding.code == "W305":
        assert finding.witness is None
        return
    code, held = judged(policy, finding.witness)
    first = finding.rules[0]
    assert first in held, finding
    if finding.code in ("W301", "E402", "I304"):
        assert code not in SIZES, finding
    if finding.code in ("W302", "I304"):
        assert held & set(finding.rules[1:]) or code not in SIZES, finding
    if finding.code == "W303":
        assert code in (Code.RULE_DENY, Code.NEVER), finding
    if finding.code in ("E403", "W404"):
        assert code in SIZES, finding


CORRECT = [
    "- {allow: a, to: a.example.org, methods: [GET]}\n  - {allow: b, to: a.example.org, methods: [POST]}",
    '- {allow: a, to: .example.org, methods: [GET]}\n  - {deny: d, to: secret.example.org}',
    "- {deny: gists, to: gist.github.com}",
    "- {deny: gists, to: gist.github.com}\n  - {allow: api, to: api.github.com, methods: any}",
    '- {allow: a, to: a.example.org, methods: [GET], paths: ["/a/*"]}\n  - {allow: b, to: a.example.org, methods: [GET], paths: ["/a/*/*"]}',
    '- {allow: a, to: a.example.org, methods: [GET], paths: ["/a/**"], except: {paths: ["/a/x/**"]}}\n  - {allow: b, to: a.example.org, methods: [GET], paths: ["/a/x/y"]}',
    "- {allow: a, from: claude-*, to: a.example.org, methods: [GET]}\n  - {allow: b, from: \"*-1\", to: a.example.org, methods: [GET]}",
    "- {allow: a, to: a.example.org, methods: [GET], max-request: 1KB}\n  - {allow: b, to: a.example.org, methods: reads, max-request: 0}",
    "- {allow: a, to: b.corp.example, address: 10.1.0.0/16, methods: reads}",
    "- {allow: a, to: a.example.org, methods: [GET]}\n  - {allow: b, to: a.example.org, methods: [GET], ports: 8443}",
    "- {allow: a, to: a.example.org, methods: [GET]}\n  - {allow: b, to: \"*.a.example.org\", methods: [GET]}",
    "- {allow: web, methods: [GET], to: public-internet, why: research}",
    "- {allow: gist, to: gist.github.com, methods: reads}",
    "- {allow: local, to: localhost, address: [127.0.0.0/8, \"::1\"], methods: any, schemes: [http, https], ports: 1024-65535}",
    '- {allow: a, to: a.example.org, methods: [GET], paths: ["/x/**"]}\n  - {deny: d, to: a.example.org, paths: ["/y/**"], why: a guard}',
    '- {allow: a, to: a.example.org, methods: [GET]}\n  - {deny: d, to: a.example.org, methods: writes}',
    '- {allow: a, to: a.example.org, methods: [GET], paths: ["/a%2Fb", "/a/b"]}',
    "- {allow: a, to: a.example.org, methods: [GET], websocket: {max-frame: 1MB}}\n  - {allow: b, to: a.example.org, methods: [GET]}",
    "- {allow: a, to: 10.1.2.3, methods: [GET]}",
    "- {allow: a, to: a.example.org, methods: [GET], stream-request: yes}\n  - {allow: b, to: a.example.org, methods: reads}",
]  # fmt: skip


@pytest.mark.parametrize("rules", CORRECT)
def test_a_correct_policy_is_reviewed_without_a_warning(rules):
    policy = policy_of(f"  {rules}", "never:\n  - to: [metadata, link-local]\n")

    found = review(policy, TABLES)

    assert [each for each in found.findings if each.severity is not Severity.INFO] == []
    assert (found.undecided, found.proved) == ((), ("never-1",))


def test_a_refusal_cuts_no_part_out_of_a_grant_that_has_no_effect_wherever_they_stand():
    rules = ["  - {allow: dead, to: b.example.org, methods: [GET]}", "  - {deny: all, to: b.example.org}"]

    for order in (rules, rules[::-1]):
        assert [finding.code for finding in review(policy_of("\n".join(order))).findings] == ["W301"]


def test_a_reason_makes_an_upload_a_warning():
    policy = policy_of("  - {allow: post, to: gist.github.com, methods: [POST], why: releases}")

    assert [(f.code, f.severity) for f in review(policy, TABLES).findings] == [("E403", Severity.WARNING)]


POST = "{allow: a, to: gist.github.com, methods: [POST]}"
PASTE = "to: .paste.example, methods: [PUT]"


@pytest.mark.parametrize(("rules", "refused"), [
    pytest.param([POST], ["a"], id="the host itself"),
    pytest.param([POST.replace("gist.", ".")], ["a"], id="above it"),
    pytest.param([POST.replace("gist.github", "")], ["a"], id="far above it"),
    pytest.param([POST.replace("gist.", "api.")], [], id="beside it"),
    pytest.param([POST.replace("gist.", "x.gist.")], [], id="below a host without what is below"),
    pytest.param([f"{{allow: a, {PASTE}}}"], ["a"], id="below a host and the host"),
    pytest.param(["{allow: a, to: x.y.paste.example, methods: any}"], ["a"], id="far below"),
    pytest.param(["{allow: a, to: 'https://x.paste.example/u/**', methods: [PATCH]}"], ["a"], id="a URL"),
    pytest.param(["{allow: a, to: [a.example.org, gist.github.com], methods: [POST]}"], ["a"], id="one host of two"),
    pytest.param([POST.replace("POST", "GET")], [], id="reading"),
    pytest.param([POST.replace("POST", "DELETE")], [], id="deleting"),
    pytest.param([POST.replace("}", ", why: releases}")], [], id="a reason"),
    pytest.param([POST, "{deny: d, to: gist.github.com}"], [], id="what a deny takes back"),
    pytest.param([POST, "{deny: d, to: gist.github.com, paths: ['/x/**']}"], ["a"], id="a part of it taken back"),
    pytest.param(["{allow: a, methods: any}"], [], id="every host"),
    pytest.param([POST, f"{{allow: b, {PASTE}}}", f"{{allow: c, {PASTE}, why: d}}"], ["a", "b"], id="some of three"),
    pytest.param(["{allow: a, to: 9.9.9.9, methods: any}"], [], id="an address"),
    pytest.param(["{deny: a, to: gist.github.com, methods: [POST]}"], [], id="a refusal"),
])
def test_a_grant_of_writing_where_anybody_can_read_keeps_a_policy_from_loading(rules, refused):
    found = errors_at_load(policy_of("\n".join(f"  - {rule}" for rule in rules)), TABLES)

    assert [(each.code, each.severity, each.rules[0]) for each in found] == [
        ("E403", Severity.ERROR, name) for name in refused]
    assert {each.witness.agent for each in found} <= {"a"}


def test_what_a_never_closes_and_what_leaves_are_told_together():
    never = "never:\n  - {to: loopback}\n"
    rules = f"  - {POST}\n  - {{deny: z, to: z.example.org}}\n"
    policy = policy_of(rules, never)
    closed = policy_of(f"{rules}  - {{allow: b, to: localhost, address: 127.0.0.1, methods: reads}}\n")

    found = errors_at_load(replace(closed, nevers=policy.nevers), TABLES)

    assert [(each.code, each.rules) for each in found] == [("E402", ("b", "never-1")), ("E403", ("a",))]
    assert errors_at_load(replace(closed, nevers=policy.nevers)) == found[:1]
    assert errors_at_load(closed) == []


@pytest.mark.parametrize("rule", [
    "{allow: a, to: b.corp.example, address: 169.254.169.254, methods: reads}",
    "{allow: a, to: 127.0.0.1, methods: reads}",
    "{allow: a, to: [x.example.org, 127.0.0.1], methods: reads}",
])
def test_a_grant_for_what_never_refuses_does_not_load(rule):
    with pytest.raises(PolicyError) as refused:
        policy_of(f"  - {rule}", "never:\n  - to: [metadata, loopback]\n")

    assert [finding.code for finding in refused.value.findings if finding.severity is Severity.ERROR] == ["E402"]


def test_an_exception_of_the_never_lets_the_grant_load():
    rule = "  - {allow: a, to: b.corp.example, address: 127.0.0.1, methods: reads}"

    assert policy_of(rule, "never:\n  - {to: loopback, except: {to: b.corp.example}}\n").rules[0].name == "a"


@pytest.mark.parametrize(("rules", "codes"), [
    pytest.param(f"{FIELDS}, query: {{q: x}}}}\n  - {FIELDS.replace('a,', 'b,')}, query: {{q: 'x*'}}}}", ["W302"], id="glob"),
    pytest.param(f"{FIELDS}, json: {{n: 1..5}}}}\n  - {FIELDS.replace('a,', 'b,')}, json: {{n: '<= 5'}}}}", ["W302"],
                 id="numbers"),
    pytest.param(f"{FIELDS}, json: {{n: x}}}}\n  - {{deny: d, json: {{n: '> 5'}}}}", ["W301"], id="a text is no number"),
    pytest.param(f"{FIELDS}, form: {{n: x}}}}\n  - {{deny: d, json: {{n: 7}}}}", ["W301"], id="a form is no JSON"),
    pytest.param(f"{FIELDS}, headers: {{h: x}}}}\n  - {{deny: d, headers: {{h: y}}}}", [], id="another text"),
    pytest.param(f"{FIELDS}, when: {WEEKEND}}}\n  - {{deny: d, when: {{days: [fri-mon], timezone: UTC}}}}", ["W301"],
                 id="hours within hours"),
    pytest.param(f"{FIELDS}, when: {WEEKEND}}}\n  - {{deny: d, when: {{days: [mon-fri], timezone: UTC}}}}", [],
                 id="other hours"),
    pytest.param(f"{FIELDS}, expires: 2030-01-01}}\n  - {{deny: d, expires: 2031-01-01}}", ["W301"], id="an end after it"),
    pytest.param(f"{FIELDS}, expires: 2031-01-01}}\n  - {{deny: d, expires: 2030-01-01}}", ["I304"], id="an end before it"),
    pytest.param(f"{FIELDS}, when: {WEEKEND}, expires: 2090-01-01}}\n  - {{deny: d, when: {WEEKEND}, expires: 2099-01-01}}",
                 ["W301"], id="ends that are far away"),
    pytest.param(f"{FIELDS}, when: {WEEKEND}, expires: 2099-01-01}}\n  - {{deny: d, when: {WEEKEND}, expires: 2090-01-01}}",
                 ["I304"], id="what is left far away"),
])
def test_fields_and_times_are_compared(rules, codes):
    policy = policy_of(f"  - {rules}")
    found = review(policy, now=BEFORE)

    assert ([each.code for each in found.findings], found.undecided) == (codes, ())
    for finding in found.findings:
        _check(policy, finding)


ANY = "allow: a, to: .example.org, methods: any"
SLOW = "throttle: t, to: a.example.org, schemes: https, ports: 443, rate"


@pytest.mark.parametrize(("rules", "codes"), [
    pytest.param([ANY, f"{SLOW}: 6/minute"], [], id="a throttle beside an allow"),
    pytest.param([f"{SLOW}: 6/minute", "allow: a, to: a.example.org, methods: any"], ["W302"], id="an allow in it"),
    pytest.param([ANY, f"{SLOW}: 6/minute", f"{SLOW.replace('t,', 'u,')}: 5/minute"], ["W302"], id="a slower one"),
    pytest.param([ANY, f"{SLOW}: 6/minute", f"{SLOW.replace('t,', 'u,')}: 6/minute"], ["W302"], id="the same twice"),
    pytest.param([ANY, "throttle: t, to: .example.org, schemes: https, ports: 443, rate: 6/minute",
                  "throttle: u, to: x.example.org, schemes: https, ports: 443, rate: 3/minute"], ["W302"],
                 id="a part that is slower, so that the allow is not needed"),
    pytest.param([ANY, "halt: h, to: h.example.org", "deny: d, to: .h.example.org"], [], id="a halt within a deny"),
    pytest.param([ANY, "halt: h, to: .h.example.org", "deny: d, to: h.example.org"], ["W302"], id="a deny in a halt"),
    pytest.param(["allow: a, to: a.example.org, methods: any, paths: [/x]",
                  "halt: h, to: a.example.org, paths: [/y]"], [], id="a halt of what nothing allows"),
    pytest.param(["allow: a, to: a.example.org, methods: any, paths: [/x]",
                  "deny: d, to: a.example.org, paths: [/y], risk: 5"], [], id="points for what nothing allows"),
    pytest.param([ANY, "deny: d, to: .h.example.org, risk: 5", "deny: e, to: h.example.org, risk: 5"], [],
                 id="points add up"),
    pytest.param([ANY, "deny: d, to: h.example.org, risk: 5", "deny: e, to: h.example.org, risk: 5"], [],
                 id="points of two rules that say the same"),
    pytest.param(["throttle: t, to: a.example.org, rate: 6/minute"], ["W404", "W404"], id="a throttle is a grant"),
    pytest.param([f"{SLOW}: 6/minute", "halt: h, to: .example.org"], ["W301"], id="a halt refuses it"),
])
def test_throttles_halts_and_points_are_reviewed_for_what_they_do(rules, codes):
    found = review(policy_of("\n".join(f"- {{{rule}}}" for rule in rules)), TABLES).findings

    assert sorted(finding.code for finding in found if finding.severity is not Severity.INFO) == codes


@settings(max_examples=scaled(10), deadline=None)
@given(st.data())
def test_what_is_found_in_any_policy_is_so(data):
    policy = data.draw(policies | crowded_policies | compared_policies | tiered_policies)
    found = review(policy, now=BEFORE)
    for finding in found.findings:
        _check(policy, finding)
    idle = {name for f in found.findings if f.code in ("W301", "W303", "W305") for name in f.rules[:1]}
    needless = {name for f in found.findings if f.code == "W302" for name in _needless(f)}
    less = replace(policy, rules=tuple(rule for rule in policy.rules if rule.name not in needless))

    for facts in data.draw(st.lists(requests(unread=False), min_size=1, max_size=15)):
        address = data.draw(answers(facts))[0]
        said, without = (judge(each, facts, [address], set()) for each in (policy, less))
        code = said.code
        held = holding(policy, facts, address)
        assert not (held & idle and code is Code.ALLOW)
        assert (code in SIZES) is (without.code in SIZES)
        assert (code is Code.RULE_HALT, said.slowed) == (without.code is Code.RULE_HALT, without.slowed)


def _needless(finding: Finding) -> tuple[str, ...]:
    return finding.rules[:-1] if " repeat" in finding.message else finding.rules[:1]



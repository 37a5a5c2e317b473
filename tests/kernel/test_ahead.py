"""Keys without effect yet: refused in a policy that governs, and read in full in one that is looked at ahead."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kernel.ahead.outlook import as_if, at_most
from kernel.ahead.said import Clause, Git, GraphQl, Mcp
from kernel.match import Index
from kernel.policy import Verb
from kernel.question import answer, facts_of
from kernel.verdict import Action, Code
from tests.addons.policies import codes, compiled, findings

GRANT = "to: x.example, methods: [POST]"


def ahead(text: str):
    read = compiled(text, ahead=True)
    assert read.findings == ()
    return read.policy.ahead


def clause(rule: str) -> Clause:
    return ahead(f"rules: [{{{rule}}}]").clauses["r"]


def verdict(text: str, method: str, url: str, address: str | None = None, holds: tuple[str, ...] = ()):
    policy = as_if(compiled(text, ahead=True).policy, holds)
    where = None if address is None else ip_address(address)
    found = answer(Index(policy), facts_of("local", method, url), where).verdict
    return found.action, found.code, found.rule


@pytest.mark.parametrize(
    "text",
    [
        "rules: [{ask: r, to: x.example}]",
        *(f"rules: [{{allow: r, {GRANT}, {key}}}]" for key in (
            "mcp: {}", "git: {}", "graphql: {}", "credentials: org", "redact: email", "tunnel: opaque",
            "add-headers: {x-a: b}", "approvers: ana", "hold: 20s", "valid: 15m")),
        "rules: [{deny: r, contains: secrets}]",
        "never: [{contains: secrets}]",
        "agents: {a: [a-1]}\ncascade: {depends: {a: [a]}, on-halt: {reasons: [EXPLORATION_DRIFT], do: ask}}",
    ],
)
def test_a_key_without_effect_refuses_to_load_unless_it_is_looked_at_ahead(text):
    assert "E180" in codes(text)
    assert "E180" not in [finding.code for finding in findings(text, ahead=True)]


@pytest.mark.parametrize("text", [
    "rules: [{allow: r, to: x.example, methods: any, except: {mcp: {}}}]",
    "limits: [{max-url: 1KB, mcp: {}}]",
    "assert: [{denied: {from: a, to: 'https://x.example/', method: GET, mcp: {}}}]",
])
def test_a_place_where_a_key_is_not_read_ahead_either_refuses_it(text):
    assert "E180" in [finding.code for finding in findings(text, ahead=True)]


def test_without_a_look_ahead_nothing_of_it_is_kept():
    assert compiled("version: 1").policy.ahead is None
    assert ahead("version: 1").clauses == {}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        pytest.param(
            "allow: r, to: x.example, mcp: {tools: [search_*], where: {amount: '<= 200', currency: [eur, usd]}}",
            Clause(mcp=Mcp(("search_*",), {"amount": ("<= 200",), "currency": ("eur", "usd")})), id="tools"),
        pytest.param(
            'allow: r, to: x.example, git: {fetch: ["acme/**"], push: acme/web, refs: "refs/heads/agent/*", force: no}',
            Clause(git=Git(("acme/**",), ("acme/web",), ("refs/heads/agent/*",), False, False)), id="git"),
        pytest.param(
            f"allow: r, {GRANT}, graphql: {{operations: query, fields: [viewer]}}",
            Clause(graphql=GraphQl(frozenset({"query"}), ("viewer",))), id="graphql"),
        pytest.param(
            f"allow: r, {GRANT}, credentials: org-anthropic, redact: [email], add-headers: {{X-Tenant: acme}}",
            Clause(credentials=frozenset({"org-anthropic"}), redact=frozenset({"email"}),
                   add_headers=(("x-tenant", "acme"),)), id="what is changed"),
        pytest.param(
            "ask: r, to: x.example, approvers: [finance-oncall], hold: 20s, valid: 15m",
            Clause(approvers=("finance-oncall",), hold_seconds=20, valid_seconds=900), id="an ask"),
        pytest.param(
            "deny: r, contains: [secrets, cloud-keys]",
            Clause(contains=frozenset({"secrets", "cloud-keys"})), id="detectors"),
        pytest.param("allow: r, to: x.example, ports: 5432, tunnel: opaque", Clause(tunnel=True), id="a tunnel"),
    ],
)
def test_what_a_rule_says_is_kept_with_its_type(rule, said):
    assert clause(rule) == said


def in_rule(keys: str) -> str:
    return f"rules: [{{allow: r, {GRANT}, {keys}}}]"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (in_rule("mcp: {tool: x}"), "E103", 'did you mean "tools"?'),
        (in_rule("git: {force: yes}"), "E104", "git without fetch: or push:"),
        (in_rule("git: {fetch: a, delete: yes}"), "E112", 'means nothing without "push:"'),
        (in_rule("git: {push: a, force: maybe}"), "E102", 'force is yes or no, not "maybe"'),
        (in_rule("graphql: {operations: querys}"), "E226", 'did you mean "query"?'),
        (in_rule("redact: secret"), "E226", 'did you mean "secrets"?'),
        (in_rule("contains: secrets"), "E112", 'means nothing in an allow'),
        (in_rule("tunnel: yes"), "E226", "one of: opaque"),
        (in_rule("credentials: 'a b'"), "E228", "is no name in credentials"),
        (in_rule("add-headers: {host: x}"), "E227", "is not a header that a rule may set"),
        (in_rule("add-headers: {x-governor-agent: x}"), "E227", "is not a header that a rule may set"),
        (in_rule("add-headers: {x-forwarded-for: x}"), "E227", "is not a header that a rule may set"),
        (in_rule("add-headers: {x-a: ü}"), "E227", "is not ASCII"),
        (in_rule("hold: 20s"), "E112", "means nothing in a rule that is no ask"),
        ("rules: [{ask: r, hold: 20}]", "E222", "say the unit"),
        ("rules: [{deny: r, redact: email}]", "E112", '"redact:" means nothing in a deny'),
        ("rules: [{deny: r, credentials: a}]", "E112", '"credentials:" means nothing in a deny'),
        ("rules: [{ask: r, deny: s}]", "E110", "a rule has one verb"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(text, code, said):
    found = findings(text, ahead=True)

    assert code in [finding.code for finding in found]
    assert any(said in f"{finding.message} {finding.hint}" for finding in found if finding.code == code)


LATTICE = """
    rules:
      - {allow: a, to: [.example, .test], methods: any}
      - {throttle: t, to: [t.example, t.test], rate: 6/minute}
      - {ask: q, to: [q.example, t.test, q.test]}
      - {deny: d, to: [d.example, q.test, d.test]}
      - {halt: h, to: [h.example, d.test, h.test]}
    never: [{to: h.test}]
"""


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("a.example", (Action.ALLOW, Code.ALLOW, "a")),
        ("t.example", (Action.THROTTLE, Code.ALLOW, "t")),
        ("q.example", (Action.ASK, Code.APPROVAL_PENDING, "q")),
        ("t.test", (Action.ASK, Code.APPROVAL_PENDING, "q")),
        ("d.example", (Action.DENY, Code.RULE_DENY, "d")),
        ("q.test", (Action.DENY, Code.RULE_DENY, "d")),
        ("h.example", (Action.HALT, Code.RULE_HALT, "h")),
        ("d.test", (Action.HALT, Code.RULE_HALT, "h")),
        ("h.test", (Action.DENY, Code.NEVER, "never-1")),
    ],
)
def test_the_most_severe_of_the_verbs_that_hold_wins(host, said):
    assert verdict(LATTICE, "GET", f"https://{host}/") == said


@pytest.mark.parametrize("verb", ["ask: r", "throttle: r, rate: 6/minute"])
def test_an_inside_address_needs_a_grant_that_was_written_for_it(verb):
    for to, code in (("to: x.example", Code.PRIVATE_ADDRESS), ("to: x.example, address: 10.0.0.0/8", None)):
        _, found, _ = verdict(f"rules: [{{{verb}, {to}}}]", "GET", "https://x.example/", "10.1.2.3")

        assert (found is Code.PRIVATE_ADDRESS) is (code is Code.PRIVATE_ADDRESS)


def test_what_is_too_large_is_not_asked_for():
    policy = as_if(compiled("rules: [{ask: r, to: x.example, max-url: 22}]", ahead=True).policy, ())

    for tail, code in (("abcd", Code.APPROVAL_PENDING), ("abcde", Code.URL_TOO_LONG)):
        facts = facts_of("local", "GET", f"https://x.example/{tail}")

        assert answer(Index(policy), facts).verdict.code is code


OPEN = """
    rules:
      - {allow: claude, to: x.example, methods: [POST], mcp: {tools: [m]}}
      - {deny: secrets, to: x.example, contains: secrets}
    never: [{to: x.example, contains: cloud-keys}]
"""


def test_a_condition_that_nothing_can_judge_holds_only_where_a_case_says_so():
    url = "https://x.example/"

    assert verdict(OPEN, "POST", url)[1] is Code.DEFAULT_DENY
    assert verdict(OPEN, "POST", url, holds=("claude",))[1] is Code.ALLOW
    assert verdict(OPEN, "POST", url, holds=("claude", "secrets"))[1] is Code.RULE_DENY
    assert verdict(OPEN, "POST", url, holds=("claude", "never-1"))[1] is Code.NEVER


def test_an_assertion_speaks_of_whatever_a_grant_might_let_through():
    asked = "from: local, to: 'https://x.example/', method: POST"

    assert [f.code for f in findings(f"{OPEN}    assert: [{{denied: {{{asked}}}}}]\n", ahead=True)] == ["P801"]
    assert findings(f"{OPEN}    assert: [{{allowed: {{{asked}}}}}]\n", ahead=True) == ()


def test_a_policy_without_such_conditions_is_judged_as_it_is():
    policy = compiled("rules: [{ask: r, to: x.example}]", ahead=True).policy

    assert as_if(policy, ()) is policy
    assert at_most(policy) is policy


@pytest.mark.parametrize(
    ("key", "methods"),
    [
        ('git: {fetch: "acme/**"}', {"GET", "POST"}),
        ("mcp: {tools: search}", {"GET", "POST", "DELETE"}),
        ("tunnel: opaque", None),
    ],
)
def test_a_key_that_speaks_of_a_protocol_brings_its_methods(key, methods):
    (rule,) = compiled(f"rules: [{{allow: r, to: x.example, {key}}}]", ahead=True).policy.rules

    assert rule.where.methods == methods
    assert rule.verb is Verb.ALLOW


def test_a_host_that_is_an_address_is_not_asked_for_either_when_it_is_too_large():
    text = "rules: [{ask: r, to: 8.8.8.8, max-url: 17}]"

    assert verdict(text, "GET", "https://8.8.8.8/a")[1] is Code.APPROVAL_PENDING
    assert verdict(text, "GET", "https://8.8.8.8/ab")[1] is Code.URL_TOO_LONG

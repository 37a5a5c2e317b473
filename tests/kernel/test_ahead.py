"""Keys without effect yet: refused in a policy that governs, and read in full in one that is looked at ahead."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kernel.ahead.outlook import as_if, at_most
from kernel.ahead.said import Breaker, Clause, Dns, Git, GraphQl, Llm, Mcp, OnHalt, Prevention
from kernel.budget import Budget, Counter, Effect, Every, RateLimit, Threshold, Unit
from kernel.match import Index
from kernel.measures import Rate
from kernel.policy import AgentPattern, Position, Verb
from kernel.question import answer, facts_of
from kernel.verdict import Action, Code
from tests.addons.policies import codes, compiled, findings

MINUTE = 60
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
        "rules: [{throttle: r, to: x.example, rate: 6/minute}]",
        "rules: [{halt: r, to: x.example}]",
        *(f"rules: [{{allow: r, {GRANT}, {key}}}]" for key in (
            "llm: {}", "mcp: {}", "git: {}", "graphql: {}", "credentials: org", "redact: email", "tunnel: opaque",
            "add-headers: {x-a: b}", "risk: 5", "approvers: ana", "hold: 20s", "valid: 15m", "rate: 6/minute")),
        "rules: [{deny: r, contains: secrets}]",
        "never: [{contains: secrets}]",
        "budgets: []",
        "rates: []",
        "profile: balanced",
        "counters: {}",
        "cascade: {}",
        "dns: {}",
    ],
)
def test_a_key_without_effect_refuses_to_load_unless_it_is_looked_at_ahead(text):
    assert "E180" in codes(text)
    assert "E180" not in [finding.code for finding in findings(text, ahead=True)]


@pytest.mark.parametrize("text", [
    "rules: [{allow: r, to: x.example, methods: any, except: {mcp: {}}}]",
    "limits: [{max-url: 1KB, llm: {}}]",
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
            f"allow: r, {GRANT}, llm: {{models: [claude-sonnet-*, gpt-5], max-output-tokens: 8k, also: housekeeping}}",
            Clause(llm=Llm(("claude-sonnet-*", "gpt-5"), 8000, True)), id="models"),
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
        pytest.param("throttle: r, to: x.example, rate: 6/minute", Clause(rate=Rate(6, MINUTE)), id="a throttle"),
        pytest.param(
            "deny: r, contains: [secrets, cloud-keys], risk: 20",
            Clause(contains=frozenset({"secrets", "cloud-keys"}), risk=20), id="detectors"),
        pytest.param("allow: r, to: x.example, ports: 5432, tunnel: opaque", Clause(tunnel=True), id="a tunnel"),
    ],
)
def test_what_a_rule_says_is_kept_with_its_type(rule, said):
    assert clause(rule) == said


def test_the_sections_are_kept_with_their_types():
    said = ahead("""
        agents: {coders: [claude-1, codex-*], reviewers: [rev-1]}
        rules:
          - {allow: r, from: coders, to: x.example, methods: [POST], llm: {models: [m], also: housekeeping}, risk: 1}
        budgets:
          - budget: daily
            for: coders
            each: {usd: 0.5}
            together: {usd: 50, tokens: 4M}
            every: day
            timezone: Europe/Berlin
            when-used: {100%: deny, 80%: tell, 95%: throttle 6/minute}
        rates: [{for: coders, each: 60/minute, together: 600/minute, burst: 10}]
        profile: balanced
        counters: {persistence: {limit: 20, then: throttle, within: 1h}}
        cascade:
          depends: {coders: [reviewers, claude-1]}
          on-halt: {reasons: [OVERRISK], do: throttle, hops: 2, for: 10m}
          circuit-breaker: {halts: 3, within: 5m, do: ask}
        dns: {answer: allowed-names, types: [A, HTTPS], max-labels: 6, max-name: 100}
    """)
    coders = (AgentPattern("claude-1"), AgentPattern("codex-*"))

    assert said.budgets == (Budget(
        "daily", coders, {Unit.USD: 500_000}, {Unit.USD: 50_000_000, Unit.TOKENS: 4_000_000}, Every.DAY,
        "Europe/Berlin",
        (Threshold(80, Effect.TELL), Threshold(95, Effect.THROTTLE, Rate(6, MINUTE)), Threshold(100, Effect.DENY)),
        Position("p.yaml", 7, 5)),)
    assert said.rates == (
        RateLimit("rates-1", coders, Rate(60, MINUTE), Rate(600, MINUTE), 10, Position("p.yaml", 14, 9)),)
    assert (said.profile, said.counters) == ("balanced", (Counter("persistence", 20, Effect.THROTTLE, 3600),))
    assert said.cascade is not None
    assert said.cascade.depends == {"coders": ("reviewers", "claude-1")}
    assert said.cascade.on_halt == OnHalt(frozenset({"OVERRISK"}), Prevention.THROTTLE, 2, 600)
    assert said.cascade.breaker == Breaker(3, 300, Prevention.ASK)
    assert said.dns == Dns("allowed-names", frozenset({"A", "HTTPS"}), 6, 100)


def in_rule(keys: str) -> str:
    return f"rules: [{{allow: r, {GRANT}, {keys}}}]"


def in_budget(keys: str) -> str:
    return f"budgets: [{{budget: b, every: day, {keys}}}]"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (in_rule("llm: {modells: [m]}"), "E103", 'did you mean "models"?'),
        (in_rule("llm: {max-output-tokens: 8K}"), "E221", "write 8k"),
        (in_rule("llm: {also: housekeping}"), "E226", 'did you mean "housekeeping"?'),
        (in_rule("llm: {models: ['a b']}"), "E228", "is no name and no pattern of names in models"),
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
        (in_rule("rate: 6/minute"), "E112", "means nothing in a rule that is no throttle"),
        (in_rule("risk: -1"), "E221", "is not a number"),
        ("rules: [{ask: r, hold: 20}]", "E222", "say the unit"),
        ("rules: [{throttle: r, to: x.example}]", "E104", 'a throttle needs "rate:"'),
        ("rules: [{throttle: r, rate: 6/min}]", "E209", "write 6/minute"),
        ("rules: [{deny: r, redact: email}]", "E112", '"redact:" means nothing in a deny'),
        ("rules: [{deny: r, credentials: a}]", "E112", '"credentials:" means nothing in a deny'),
        ("rules: [{halt: r, max-url: 1KB}]", "E112", '"max-url:" means nothing in a halt'),
        ("rules: [{ask: r, deny: s}]", "E110", "a rule has one verb"),
        ("budgets: [{budget: b, each: {usd: 5}}]", "E104", 'needs "every:"'),
        (in_budget("for: a"), "E104", "a budget without an amount"),
        (in_budget("each: {}"), "E104", "each says no amount"),
        (in_budget("each: {euro: 5}"), "E103", "known here: bytes, new-hosts, requests, risk, seconds, tokens, usd"),
        (in_budget("each: {token: 5}"), "E103", 'did you mean "tokens"?'),
        (in_budget("each: {usd: 5 USD}"), "E220", "write 5"),
        (in_budget("each: {seconds: 90}"), "E222", "say the unit"),
        (in_budget("each: {bytes: 1mb}"), "E209", "write 1MB"),
        (in_budget("limit: {usd: 5}"), "E112", 'say "each:"'),
        (in_budget("each: {usd: 5}, from: a"), "E112", 'say "for:" here'),
        (in_budget("each: {usd: 5}, timezone: Berlin time"), "E213", "is not a time zone"),
        (in_budget("each: {usd: 5}, when-used: {80: tell}"), "E223", "write 80%"),
        (in_budget("each: {usd: 5}, when-used: {80%: throttle}"), "E225", "write throttle 6/minute"),
        (in_budget("each: {usd: 5}, when-used: {80%: tel}"), "E225", 'did you mean "tell"?'),
        (in_budget("each: {usd: 5}, when-used: {80%: deny now}"), "E225", "write deny"),
        ("budgets: [{budget: b, each: {risk: 5}, every: month}]", "E224", "one of: day, hour, session, week"),
        ("budgets: [{budget: b, each: {risk: 5}, every: session, timezone: UTC}]", "E112", "does not begin anew"),
        ("budgets: [{budget: b, each: {risk: 5}, every: day}, {budget: b, each: {risk: 5}, every: day}]", "E107",
         'two budgets are called "b"'),
        ("rates: [{burst: 5}]", "E104", "an item of rates without a rate"),
        ("rates: [{each: 5}]", "E209", "is not a rate"),
        ("profile: balancd", "E226", 'did you mean "balanced"?'),
        ("counters: {persistance: {limit: 5, then: deny}}", "E103", 'did you mean "persistence"?'),
        ("counters: {risk: {limit: 5, then: ask}}", "E225", "is nothing that then can be"),
        ("counters: {risk: {limit: 5}}", "E104", 'needs "then:"'),
        ("cascade: {depends: {coders: [reviewers]}}", "E229", "is no group and no agent of a group"),
        ("cascade: {on-halt: {reasons: [EXHAUSTION], do: ask}}", "E226", "EXHAUSTION never spreads"),
        ("cascade: {on-halt: {reasons: [OVERISK], do: ask}}", "E226", 'did you mean "OVERRISK"?'),
        ("cascade: {on-halt: {reasons: [OVERRISK], do: halt, for: 10m}}", "E112", "an operator releases the agent"),
        ("cascade: {on-halt: {reasons: [OVERRISK], do: ask, hops: 99}}", "E221", "from 1 to 16"),
        ("cascade: {blast-radius: 101%}", "E223", "is more than all agents"),
        ("cascade: {circuit-breaker: {halts: 3, within: 5, do: ask}}", "E222", "say the unit"),
        ("dns: {types: [AAAAA]}", "E226", 'did you mean "AAAA"?'),
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
      - {allow: claude, to: x.example, methods: [POST], llm: {models: [m]}}
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

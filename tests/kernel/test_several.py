"""Several files as one policy: what each may say, and what comes of them together."""

from __future__ import annotations

from ipaddress import ip_address
from textwrap import dedent

import pytest

from addons.time_zones import ZONES
from addons.yaml_nodes import compose
from kernel.analysis.difference import Relation, difference
from kernel.analysis.review import review
from kernel.compiler import Compiled, compile_policy
from kernel.decide import NOTHING_ALLOWS, name_stage
from kernel.errors import PolicyError
from kernel.match import Index
from kernel.question import answer, facts_of
from kernel.times import moment
from kernel.verdict import Code, Judgement
from tests.addons.policies import RANGES

PLATFORM = """
    tier: platform
    contact: "#platform"
    identity: {anonymous: allow}
    agents: {payments: [payments-*], web: [web-1]}
    destinations: {shop: .shop.example}
    rules:
      - {allow: all-shop, to: shop, methods: any, max-request: 1MB}
      - {allow: inside, to: [db.example, cache.example], address: [10.1.0.0/16], methods: any}
      - {deny: no-admin, to: admin.shop.example}
    never: [{to: metadata}]
"""
PAYMENTS = """
    tier: team
    for: payments
    rules:
      - {allow: pay, to: shop, methods: [POST], max-request: 10MB}
      - {allow: db, to: db.example, address: 10.1.2.0/24, methods: any}
      - {allow: look, to: cache.example, methods: any}
    never: [{to: evil.shop.example}]
"""


def together(*texts: str, now: int = 0, ahead: bool = False) -> Compiled:
    files = [compose(f"version: 1\n{dedent(text)}".encode(), f"{n}.yaml") for n, text in enumerate(texts)]
    return compile_policy(files, RANGES, "digest", frozenset(), ZONES, now, ahead=ahead)


def refused(*texts: str) -> list[tuple[str, str, int]]:
    """Code, file and line of everything that keeps the files from loading."""
    with pytest.raises(PolicyError) as error:
        together(*texts)
    return [(each.code, each.position.file, each.position.line) for each in error.value.findings]


def asked(index: Index, agent: str, method: str, url: str, address: str | None = None, at: str | None = None,
          body_bytes: int = 0) -> Judgement:
    facts = facts_of(agent, method, url, body_bytes, at=0 if at is None else moment(at))
    return answer(index, facts, None if address is None else ip_address(address))


@pytest.fixture(scope="module")
def both() -> Index:
    return Index(together(PLATFORM, PAYMENTS).policy)


@pytest.mark.parametrize(("agent", "method", "url", "address", "code", "rule"), [
    pytest.param("payments-1", "POST", "https://shop.example/", None, Code.ALLOW, "all-shop", id="both grant"),
    pytest.param("payments-1", "GET", "https://shop.example/", None, Code.DEFAULT_DENY, None, id="one grants"),
    pytest.param("web-1", "GET", "https://shop.example/", None, Code.ALLOW, "all-shop", id="it binds others"),
    pytest.param("anonymous", "GET", "https://shop.example/", None, Code.DEFAULT_DENY, None, id="nobody"),
    pytest.param("payments-1", "POST", "https://admin.shop.example/", None, Code.RULE_DENY, "no-admin", id="above"),
    pytest.param("payments-1", "POST", "https://evil.shop.example/", None, Code.NEVER, "never-2", id="below"),
    pytest.param("web-1", "POST", "https://evil.shop.example/", None, Code.ALLOW, "all-shop", id="below, for others"),
    pytest.param("payments-1", "GET", "https://db.example/", "10.1.2.3", Code.ALLOW, "inside", id="both open"),
    pytest.param("payments-1", "GET", "https://db.example/", "10.1.9.9", Code.PRIVATE_ADDRESS, None, id="one opens"),
    pytest.param("web-1", "GET", "https://db.example/", "10.1.9.9", Code.ALLOW, "inside", id="opened for others"),
    pytest.param("payments-1", "GET", "https://cache.example/", "10.1.2.3", Code.PRIVATE_ADDRESS, None,
                 id="one grants it at other addresses"),
])
def test_each_tier_that_binds_an_agent_must_grant_and_any_may_refuse(both, agent, method, url, address, code, rule):
    judged = asked(both, agent, method, url, address).verdict

    assert (judged.code, judged.rule) == (code, rule)


def test_a_name_that_one_tier_never_grants_is_not_looked_up(both):
    assert name_stage(both, facts_of("payments-1", "GET", "https://shop.example/")) == Judgement(
        NOTHING_ALLOWS, ("all-shop",), None, both.measures((0,)))
    assert name_stage(both, facts_of("payments-1", "POST", "https://shop.example/")) is None
    assert name_stage(both, facts_of("web-1", "GET", "https://shop.example/")) is None


def test_of_each_tier_the_most_generous_grant_counts_and_then_the_smallest(both):
    assert asked(both, "payments-1", "POST", "https://shop.example/", body_bytes=10**6).verdict.lets_through
    too_large = asked(both, "payments-1", "POST", "https://shop.example/", body_bytes=10**6 + 1)

    assert (too_large.verdict.code, too_large.verdict.rule) == (Code.BODY_TOO_LARGE, "all-shop")


def test_a_tier_that_passes_only_refuses():
    index = Index(together("tier: platform\nunmatched: pass\nrules: [{deny: no, to: no.example}]", """
        tier: team
        for: [a-*]
        rules: [{allow: every, methods: any}]
    """).policy)

    assert asked(index, "a-1", "GET", "https://x.example/").verdict.code is Code.ALLOW
    assert asked(index, "a-1", "GET", "https://no.example/").verdict.code is Code.RULE_DENY
    assert asked(index, "b-1", "GET", "https://x.example/").verdict.code is Code.DEFAULT_DENY


def test_a_file_alone_binds_those_it_says():
    index = Index(together("for: [a-*]\nrules: [{allow: every, methods: any}]").policy)

    assert asked(index, "a-1", "GET", "https://x.example/").verdict.code is Code.ALLOW
    assert asked(index, "b-1", "GET", "https://x.example/").verdict.code is Code.DEFAULT_DENY


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_files_that_say_their_tier_may_come_in_any_order(order):
    texts = [PLATFORM, PAYMENTS, "tier: agent\nrules: [{allow: one, to: shop, methods: any}]"]

    policy = together(*(texts[place] for place in order)).policy

    assert [tier.name for tier in policy.tiers] == ["platform", "team", "agent"]
    assert [rule.name for rule in Index(policy).rules] == [
        "all-shop", "inside", "no-admin", "never-1", "pay", "db", "look", "never-2", "one"]


def test_files_that_say_no_tier_narrow_in_the_order_given():
    policy = together("contact: me", "", "", "").policy

    assert [tier.name for tier in policy.tiers] == ["platform", "team", "agent", "agent"]
    assert policy.files == ("0.yaml", "1.yaml", "2.yaml", "3.yaml")


def test_rules_nevers_and_limits_of_all_files_are_counted_through():
    policy = together("never: [{to: a.example}]\nlimits: [{max-url: 9KB}]",
                      "never: [{to: b.example}]\nlimits: [{max-url: 8KB}]").policy

    assert [(rule.number, rule.tier, rule.name) for rule in Index(policy).rules] == [
        (0, 0, "never-1"), (1, 1, "never-2"), (2, 0, "limits-1"), (3, 1, "limits-2")]


@pytest.mark.parametrize(("upper", "lower", "code", "line"), [
    pytest.param("rules: [{deny: x}]", "rules: [{deny: x}]", "E107", 2, id="a rule's name twice"),
    pytest.param("agents: {x: [y]}", "agents: {x: [z]}", "E107", 2, id="a group anew"),
    pytest.param("destinations: {x: y.example}", "destinations: {x: z.example}", "E107", 2, id="a destination anew"),
    pytest.param("agents: {x: [y]}", "agents: {z: [x]}", "E107", 2, id="a group within an upper one"),
    pytest.param("", "identity: {anonymous: allow}", "E112", 2, id="identity below"),
    pytest.param("", "contact: me", "E112", 2, id="contact below"),
    pytest.param("", "mode: enforce", "E112", 2, id="a mode below"),
    pytest.param("tier: platform", "rules: []", "E104", 1, id="one says its tier, the other does not"),
    pytest.param("tier: platform", "tier: teem", "E102", 2, id="a tier that is none"),
    pytest.param("", "unmatched: allow", "E102", 2, id="unmatched that is not pass"),
    pytest.param("", "rules: [{allow: x, methods: any}]\nunmatched: pass", "E112", 3, id="a grant that passes"),
    pytest.param("", "for: []", "E102", 2, id="for nobody"),
    pytest.param("tier: platform\nrules: [{ask: x}]", "tier: team", "E180", 3, id="a key of later versions"),
    pytest.param("", "cascade: {}", "E112", 2, id="a cascade below"),
])
def test_what_a_lower_file_must_not_say_is_refused_at_its_place(upper, lower, code, line):
    file = "0.yaml" if code == "E180" else "1.yaml"

    assert refused(upper, lower) == [(code, file, line)]


@pytest.mark.parametrize(("texts", "told"), [
    pytest.param(["rules: [{deny: x}]", "rules:\n  - deny: x"],
                 '1.yaml:3:11: E107 two rules are called "x" (the first is at 0.yaml:2:16)', id="rules of two files"),
    pytest.param(["rules: [{deny: y}, {deny: x}, {deny: x}]"],
                 '0.yaml:2:38: E107 two rules are called "x" (the first is in line 2)', id="rules of one file"),
    pytest.param(["agents: {x: [y]}", "agents: {x: [z]}"],
                 '1.yaml:2:10: E107 two groups are called "x" (the first is at 0.yaml:2:10)', id="groups"),
    pytest.param(["tier: platform", "rules: []", "tier: agent"],
                 "1.yaml:1:1: E104 this file does not say its tier, and another one does "
                 "(write tier: platform, or what else it is)", id="a file without its tier"),
])
def test_what_files_must_not_say_together_is_told_with_the_other_place(texts, told):
    with pytest.raises(PolicyError) as error:
        together(*texts)

    assert list(map(str, error.value.findings)) == [told]


def test_one_name_may_be_given_to_things_of_different_kinds():
    assert together("agents: {x: [y]}\ndestinations: {x: y.example}\nrules: [{deny: x}]").findings == ()


def test_a_file_whose_tier_is_none_is_read_as_the_uppermost():
    upper, lower = "tier: plaform\nagents: {g: [x]}", "tier: team\nrules: [{deny: x, from: g}]"

    assert refused(upper, lower) == [("E102", "0.yaml", 2)]


def test_a_tier_that_is_no_text_is_a_tier_that_is_said():
    assert refused("tier: [team]", "tier: team") == [("E102", "0.yaml", 2)]


def test_the_policy_of_several_files_holds_what_each_of_them_says():
    texts = [f"""
        agents: {{group-{name}: [{name}-1]}}
        rules: [{{allow: rule-{name}, to: x.example, methods: any, mcp: {{tools: {name}}}}}]
        budgets: [{{budget: budget-{name}, every: day, each: {{requests: {number}}}}}]
        rates: [{{each: {number}/minute}}]
        {said}
        assert:
          - allowed: {{from: {name}-1, to: "https://x.example/{name}", method: GET}}
          - denied: {{from: {name}-1, to: {name}.example}}
    """ for number, (name, said) in enumerate((("a", """
        tier: team
        contact: us
        identity: {anonymous: allow}
        profile: balanced
        counters: {persistence: {limit: 7, then: throttle, within: 1h}}
        cascade: {depends: {group-a: [a-1]}}
        mode: observe
        until: 2030-01-01"""), ("b", """
        tier: team
        dns: {max-labels: 6}"""), ("c", """
        tier: agent
        dns: {max-labels: 7}""")), 1)]
    policy = together(*texts, ahead=True).policy

    # What is said for all is said by the first.
    assert (policy.contact, policy.identity.anonymous) == ("us", True)
    assert policy.observed_until == moment("2030-01-02T00:00:00Z")
    assert list(policy.groups) == ["group-a", "group-b", "group-c"]
    assert [each.url for each in policy.assertions] == [f"https://x.example/{name}" for name in "abc"]
    assert [each.where.to[0].name for each in policy.claims] == [f"{name}.example" for name in "abc"]
    assert policy.cascade is not None
    assert list(policy.cascade.depends) == ["group-a"]
    assert (policy.profile, [counter.limit for counter in policy.counters]) == ("balanced", [7])
    assert [budget.name for budget in policy.budgets] == ["budget-a", "budget-b", "budget-c"]
    assert [rate.each.count for rate in policy.rates] == [1, 2, 3]
    said = policy.ahead
    assert {name: clause.mcp.tools for name, clause in said.clauses.items()} == {
        f"rule-{name}": (name,) for name in "abc"}
    # Each holds for the agents that its file binds.
    assert [each and each.most_labels for each in policy.dns] == [None, 6, 7]


def test_what_files_of_one_level_name_is_not_seen_by_each_other():
    one = "tier: team\nagents: {mine: [m-1]}\ndestinations: {ours: a.example}"
    other = "tier: team\nrules: [{deny: x, to: b.example, from: mine}, {deny: y, to: ours}]"

    assert [each.code for each in together("tier: platform", one, other).findings] == ["W120", "W105"]
    assert together("tier: platform", one, other.replace("team", "agent")).findings == ()


def test_an_agent_that_a_file_does_not_bind_is_told():
    compiled = together("", "for: [a-*]\nrules: [{deny: x, from: [a-1, b-1]}, {deny: y, from: b-*}]")

    assert [(each.code, each.rules) for each in compiled.findings if each.code == "W122"] == [("W122", ("x",))]


def test_an_assertion_is_judged_under_all_tiers():
    asserting = """
        tier: team
        rules: [{allow: x, methods: any}]
        assert: [{allowed: {from: a, to: "https://shop.example/", method: GET}}]
    """

    assert together(PLATFORM, asserting).policy.assertions
    assert refused("tier: platform", asserting) == [("P801", "1.yaml", 5)]


@pytest.mark.parametrize(("binds", "code"), [("", ["E402"]), ("for: [a]", [])])
def test_an_inside_grant_that_a_never_for_all_its_agents_closes_does_not_load(binds, code):
    upper = f"tier: platform\n{binds}\nnever: [{{to: private-networks}}]"
    lower = "tier: team\nrules: [{allow: x, to: db.example, address: 10.1.0.0/16, methods: any}]"

    if code:
        assert [found for found, *_ in refused(upper, lower)] == code
    else:
        assert together(upper, lower).policy.tiers[0].binds


UPPER_HOURS = 'rules: [{allow: up, methods: any, when: {hours: "08:00-18:00", timezone: UTC}}]'


@pytest.mark.parametrize(("hours", "code", "rule"), [
    pytest.param("09:00-10:00", Code.OUT_OF_HOURS, "down", id="the last to begin is named"),
    pytest.param("07:00-20:00", Code.OUT_OF_HOURS, "up", id="that is granted by the other already, or earlier"),
])
def test_a_request_that_waits_for_several_tiers_is_told_when_the_last_begins(hours, code, rule):
    lower = f'rules: [{{allow: down, methods: any, when: {{hours: "{hours}", timezone: UTC}}}}]'
    index = Index(together(UPPER_HOURS, lower).policy)

    early = asked(index, "a", "GET", "https://x.example/", at="2026-01-08T06:00:00Z").verdict

    assert (early.code, early.rule) == (code, rule)
    assert asked(index, "a", "GET", "https://x.example/", at="2026-01-08T09:30:00Z").verdict.lets_through


def test_a_request_that_another_tier_never_grants_is_not_told_to_wait():
    index = Index(together(UPPER_HOURS, "rules: [{allow: y, to: y.example, methods: any}]").policy)

    judged = asked(index, "a", "GET", "https://x.example/", at="2026-01-08T06:00:00Z").verdict

    assert judged.code is Code.DEFAULT_DENY


def test_a_tunnel_opens_only_where_every_tier_may_grant(both):
    reaches = both.connect_reaches
    host = facts_of("a", "GET", "https://shop.example/").host

    assert reaches("payments-1", host, 443)
    assert reaches("web-1", facts_of("a", "GET", "https://db.example/").host, 443)
    assert not reaches("payments-1", facts_of("a", "GET", "https://y.example/").host, 443)
    upper_only = Index(together("rules: [{allow: x, methods: any}]", "rules: []").policy)
    assert not upper_only.connect_reaches("a", host, 443)


def test_a_further_tier_is_a_stricter_policy():
    policy, one = together(PLATFORM, PAYMENTS).policy, together(PLATFORM).policy

    assert review(policy).undecided == ()
    assert difference(one, policy).relation is Relation.STRICTER
    assert difference(policy, one).relation is Relation.LOOSER
    assert difference(policy, policy).relation is Relation.EQUAL


def test_tiers_of_many_rules_are_compared_in_the_end():
    rules = ", ".join(f"{{allow: to-{number}, to: {number}.x.example, methods: reads}}" for number in range(20))
    policy = together(f"rules: [{rules}]", "rules: [{allow: all, to: .x.example, methods: reads}]").policy

    assert review(policy).undecided == ()
    assert difference(policy, policy).relation is Relation.EQUAL

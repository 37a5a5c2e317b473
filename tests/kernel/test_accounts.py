"""What a policy says agents may use up, how often they may ask, and what is counted of them: read, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.bounds import Bounds
from kernel.budget import Budget, Counter, Effect, Every, RateLimit, Threshold, Unit
from kernel.errors import PatternError
from kernel.measures import Rate
from kernel.pattern import agent_matches, agent_pattern, agents_of_both
from kernel.policy import AgentPattern, Position, Verb
from tests.addons.policies import compiled, findings
from tests.kernel.test_several import refused, together

MINUTE = 60
GRANT = "to: x.example, methods: [POST]"


def test_money_and_tokens_are_kept_in_whole_numbers():
    (budget,) = compiled("budgets: [{budget: b, each: {usd: 0.5}, together: {usd: 50, tokens: 4M}, every: day, "
                         "when-used: {100%: deny}}]").policy.budgets

    assert (budget.each, budget.together) == ({Unit.USD: 500_000}, {Unit.USD: 50_000_000, Unit.TOKENS: 4_000_000})


def test_what_agents_may_use_up_is_kept_with_its_types():
    policy = compiled("""
        agents: {coders: [claude-1, codex-*]}
        rules: [{allow: r, from: coders, to: x.example, methods: [POST], risk: 1}]
        budgets:
          - budget: daily
            for: coders
            each: {requests: 2k, seconds: 8h}
            together: {bytes: 10GB, new-hosts: 20, risk: 100}
            every: day
            timezone: Europe/Berlin
            when-used: {100%: deny, 80%: tell, 95%: throttle 6/minute}
        rates: [{for: coders, each: 60/minute, together: 600/minute, burst: 10}]
        profile: balanced
        counters: {persistence: {limit: 20, then: throttle}, steps: {limit: 1k, then: halt}}
    """).policy
    coders = (AgentPattern("claude-1"), AgentPattern("codex-*"))

    assert policy.budgets == (Budget(
        "daily", coders, {Unit.REQUESTS: 2000, Unit.SECONDS: 28800},
        {Unit.BYTES: 10**10, Unit.NEW_HOSTS: 20, Unit.RISK: 100}, Every.DAY, policy.budgets[0].zone,
        (Threshold(80, Effect.TELL), Threshold(95, Effect.THROTTLE, Rate(6, MINUTE)), Threshold(100, Effect.DENY)),
        Position("p.yaml", 6, 5)),)
    assert policy.budgets[0].zone.name == "Europe/Berlin"
    assert policy.rates == (
        RateLimit("rates-1", coders, Rate(60, MINUTE), Rate(600, MINUTE), 10, Position("p.yaml", 13, 9)),)
    assert policy.profile == "balanced"
    assert policy.counters == (Counter("persistence", 20, Effect.THROTTLE, 3600), Counter("steps", 1000, Effect.HALT))


@pytest.mark.parametrize(("text", "verb", "risk", "rate"), [
    ("throttle: r, to: x.example, rate: 6/minute", Verb.THROTTLE, 0, Rate(6, MINUTE)),
    ("halt: r, to: x.example", Verb.HALT, 0, None),
    ("deny: r, risk: 2k", Verb.DENY, 2000, None),
    ("deny: r, methods: writes, except: {to: 10.0.0.0/8}, risk: 5", Verb.DENY, 5, None),
    ("deny: r, to: x.example, address: 10.0.0.0/8, risk: 5", Verb.DENY, 5, None),
    ("throttle: r, address: public-internet, rate: 6/minute, risk: 5", Verb.THROTTLE, 5, Rate(6, MINUTE)),
    (f"allow: r, {GRANT}, risk: 1", Verb.ALLOW, 1, None),
])
def test_what_a_rule_costs_and_how_often_it_passes_is_kept(text, verb, risk, rate):
    (rule,) = compiled(f"rules: [{{{text}}}]").policy.rules

    assert (rule.verb, rule.risk, rule.rate) == (verb, risk, rate)


def in_rule(keys: str) -> str:
    return f"rules: [{{allow: r, {GRANT}, {keys}}}]"


def in_budget(keys: str) -> str:
    return f"budgets: [{{budget: b, every: day, {keys}}}]"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (in_rule("rate: 6/minute"), "E112", "means nothing in a rule that is no throttle"),
        (in_rule("risk: -1"), "E221", "is not a number"),
        ("rules: [{throttle: r, to: x.example}]", "E104", 'a throttle needs "rate:"'),
        ("rules: [{throttle: r, rate: 6/min}]", "E209", "write 6/minute"),
        ("rules: [{halt: r, max-url: 1KB}]", "E112", '"max-url:" means nothing in a halt'),
        ("rules: [{halt: r, to: [x.example, 10.0.0.0/8]}]", "E112", "others say where it leads"),
        ("rules: [{halt: r, to: x.example, address: 10.0.0.0/8}]", "E112", "make two rules"),
        ("rules: [{deny: r, to: metadata, risk: 5}]", "E112", "others say where a name leads"),
        ("rules: [{deny: r, address: 10.0.0.0/8, risk: 5}]", "E112", "name hosts in to:"),
        ("rules: [{deny: r, to: [x.example, 10.0.0.1], risk: 5}]", "E112", "others say where a name leads"),
        ("rules: [{halt: r, risk: 5}]", "E112", '"risk:" means nothing in a halt'),
        ("rules: [{deny: r, risk: 5, quiet: yes}]", "E112", "what is expected costs nothing"),
        ("rules: [{deny: r, risk: 5, observe: yes, expires: 2099-01-01}]", "E112", "has no consequences"),
        ("budgets: [{budget: b, each: {requests: 5}}]", "E104", 'needs "every:"'),
        (in_budget("for: a"), "E104", "a budget without an amount"),
        (in_budget("each: {}"), "E104", "each says no amount"),
        (in_budget("each: {euro: 5}"), "E103", "known here: bytes, new-hosts, requests, risk, seconds"),
        (in_budget("each: {token: 5}"), "E103", 'did you mean "tokens"?'),
        (in_budget("each: {seconds: 90}"), "E222", "say the unit"),
        (in_budget("each: {bytes: 1mb}"), "E209", "write 1MB"),
        (in_budget("each: {usd: 5 USD}, when-used: {100%: deny}"), "E220", "write 5"),
        (in_budget("each: {tokens: 4m}"), "E221", "write 4M"),
        (in_budget("each: {usd: 5}"), "E502", "add when-used: {100%: deny}"),
        (in_budget("each: {usd: 5}, when-used: {101%: halt}"), "E502", "what ends it"),
        (in_budget("limit: {usd: 5}"), "E112", 'say "each:"'),
        (in_budget("each: {requests: 5}, from: a"), "E112", 'say "for:" here'),
        (in_budget("each: {requests: 5}, timezone: Berlin time"), "E213", "is not a time zone"),
        (in_budget("each: {requests: 5}, when-used: {80: tell}"), "E223", "write 80%"),
        (in_budget("each: {requests: 5}, when-used: {80%: throttle}"), "E225", "write throttle 6/minute"),
        (in_budget("each: {requests: 5}, when-used: {80%: tel}"), "E225", 'did you mean "tell"?'),
        (in_budget("each: {requests: 5}, when-used: {80%: deny now}"), "E225", "write deny"),
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
        ("budgets: [{budget: rates-1, each: {risk: 5}, every: day}]", "E106", "how Governor names an item itself"),
        ("budgets: [{budget: a b, each: {risk: 5}, every: day}]", "E106", "cannot name a budget"),
        ("counters: {steps: {limit: 5, then: deny, within: 1h}}", "E112", "it counts over the session"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(text, code, said):
    found = findings(text)

    assert code in [finding.code for finding in found]
    assert any(said in f"{finding.message} {finding.hint}" for finding in found if finding.code == code)


PLATFORM = """
    tier: platform
    agents: {ours: [a-*, b-1, c-1]}
    profile: balanced
    budgets: [{budget: whole, together: {requests: 100}, every: day}]
    rates: [{each: 60/minute}]
"""
TEAM = """
    tier: team
    for: [a-*, b-1]
    budgets:
      - {budget: own, each: {requests: 5}, every: session}
      - {budget: some, for: ["*-1", c-1], each: {requests: 3}, every: hour}
    rates: [{together: 10/minute}]
"""


def test_the_budgets_of_all_files_hold_together_and_each_only_for_agents_that_its_file_binds():
    bounds = Bounds(together(PLATFORM, TEAM).policy)

    def of(agent: str) -> tuple[list[str], list[str]]:
        bounded = bounds.of(agent)
        return [each.budget for each in bounded.bounds if not each.counter], [each.name for each in bounded.paces]

    assert of("a-1") == (["whole", "own", "some"], ["rates-1", "rates-2"])
    assert of("a-2") == (["whole", "own"], ["rates-1", "rates-2"])
    assert of("b-1") == (["whole", "own", "some"], ["rates-1", "rates-2"])
    assert of("c-1") == (["whole"], ["rates-1"])


def test_of_a_budget_that_names_agents_of_other_files_is_warned():
    assert [(each.code, each.position.file) for each in together(PLATFORM, TEAM).findings] == [("W122", "1.yaml")]


@pytest.mark.parametrize(("upper", "lower", "code"), [
    pytest.param(PLATFORM, "tier: team\nprofile: aggressive", "E112", id="a profile below"),
    pytest.param(PLATFORM, "tier: team\ncounters: {risk: {limit: 5, then: tell}}", "E112", id="counters below"),
    pytest.param(PLATFORM, "tier: team\nbudgets: [{budget: whole, each: {requests: 5}, every: day}]", "E107",
                 id="a budget of that name"),
    pytest.param(PLATFORM, "tier: team\nfor: a-1\nrates: [{for: b-1, each: 5/minute}]", "E112", id="a rate for nobody"),
])
def test_what_a_lower_file_cannot_say_of_accounts_is_refused_at_its_line(upper, lower, code):
    assert [(found, file) for found, file, _ in refused(upper, lower) if found[0] != "W"] == [(code, "1.yaml")]


_globs = st.text("ab*", min_size=1, max_size=7)


@given(_globs, _globs, st.text("abc", max_size=6))
def test_the_patterns_of_both_cover_exactly_the_agents_that_both_cover(one, other, agent):
    first, second = AgentPattern(one), AgentPattern(other)

    both = agents_of_both((first,), (second,))

    assert any(agent_matches(each, agent) for each in both) is (
        agent_matches(first, agent) and agent_matches(second, agent))


def test_no_star_of_both_reaches_anonymous():
    both = agents_of_both((agent_pattern("anonym*"),), (agent_pattern("*nymous"),)) or ()

    assert not any(agent_matches(each, "anonymous") for each in both)
    assert any(agent_matches(each, "anonym-nymous") for each in both)


def test_patterns_that_meet_in_too_many_ways_are_refused():
    with pytest.raises(PatternError):
        agents_of_both((agent_pattern("a*" * 20),), (agent_pattern("*b" * 20),))

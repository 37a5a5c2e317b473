"""What is found in budgets, rates and counters that cannot mean what they say."""

from __future__ import annotations

import pytest

from kernel.account_review import account_findings
from kernel.findings import Severity
from tests.addons.policies import compiled
from tests.kernel.test_several import together

HOSTS = ("models.example",)
AGENTS = "agents: {coders: [c-1, c-2, c-3], reviewers: [r-1], ops: [o-*]}\n"
MODELS = "  - {allow: models, to: models.example, methods: any}\n"
WEB = "  - {allow: web, from: ops, to: web.example, methods: reads}\n"


def found(text: str):
    return list(account_findings(compiled(text, ahead=True).policy, HOSTS))


def codes(text: str) -> list[str]:
    return [finding.code for finding in found(text)]


def budget(keys: str, rules: str = MODELS) -> str:
    return f"{AGENTS}rules:\n{rules}budgets: [{{budget: b, {keys}}}]\n"


DENY = "when-used: {100%: deny}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(budget(f"for: coders, each: {{usd: 5}}, every: day, {DENY}"), [], id="money for models"),
        pytest.param(budget(f"for: coders, each: {{usd: 5}}, every: day, {DENY}", WEB), ["W501"], id="no model API"),
        pytest.param(budget("for: coders, each: {tokens: 5}, every: day", WEB), ["W501"], id="tokens without models"),
        pytest.param(
            budget("for: coders, each: {tokens: 5}, every: day",
                   "  - {allow: x, to: own.example, methods: any, llm: {also: housekeeping}}\n"),
            [], id="a model API of one's own"),
        pytest.param(
            budget("for: coders, each: {tokens: 5}, every: day", "  - {allow: x, to: own.example, methods: any}\n")
            + "prices: {own.example: [{models: m, input: 1, output: 1, context: 8k, longest-output: 8k}]}\n",
            [], id="a host with prices"),
        pytest.param(
            budget("for: coders, each: {tokens: 5}, every: day",
                   "  - {allow: x, from: r-*, to: models.example, methods: any}\n"), ["W501"], id="models for others"),
        pytest.param(
            budget("for: coders, each: {tokens: 5}, every: day", "  - {deny: x, to: models.example}\n"),
            ["W501"], id="models that are refused"),
        pytest.param(budget("for: ops, each: {requests: 5}, every: day", WEB), [], id="requests"),
        pytest.param(budget("for: coders, each: {requests: 5}, every: day", WEB), ["W501"], id="agents without a rule"),
        pytest.param(
            budget("for: coders, each: {requests: 5}, every: day", "  - {throttle: x, to: x.com, rate: 1/second}\n"),
            [], id="a throttle grants"),
        pytest.param(
            budget("for: coders, each: {requests: 5}, every: day", "  - {halt: x, to: x.example}\n"),
            ["W501"], id="a halt grants nothing"),
        pytest.param(budget("each: {risk: 5}, every: day"), ["W501"], id="no rule adds to the risk"),
        pytest.param(
            budget("each: {risk: 5}, every: day", "  - {deny: x, to: x.example, risk: 5}\n"), [], id="risk"),
        pytest.param(
            budget("each: {tokens: 9}, together: {tokens: 8}, every: day"), ["W501"], id="each above together"),
        pytest.param(budget("each: {tokens: 8}, together: {tokens: 8}, every: day"), [], id="each as much as together"),
        pytest.param(
            budget("each: {tokens: 9}, every: day, when-used: {101%: deny}"), ["W501"], id="more than all of it"),
        pytest.param(
            budget("each: {tokens: 9}, every: day, when-used: {90%: deny, 100%: tell}"), ["W501"], id="after the end"),
        pytest.param(budget("each: {usd: 9}, every: day, when-used: {99%: deny}"), [], id="money that ends before"),
        pytest.param(budget("each: {tokens: 9}, every: day, when-used: {100%: halt}"), ["W503"], id="a halt for good"),
        pytest.param(budget("each: {tokens: 9}, every: session, when-used: {100%: halt}"), [], id="a halt once"),
        pytest.param(f"{AGENTS}rates: [{{each: 60/minute, together: 1/second}}]", [], id="rates that are equal"),
        pytest.param(f"{AGENTS}rates: [{{each: 61/minute, together: 1/second}}]", ["W501"], id="a faster rate of one"),
    ],
)
def test_a_budget_that_cannot_mean_what_it_says_is_found(text, expected):
    assert codes(text) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("c-1", 50), ("c-2", 51)], ["W501"]),
        ([("c-1", 50), ("c-2", 50)], []),
        ([("c-1", 50), ("r-1", 51)], []),
        ([("coders", 101)], []),
    ],
)
def test_budgets_of_some_agents_that_promise_more_than_the_one_over_them_are_found(parts, expected):
    items = "".join(
        f"  - {{budget: b-{place}, for: {who}, together: {{tokens: {most}}}, every: day}}\n"
        for place, (who, most) in enumerate(parts))
    whole = "  - {budget: whole, for: coders, together: {tokens: 100}, every: day}\n"

    assert codes(f"{AGENTS}rules:\n{MODELS}budgets:\n{whole}{items}") == expected


def test_a_finding_on_a_budget_shows_the_amounts_in_their_unit():
    text = budget(f"each: {{usd: 5.50}}, together: {{usd: 5}}, every: day, {DENY}")

    (finding,) = found(text)

    assert "5.5 USD" in finding.message
    assert finding.hint == "together: 5 USD is reached before"
    assert finding.severity is Severity.WARNING


RISKY = "rules: [{deny: d, to: d.example, risk: 5}, {allow: a, to: [a.example, b.example], methods: any}]\n"
WIDE = "rules: [{allow: a, to: .example, methods: any}]\n"


@pytest.mark.parametrize(("text", "said"), [
    pytest.param(RISKY + "counters: {risk: {limit: 100, then: halt}}", None, id="risk"),
    pytest.param(WIDE + "counters: {risk: {limit: 100, then: halt}}", "nothing ever counts against risk", id="no risk"),
    pytest.param(WIDE + "counters: {exploration: {limit: 3, then: deny}}", None, id="hosts without an end"),
    pytest.param(RISKY + "profile: balanced\ncounters: {exploration: {limit: 2, then: deny}}", None,
                 id="as many hosts"),
    pytest.param(RISKY + "profile: balanced\ncounters: {exploration: {limit: 3, then: deny}}",
                 "exploration never comes to 3", id="fewer hosts"),
    pytest.param(WIDE + "counters: {steps: {limit: 11, then: halt}}\n"
                 "budgets: [{budget: b, each: {requests: 10}, every: session}]", "steps never comes to 11",
                 id="a budget that ends before"),
    pytest.param(WIDE + "counters: {steps: {limit: 11, then: halt}}\n"
                 "budgets: [{budget: b, for: a-*, each: {requests: 10}, every: session}]", None, id="a budget of some"),
    pytest.param(WIDE + "counters: {steps: {limit: 11, then: halt}}\n"
                 "budgets: [{budget: b, each: {requests: 10}, every: hour}]", None, id="a budget that begins anew"),
    pytest.param(WIDE + "counters: {steps: {limit: 9, then: halt}}\n"
                 "budgets: [{budget: b, each: {requests: 10}, every: session, when-used: {80%: deny}}]",
                 "steps never comes to 9", id="a budget that ends before it is used up"),
    pytest.param(WIDE + "counters: {stagnation: {limit: 70, then: deny, within: 1h}}\nrates: [{each: 1/minute}]",
                 "stagnation never comes to 70", id="a rate that is too slow"),
    pytest.param(WIDE + "counters: {stagnation: {limit: 60, then: deny, within: 1h}}\nrates: [{each: 1/minute}]", None,
                 id="a rate that is fast enough"),
    pytest.param(WIDE + "counters: {persistence: {limit: 70, then: deny, within: 1h}}\nrates: [{each: 1/minute}]", None,
                 id="refusals have no rate"),
])
def test_a_counter_that_nobody_can_come_to_is_found(text, said):
    assert [finding.message for finding in found(text)] == ([] if said is None else [said])


@pytest.mark.parametrize(("text", "expected"), [
    (RISKY, ["W501"]),
    (RISKY + "profile: balanced", []),
    (RISKY + "counters: {risk: {limit: 9, then: tell}}", []),
    (RISKY + "budgets: [{budget: b, each: {risk: 5}, every: day}]", []),
    (RISKY.replace("to: d", "from: a-1, to: d") + "budgets: [{budget: b, for: b-1, each: {requests: 5}, every: day}]",
     ["W501"]),
])
def test_points_that_no_account_counts_are_found(text, expected):
    assert codes(text) == expected


def test_what_a_tier_grants_others_counts_against_nothing():
    upper = "for: a-1\nrules: [{allow: a, to: x.example, methods: any}]"
    lower = "for: b-1\nbudgets: [{budget: own, each: {requests: 5}, every: day}]\n"
    grant = "rules: [{allow: b, to: x.example, methods: any}]"

    assert list(account_findings(together(upper, lower + grant).policy)) == []
    assert [each.code for each in account_findings(together(upper, lower).policy)] == ["W501"]

"""Rules for models whose clients cannot begin, and models that a budget could not count, are found."""

from __future__ import annotations

import pytest

from kernel.llm_review import llm_findings
from tests.addons.policies import CALLS, compiled

AGENTS = "agents: {coders: [c-1, c-2, c-3], reviewers: [r-1]}\n"
LLM = "{allow: models, from: coders, to: models.example, methods: [POST], llm: {models: [m]KEYS}}"
MONEY = "budgets: [{budget: b, WHOM each: {usd: 5}, every: day, when-used: {100%: deny}}]\n"
PRICES = "prices: {openai: [{models: [m, n-2*], input: 1, output: 1, context: 8k, longest-output: 8k}]}\n"


def found(text: str):
    return list(llm_findings(compiled(text).policy, CALLS))


def rules(*each: str) -> str:
    return AGENTS + "rules:\n" + "".join(f"  - {rule.replace('KEYS', '')}\n" for rule in each)


@pytest.mark.parametrize(("text", "expected"), [
    pytest.param(rules(LLM), ["W310"], id="questions alone"),
    pytest.param(rules(LLM.replace("KEYS", ", also: housekeeping")), [], id="housekeeping, too"),
    pytest.param(rules(LLM, "{allow: list, to: models.example, methods: reads, paths: [/v1/models]}"), [],
                 id="another rule"),
    pytest.param(rules(LLM, "{allow: list, from: r-1, to: models.example, methods: reads}"), ["W310"],
                 id="a rule for others"),
    pytest.param(rules(LLM.replace("KEYS", ", also: housekeeping"), "{deny: no, to: models.example, paths: "
                       "[/v1/models, /v1/messages/count_tokens]}"), ["W310"], id="what another takes back"),
    pytest.param(rules(LLM.replace("to: models.example, methods: [POST]", "to: 'https://models.example/v1/messages'")
                       .replace("KEYS", ", also: housekeeping")), ["W310"], id="a URL has one path"),
    pytest.param(rules(LLM.replace("models.example", "own.example")), [], id="a host that no table has"),
])
def test_a_rule_for_a_model_whose_clients_cannot_begin_is_found(text, expected):
    assert [finding.code for finding in found(text)] == expected


def test_the_finding_shows_a_call_that_fails():
    (finding,) = found(rules(LLM))

    assert (finding.witness.agent, finding.witness.method, finding.witness.url) == (
        "c-1", "GET", "https://models.example/v1/models")
    assert finding.hint == "add also: housekeeping to llm"


@pytest.mark.parametrize(("models", "whom", "expected"), [
    pytest.param("m", "", [], id="a price"),
    pytest.param("n-*", "", [], id="a pattern that meets one with a price"),
    pytest.param("n-2027", "", [], id="a name that a pattern covers"),
    pytest.param("x-*", "", ["W311"], id="no price"),
    pytest.param("[x, m, y]", "", ["W311", "W311"], id="two of three"),
    pytest.param("x", "for: reviewers,", [], id="a budget for others"),
    pytest.param("x", "for: c-*,", ["W311"], id="a budget for some of them"),
])
def test_a_model_without_a_price_is_found_where_a_budget_counts_it(models, whom, expected):
    text = rules(LLM.replace("[m]KEYS", f"{models}, also: housekeeping")) + PRICES + MONEY.replace("WHOM", whom)

    assert [finding.code for finding in found(text)] == expected


def test_where_nothing_is_counted_no_price_is_needed():
    assert found(rules(LLM.replace("[m]KEYS", "x, also: housekeeping"))) == []


def test_a_slip_in_the_name_of_a_model_is_told():
    text = rules(LLM.replace("[m]KEYS", "gpt-5-mimi, also: housekeeping")) + PRICES.replace("[m,", "[gpt-5-mini,")
    (finding,) = found(text + MONEY.replace("WHOM", ""))

    assert (finding.message, finding.hint) == (
        'no price is known of the model gpt-5-mimi, and budget "b" refuses to ask it', 'did you mean "gpt-5-mini"?')

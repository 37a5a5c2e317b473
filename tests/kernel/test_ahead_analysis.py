"""What is found in rules for model APIs before any of them has an effect."""

from __future__ import annotations

import pytest

from kernel.ahead.review import ahead_findings
from kernel.ahead.startup_review import Call
from tests.addons.policies import compiled

CALLS = (Call("GET", "https://models.example/v1/models"), Call("POST", "https://models.example/v1/count"))
AGENTS = "agents: {coders: [c-1, c-2, c-3], reviewers: [r-1], ops: [o-*]}\n"


def found(text: str):
    return list(ahead_findings(compiled(text, ahead=True).policy, CALLS))


def codes(text: str) -> list[str]:
    return [finding.code for finding in found(text)]


LLM = "{allow: models, from: coders, to: models.example, methods: [POST], llm: {models: [m]KEYS}}"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param([LLM], ["W310"], id="questions alone"),
        pytest.param([LLM.replace("KEYS", ", also: housekeeping")], [], id="housekeeping, too"),
        pytest.param(
            [LLM, "{allow: list, to: models.example, methods: reads, paths: [/v1/models]}"], [], id="another rule"),
        pytest.param(
            [LLM, "{allow: list, from: r-1, to: models.example, methods: reads}"], ["W310"], id="a rule for others"),
        pytest.param(
            [LLM, "{allow: list, to: models.example, methods: reads}", "{deny: no, methods: reads}"], ["W310"],
            id="a rule that another takes back"),
        pytest.param([LLM.replace("models.example", "own.example")], [], id="a host that no table has"),
    ],
)
def test_a_rule_for_a_model_whose_clients_cannot_begin_is_found(rules, expected):
    text = AGENTS + "rules:\n" + "".join(f"  - {rule.replace('KEYS', '')}\n" for rule in rules)

    assert codes(text) == expected


def test_the_finding_shows_a_call_that_fails():
    (finding,) = found(f"{AGENTS}rules: [{LLM.replace('KEYS', '')}]\n")

    assert finding.witness is not None
    assert (finding.witness.agent, finding.witness.method, finding.witness.url) == (
        "c-1", "GET", "https://models.example/v1/models")


def test_a_policy_that_was_not_read_ahead_has_none_of_these_findings():
    assert list(ahead_findings(compiled("version: 1").policy, CALLS)) == []

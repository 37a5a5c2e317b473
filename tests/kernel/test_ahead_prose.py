"""A policy that was read ahead, in sentences: nothing of it is left out, and what has no effect yet is marked."""

from __future__ import annotations

import pytest

from kernel.ahead.prose import in_words
from tests.addons.policies import compiled

HEAD = "version: 1\nagents: {coders: [claude-*], reviewers: [rev-1]}\n"


def told(text: str) -> dict[str, list[str]]:
    policy = compiled(f"{HEAD}{text}", ahead=True).policy
    return {each.title: [said.text for said in each.sentences] for each in in_words(policy)}


def rule(text: str) -> str:
    (said,) = told(f"rules: [{{{text}}}]")["Every agent"]
    return said.partition("Without effect yet")[2].removeprefix(": ")


GRANT = "allow: r, to: x.example, methods: [POST]"


@pytest.mark.parametrize(("text", "sentence"), [
    (f"{GRANT}, mcp: {{tools: [search_*, get], where: {{amount: '<= 5', currency: [eur, usd]}}}}",
     "only calls of the tools search_* or get where amount is <= 5 and currency is eur or usd."),
    (f"{GRANT}, mcp: {{}}", "only calls of any tool."),
    (f"{GRANT}, git: {{fetch: 'acme/**'}}", "only fetching from acme/**."),
    (f"{GRANT}, git: {{fetch: [a, b], push: c, refs: refs/heads/x, force: yes}}",
     ("only fetching from a or b and pushing to c, there only refs/heads/x, rewriting what is there, too and without "
      "deleting what is there.")),
    (f"{GRANT}, git: {{push: c}}", "only pushing to c, without rewriting or deleting what is there."),
    (f"{GRANT}, graphql: {{operations: [query, mutation], fields: [viewer, repository]}}",
     "only GraphQL operations of the kind mutation or query on viewer or repository."),
    (f"{GRANT}, graphql: {{}}", "only GraphQL operations of any kind."),
    ("deny: r, contains: [secrets, email]", "only where a detector finds email or secrets in it."),
    (f"{GRANT}, credentials: [org, team]", "only with the keys org or team."),
    (f"{GRANT}, redact: [secrets, email]", "email and secrets are taken out of what is sent."),
    (f"{GRANT}, add-headers: {{X-A: b}}", 'the header x-a is set to "b".'),
    (f"{GRANT}, add-headers: {{x-a: b, x-c: d}}", 'the headers x-a is set to "b" and x-c is set to "d".'),
    (f"{GRANT}, tunnel: opaque", "bytes pass unseen and are only measured."),
    ("ask: r, to: x.example, approvers: [ana, bob], hold: 90s, valid: 1h",
     "ana or bob decides; it waits 90 seconds for an answer; a yes holds 1 hour for the same request."),
    ("ask: r, to: x.example", "."),
])  # fmt: skip
def test_what_a_rule_says_without_effect_is_told_with_the_rule(text, sentence):
    assert rule(text) == sentence


def test_a_halt_that_asks_a_human_is_marked():
    found = told("cascade: {depends: {coders: [reviewers]}, on-halt: {reasons: [EXPLORATION_DRIFT], do: ask}}")

    assert list(found) == ["Not in force", "In general", "When an agent is halted"]
    assert "without effect yet" in found["When an agent is halted"][1]


def test_a_policy_that_says_nothing_of_the_kind_is_told_as_ever():
    assert "Not in force" not in told(f"rules: [{{{GRANT}}}]")

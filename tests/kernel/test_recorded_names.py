"""A decision on a name is made again from its entry: equal where it was made so, different where it was not."""

from __future__ import annotations

import pytest

from kernel import entry
from kernel.recorded import Judging
from kernel.recorded_names import HOST_NOT_KEPT, looked_up_again
from kernel.state import NO_CHANGE, State
from kernel.transition import change
from tests.addons.policies import compiled

POLICY = """\
version: 1
rules:
  - {allow: api, to: [api.example.org, both.example.org], methods: any}
  - {deny: gone, to: gone.example.org}
never:
  - {to: never.example.org}
"""
OBSERVED = "mode: observe\nuntil: 2039-01-01\n"


def decision(name, code="ALLOW", *, record="A", address=None, rule=None, groups=(), mode="enforce", agent="a"):
    facts = entry.request_facts(None, None, name, None, None, address, None, None) | {"record": record}
    verdict = "allow" if code == "ALLOW" else "deny"
    return entry.decision("dns", "f", agent, "none", "p", facts, groups, verdict, rule, code, "", mode)


def again(made, policy=POLICY, *, on_trial=False, values=None):
    return looked_up_again(Judging(compiled(policy).policy), made, values or {}, 0, on_trial=on_trial)


@pytest.mark.parametrize("made", [
    decision("api.example.org", address="192.0.32.8"),
    decision("api.example.org", "RESOLVE_FAILED"),
    decision("api.example.org", "PRIVATE_ADDRESS", address="10.0.0.1"),
    decision("api.example.org", "PROTOCOL_REFUSED", record="16"),
    decision("other.example.org", "DEFAULT_DENY"),
    decision("gone.example.org", "RULE_DENY", rule="gone", groups=["gone"]),
    decision("never.example.org", "NEVER", rule="never-1", groups=["never-1"]),
    decision("governor.internal", address="198.18.0.1"),
    decision("other.example.org", "AGENT_HALTED"),
    decision(None, "NON_CANONICAL"),
    decision("other.example.org", "IDENTITY_REQUIRED", agent=None),
])
def test_what_was_decided_so_is_decided_so_again(made):
    assert again(made) is None


@pytest.mark.parametrize(("made", "field"), [
    (decision("other.example.org", address="192.0.32.8"), "verdict"),
    (decision("other.example.org", "RESOLVE_FAILED"), "code"),
    (decision("api.example.org", "DEFAULT_DENY"), "verdict"),
    (decision("api.example.org", address="10.0.0.1"), "address"),
    (decision("api.example.org", "PRIVATE_ADDRESS", address="192.0.32.8"), "address"),
    (decision("gone.example.org", "DEFAULT_DENY"), "rule"),
    (decision("api.example.org", record="16"), "verdict"),
    (decision("api.example.org", mode="observe"), "mode"),
])
def test_what_cannot_have_been_decided_so_differs(made, field):
    found = again(made)

    assert isinstance(found, tuple)
    assert found[0] == field


def test_on_trial_a_name_that_no_rule_allows_was_answered():
    made = decision("other.example.org", "DEFAULT_DENY", address="192.0.32.8", mode="observe")

    assert again({**made, "verdict": "deny"}, POLICY + OBSERVED, on_trial=True) is None
    assert again({**made, "verdict": "deny"}, POLICY)[0] == "mode"


def test_of_a_name_that_is_not_kept_nothing_is_said_and_the_vault_can_have_it():
    made = decision("example.org", "DEFAULT_DENY")
    made["in"]["host$c"] = "00"

    assert again(made) == HOST_NOT_KEPT
    assert again(made, values={"host": "data.example.org"}) is None


def test_a_name_that_was_told_leaves_nothing_open():
    assert change(State(), decision("api.example.org", address="192.0.32.8"), "main/1", 0) is NO_CHANGE

"""What `cascade:` says, from text to values, and what it must not say."""

from __future__ import annotations

import pytest

from kernel.contagion import Breaker, OnHalt, Prevention
from tests.addons.policies import compiled, findings

AGENTS = "agents: {coders: [claude-1, codex-*], reviewers: [rev-1]}\n"


def section(said: str, frame: str = AGENTS):
    found = compiled(f"{frame}cascade: {{{said}}}").policy.cascade
    assert found is not None
    return found


def test_what_is_said_is_kept_with_its_types():
    said = section("depends: {coders: [reviewers, claude-1]}, blast-radius: 25%, "
                   "on-halt: {reasons: [EXPLORATION_DRIFT], do: quarantine, hops: 2, for: 1h}, "
                   "circuit-breaker: {halts: 3, within: 5m, do: throttle}")

    assert said.depends == {"coders": ("reviewers", "claude-1")}
    assert {name: [each.text for each in of] for name, of in said.members.items()} == {
        "coders": ["claude-1", "codex-*"], "reviewers": ["rev-1"], "claude-1": ["claude-1"]}
    assert said.on_halt == OnHalt(frozenset({"EXPLORATION_DRIFT"}), Prevention.QUARANTINE, 2, 3600)
    assert said.breaker == Breaker(3, 300, Prevention.THROTTLE)
    assert list(said.groups) == ["coders", "reviewers"]
    assert (said.blast_percent, said.seconds) == (25, 3600)


def test_what_is_not_said_is_one_hop_ten_minutes_and_a_tenth_of_the_agents():
    said = section("depends: {coders: [reviewers]}, on-halt: {reasons: [OVERRISK], do: throttle}")

    assert said.on_halt == OnHalt(frozenset({"OVERRISK"}), Prevention.THROTTLE, 1, 600)
    assert (said.blast_percent, said.seconds) == (10, 600)


def test_only_agents_that_the_file_binds_are_meant():
    said = section("depends: {coders: [reviewers]}, circuit-breaker: {halts: 3, within: 5m, do: throttle}",
                   f"for: [claude-*]\n{AGENTS}")

    assert [each.text for each in said.members["coders"]] == ["claude-1"]
    assert said.members["reviewers"] == said.groups["reviewers"] == ()


@pytest.mark.parametrize(("said", "code", "told"), [
    ("depends: {coders: [reviewer]}", "E229", 'did you mean "reviewers"?'),
    ("depends: {nobody: [coders]}", "E229", "is no group and no agent of a group"),
    ("on-halt: {reasons: [EXHAUSTION], do: throttle}", "E226", "EXHAUSTION never spreads"),
    ("on-halt: {reasons: [OPERATOR], do: throttle}", "E226", "OPERATOR never spreads"),
    ("on-halt: {reasons: [CASCADE], do: throttle}", "E226", "CASCADE never spreads"),
    ("on-halt: {reasons: [OVERISK], do: throttle}", "E226", 'did you mean "OVERRISK"?'),
    ("on-halt: {reasons: [OVERRISK]}", "E104", 'needs "do:"'),
    ("on-halt: {reasons: [OVERRISK], do: deny}", "E225", "one of: ask, halt, observe, quarantine, throttle"),
    ("on-halt: {reasons: [OVERRISK], do: ask}", "E180", "write throttle or quarantine"),
    ("on-halt: {reasons: [OVERRISK], do: halt, for: 10m}", "E112", "an operator releases the agent"),
    ("on-halt: {reasons: [OVERRISK], do: throttle, hops: 99}", "E221", "from 1 to 16"),
    ("on-halt: {reasons: [OVERRISK], do: throttle, for: 10}", "E222", "say the unit"),
    ("blast-radius: 101%", "E223", "is more than all agents"),
    ("blast-radius: 0%", "E223", "above 0%"),
    ("circuit-breaker: {halts: 3, within: 5, do: throttle}", "E222", "say the unit"),
    ("circuit-breaker: {halts: 3, within: 5m, do: ask}", "E180", "write throttle or quarantine"),
    ("circuit-breaker: {halts: 3, within: 5m, do: halt}", "E225", "one of: ask, observe, quarantine, throttle"),
    ("circuit-braker: {}", "E103", 'did you mean "circuit-breaker"?'),
])
def test_what_cannot_be_meant_is_refused_with_what_to_write(said, code, told):
    found = findings(f"{AGENTS}cascade: {{{said}}}")

    assert code in [finding.code for finding in found]
    assert any(told in f"{finding.message} {finding.hint}" for finding in found if finding.code == code)

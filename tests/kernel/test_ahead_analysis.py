"""What is found in cascades before they have an effect."""

from __future__ import annotations

import pytest

from kernel.ahead.review import ahead_findings
from tests.addons.policies import compiled

AGENTS = "agents: {coders: [c-1, c-2, c-3], reviewers: [r-1], ops: [o-*]}\n"


def found(text: str, known: tuple[str, ...] = ()):
    return list(ahead_findings(compiled(text, ahead=True).policy, known))


def codes(text: str, known: tuple[str, ...] = ()) -> list[str]:
    return [finding.code for finding in found(text, known)]


def cascade(depends: str, more: str, on_halt: str = "do: halt", reasons: str = "EXPLORATION_DRIFT") -> str:
    return f"{AGENTS}cascade: {{depends: {depends}, on-halt: {{reasons: [{reasons}], {on_halt}}}{more}}}\n"


TO_REVIEWERS = "{coders: [reviewers]}"
CIRCLE = "{coders: [reviewers], reviewers: [coders]}"
THREE = "{coders: [reviewers], reviewers: [ops], ops: [coders]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(cascade(TO_REVIEWERS, ""), [], id="one edge"),
        pytest.param(cascade(CIRCLE, ""), ["E601"], id="two that depend on one another"),
        pytest.param(cascade(CIRCLE, "", "do: throttle"), [], id="a circle that only slows down"),
        pytest.param(cascade(THREE, ""), [], id="a circle that is longer than a hop"),
        pytest.param(cascade(THREE, "", "do: halt, hops: 2"), ["E601"], id="a circle that two hops go round"),
        pytest.param(cascade("{coders: [coders]}", ""), ["E601"], id="a group that depends on itself"),
        pytest.param(cascade("{coders: [r-1], reviewers: [c-1]}", ""), ["E601"], id="a circle through members"),
    ],
)
def test_a_circle_in_which_one_halt_halts_all_is_found(text, expected):
    assert codes(text) == expected


@pytest.mark.parametrize(
    ("depends", "more", "on_halt", "known", "expected"),
    [
        # Registered or written down are c-1, c-2, c-3, r-1 and those of ops.
        pytest.param(TO_REVIEWERS, ", blast-radius: 60%", "do: ask", ("o-1",), [], id="three of five"),
        pytest.param(TO_REVIEWERS, ", blast-radius: 59%", "do: ask", ("o-1",), ["E601"], id="three, and two allowed"),
        pytest.param(TO_REVIEWERS, ", blast-radius: 1%", "do: ask", (), [], id="nobody knows how many"),
        pytest.param("{reviewers: [coders]}", ", blast-radius: 1%", "do: ask", ("o-1",), [], id="one may always"),
        pytest.param(
            "{coders: [reviewers], ops: [coders]}", ", blast-radius: 60%", "do: ask", ("o-1",), [], id="one hop"),
        pytest.param(
            "{coders: [reviewers], ops: [coders]}", ", blast-radius: 60%", "do: ask, hops: 2", ("o-1",), ["E601"],
            id="two hops"),
    ],
)
def test_a_halt_that_reaches_more_agents_than_allowed_is_found(depends, more, on_halt, known, expected):
    assert codes(cascade(depends, more, on_halt), known) == expected


def test_the_worst_reach_of_a_halt_is_told():
    (finding,) = found(cascade(TO_REVIEWERS, ", blast-radius: 20%", "do: ask"), ("o-1",))

    assert finding.message == (
        'a halt of "reviewers" reaches 3 of 5 agents in 1 hop (c-1, c-2, c-3), and blast-radius: 20% allows 1')


def test_a_reason_that_no_agent_can_have_is_found():
    assert codes(cascade(TO_REVIEWERS, "", reasons="OVERRISK")) == ["W501"]
    assert codes("rules: [{deny: x, risk: 5}]\n" + cascade(TO_REVIEWERS, "", reasons="OVERRISK")) == []


def test_a_policy_that_was_not_read_ahead_has_none_of_these_findings():
    assert list(ahead_findings(compiled("version: 1").policy, ())) == []

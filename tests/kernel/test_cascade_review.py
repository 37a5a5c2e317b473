"""What is found in `cascade:`: what never happens, circles, and the reach of the worst halt."""

from __future__ import annotations

import pytest

from kernel.cascade_review import cascade_findings
from kernel.reach import worst_reach
from tests.addons.policies import compiled

AGENTS = "agents: {coders: [c-1, c-2, c-3], reviewers: [r-1], ops: [o-*]}\n"
DRIFTING = "counters: {exploration: {limit: 9, then: halt}}\n"


def found(text: str, known: tuple[str, ...] = ()):
    return list(cascade_findings(compiled(text).policy, known))


def codes(text: str, known: tuple[str, ...] = ()) -> list[str]:
    return [finding.code for finding in found(text, known)]


def cascade(depends: str, more: str = "", on_halt: str = "do: halt", reasons: str = "EXPLORATION_DRIFT",
            counted: str = DRIFTING) -> str:
    return f"{AGENTS}{counted}cascade: {{depends: {depends}, on-halt: {{reasons: [{reasons}], {on_halt}}}{more}}}\n"


TO_REVIEWERS = "{coders: [reviewers]}"
CIRCLE = "{coders: [reviewers], reviewers: [coders]}"
THREE = "{coders: [reviewers], reviewers: [ops], ops: [coders]}"
ALL = ", blast-radius: 100%"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(cascade(TO_REVIEWERS, ALL), [], id="one edge"),
        pytest.param(cascade(CIRCLE, ALL), ["E601"], id="two that depend on one another"),
        pytest.param(cascade(CIRCLE, ALL, "do: throttle"), [], id="a circle that only slows down"),
        pytest.param(cascade(CIRCLE, ALL, "do: quarantine"), [], id="a circle that ends by itself"),
        pytest.param(cascade(THREE, ALL), [], id="a circle that is longer than a hop"),
        pytest.param(cascade(THREE, ALL, "do: halt, hops: 2"), ["E601"], id="a circle that two hops go round"),
        pytest.param(cascade("{coders: [coders]}", ALL), ["E601"], id="a group that depends on itself"),
        pytest.param(cascade("{coders: [r-1], reviewers: [c-1]}", ALL), ["E601"], id="a circle through members"),
    ],
)
def test_a_circle_in_which_one_halt_halts_all_is_found(text, expected):
    assert codes(text) == expected


@pytest.mark.parametrize(
    ("depends", "more", "on_halt", "known", "expected"),
    [
        # Registered or written down are c-1, c-2, c-3, r-1 and those of ops.
        pytest.param(TO_REVIEWERS, ", blast-radius: 60%", "do: quarantine", ("o-1",), [], id="three of five"),
        pytest.param(TO_REVIEWERS, ", blast-radius: 59%", "do: quarantine", ("o-1",), ["W602"], id="two allowed"),
        pytest.param(TO_REVIEWERS, "", "do: halt", ("o-1",), ["W602"], id="a tenth, where nothing is said"),
        pytest.param(TO_REVIEWERS, "", "do: throttle", ("o-1",), [], id="who is slowed down is not counted"),
        pytest.param(TO_REVIEWERS, ", blast-radius: 1%", "do: quarantine", (), [], id="nobody knows how many"),
        pytest.param("{reviewers: [coders]}", ", blast-radius: 1%", "do: halt", ("o-1",), [], id="one may always"),
        pytest.param(
            "{coders: [reviewers], ops: [coders]}", ", blast-radius: 60%", "do: halt", ("o-1",), [], id="one hop"),
        pytest.param(
            "{coders: [reviewers], ops: [coders]}", ", blast-radius: 60%", "do: halt, hops: 2", ("o-1",), ["W602"],
            id="two hops"),
    ],
)
def test_a_halt_that_would_hold_back_more_agents_than_may_be_is_found(depends, more, on_halt, known, expected):
    assert codes(cascade(depends, more, on_halt), known) == expected


def test_the_worst_reach_of_a_halt_is_told():
    (finding,) = found(cascade(TO_REVIEWERS, ", blast-radius: 20%", "do: quarantine"), ("o-1",))

    assert finding.message == ('a halt of "r-1" reaches 3 of 5 agents in 1 hop (c-1, c-2, c-3), and blast-radius: 20% '
                               "lets a process hold back 1")


@pytest.mark.parametrize(("depends", "on_halt", "known", "expected"), [
    pytest.param("{ops: [coders], coders: [reviewers]}", "do: throttle, hops: 2", ("o-1", "o-2", "x"),
                 ("r-1", ("c-1", "c-2", "c-3", "o-1", "o-2"), 7, 1, 2, 0, ()), id="the farthest"),
    pytest.param("{ops: [coders]}", "do: throttle", (), ("c-1", (), 4, 1, 0, 0, ("ops",)), id="nobody is known"),
    pytest.param("{coders: [c-3]}", "do: halt", ("o-1",), ("c-3", ("c-1", "c-2"), 5, 1, 1, 1, ()), id="within a group"),
])
def test_the_worst_halt_is_found_by_trying_them(depends, on_halt, known, expected):
    assert worst_reach(compiled(cascade(depends, "", on_halt)).policy, known) == expected


@pytest.mark.parametrize(("halts", "expected"), [
    (1, ("c-1", ("c-2", "c-3"), 5, 1, 1, 1, ())),
    (2, None),
])
def test_a_breaker_that_one_halt_trips_has_a_worst_halt_too(halts, expected):
    text = f"{AGENTS}cascade: {{circuit-breaker: {{halts: {halts}, within: 5m, do: quarantine}}}}\n"

    assert worst_reach(compiled(text).policy, ("o-1",)) == expected
    assert codes(text, ("o-1",)) == ([] if expected is None else ["W602"])


def test_where_no_halt_spreads_there_is_no_worst():
    assert worst_reach(compiled(AGENTS).policy, ()) is None
    assert worst_reach(compiled(f"{AGENTS}cascade: {{depends: {TO_REVIEWERS}}}").policy, ()) is None


RISKY = "rules: [{deny: x, risk: 5}]\n"


@pytest.mark.parametrize(("reason", "counted", "said"), [
    ("OVERRISK", f"{RISKY}profile: balanced\n", None),
    ("OVERRISK", f"{RISKY}counters: {{risk: {{limit: 10, then: halt}}}}\n", None),
    ("OVERRISK", f"{RISKY}budgets: [{{budget: b, each: {{risk: 9}}, every: session, when-used: {{90%: halt}}}}]\n",
     None),
    ("OVERRISK", "profile: balanced\n", "no rule adds to its risk"),
    ("OVERRISK", f"{RISKY}counters: {{risk: {{limit: 10, then: deny}}}}\n", "no counter and no budget halts for it"),
    ("OVERRISK", f"{RISKY}budgets: [{{budget: b, each: {{risk: 9}}, every: session}}]\n", "no counter and no budget"),
    ("OVERRISK", RISKY, "no counter and no budget halts for it"),
    ("EXPLORATION_DRIFT", DRIFTING, None),
    ("EXPLORATION_DRIFT", "profile: conservative\n", "no counter and no budget halts for it"),
    ("EXPLORATION_DRIFT", "", "no counter and no budget halts for it"),
    ("EXPLORATION_DRIFT",
     "budgets: [{budget: b, together: {new-hosts: 9}, every: session, when-used: {100%: halt}}]\n", "halts for it"),
])
def test_a_reason_that_no_agent_can_have_is_found(reason, counted, said):
    text = cascade(TO_REVIEWERS, ALL, reasons=reason, counted=counted)

    assert [finding.code for finding in found(text)] == ([] if said is None else ["W501"])
    assert said is None or all(f"halts for {reason}: " in each.message and said in each.message for each in found(text))


@pytest.mark.parametrize(("text", "said"), [
    (f"{AGENTS}cascade: {{depends: {TO_REVIEWERS}}}", "nothing follows from it"),
    (f"{AGENTS}{DRIFTING}cascade: {{on-halt: {{reasons: [EXPLORATION_DRIFT], do: throttle}}}}", "nobody needs anybody"),
    ("cascade: {circuit-breaker: {halts: 3, within: 5m, do: throttle}}", "there is none"),
])
def test_a_half_that_means_nothing_alone_is_found(text, said):
    (finding,) = found(text)

    assert (finding.code, said in finding.message) == ("W501", True)

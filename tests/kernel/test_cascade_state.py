"""Who is held back because another was halted: what an entry does to it, what a step, and when it is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel import entry
from kernel.budget import Counter, Effect
from kernel.cascade import ACTIVE_US, cause_of, roll_at
from kernel.contracts import broken
from kernel.folding import States
from kernel.standings import Condition, condition, held_back, own
from kernel.state import Change, Preventive
from kernel.step import asked_method
from kernel.transition import written
from kernel.verdict import Code
from tests.kernel.accounting import DENIED, MICROS, Kernel, policy
from tests.kernel.cascades import cascade

RISK = (Counter("risk", 10, Effect.HALT),)


def kernel(do="quarantine", **said) -> Kernel:
    """`dep` needs `coder`; both have asked for something."""
    made = Kernel(replace(policy(counters=RISK), cascade=cascade({"dep": ["coder"]}, do, **said)))
    made.ask("dep", request=None)
    made.ask("coder", request=None)
    return made


def halted(do="quarantine", **said) -> Kernel:
    """The same once `coder` earned its halt."""
    made = kernel(do, **said)
    made.ask("coder", DENIED, risk=10)
    return made


def asked(made, agent="dep", **said):
    return str(made.ask(agent, request=None, **said).verdict.code)


def last(made, kind="preventive"):
    return next(body for body, _ in reversed(made.entries) if body["type"] == kind)


@pytest.mark.parametrize(("do", "reads", "writes"), [
    ("observe", ["ALLOW", "ALLOW"], ["ALLOW", "ALLOW"]),
    ("throttle", ["ALLOW", "RATE_LIMITED"], ["ALLOW", "RATE_LIMITED"]),
    ("quarantine", ["ALLOW", "ALLOW"], ["QUARANTINED", "QUARANTINED"]),
    ("halt", ["AGENT_HALTED", "AGENT_HALTED"], ["AGENT_HALTED", "AGENT_HALTED"]),
])
def test_each_step_of_the_ladder_holds_back_as_it_says(do, reads, writes):
    for method, codes in (("GET", reads), ("POST", writes)):
        made = halted(do)

        assert [asked(made, method=method) for _ in range(2)] == codes


def test_a_websocket_writes():
    assert asked(halted(), method=asked_method("GET", "wss")) == "QUARANTINED"


@pytest.mark.parametrize("do", ["throttle", "quarantine"])
def test_it_ends_by_itself_and_a_halt_does_not(do):
    made = halted(do, seconds=60)
    asked(made)
    made.wait(59)
    before = condition(made.state, "dep", made.now)
    made.wait(1)

    assert before is (Condition.THROTTLED if do == "throttle" else Condition.QUARANTINED)
    assert condition(made.state, "dep", made.now) is Condition.RUNNING
    assert [asked(made, method="POST") for _ in range(2)] == ["ALLOW", "ALLOW"]
    assert asked(made, "coder") == "AGENT_HALTED"


def test_a_halt_that_spread_has_its_own_reason_and_ends_with_a_release_alone():
    made = halted("halt", seconds=60)
    made.wait(10_000)
    halt = made.state.agent("dep").halt

    assert halt is not None
    assert (halt.reason, halt.by, halt.entry) == (Code.CASCADE, "kernel", "main/3")
    assert halt.why == "the halt of coder spread"
    assert asked(made) == "AGENT_HALTED"
    made.act("release", "dep")
    assert asked(made) == "ALLOW"
    assert made.state.agent("dep").preventive is None


@pytest.mark.parametrize("do", ["throttle", "quarantine"])
def test_a_release_ends_it_before_its_time_and_only_for_that_agent(do):
    made = halted(do)
    made.act("release", "dep")

    assert condition(made.state, "dep", made.now) is Condition.RUNNING
    assert asked(made, "coder") == "AGENT_HALTED"


def test_a_release_of_the_origin_leaves_the_others_as_they_are_and_its_next_halt_renews_it():
    made = halted("quarantine", seconds=60)
    first = made.state.agent("dep").preventive
    made.wait(30)
    made.act("release", "coder")
    assert condition(made.state, "dep", made.now) is Condition.QUARANTINED
    made.ask("coder", DENIED, risk=10)
    second = made.state.agent("dep").preventive

    assert second.until_us - first.until_us == 30 * MICROS
    assert second.entry != first.entry


def test_every_decision_of_whoever_is_held_back_tells_the_chain_of_causes():
    made = halted("throttle", seconds=60)
    told = []
    for seconds in (0, 30, 30):
        made.wait(seconds)
        asked(made)
        told.append(last(made, "decision").get("cause"))

    chain = {"origin": "coder", "path": ["coder", "dep"], "hop": 1, "entry": "main/3"}
    assert told == [chain, chain, None]
    assert cause_of(made.state.agent("coder"), made.now) is None


def test_who_is_halted_because_of_another_tells_the_chain_too_and_who_is_only_watched_does_not():
    halted_too, watched = halted("halt"), halted("observe")

    assert cause_of(halted_too.state.agent("dep"), halted_too.now) is not None
    assert cause_of(watched.state.agent("dep"), watched.now) is None
    assert held_back(watched.state, watched.now) == held_back(halted_too.state, halted_too.now) == {}


def test_who_earned_a_halt_itself_while_held_back_tells_no_other_cause():
    made = halted("quarantine")
    made.ask("dep", DENIED, risk=10)
    halt = made.state.agent("dep").halt

    assert halt is not None
    assert halt.reason == Code.OVERRISK
    assert cause_of(made.state.agent("dep"), made.now) is None


def test_an_operators_halt_spreads_to_nobody():
    made = kernel("halt")
    made.act("halt", "coder")
    made.spread("coder")

    assert condition(made.state, "dep", made.now) is Condition.RUNNING


def test_active_is_who_asked_for_something_within_the_hour():
    made = kernel()
    made.wait(ACTIVE_US // MICROS - 1)
    made.ask("coder", request=None)
    assert roll_at(States(made.state), made.now).active == {"dep", "coder"}
    made.wait(1)
    assert roll_at(States(made.state), made.now).active == {"coder"}
    made.ask("coder", DENIED, risk=10)

    assert condition(made.state, "dep", made.now) is Condition.RUNNING


def test_an_agent_is_told_how_long_and_nothing_of_others():
    slowed, reading = halted("throttle", seconds=60), halted("quarantine", seconds=60)
    end = slowed.now + 60 * MICROS

    assert own(slowed.state, slowed.bounds.of("dep"), "dep", slowed.now)[1:] == (None, (), end)
    assert own(reading.state, reading.bounds.of("dep"), "dep", reading.now)[1:] == (end, (), None)


def told(made, do, seconds, agent="dep", origin="x") -> None:
    """An act that another process did."""
    until = None if do == "halt" else written(made.now + seconds * MICROS)
    made.log(entry.preventive(agent, do, until, origin, [origin, agent], 1, "w1/9", "on-halt", degraded=False), agent)


@pytest.mark.parametrize(("first", "second", "left"), [
    (("quarantine", 60), ("throttle", 600), ("quarantine", 60)),
    (("throttle", 600), ("quarantine", 60), ("quarantine", 60)),
    (("throttle", 60), ("throttle", 600), ("throttle", 600)),
    (("throttle", 600), ("throttle", 60), ("throttle", 600)),
    (("observe", 600), ("throttle", 60), ("throttle", 60)),
    (("throttle", 600), ("throttle", -1), ("throttle", 600)),
])
def test_of_two_acts_the_more_severe_holds_and_of_equal_ones_the_longer(first, second, left):
    made = kernel()
    told(made, *first)
    told(made, *second)
    held = made.state.agent("dep").preventive

    assert (held.action, held.until_us) == (left[0], made.now + left[1] * MICROS)


def test_what_is_over_when_another_process_tells_it_does_nothing():
    made = kernel()
    told(made, "quarantine", 0)

    assert made.state.agent("dep").preventive is None


def test_no_act_lifts_or_changes_a_halt():
    made = kernel()
    made.act("halt", "dep")
    before = made.state.agent("dep")
    for do in ("throttle", "quarantine", "halt"):
        told(made, do, 60)

    assert made.state.agent("dep") == before


HELD = Preventive("quarantine", 100, "x", ("x", "dep"), 1, "main/1", 50)


@pytest.mark.parametrize(("came", "lasts_us", "problem"), [
    (HELD, 50, None),
    (HELD, 49, "lasts no longer than the policy says"),
    (HELD._replace(until_us=50), None, "has an end to come"),
    (HELD._replace(until_us=0), None, "has an end to come"),
    (HELD._replace(action="halt", until_us=0), None, "who is halted for another's halt is halted"),
])
def test_a_contract_holds_what_an_act_may_be(came, lasts_us, problem):
    made = kernel()
    came = came._replace(action=type(cascade({}).on_halt.do)(came.action))
    standing = made.state.agent("dep")._replace(preventive=came)

    found = broken(made.state, Change({"dep": standing}), "dep", lasts_us=lasts_us)

    assert (found is None) if problem is None else (problem in (found or ""))


def test_a_contract_holds_that_nothing_weakens_what_is_in_force_or_takes_it_away():
    made = halted("quarantine")
    standing = made.state.agent("dep")
    milder = standing.preventive._replace(action=type(standing.preventive.action)("throttle"))

    for changed, word in ((standing._replace(preventive=milder), "weakened"),
                          (standing._replace(preventive=None), "by time or by a release")):
        assert word in (broken(made.state, Change({"dep": changed}), "dep") or "")


def test_the_log_makes_the_same_state_again():
    made = halted("throttle")
    told(made, "quarantine", 60)

    assert made.again() == made.state

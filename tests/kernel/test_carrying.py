"""What goes on from a lane that was lost: no budget is overspent, nobody is let go, nobody is halted for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import entry, snapshot
from kernel.budget import Counter, Effect, Every, Unit
from kernel.carrying import bind, bind_all, carried
from kernel.folding import States
from kernel.snapshot import Snapshot
from kernel.state import Quarantine, State
from kernel.step import more
from kernel.transition import act_number, written
from kernel.verdict import Action, Code
from tests.kernel.accounting import ALLOWED, MICROS, START, Kernel, at, budget, policy

HOUR = 3600 * MICROS


def after_a_loss(said, *, before=0, agent="coder", now=START) -> Kernel:
    """A kernel under a policy that goes on from a lost lane, in which the agent had made some requests."""
    kernel = Kernel(said)
    for _ in range(before):
        kernel.ask(agent)
    kernel.state = carried(States(kernel.state), now).real
    kernel.now = now
    return kernel


def operator(act: str, agent: str | None = "coder", at_us: int = START, **more) -> dict:
    return entry.operator(act, agent, "why", "ann", "control") | {"ts": written(at_us)} | more


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("agent", ["coder", "nobody knew of"])
@pytest.mark.parametrize(("every", "wait"), [(Every.HOUR, HOUR), (Every.DAY, 24 * HOUR), (Every.WEEK, 168 * HOUR)])
@pytest.mark.parametrize("amounts", [({"requests": 5}, None), (None, {"requests": 5})])
def test_a_budget_is_used_up_until_the_window_of_the_loss_is_over(before, agent, every, wait, amounts):
    kernel = after_a_loss(policy(budget(*amounts, every=every)), before=before)

    assert kernel.ask(agent).verdict.code is Code.BUDGET_EXHAUSTED
    kernel.now += wait
    assert [kernel.ask(agent).verdict.code for _ in range(6)] == [Code.ALLOW] * 5 + [Code.BUDGET_EXHAUSTED]


def test_a_budget_of_a_session_is_used_up_until_the_agent_has_a_new_token():
    kernel = after_a_loss(policy(budget({"requests": 2}, every=Every.SESSION)), before=1)
    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED
    kernel.now += 10**4 * HOUR
    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED

    kernel.log(operator("agents rotate"), "coder")

    assert [kernel.ask().verdict.code for _ in range(3)] == [Code.ALLOW] * 2 + [Code.BUDGET_EXHAUSTED]


def test_what_all_share_for_a_session_is_used_up_for_good_and_a_budget_of_another_name_is_not():
    kernel = after_a_loss(policy(budget(None, {"requests": 5}, every=Every.SESSION)), before=1)
    kernel.log(operator("agents rotate"), "coder")
    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED

    other = policy(budget(None, {"requests": 5}, every=Every.SESSION, name="other"))
    renamed = Kernel(other, kernel.state, entries=kernel.entries)
    assert renamed.ask().verdict.code is Code.ALLOW


@pytest.mark.parametrize("unit", ["bytes", "seconds"])
def test_a_flow_that_goes_on_draws_nothing_of_a_window_that_was_open_at_the_loss(unit):
    kernel = after_a_loss(policy(budget({unit: 10**9})))

    told = more(kernel.state, kernel.bounds.of("coder"), "coder", Unit(unit), 1, kernel.now)

    assert told.code is Code.BUDGET_EXHAUSTED


def test_nobody_is_halted_for_what_a_lost_log_leaves_unknown():
    halts = (at(100, Effect.HALT),)
    kernel = after_a_loss(policy(budget({"requests": 1}, when_used=halts)))

    assert kernel.ask().verdict.action is Action.DENY
    kernel.now += 24 * HOUR
    kernel.ask()
    assert kernel.ask().verdict.action is Action.HALT


def test_the_counters_of_the_profile_go_on_as_they_stood():
    kernel = after_a_loss(policy(counters=(Counter("steps", 3, Effect.HALT),)), before=1)

    assert [kernel.ask().verdict.action for _ in range(3)] == [Action.ALLOW, Action.ALLOW, Action.HALT]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["coder", "other"])), max_size=30), st.integers(0, 30))
def test_no_budget_is_overspent_wherever_the_log_is_cut(requests, cut):
    said = policy(budget({"requests": 4}, {"requests": 6}, every=Every.HOUR))
    whole = Kernel(said)
    passed: list[tuple[int, str]] = []
    kept = whole.state.copy()
    for number, (minutes, agent) in enumerate(requests):
        if number == cut:
            kept = whole.state.copy()
        whole.now += minutes * 60 * MICROS
        if whole.ask(agent).verdict.lets_through:
            passed.append((whole.now // HOUR, agent))
    again = Kernel(said, carried(States(kept), whole.now).real, whole.now)
    for minutes, agent in [*requests, (30, "coder")] * 2:
        again.now += minutes * 60 * MICROS
        if again.ask(agent).verdict.lets_through:
            passed.append((again.now // HOUR, agent))

    for hour in {hour for hour, _ in passed}:
        assert sum(each == hour for each, _ in passed) <= 6
        assert all(passed.count((hour, agent)) <= 4 for agent in ("coder", "other"))


def test_what_binds_behind_the_verified_part_counts_and_what_lets_go_does_not():
    state = State()
    until = written(START + HOUR)
    for number, body in enumerate([
            operator("agents halt", "one"), operator("agents release", "one"),
            operator("agents quarantine", "two", until=until), operator("agents release", "two"),
            entry.halt("three", Code.EXHAUSTION, None, None, []) | {"ts": written(START)},
            operator("clock accept", None)]):
        bind(state, body, f"main/{number}")

    assert {name for name, each in state.agents.items() if each.halt is not None} == {"one", "three"}
    assert state.agent("two").quarantined_until_us == START + HOUR
    assert state.clock_ok
    bind(state, entry.clock(until, until) | {"ts": written(START)}, "main/9")
    bind(state, operator("clock accept", None), "main/10")
    assert not state.clock_ok
    assert state.agent("one").epoch == 0


def test_a_halt_keeps_its_first_reason_and_a_later_quarantine_holds_longer():
    state, other = State(), State()
    bind(state, operator("agents halt", "one"), "main/1")
    bind(other, operator("agents halt", "one", START + 1), "main/7")
    other.agents["two"] = other.agent("two")._replace(
        quarantined_until_us=5, quarantine=Quarantine(1, "ann", "main/8", "why"))
    bind_all(state, other)

    assert state.agent("one").halt.entry == "main/1"
    assert state.agent("two").quarantined_until_us == 5


def test_what_another_s_halt_does_behind_the_verified_part_counts_unless_it_is_milder():
    state = State()
    for do, hours in (("quarantine", 1), ("throttle", 9), ("quarantine", 2)):
        body = entry.preventive("two", do, written(START + hours * HOUR), "one", ["one", "two"], 1, "main/1", "on-halt",
                                degraded=False)
        bind(state, body | {"ts": written(START)}, "main/3")
    held = state.agent("two").preventive

    assert (held.action, held.until_us) == ("quarantine", START + 2 * HOUR)


def test_what_is_carried_over_can_be_kept_and_read_again():
    kernel = Kernel(policy(budget({"requests": 5}, {"requests": 9}, every=Every.SESSION)))
    kernel.ask()
    made = carried(States(kernel.state), START)

    raw = snapshot.encode(Snapshot("main-1", 0, made))
    assert snapshot.encode(snapshot.decode(raw)) == raw
    assert made.real.lost_us == START
    assert kernel.state.lost_us is None


@pytest.mark.parametrize(("by", "number"), [
    ("cli/7", 7), ("cli-1/0", 2**32), ("cli-2/3", 2**33 + 3), ("cli", None), ("cli/x", None), ("cli-0/1", None),
    ("control:ann", None), ("cli-1/", None), ("clip/1", None),
])
def test_acts_of_verbs_are_numbered_over_all_their_lanes(by, number):
    assert act_number(by) == number


def test_a_loss_does_not_change_what_the_rules_refuse():
    kernel = after_a_loss(policy(budget({"requests": 5})))
    refused = replace(ALLOWED, action=Action.DENY, code=Code.DEFAULT_DENY)

    assert kernel.ask(verdict=refused).verdict is refused

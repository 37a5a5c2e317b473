"""What operators are told of an agent is what the next step would find."""

from __future__ import annotations

from kernel.budget import Counter, Effect, Every
from kernel.standings import Condition, balance, budgets, condition, counted, halted, overall, risk
from kernel.state import State
from kernel.verdict import Code
from tests.kernel.accounting import DENIED, MICROS, Kernel, at, budget, policy

DAY = 86400


def left(kernel, agent="coder"):
    return [(each.budget, each.unit, each.limit, each.spent, each.held, each.remaining)
            for each in budgets(kernel.state, kernel.bounds.of(agent), agent, kernel.now)]


def sums(kernel):
    told = overall(kernel.state, kernel.bounds.amounts(), kernel.now)
    return {(each.budget, each.unit): (each.limit, each.spent, each.held) for each in told}


def test_a_budget_that_nobody_has_drawn_on_is_whole():
    assert left(Kernel(policy(budget({"requests": 3}, {"bytes": 9})))) == [
        ("b", "requests", 3, 0, 0, 3), ("b", "bytes", 9, 0, 0, 9)]


def test_what_is_drawn_is_held_until_it_is_settled():
    kernel = Kernel(policy(budget({"requests": 3})))
    kernel.ask()
    before = left(kernel)
    kernel.end()

    assert (before, left(kernel)) == ([("b", "requests", 3, 0, 1, 2)], [("b", "requests", 3, 1, 0, 2)])


def test_once_a_window_is_over_all_is_left_before_anything_is_asked():
    kernel = Kernel(policy(budget({"requests": 3})))
    kernel.ask()
    kernel.end()
    window = budgets(kernel.state, kernel.bounds.of("coder"), "coder", kernel.now)[0].window
    kernel.wait(DAY)

    assert left(kernel) == [("b", "requests", 3, 0, 0, 3)]
    assert budgets(kernel.state, kernel.bounds.of("coder"), "coder", kernel.now)[0].window > window


def test_points_of_risk_are_told_where_they_are_counted():
    kernel = Kernel(policy(budget({"requests": 3}), counters=(Counter("risk", 100, Effect.HALT),)))
    plain = Kernel(policy())
    kernel.ask(verdict=DENIED, risk=30)

    assert risk(kernel.state, kernel.bounds.of("coder"), "coder", kernel.now) == 30
    assert risk(plain.state, plain.bounds.of("coder"), "coder", plain.now) is None


def test_a_counter_is_told_apart_from_the_budgets():
    kernel = Kernel(policy(budget({"requests": 3}), counters=(Counter("steps", 5, Effect.DENY),)))
    kernel.ask()
    bounded = kernel.bounds.of("coder")

    assert [each.budget for each in budgets(kernel.state, bounded, "coder", kernel.now)] == ["b"]
    assert [(each.budget, each.limit, each.held) for each in counted(kernel.state, bounded, "coder", kernel.now)] == [
        ("steps", 5, 1)]


def test_over_all_a_budget_for_each_is_the_sum_over_those_who_drew_on_it():
    kernel = Kernel(policy(budget({"requests": 3})))
    before = sums(kernel)
    for agent in ("one", "two", "two"):
        kernel.ask(agent=agent)

    assert (before, sums(kernel)) == ({("b", "requests"): (0, 0, 0)}, {("b", "requests"): (6, 0, 3)})


def test_over_all_the_account_that_all_share_speaks_where_there_is_one():
    kernel = Kernel(policy(budget({"requests": 3}, {"requests": 5})))
    for agent in ("one", "two", "two"):
        kernel.ask(agent=agent)

    assert sums(kernel) == {("b", "requests"): (5, 0, 3)}


def test_a_session_that_an_agent_has_left_is_in_no_sum():
    kernel = Kernel(policy(budget({"requests": 3}, every=Every.SESSION)))
    kernel.ask(agent="one")
    kernel.ask(agent="two")
    kernel.act("rotate", agent="one")

    assert sums(kernel) == {("b", "requests"): (3, 0, 1)}


def test_a_window_that_is_over_is_in_no_sum():
    kernel = Kernel(policy(budget({"requests": 3})))
    kernel.ask(agent="one")
    kernel.wait(DAY)
    kernel.ask(agent="two")

    assert sums(kernel) == {("b", "requests"): (3, 0, 1)}


def test_an_agent_runs_until_it_is_quarantined_and_again_when_that_is_over():
    kernel = Kernel(policy())
    before = condition(kernel.state, "coder", kernel.now)
    kernel.act("quarantine", until="2027-01-15T09:00:00.000000Z")
    during = condition(kernel.state, "coder", kernel.now)
    kernel.wait(3600)

    assert (before, during, condition(kernel.state, "coder", kernel.now)) == (
        Condition.RUNNING, Condition.QUARANTINED, Condition.RUNNING)


def test_the_most_severe_condition_is_told():
    kernel = Kernel(policy())
    kernel.act("quarantine", until="2027-01-15T09:00:00.000000Z")
    revoked = condition(kernel.state, "coder", kernel.now, revoked=True)
    kernel.act("halt")

    assert revoked is Condition.REVOKED
    assert condition(kernel.state, "coder", kernel.now, revoked=True) is Condition.HALTED


def test_who_is_halted_is_told_in_the_order_of_the_halts():
    kernel = Kernel(policy())
    for agent in ("zoe", "adam", "eve"):
        kernel.act("halt", agent=agent)
        kernel.wait(1)
    kernel.act("release", agent="adam")

    assert halted(kernel.state) == {"zoe": Code.OPERATOR, "eve": Code.OPERATOR}


def test_a_halt_and_a_quarantine_remember_who_when_why_and_in_which_entry():
    kernel = Kernel(policy())
    kernel.act("quarantine", agent="one", until="2027-01-15T09:00:00.000000Z")
    kernel.wait(1)
    kernel.act("halt", agent="two")

    quarantine = kernel.state.agent("one").quarantine
    assert (quarantine.since_us, quarantine.by, quarantine.entry, quarantine.why) == (
        kernel.now - MICROS, "ann", "main/0", "because")
    halt = kernel.state.agent("two").halt
    assert (halt.since_us, halt.by, halt.entry, halt.why) == (kernel.now, "ann", "main/1", "because")


def test_a_halt_of_the_kernel_remembers_the_decision_that_brought_it():
    kernel = Kernel(policy(budget({"requests": 1}, when_used=[at(100, Effect.HALT)])))
    kernel.ask()
    kernel.ask()
    halt = kernel.state.agent("coder").halt

    assert (halt.entry, halt.by, halt.rule) == ("main/1", "kernel", "b")
    assert "used up" in halt.why


def test_a_release_ends_a_quarantine_too():
    kernel = Kernel(policy())
    kernel.act("quarantine", until="2027-01-15T09:00:00.000000Z")
    kernel.act("release")

    assert condition(kernel.state, "coder", kernel.now) is Condition.RUNNING
    assert kernel.state.agent("coder").quarantine is None


def test_the_state_knows_how_far_it_has_taken_over_what_was_done_while_nothing_ran():
    kernel = Kernel(policy())
    before = kernel.state.taken_over
    kernel.act("halt", by="cli/7")
    kernel.act("rotate", by="cli/5")
    kernel.act("release", by="control/9")

    assert (before, kernel.state.taken_over, kernel.again().taken_over) == (-1, 7, 7)
    assert kernel.state.copy().taken_over == 7


def test_an_amount_of_an_agent_unheard_of_is_whole():
    kernel = Kernel(policy(budget({"requests": 3})))

    assert balance(State(), kernel.bounds.amounts()[0], "nobody", kernel.now).remaining == 3

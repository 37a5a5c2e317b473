"""What the arithmetic of accounts and rates promises, proved with z3 for all integers on the very functions that ship.

Numbers are terms here, and `choose`, `smaller` and `larger` are the `If` of z3 while a proof lasts. Nothing else of the
module is replaced.
"""

from __future__ import annotations

import pytest
import z3

from kernel import arithmetic
from kernel.arithmetic import (
    KINDS,
    arrival,
    clamped,
    drawn,
    early,
    freed,
    interval,
    plausible,
    remaining,
    renewed,
    settled,
)

TIMEOUT_MS = 20_000

limit, spent, held, least, wanted = z3.Ints("limit spent held least wanted")
reserved, used, window, amount, current = z3.Ints("reserved used window amount current")
due, now, later, each, burst, passed, start = z3.Ints("due now later each burst passed start")
count, micros, number, most = z3.Ints("count micros number most")

SOUND = z3.And(spent >= 0, held >= 0, spent + held <= limit)
A_RATE = z3.And(each >= 1, burst >= 1)


def smaller(one, other):
    return z3.If(one <= other, one, other)


def larger(one, other):
    return z3.If(one >= other, one, other)


@pytest.fixture(autouse=True)
def terms(monkeypatch):
    """Branches become terms. For a positive divisor the division of z3 is the one of Python."""
    monkeypatch.setattr(arithmetic, "choose", z3.If)
    monkeypatch.setattr(arithmetic, "smaller", smaller)
    monkeypatch.setattr(arithmetic, "larger", larger)
    monkeypatch.setattr(z3.ArithRef, "__floordiv__", z3.ArithRef.__div__, raising=False)


def prove(claim, given=True):
    """Fails with the numbers for which the claim is wrong, and where z3 finds no answer in time."""
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT_MS)
    solver.add(given, z3.Not(claim))
    answer = solver.check()

    assert answer == z3.unsat, f"{answer}: {solver.model() if answer == z3.sat else solver.reason_unknown()}"


def test_a_claim_that_is_wrong_is_refuted_with_the_numbers():
    with pytest.raises(AssertionError, match="held"):
        prove(drawn(limit, spent, held, least, wanted) > 0, SOUND)


def test_the_smaller_the_larger_and_the_clamped_are_what_they_are_called():
    prove(z3.And(smaller(number, most) <= number, smaller(number, most) <= most,
                 z3.Or(smaller(number, most) == number, smaller(number, most) == most)))
    prove(larger(number, most) == number + most - smaller(number, most))
    prove(z3.And(clamped(number, most) >= 0, clamped(number, most) <= larger(0, most)))
    prove(clamped(number, most) == number, z3.And(number >= 0, number <= most))


def test_what_is_granted_is_never_negative_and_never_more_than_there_is_or_was_wanted():
    granted = drawn(limit, spent, held, least, wanted)

    prove(z3.And(granted >= 0, granted <= remaining(limit, spent, held), granted <= larger(0, wanted)))


def test_nothing_is_granted_below_the_least_and_all_of_it_where_there_is_enough():
    granted = drawn(limit, spent, held, least, wanted)

    prove(z3.Or(granted == 0, granted >= least))
    prove(granted == wanted, z3.And(least >= 0, least <= wanted, wanted <= remaining(limit, spent, held)))
    prove(granted == remaining(limit, spent, held),
          z3.And(least >= 0, least <= remaining(limit, spent, held), remaining(limit, spent, held) <= wanted))


def test_negative_and_oversize_costs_are_granted_nothing():
    granted = drawn(limit, spent, held, least, wanted)

    prove(granted == 0, z3.Or(least < 0, wanted <= 0, wanted < least, least > limit - spent - held))


def test_what_is_spent_held_and_left_make_the_limit_before_and_after_a_draw():
    granted = drawn(limit, spent, held, least, wanted)

    prove(spent + held + remaining(limit, spent, held) == limit, SOUND)
    prove(spent + (held + granted) + remaining(limit, spent, held + granted) == limit, SOUND)


def test_they_make_the_limit_after_a_settlement_and_no_less_is_left_than_before():
    after, still = settled(spent, held, reserved, used), held - freed(held, reserved)

    prove(z3.And(after >= 0, still >= 0, after + still + remaining(limit, after, still) == limit), SOUND)
    prove(remaining(limit, after, still) >= remaining(limit, spent, held), SOUND)


def test_where_a_limit_was_lowered_nothing_is_left_and_nothing_is_granted():
    below = spent + held >= limit

    prove(remaining(limit, spent, held) == 0, below)
    prove(drawn(limit, spent, held, least, wanted) == 0, below)


def test_a_settlement_never_frees_more_than_was_held_or_reserved():
    prove(z3.And(freed(held, reserved) >= 0, freed(held, reserved) <= held), held >= 0)
    prove(freed(held, reserved) <= larger(0, reserved))
    prove(freed(held, reserved) == reserved, z3.And(reserved >= 0, reserved <= held))


def test_what_is_spent_never_falls_and_never_rises_by_more_than_was_reserved():
    after = settled(spent, held, reserved, used)

    prove(z3.And(after >= spent, after - spent <= larger(0, reserved), after - spent <= larger(0, held)))
    prove(after - spent <= larger(0, used))


def test_what_nobody_knows_counts_as_used_and_what_is_known_as_it_is():
    after = settled(spent, held, reserved, used)
    held_it = z3.And(reserved >= 0, reserved <= held)

    prove(after == spent + reserved, z3.And(held_it, used >= reserved))
    prove(after == spent + used, z3.And(held_it, used >= 0, used <= reserved))


def test_an_amount_of_an_older_window_is_gone_and_one_never_comes_back():
    same_kind = (window - current) % KINDS == 0

    prove(renewed(window, amount, current) == 0, current > window)
    prove(renewed(window, amount, current) == 0, z3.Not(same_kind))
    prove(renewed(window, amount, current) == amount, z3.And(current <= window, same_kind))
    prove(z3.Implies(renewed(window, amount, current) == 0, renewed(window, amount, current + KINDS * passed) == 0),
          passed >= 0)


def test_the_interval_of_a_rate_is_the_shortest_that_is_never_faster():
    a_rate = z3.And(count >= 1, micros >= 1)

    prove(z3.And(interval(count, micros) * count >= micros, (interval(count, micros) - 1) * count < micros), a_rate)
    prove(interval(count, micros) >= 1, a_rate)


def test_in_any_time_no_more_pass_than_the_burst_and_what_the_rate_brings_in_it():
    """By induction over those that pass: `passed` of them since `start` have moved `due` on by their interval."""
    first = z3.And(A_RATE, start <= now, early(due, now, each, burst) == 0)
    next_one = z3.And(first, passed >= 1, due >= start + passed * each)

    prove(arrival(due, now, each) >= start + each, first)
    prove(each <= burst * each + (now - start), first)
    prove(arrival(due, now, each) >= start + (passed + 1) * each, next_one)
    prove((passed + 1) * each <= burst * each + (now - start), next_one)


def test_so_many_as_the_burst_pass_at_once_after_a_rest():
    rested = z3.And(A_RATE, passed >= 0, passed < burst, due <= now + passed * each)

    prove(early(due, now, each, burst) == 0, rested)
    prove(arrival(due, now, each) <= now + (passed + 1) * each, rested)


def test_the_wait_is_exact_to_the_microsecond():
    wait = early(due, now, each, burst)
    too_early = z3.And(A_RATE, wait > 0)

    prove(early(due, now + wait, each, burst) == 0, too_early)
    prove(early(due, now + wait - 1, each, burst) > 0, too_early)
    prove(wait >= 0)


def test_a_clock_that_goes_back_makes_nobody_pass_earlier():
    prove(early(due, later, each, burst) >= early(due, now, each, burst), z3.And(A_RATE, later <= now))


def test_what_a_rate_says_is_always_plausible_while_the_clock_goes_on():
    passes = z3.And(A_RATE, early(due, now, each, burst) == 0)

    prove(plausible(arrival(due, now, each), later, each, burst) == arrival(due, now, each),
          z3.And(passes, later >= now))


def test_after_a_clock_that_was_far_ahead_one_request_passes_and_then_the_rate_holds():
    behind = plausible(due, now, each, burst)
    implausible = z3.And(A_RATE, due > now + burst * each)

    prove(early(behind, now, each, burst) == 0, implausible)
    prove(early(arrival(behind, now, each), now, each, burst) == each, implausible)

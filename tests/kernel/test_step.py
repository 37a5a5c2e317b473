"""Budgets only shrink, halts hold, rates are kept, and what repeats itself is stopped."""

from __future__ import annotations

import pytest

from kernel.budget import Counter, Effect, Every
from kernel.entry import EMPTY_SET
from kernel.measures import Rate
from kernel.step import asked_method
from kernel.verdict import Action, Code, Verdict
from tests.kernel.accounting import ALLOWED, DENIED, Kernel, at, budget, policy, rate

MINUTE, HOUR, DAY = 60, 3600, 86400


def codes(kernel, times, **asked):
    return [kernel.ask(**asked).verdict.code for _ in range(times)]


def test_a_budget_of_requests_lets_so_many_pass_and_no_more():
    kernel = Kernel(policy(budget({"requests": 3})))

    assert codes(kernel, 5) == [Code.ALLOW] * 3 + [Code.BUDGET_EXHAUSTED] * 2
    assert kernel.ask().verdict.rule == "b"


def test_each_agent_has_its_own_and_all_share_what_is_together():
    kernel = Kernel(policy(budget({"requests": 2}, {"requests": 3})))

    assert codes(kernel, 3, agent="one") == [Code.ALLOW, Code.ALLOW, Code.BUDGET_EXHAUSTED]
    assert codes(kernel, 2, agent="two") == [Code.ALLOW, Code.BUDGET_EXHAUSTED]


def test_a_refusal_takes_nothing():
    kernel = Kernel(policy(budget({"requests": 1})))

    kernel.ask(verdict=DENIED)
    assert kernel.account() == (0, 0, 0, frozenset(), "")


@pytest.mark.parametrize(("result", "gone"), [("completed", 1), ("failed", 1), ("unknown", 1), ("not_sent", 0)])
def test_a_request_that_was_not_sent_is_given_back(result, gone):
    kernel = Kernel(policy(budget({"requests": 1})))
    kernel.ask()
    kernel.end(result=result)

    assert (kernel.account().spent, kernel.account().held) == (gone, 0)


@pytest.mark.parametrize(("every", "seconds"), [(Every.HOUR, HOUR), (Every.DAY, DAY), (Every.WEEK, 7 * DAY)])
def test_a_window_begins_anew_by_the_clock(every, seconds):
    kernel = Kernel(policy(budget({"requests": 1}, every=every)))
    kernel.ask()
    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED
    kernel.wait(seconds)

    assert kernel.ask().verdict.code is Code.ALLOW


def test_what_is_given_back_goes_where_it_came_from_and_not_into_a_later_window():
    kernel = Kernel(policy(budget({"requests": 2}, every=Every.HOUR)))
    kernel.ask()
    kernel.wait(HOUR)
    codes(kernel, 2)
    kernel.end(0, "not_sent")

    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED


def test_a_clock_that_goes_back_begins_nothing_anew():
    kernel = Kernel(policy(budget({"requests": 1}, every=Every.HOUR)))
    kernel.ask()
    kernel.wait(-HOUR)

    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED


def test_a_session_ends_with_the_token_or_a_release_alone():
    kernel = Kernel(policy(budget({"requests": 1}, every=Every.SESSION)))
    kernel.ask()
    kernel.wait(400 * DAY)
    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED
    kernel.act("rotate")

    assert codes(kernel, 2) == [Code.ALLOW, Code.BUDGET_EXHAUSTED]


def test_bytes_are_held_before_and_counted_after():
    kernel = Kernel(policy(budget({"bytes": 3_000_000})))
    kernel.ask(body_bytes=100)
    assert kernel.account(unit="bytes").held == 100 + 2**20
    kernel.end(up=100, down=400)

    assert (kernel.account(unit="bytes").spent, kernel.account(unit="bytes").held) == (500, 0)


def test_a_body_that_is_larger_than_what_is_left_does_not_pass():
    kernel = Kernel(policy(budget({"bytes": 1000})))

    assert kernel.ask(body_bytes=1000).verdict.code is Code.BUDGET_EXHAUSTED
    assert kernel.ask(body_bytes=999).verdict.code is Code.ALLOW


def test_a_long_answer_draws_more_and_no_more_than_there_is():
    kernel = Kernel(policy(budget({"bytes": 2**21})))
    kernel.ask()
    more = {"budget": "b", "for": "coder", "unit": "bytes", "window": kernel.account(unit="bytes").window,
            "amount": 2**20, "lease": None}
    kernel.end(0, down=2**20, part=1, draws=[more])
    assert kernel.account(unit="bytes").held == 2**21
    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED
    kernel.end(0, down=2**20 + 7)

    assert (kernel.account(unit="bytes").spent, kernel.account(unit="bytes").held) == (2**20 + 7, 0)


def test_what_is_used_up_can_halt_for_good():
    kernel = Kernel(policy(budget({"requests": 1}, when_used=[at(100, Effect.HALT)])))
    kernel.ask()
    verdict = kernel.ask().verdict
    kernel.wait(DAY)

    assert (verdict.action, verdict.code, verdict.rule) == (Action.HALT, Code.EXHAUSTION, "b")
    assert kernel.ask().verdict.code is Code.AGENT_HALTED


def test_a_share_that_is_used_up_slows_down_and_is_told():
    kernel = Kernel(policy(budget({"requests": 10}, when_used=[
        at(50, Effect.TELL), at(80, Effect.THROTTLE, Rate(1, 60)), at(90, Effect.DENY)])))

    assert [kernel.ask().left for _ in range(5)] == [{}] * 4 + [{"requests": 5}]
    codes(kernel, 2)
    assert codes(kernel, 2) == [Code.ALLOW, Code.RATE_LIMITED]
    kernel.wait(MINUTE)
    assert codes(kernel, 2) == [Code.ALLOW, Code.BUDGET_EXHAUSTED]


def test_a_rate_is_kept_and_says_when_to_ask_again():
    kernel = Kernel(policy(rates=(rate(Rate(60, 60), burst=2),)))

    assert codes(kernel, 2) == [Code.ALLOW, Code.ALLOW]
    over = kernel.ask()
    assert (over.verdict.action, over.verdict.code) == (Action.THROTTLE, Code.RATE_LIMITED)
    assert over.verdict.rule == "rates-1"
    assert over.wait_us == 1_000_000
    kernel.wait(1)
    assert codes(kernel, 2) == [Code.ALLOW, Code.RATE_LIMITED]


def test_points_add_up_to_a_halt_also_where_all_is_refused():
    kernel = Kernel(policy(counters=(Counter("risk", 50, Effect.HALT),)))

    assert codes(kernel, 2, verdict=DENIED, risk=20) == [Code.RULE_DENY] * 2
    verdict = kernel.ask(verdict=DENIED, risk=20).verdict
    assert (verdict.action, verdict.code) == (Action.HALT, Code.OVERRISK)
    assert kernel.ask().verdict.code is Code.AGENT_HALTED
    kernel.act("release")
    assert kernel.ask(risk=20).verdict.code is Code.ALLOW


def test_the_same_refused_request_is_stopped_and_others_are_not():
    kernel = Kernel(policy(counters=(Counter("persistence", 3, Effect.DENY, 600),)))

    assert codes(kernel, 4, verdict=DENIED) == [Code.RULE_DENY] * 3 + [Code.PERSISTENCE_LIMIT]
    assert kernel.ask(verdict=DENIED, request="other").verdict.code is Code.RULE_DENY
    kernel.wait(600)
    assert kernel.ask(verdict=DENIED).verdict.code is Code.RULE_DENY


def test_a_request_that_passes_ends_a_row_of_refusals():
    kernel = Kernel(policy(counters=(Counter("persistence", 3, Effect.DENY, 600),)))
    codes(kernel, 2, verdict=DENIED)
    kernel.ask()

    assert codes(kernel, 4, verdict=DENIED)[2:] == [Code.RULE_DENY, Code.PERSISTENCE_LIMIT]


@pytest.mark.parametrize(("status", "result", "expected"), [
    pytest.param(200, "completed", Code.STAGNATION, id="the same outcome"),
    pytest.param(503, "completed", Code.ALLOW, id="an origin that fails"),
    pytest.param(None, "failed", Code.ALLOW, id="an origin that is gone"),
])
def test_the_same_request_with_the_same_outcome_is_stopped(status, result, expected):
    kernel = Kernel(policy(counters=(Counter("stagnation", 5, Effect.DENY, 600),)))
    for _ in range(5):
        assert kernel.ask().verdict.code is Code.ALLOW
        kernel.end(status=status, result=result, down=10)

    assert kernel.ask().verdict.code is expected


def test_answers_that_differ_are_progress():
    kernel = Kernel(policy(counters=(Counter("stagnation", 2, Effect.DENY, 600),)))
    for size in range(9):
        assert kernel.ask().verdict.code is Code.ALLOW
        kernel.end(down=size)


def test_new_destinations_are_counted_once_each():
    kernel = Kernel(policy(counters=(Counter("exploration", 2, Effect.DENY),)))

    assert codes(kernel, 2, place="a.example:443") == [Code.ALLOW] * 2
    assert codes(kernel, 1, place="b.example:443") == [Code.ALLOW]
    assert codes(kernel, 1, place="c.example:443") == [Code.EXPLORATION_DRIFT]
    assert codes(kernel, 1, place="a.example:443") == [Code.ALLOW]


def test_a_fuse_ends_a_session():
    kernel = Kernel(policy(counters=(Counter("steps", 2, Effect.HALT),)))

    assert codes(kernel, 4) == [Code.ALLOW, Code.ALLOW, Code.EXTERNAL, Code.AGENT_HALTED]


def test_a_counter_that_only_tells_stops_nothing():
    kernel = Kernel(policy(counters=(Counter("steps", 2, Effect.TELL), Counter("risk", 2, Effect.TELL))))

    assert codes(kernel, 4, risk=1) == [Code.ALLOW] * 4
    assert kernel.ask().left == {"requests": 0}


def test_a_halt_by_an_operator_holds_until_a_release():
    kernel = Kernel(policy())
    kernel.act("halt", sources=["10.0.0.9"])
    kernel.wait(400 * DAY)
    kernel.act("rotate")

    assert kernel.ask().verdict.code is Code.AGENT_HALTED
    assert kernel.ask(agent="local", source="10.0.0.9").verdict.code is Code.AGENT_HALTED
    assert kernel.ask(agent="other").verdict.code is Code.ALLOW
    kernel.act("release")
    assert kernel.ask().verdict.code is Code.ALLOW
    assert kernel.ask(agent="local", source="10.0.0.9").verdict.code is Code.ALLOW


def test_a_rule_that_halts_halts():
    kernel = Kernel(policy())

    assert kernel.ask(verdict=Verdict(Action.HALT, Code.RULE_HALT, "trap")).verdict.code is Code.RULE_HALT
    assert kernel.ask().verdict.code is Code.AGENT_HALTED
    assert kernel.state.agent("coder").halt.rule == "trap"


def test_who_is_quarantined_may_read_until_it_ends():
    kernel = Kernel(policy())
    kernel.act("quarantine", until="2027-01-15T09:00:00.000000Z")

    assert kernel.ask(method="POST").verdict.code is Code.QUARANTINED
    assert kernel.ask(method=asked_method("GET", "wss")).verdict.code is Code.QUARANTINED
    assert kernel.ask(method=asked_method("GET", "https")).verdict.code is Code.ALLOW
    kernel.wait(HOUR)
    assert kernel.ask(method="POST").verdict.code is Code.ALLOW


def test_after_a_jump_of_the_clock_no_budget_is_drawn_on_until_it_is_accepted():
    kernel = Kernel(policy(budget({"requests": 5})))
    kernel.log({"type": "clock"}, "coder")
    assert kernel.ask().verdict.code is Code.CLOCK_JUMP
    kernel.log({"type": "operator", "act": "clock accept", "agent": None}, "coder")

    assert kernel.ask().verdict.code is Code.ALLOW


def test_a_clock_that_was_years_ahead_neither_refills_nor_stops_for_years():
    kernel = Kernel(policy(budget({"requests": 2}), rates=(rate(Rate(60, 60), burst=1),)))
    kernel.ask()
    kernel.wait(3650 * DAY)
    kernel.ask()
    kernel.wait(-3650 * DAY)
    kernel.log({"type": "clock"}, "coder")
    kernel.log({"type": "operator", "act": "clock accept", "agent": None}, "coder")
    kernel.wait(1)
    assert codes(kernel, 1) == [Code.ALLOW]
    kernel.wait(1)
    assert codes(kernel, 1) == [Code.BUDGET_EXHAUSTED]
    kernel.wait(DAY)

    assert codes(kernel, 1) == [Code.ALLOW]


def test_the_log_makes_the_same_state():
    kernel = Kernel(policy(
        budget({"requests": 20, "bytes": 10**8}, {"requests": 30}, every=Every.HOUR), rates=(rate(Rate(600, 60)),),
        profile="conservative"))
    for number in range(40):
        kernel.ask(agent=f"a{number % 3}", place=f"h{number % 7}.example:443", request=f"r{number % 4}",
                   verdict=DENIED if number % 5 == 0 else ALLOWED, risk=number % 2)
        if number % 3 == 0 and kernel.entries[-1][0]["verdict"] == "allow":
            kernel.end(down=number)
        kernel.wait(number * 10)
    kernel.act("halt", "a1")

    assert kernel.again() == kernel.state


def test_nothing_is_hashed_where_nothing_is_counted():
    kernel = Kernel(policy())
    kernel.ask()

    assert kernel.digest() == EMPTY_SET
    assert kernel.digest() == Kernel(policy(budget({"requests": 1}))).digest()


def test_the_hash_tells_every_account_apart():
    kernel = Kernel(policy(budget({"requests": 9})))
    seen = {kernel.digest()}
    for _ in range(3):
        kernel.ask()
        seen.add(kernel.digest())
        kernel.end()
        seen.add(kernel.digest())

    assert len(seen) == 7

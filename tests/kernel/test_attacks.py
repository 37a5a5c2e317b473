"""The kernel against an agent that wants more than its share, and against others who want an agent halted."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from addons.time_zones import ZONES
from kernel import canonical
from kernel.bounds import Bounds, pace
from kernel.budget import Counter, Effect, Every
from kernel.contracts import broken
from kernel.measures import Rate
from kernel.profiles import PROFILES
from kernel.state import Account, Change, Draw, Halt, OpenFlow, Standing, State
from kernel.transition import MOST_REQUESTS, change
from kernel.verdict import Action, Code, Verdict
from tests.kernel.accounting import DENIED, MICROS, START, Kernel, at, budget, policy, rate

HOUR, DAY = 3600, 86400
PERSISTENCE = Counter("persistence", 3, Effect.DENY, 600)


def codes(kernel, times, **asked):
    return [kernel.ask(**asked).verdict.code for _ in range(times)]


def moment(zone, *date):
    return int(datetime(*date, tzinfo=ZoneInfo(zone)).timestamp()) * MICROS



@pytest.mark.parametrize("body_bytes", [2**62, 2**200, -2, -(2**62)])
def test_a_size_that_cannot_be_takes_nothing(body_bytes):
    kernel = Kernel(policy(budget({"bytes": 1000})))

    assert kernel.ask(body_bytes=body_bytes).verdict.code is Code.BUDGET_EXHAUSTED
    assert kernel.account(unit="bytes") == Account()


@pytest.mark.parametrize("size", [-1, -(2**60), 2**60])
def test_sizes_of_an_outcome_that_cannot_be_give_nothing_back_and_take_no_more_than_was_held(size):
    kernel = Kernel(policy(budget({"bytes": 10_000_000})))
    kernel.ask()
    kernel.end(up=-5, down=5)
    kernel.ask()
    kernel.end(up=size, down=0)

    assert kernel.account(unit="bytes").spent == (2**20 if size > 0 else 0)
    assert kernel.account(unit="bytes").held == 0


def test_many_open_flows_hold_no_more_than_there_is():
    kernel = Kernel(policy(budget({"bytes": 100 * 2**20, "requests": 150})))

    assert codes(kernel, 200).count(Code.ALLOW) == 100
    assert kernel.account(unit="bytes").held == 100 * 2**20


def test_a_long_stream_is_remembered_in_as_little_as_a_short_one():
    kernel = Kernel(policy(budget({"bytes": 10**12})))
    kernel.ask()
    window = kernel.account(unit="bytes").window
    more = {"budget": "b", "for": "coder", "unit": "bytes", "window": window, "amount": 2**20, "lease": None}
    for part in range(200):
        kernel.end(0, part=part, draws=[more])

    assert len(kernel.state.open["main/0"].draws) == 1
    kernel.end(0, down=150 * 2**20)
    assert (kernel.account(unit="bytes").spent, kernel.account(unit="bytes").held) == (150 * 2**20, 0)


def test_a_stream_over_two_windows_is_settled_in_each_of_them():
    kernel = Kernel(policy(budget({"bytes": 10 * 2**20}, every=Every.HOUR)))
    kernel.ask()
    first = kernel.account(unit="bytes").window
    kernel.wait(HOUR)
    kernel.ask()
    window = kernel.account(unit="bytes").window
    more = {"budget": "b", "for": "coder", "unit": "bytes", "window": window, "amount": 2**20, "lease": None}
    kernel.end(0, part=1, draws=[more])
    kernel.end(0, down=2**20 + 7)

    assert window > first
    assert (kernel.account(unit="bytes").spent, kernel.account(unit="bytes").held) == (7, 2**20)


def test_requests_that_take_turns_are_stopped_as_one_that_is_repeated():
    kernel = Kernel(policy(counters=(PERSISTENCE,)))
    seen = [kernel.ask(verdict=DENIED, request=f"r{number % 300}").verdict.code for number in range(1500)]

    assert Code.PERSISTENCE_LIMIT in seen
    assert len(kernel.state.agent("coder").refused) == MOST_REQUESTS


def test_so_many_different_refusals_as_a_page_brings_are_no_repetition():
    kernel = Kernel(policy(counters=(PERSISTENCE,)))

    assert {kernel.ask(verdict=DENIED, request=f"r{number}").verdict.code for number in range(500)} == {Code.RULE_DENY}


def test_refusals_of_an_hour_ago_are_forgotten_before_those_of_now():
    kernel = Kernel(policy(counters=(PERSISTENCE,)))
    for number in range(MOST_REQUESTS * 3):
        kernel.ask(verdict=DENIED, request=f"old{number % MOST_REQUESTS}")
    kernel.wait(HOUR)

    assert {kernel.ask(verdict=DENIED, request=f"r{number}").verdict.code for number in range(250)} == {Code.RULE_DENY}
    assert codes(kernel, 3, verdict=DENIED, request="r0") == [Code.RULE_DENY] * 2 + [Code.PERSISTENCE_LIMIT]


@pytest.mark.parametrize(("place", "other"), [
    pytest.param("2001:db8::1:443", "2001:db8::1:443:443", id="an address that ends like a port"),
    pytest.param("a.example:443", "a.example:80", id="another port"),
    pytest.param("a.example:443", "A.example:443", id="another case"),
])
def test_destinations_that_look_alike_are_counted_apart(place, other):
    kernel = Kernel(policy(counters=(Counter("exploration", 1, Effect.DENY),)))

    assert codes(kernel, 2, place=place) == [Code.ALLOW] * 2
    assert codes(kernel, 1, place=other) == [Code.EXPLORATION_DRIFT]


@pytest.mark.parametrize("name", ["\0", "a\0b", '"', "\u2028", "ann 100%", "", "кодер"])
def test_whatever_an_agent_is_called_the_log_makes_the_same_state(name):
    kernel = Kernel(policy(budget({"requests": 3}), profile="balanced", rates=(rate(Rate(60, 60)),)))
    for request in (None, "r", name, "\0"):
        kernel.ask(agent=f"a{name}", request=request)
        kernel.ask(agent=f"a{name}", request=request, verdict=DENIED)

    assert kernel.again() == kernel.state
    assert len(kernel.digest(f"a{name}")) == 64


def test_a_budget_named_like_a_counter_has_an_account_of_its_own():
    kernel = Kernel(policy(budget({"requests": 3}, name="steps"), counters=(Counter("steps", 5, Effect.DENY),)))

    assert codes(kernel, 4) == [Code.ALLOW] * 3 + [Code.BUDGET_EXHAUSTED]
    kernel.wait(DAY)
    assert codes(kernel, 3) == [Code.ALLOW] * 2 + [Code.EXTERNAL]


def test_a_counter_that_slows_down_is_no_rule():
    kernel = Kernel(policy(counters=(Counter("steps", 1, Effect.THROTTLE), Counter("persistence", 9, Effect.DENY))))

    assert codes(kernel, 2) == [Code.ALLOW, Code.RATE_LIMITED]
    assert kernel.ask().verdict.rule is None



@pytest.mark.parametrize(("first", "then"), [
    (Every.HOUR, Every.DAY), (Every.DAY, Every.WEEK), (Every.HOUR, Every.SESSION), (Every.SESSION, Every.WEEK)])
def test_a_budget_whose_period_a_reload_changes_begins_anew_and_is_not_used_up_for_good(first, then):
    kernel = Kernel(policy(budget({"requests": 2}, every=first)))
    codes(kernel, 2)
    kernel.bounds = Bounds(policy(budget({"requests": 2}, every=then)))
    assert codes(kernel, 3) == [Code.ALLOW] * 2 + [Code.BUDGET_EXHAUSTED]
    kernel.wait(7 * DAY)
    kernel.act("rotate")

    assert codes(kernel, 3) == [Code.ALLOW] * 2 + [Code.BUDGET_EXHAUSTED]


def test_a_refusal_while_the_clock_is_wrong_begins_no_new_day_of_risk():
    kernel = Kernel(policy(budget({"risk": 10})))
    codes(kernel, 1, verdict=DENIED, risk=9)
    kernel.log({"type": "clock"}, "coder")
    kernel.wait(3650 * DAY)

    assert kernel.ask(verdict=DENIED, risk=1).verdict.code is Code.BUDGET_EXHAUSTED


def test_no_rate_of_a_rule_is_kept_by_a_clock_that_is_wrong():
    kernel = Kernel(policy())
    slow = (pace("slow", Rate(1, 60)),)
    codes(kernel, 1, throttles=slow)
    kernel.log({"type": "clock"}, "coder")

    assert kernel.ask(throttles=slow).verdict.code is Code.CLOCK_JUMP


@pytest.mark.parametrize("year", [2201, 9999])
def test_a_clock_that_shows_a_year_no_entry_can_tell_stops_what_counts_and_breaks_nothing(year):
    kernel = Kernel(policy(budget({"requests": 2, "risk": 9}), rates=(rate(Rate(1, 1)),), profile="balanced"))
    kernel.ask()
    kernel.now = moment("UTC", year, 12, 31)

    assert kernel.ask().verdict.code is Code.CLOCK_JUMP
    assert kernel.ask(verdict=DENIED, risk=5).verdict.code is Code.RULE_DENY
    for body, _ in kernel.entries:
        canonical.encode(body)
    kernel.now = START
    assert codes(kernel, 1) == [Code.RATE_LIMITED]


def day(kernel, start, hours):
    """How many requests pass, one each ten minutes."""
    kernel.now, passed = start, 0
    for _ in range(hours * 6):
        passed += kernel.ask().verdict.lets_through
        kernel.wait(600)
    return passed


@pytest.mark.parametrize(("zone", "start", "hours"), [
    pytest.param("Europe/Berlin", (2026, 3, 29), 23, id="a day of 23 hours"),
    pytest.param("Europe/Berlin", (2026, 10, 25), 25, id="a day of 25 hours"),
    pytest.param("America/Havana", (2026, 11, 1), 25, id="a midnight that comes twice"),
    pytest.param("Asia/Kathmandu", (2026, 6, 1), 24, id="a zone off by a quarter of an hour"),
])
def test_a_day_of_a_budget_is_a_day_of_its_zone(zone, start, hours):
    found = ZONES.find(zone)
    kernel = Kernel(policy(budget({"requests": 5}, zone=found)))
    begins = moment(zone, *start)
    kernel.now = begins - 600 * MICROS
    assert codes(kernel, 6) == [Code.ALLOW] * 5 + [Code.BUDGET_EXHAUSTED]

    assert day(kernel, begins, hours) == 5
    assert codes(kernel, 1) == [Code.ALLOW]



@pytest.mark.parametrize("unit", ["requests", "bytes", "risk", "new-hosts"])
def test_a_neighbour_who_uses_up_what_all_share_halts_nobody_else(unit):
    shared = budget(together={unit: 3}, when_used=[at(100, Effect.HALT)])
    kernel = Kernel(policy(shared))
    for number in range(5):
        kernel.ask(agent="neighbour", risk=1, place=f"h{number}.example:443", body_bytes=0)
    verdict = kernel.ask(risk=1, place="new.example:443").verdict

    assert (verdict.action, verdict.code) == (Action.DENY, Code.BUDGET_EXHAUSTED)
    assert kernel.state.agent("coder").halt is None


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_that_an_origin_answers_halts_an_agent(profile):
    kernel = Kernel(policy(profile=profile))
    answers = [("completed", 500), ("completed", 200), ("completed", 403), ("completed", 429), ("failed", None),
               ("aborted", 200), ("cut", 200), ("unknown", None), ("not_sent", None)]
    for result, status in answers:
        for _ in range(1200):
            if kernel.ask(request=f"{result} {status}").verdict.lets_through:
                kernel.end(result=result, status=status, down=10**12)

    assert kernel.state.agent("coder").halt is None


@pytest.mark.parametrize("code", [
    Code.IDENTITY_REFUSED, Code.IDENTITY_REQUIRED, Code.IDENTITY_CONFLICT, Code.BUSY, Code.FAULT, Code.DEADLINE,
    Code.RESOLVE_FAILED, Code.AUDIT_UNAVAILABLE, Code.EDITED, Code.REFUSAL_RATE,
    pytest.param(Code.PRIVATE_ADDRESS, id="an address that whoever owns the name has chosen"),
])
def test_what_others_do_in_an_agents_name_or_answer_it_is_not_counted_against_it(code):
    kernel = Kernel(policy(profile="conservative"))
    for _ in range(300):
        kernel.ask(verdict=Verdict(Action.DENY, code), risk=10)

    assert kernel.ask().verdict.code is Code.ALLOW
    assert kernel.ask(verdict=DENIED).verdict.code is Code.RULE_DENY


def test_what_a_quiet_rule_refuses_counts_for_nothing():
    kernel = Kernel(policy(profile="conservative"))
    for _ in range(300):
        kernel.ask(verdict=DENIED, quiet=True, risk=10)

    assert kernel.ask(verdict=DENIED).verdict.code is Code.RULE_DENY


def on_trial(verdict):
    """The entry of a request that a policy on trial would have refused."""
    kernel = Kernel(policy(budget({"requests": 3})))
    kernel.ask()
    body, now = kernel.entries[0]
    return body | {"mode": "observe", "verdict": verdict.action, "code": verdict.code}, now


def test_what_a_trial_lets_pass_is_open_until_it_ends():
    shadow = State()
    body, now = on_trial(DENIED)
    shadow.take(change(shadow, body, "main/0", now))

    assert list(shadow.open) == ["main/0"]
    assert [(account.spent, account.held) for account in shadow.accounts.values()] == [(0, 1)]


def test_a_trial_halts_nobody():
    body, now = on_trial(Verdict(Action.HALT, Code.RULE_HALT, "trap"))

    assert not change(State(), body, "main/0", now).agents
    assert change(State(), body | {"mode": "enforce"}, "main/0", now).agents["coder"].halt is not None


def test_a_neighbour_without_a_name_is_refused_where_a_halted_agent_came_from_and_halts_nobody():
    kernel = Kernel(policy(profile="conservative"))
    kernel.act("halt", "neighbour", sources=["10.0.0.9"])
    for _ in range(300):
        assert kernel.ask(agent="local", source="10.0.0.9").verdict.code is Code.AGENT_HALTED
    kernel.act("release", "neighbour")

    assert kernel.ask(agent="local", source="10.0.0.9").verdict.code is Code.ALLOW
    assert kernel.again() == kernel.state



def test_points_of_risk_are_told_and_slow_down():
    kernel = Kernel(policy(budget({"risk": 10}, when_used=[
        at(50, Effect.TELL), at(80, Effect.THROTTLE, Rate(1, 60)), at(100, Effect.HALT)])))
    seen = [kernel.ask(risk=2) for _ in range(5)]

    assert [each.verdict.code for each in seen] == [Code.ALLOW] * 4 + [Code.RATE_LIMITED]
    assert [each.left for each in seen[:4]] == [{}, {}, {"risk": 4}, {"risk": 2}]
    kernel.wait(60)
    assert codes(kernel, 1, risk=2) == [Code.OVERRISK]



KEY = ("b", "bytes", "coder")


def state():
    flow = OpenFlow("f", "coder", START, None, (Draw("b", "coder", "bytes", 4, 10),))
    flows = {"main/0": flow, "main/1": flow._replace(agent="neighbour")}
    return State({"coder": Standing(1, 1)}, {KEY: Account(4, 5, 30)}, {}, flows)


@pytest.mark.parametrize(("made", "says"), [
    pytest.param(Change(accounts={KEY: Account(4, 5, 20)}, closed=("main/0",)), None, id="a settlement"),
    pytest.param(Change(accounts={KEY: Account(4, 5, 19)}, closed=("main/0",)), "frees no more", id="frees too much"),
    pytest.param(Change(accounts={KEY: Account(4, 5, 29)}), "frees no more", id="a draw below zero"),
    pytest.param(Change(closed=("main/1",)), "flows of other agents", id="another's flow"),
    pytest.param(Change(opened={"main/2": OpenFlow("f", "coder", START, None, ())}), None, id="a flow"),
    pytest.param(Change(opened={"main/2": OpenFlow("f", "neighbour", START, None, ())}), "flows of other agents",
                 id="a flow for another"),
    pytest.param(Change(paces={("r", "coder"): 1, ("r", ""): 1}), None, id="a turn of its own and one of all"),
    pytest.param(Change(paces={("r", "neighbour"): 1}), "rates of other agents", id="another's turn"),
    pytest.param(Change(seen=("neighbour", START)), "presence of other agents", id="another's presence"),
    pytest.param(Change(accounts={KEY: Account(4, 4, 30)}), "stays spent", id="given back"),
    pytest.param(Change(accounts={KEY: Account(0, 4, 30)}), "stays spent", id="an earlier window"),
    pytest.param(Change(accounts={KEY: Account(4, -1, 30)}), "below zero", id="below zero"),
    pytest.param(Change(accounts={("b", "bytes", "neighbour"): Account()}), "other agents", id="another's account"),
    pytest.param(Change({"neighbour": Standing()}), "other agents", id="another's standing"),
    pytest.param(Change({"coder": Standing(0, 1)}), "follow one another", id="an earlier epoch"),
    pytest.param(Change({"coder": Standing(1, 0)}), "follow one another", id="an earlier session"),
])
def test_a_contract_that_a_change_breaks_is_named(made, says):
    found = broken(state(), made, "coder")

    assert found is None if says is None else says in found


def test_limits_and_halts_are_contracts():
    bounds = Bounds(policy(budget({"bytes": 40}))).of("coder").bounds
    halted = Halt("OPERATOR", START, None, "ann")
    stopped = state()
    stopped.take(Change({"coder": Standing(1, 1, halted)}))

    assert broken(state(), Change(accounts={KEY: Account(4, 5, 35)}), "coder", bounds) is None
    assert "than there is" in broken(state(), Change(accounts={KEY: Account(4, 5, 36)}), "coder", bounds)
    assert "is refused" in broken(stopped, Change(), "coder", passes=True)
    assert "a halt stays" in broken(stopped, Change({"coder": Standing(1, 1)}), "coder")
    excused = Change({"coder": Standing(1, 1, halted._replace(reason="OVERRISK"))})
    assert "a halt stays" in broken(stopped, excused, "coder")
    assert broken(stopped, Change({"coder": Standing(2, 1)}), "coder") is None

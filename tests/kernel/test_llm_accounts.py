"""Money and tokens are drawn for a call before it leaves, on every account together, and settled by what it reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import entry
from kernel.budget import Effect
from kernel.llm.recorded import call, spend_of
from kernel.llm.spend import Spend
from kernel.measures import Rate
from kernel.state import Leased
from kernel.step import Asked, step
from kernel.verdict import Action, Code
from tests.kernel.accounting import ALLOWED, Kernel, at, budget, policy, rate

# At most 100 tokens go in at 1 micro-USD each, and a token of the answer costs 10.
SPEND = Spend(100, 20, 500, 1, 1_000_000, 10_000_000)
DENY = (at(100, Effect.DENY),)


def purse(each=None, together=None, when_used=DENY, name="b"):
    return budget(each, together, when_used=when_used, name=name)


def used(tokens, usd):
    return {"usage": {"tokens": tokens, "usd": usd}}


def end(kernel, number=-1, result="completed", **said):
    number = len(kernel.entries) - 1 if number < 0 else number
    kernel.log(entry.outcome(f"f{number}", f"main/{number}", result, 200) | said, "coder")


def test_a_call_holds_its_bound_and_pays_what_it_reports():
    kernel = Kernel(policy(purse({"usd": 100_000, "tokens": 10_000})))
    decided = kernel.ask(spend=SPEND)

    assert decided.output == 500
    assert (kernel.account(unit="usd").held, kernel.account(unit="tokens").held) == (5100, 600)
    end(kernel, **used(150, 321))
    assert kernel.account(unit="usd")[1:3] == (321, 0)
    assert kernel.account(unit="tokens")[1:3] == (150, 0)


@pytest.mark.parametrize(("result", "said", "spent"), [
    ("completed", {}, 5100), ("cut", {}, 5100), ("unknown", used(1, 1), 5100), ("not_sent", {}, 0),
    ("completed", used(10**9, 10**9), 5100), ("completed", used(0, 0), 0),
    ("completed", {"usage": {"usd": None}}, 5100), ("failed", used(5, 7), 7),
])
def test_what_nobody_knows_costs_the_bound_and_nothing_costs_more(result, said, spent):
    kernel = Kernel(policy(purse({"usd": 100_000})))
    kernel.ask(spend=SPEND)
    end(kernel, result=result, **said)

    assert kernel.account(unit="usd")[1:3] == (spent, 0)


def test_the_answer_is_as_large_as_the_poorest_of_all_accounts_pays():
    kernel = Kernel(policy(purse({"usd": 4000}, {"usd": 3105, "tokens": 450})))
    decided = kernel.ask(spend=SPEND)

    assert decided.output == 300
    assert {(draw.unit, draw.agent, draw.amount) for draw in decided.draws} == {
        ("usd", "coder", 3100), ("usd", None, 3100), ("tokens", None, 400)}


def test_less_than_the_least_answer_is_refused_and_takes_nothing():
    kernel = Kernel(policy(purse({"usd": 299}, name="small"), purse({"usd": 10**9}, name="large")))
    decided = kernel.ask(spend=SPEND)

    assert (decided.verdict.code, decided.verdict.rule, decided.draws) == (Code.BUDGET_EXHAUSTED, "small", ())
    assert Kernel(policy(purse({"usd": 300}))).ask(spend=SPEND).output == 20


def test_what_is_no_call_takes_no_money():
    kernel = Kernel(policy(purse({"usd": 0})))

    assert kernel.ask().verdict.code is Code.ALLOW


def test_nobody_is_halted_for_what_is_only_held():
    kernel = Kernel(policy(purse({"usd": 5300}, when_used=(at(100, Effect.HALT),))))
    kernel.ask(spend=SPEND)
    assert kernel.ask(spend=SPEND).verdict.action is Action.DENY

    end(kernel, 0, **used(600, 5100))
    assert kernel.ask(spend=SPEND).verdict.code is Code.EXHAUSTION


def test_a_share_that_is_used_slows_and_tells():
    thresholds = (at(50, Effect.TELL), at(90, Effect.THROTTLE, Rate(1, 60)), at(100, Effect.DENY))
    kernel = Kernel(policy(purse({"usd": 5600}, when_used=thresholds)))
    decided = kernel.ask(spend=SPEND)

    assert decided.left == {"usd": 500}
    assert [draw.budget for draw in decided.draws if draw.unit == "rate"] == ["b 90%"]


def test_a_budget_of_bytes_holds_a_body_as_long_as_it_can_become():
    kernel = Kernel(policy(purse({"bytes": 300})))

    assert kernel.ask(spend=SPEND._replace(body_bytes=300)).verdict.code is Code.BUDGET_EXHAUSTED
    assert kernel.ask(spend=SPEND._replace(body_bytes=299)).verdict.code is Code.ALLOW


def test_the_bound_in_an_entry_is_drawn_again_as_it_was():
    said = {"llm": call("openai", "m", None, SPEND, 300, ["max_tokens"])}

    assert spend_of(said) == SPEND
    assert (said["llm"]["bound"]["tokens"], said["llm"]["bound"]["usd"]) == (400, 3100)
    assert spend_of({"llm": call("openai", None, "unreadable", None, None, [])}) is None
    assert spend_of({}) is None


def pooled(kernel, amount, elsewhere):
    window = kernel.bounds.of("coder").bounds[0].window(kernel.state.agent("coder"), kernel.now)
    kernel.state.pooled = True
    kernel.state.leased["b", "usd", "coder"] = Leased(window, amount, elsewhere, 7)


@pytest.mark.parametrize(("amount", "elsewhere", "wants"), [
    pytest.param(0, 0, [(300, 5100)], id="nothing is leased"),
    pytest.param(3100, 0, [(300, 5100)], id="less than the whole, and there is more"),
    pytest.param(5100, 0, [], id="enough"),
    pytest.param(3100, 96_900, [], id="there is no more"),
])
def test_a_call_leases_what_its_whole_answer_may_cost_where_there_is_more(amount, elsewhere, wants):
    kernel = Kernel(policy(purse({"usd": 100_000})))
    pooled(kernel, amount, elsewhere)
    bounded, asked = kernel.bounds.of("coder"), Asked("coder", ALLOWED, spend=SPEND)

    first = step(kernel.state, bounded, asked._replace(final=False), kernel.now)
    assert [(want.least, want.want) for want in first.wants] == wants
    final = step(kernel.state, bounded, asked, kernel.now)
    assert final.output == ((min(amount, 5100) - 100) // 10 if amount else None)


amounts = st.integers(0, 20_000)
spends = st.builds(
    lambda sends, sizes, choices, prices: Spend(sends, min(sizes), max(sizes), choices, *prices),
    st.integers(0, 300), st.tuples(st.integers(0, 300), st.integers(0, 300)), st.integers(0, 3),
    st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)))
reports = st.none() | st.tuples(st.integers(0, 5000), st.integers(0, 20_000))
steps_taken = st.lists(st.tuples(spends, reports, st.sampled_from(["ask", "end", "hour"])), max_size=25)


@given(steps_taken, amounts, amounts, amounts)
def test_whatever_is_asked_and_reported_no_purse_is_overspent(steps, own, shared, tokens):
    kernel = Kernel(policy(purse({"usd": own}, {"usd": shared, "tokens": tokens}), rates=(rate(Rate(1000, 1)),)))
    limits = {("usd", "coder"): own, ("usd", ""): shared, ("tokens", ""): tokens}
    open_calls = []
    for spend, report, what in steps:
        if what == "hour":
            kernel.wait(3600)
        elif what == "ask" or not open_calls:
            decided = kernel.ask(spend=spend)
            if decided.verdict.lets_through:
                assert spend.least <= decided.output <= spend.most
                open_calls.append(len(kernel.entries) - 1)
        else:
            end(kernel, open_calls.pop(0), **({} if report is None else used(*report)))
        for (unit, agent), limit in limits.items():
            account = kernel.account(unit=unit, agent=agent)
            assert account.spent + account.held <= limit
    assert kernel.state == kernel.again()

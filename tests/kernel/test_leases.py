"""A kernel whose budgets a ledger keeps: what was leased bounds it, and what it lacks it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import entry
from kernel.budget import Counter, Effect, Unit
from kernel.contracts import broken
from kernel.folding import States
from kernel.measures import Rate
from kernel.posting import held
from kernel.snapshot import Snapshot, decode, encode
from kernel.state import NO_CHANGE, TOGETHER, Lease, Leased
from kernel.step import Asked, Want, more, step
from kernel.transition import GRANTED, LOST_LEASE, POOL, REFUSED, SETTLED, change
from kernel.verdict import Action, Code
from tests.kernel.accounting import ALLOWED, DENIED, START, Kernel, at, budget, digest, policy, rate

DAY = START // 1_000_000 // 86400 * 4 + 2
POOLED = {POOL: "sqlite:/var/lib/governor/pool.db"}


class Pooled(Kernel):
    """A kernel in a process of several."""

    def __post_init__(self):
        super().__post_init__()
        self.log(entry.config(POOLED, {}), "coder")

    def lease(self, amount, act=GRANTED, number=1, key=("b", "requests", "coder"), window=DAY, elsewhere=0):
        self.log(entry.lease(act, "p", number, key, window, amount, elsewhere), key[2] or "coder")

    def wants(self, **asked):
        asked = Asked("coder", ALLOWED, **{"place": "a.example:443", "final": False, **asked})
        return step(self.state, self.bounds.of("coder"), asked, self.now)


def test_what_was_not_leased_is_wanted_and_then_refused():
    kernel = Pooled(policy(budget({"requests": 9})))

    assert kernel.wants().wants == (Want(("b", "requests", "coder"), DAY, 9, 1, 1),)
    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED


def test_what_was_leased_is_drawn_and_no_more():
    kernel = Pooled(policy(budget({"requests": 9})))
    kernel.lease(2)

    assert [kernel.ask().verdict.code for _ in range(3)] == [Code.ALLOW, Code.ALLOW, Code.BUDGET_EXHAUSTED]
    assert kernel.entries[2][0]["draws"][0]["lease"] == 1


def test_what_was_drawn_before_there_was_a_ledger_stays_drawn():
    kernel = Kernel(policy(budget({"requests": 9})))
    kernel.ask()
    kernel.log(entry.config(POOLED, {}), "coder")
    Pooled.lease(kernel, 1)

    assert kernel.state.leased["b", "requests", "coder"].amount == 2
    assert [kernel.ask().verdict.code for _ in range(2)] == [Code.ALLOW, Code.BUDGET_EXHAUSTED]


def test_what_went_back_is_not_drawn():
    kernel = Pooled(policy(budget({"requests": 9})))
    kernel.lease(5)
    kernel.ask()
    kernel.lease(4, SETTLED)

    assert kernel.ask().verdict.code is Code.BUDGET_EXHAUSTED
    assert kernel.state.leases == {}


@pytest.mark.parametrize("act", [SETTLED, LOST_LEASE])
def test_no_more_goes_back_than_was_not_drawn(act):
    kernel = Pooled(policy(budget({"requests": 9})))
    kernel.lease(5)
    kernel.ask()
    body = entry.lease(act, "p", 1, ("b", "requests", "coder"), DAY, 5, 0)

    assert broken(kernel.state, change(kernel.state, body, "main/9", kernel.now), "coder")


def test_a_lease_of_another_window_is_none_of_this_one():
    kernel = Pooled(policy(budget({"requests": 9})))
    kernel.lease(5)
    kernel.wait(86400)

    assert kernel.wants().wants[0].window == DAY + 4
    kernel.lease(1, number=2, window=DAY + 4)
    kernel.lease(5, SETTLED)
    assert kernel.state.leased["b", "requests", "coder"] == Leased(DAY + 4, 1, 0, 2)
    assert kernel.state.leases == {2: Lease(("b", "requests", "coder"), DAY + 4, 1)}


def test_a_later_window_of_which_nothing_was_granted_leaves_the_newest_number_known():
    kernel = Pooled(policy(budget({"requests": 9})))
    kernel.lease(5, number=7)
    kernel.lease(0, REFUSED, None, window=DAY + 4)

    assert kernel.state.leased["b", "requests", "coder"] == Leased(DAY + 4, 0, 0, 7)
    assert max(each.lease for each in held(kernel.state, "run")) == 7
    kernel.lease(5, SETTLED, number=7)
    assert [(each.lease, each.amount) for each in held(kernel.state, "run")] == [(7, 0)]


def test_shares_are_of_what_all_processes_have_used():
    kernel = Pooled(policy(budget({"requests": 10}, when_used=[at(80, Effect.TELL), at(100, Effect.DENY)])))
    kernel.lease(2, elsewhere=6)

    assert kernel.ask().left == {}
    assert kernel.ask().left == {"requests": 2}


@pytest.mark.parametrize(("elsewhere", "action"), [(7, Action.HALT), (6, Action.DENY)])
def test_nobody_is_halted_for_what_the_ledger_may_still_have(elsewhere, action):
    kernel = Pooled(policy(budget({"requests": 9}, when_used=[at(100, Effect.HALT)])))
    kernel.lease(2)
    kernel.ask()
    kernel.ask()
    kernel.lease(0, REFUSED, None, elsewhere=elsewhere)

    assert kernel.ask().verdict.action is action


def test_points_of_other_processes_count_against_the_limit():
    kernel = Pooled(policy(budget({"risk": 30}, when_used=[at(100, Effect.HALT)])))
    asked = Asked("coder", DENIED, risk=20, final=False)
    wanted = step(kernel.state, kernel.bounds.of("coder"), asked, kernel.now).wants

    assert wanted == (Want(("b", "risk", "coder"), DAY, 30, 20, 20),)
    kernel.lease(0, REFUSED, None, ("b", "risk", "coder"), elsewhere=20)
    assert kernel.ask(verdict=DENIED, risk=20).verdict.code is Code.OVERRISK


def test_a_new_destination_is_wanted_by_its_name():
    kernel = Pooled(policy(budget({"new-hosts": 3})))

    assert kernel.wants().wants == (Want(("b", "new-hosts", "coder"), DAY, 3, 1, 1, "a.example:443"),)
    kernel.lease(1, key=("b", "new-hosts", "coder"))
    assert kernel.ask().verdict.code is Code.ALLOW
    assert kernel.wants().wants == ()


def test_turns_of_a_rate_are_leased_and_taken_one_by_one():
    kernel = Pooled(policy(rates=(rate(None, Rate(60, 60), burst=10),)))
    key = ("rates-1", "rate", TOGETHER)

    assert kernel.wants().wants == (Want(key, 0, 10, 1, 1, each_us=1_000_000),)
    kernel.lease(2, number=None, key=key, window=0)
    assert [kernel.ask().verdict.code for _ in range(3)] == [Code.ALLOW, Code.ALLOW, Code.RATE_LIMITED]


def test_all_that_is_wanted_is_said_at_once():
    kernel = Pooled(policy(budget({"requests": 9, "bytes": 10**8}), rates=(rate(Rate(60, 60)),)))

    assert [want.key[1] for want in kernel.wants(risk=1).wants] == ["requests", "bytes", "rate"]


def test_a_counter_that_only_tells_lets_pass_what_is_not_leased():
    kernel = Pooled(policy(counters=(Counter("steps", 2, Effect.TELL),)))

    assert kernel.wants().wants
    assert kernel.ask().verdict.code is Code.ALLOW


def test_what_goes_on_draws_on_what_is_leased():
    kernel = Pooled(policy(budget({"bytes": 10**8})))
    kernel.lease(2**20 + 10, key=("b", "bytes", "coder"))
    kernel.ask()
    bounded = kernel.bounds.of("coder")

    assert more(kernel.state, bounded, "coder", Unit.BYTES, 100, kernel.now)[0].amount == 10


def test_without_a_ledger_all_leases_are_forgotten():
    kernel = Pooled(policy(budget({"requests": 9})))
    kernel.lease(2)
    kernel.ask()
    kernel.log(entry.config({}, {}), "coder")

    assert (kernel.state.pooled, kernel.state.leased, kernel.state.leases) == (False, {}, {})
    assert kernel.ask().verdict.code is Code.ALLOW


def test_the_hash_of_the_accounts_tells_of_leases_and_turns():
    kernel = Pooled(policy(budget({"requests": 9}), rates=(rate(Rate(60, 60), burst=10),)))
    bounded = kernel.bounds.of("coder")
    seen = set()
    turns = ("rates-1", "rate", "coder")
    for do in (lambda: kernel.lease(2), lambda: kernel.lease(2, number=None, key=turns, window=0),
               lambda: kernel.lease(0, REFUSED, None, elsewhere=1), kernel.ask):
        do()
        seen.add(digest(kernel.state, NO_CHANGE, "coder", bounded.bounds, bounded.paces))

    assert len(seen) == 4


@pytest.mark.parametrize(("workers", "times"), [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_each_of_several_workers_counts_its_share_of_what_is_repeated(workers, times):
    kernel = Kernel(policy(counters=(Counter("persistence", 6, Effect.DENY),)))
    kernel.log(entry.config(POOLED | {"workers": workers}, {}), "coder")
    codes = [kernel.ask(verdict=DENIED).verdict.code for _ in range(times + 1)]

    assert codes == [Code.RULE_DENY] * times + [Code.PERSISTENCE_LIMIT]


AMOUNTS = st.integers(0, 5)


@given(st.lists(st.tuples(st.sampled_from(("ask", "lease", "back", "refuse", "day", "end")), AMOUNTS), max_size=30))
def test_no_more_is_ever_drawn_than_was_leased_and_the_log_tells_all_of_it(steps):
    kernel = Pooled(policy(budget({"requests": 1000}, {"requests": 1000})))
    key, granted, number = ("b", "requests", TOGETHER), {}, 0
    for do, amount in steps:
        window = DAY + 4 * ((kernel.now - START) // (86400 * 1_000_000))
        match do:
            case "ask":
                kernel.ask()
            case "lease":
                number += 1
                kernel.lease(amount, number=number, key=key, window=window)
                kernel.lease(amount, number=-number, window=window)
                granted[window] = granted.get(window, 0) + amount
            case "back" if (free := kernel.state.lease(key, window).amount - kernel.account(agent=TOGETHER).spent
                            - kernel.account(agent=TOGETHER).held) > 0 and number:
                kernel.lease(min(free, amount), SETTLED, number, key, window)
                granted[window] -= min(free, amount)
            case "refuse":
                kernel.lease(0, REFUSED, None, key, window, amount)
            case "day":
                kernel.wait(86400)
            case "end":
                for name in list(kernel.state.open):
                    kernel.end(int(name.partition("/")[2]))
    for window, most in granted.items():
        drawn = sum(each["amount"] for body, _ in kernel.entries if body["type"] == "decision"
                    for each in body["draws"] if each["for"] is None and each["window"] == window)
        assert drawn <= most

    assert kernel.again() == kernel.state
    snapshot = Snapshot("w0", 3, States(real=kernel.state))
    assert decode(encode(snapshot)) == snapshot

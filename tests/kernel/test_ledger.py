"""What the ledger of shared budgets promises, rule by rule; its rates for whatever processes do with their turns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import NotJoined, StillJoined
from kernel.leases import (
    CLOCKS_APART_US,
    LEASE_SECONDS,
    MOST,
    Ask,
    Held,
    Kind,
    News,
    Purse,
    Settled,
    Total,
    Why,
)
from kernel.ledger import calls, windows
from kernel.ledger.members import MOST_UNKNOWN
from kernel.ledger.tables import Draft, InMemory
from tests.conftest import scaled

SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 86400 * SECOND
START = 900_000 * HOUR
LEASE = LEASE_SECONDS * SECOND
A, B = "governor/x/w0", "governor/x/w1"
OTHER = "governor/y/main"
TOTAL = Purse("llm", "requests", "", 0)


class Ledger:
    """The kernel's ledger with a clock that a test moves."""

    def __init__(self):
        self.tables, self.server, self.now_us, self.asks = InMemory(), "first", START, 0

    def __call__(self, call, *arguments):
        draft = Draft(self.tables, self.server, self.now_us)
        answer = call(draft, *arguments)
        self.tables.keep(draft)
        return answer

    def join(self, holder=A, run="r1"):
        return self(calls.join, holder, run, {})

    def ask(self, least=1, want=None, *, limit=100, holder=A, run="r1", purse=TOTAL, skew=0, number=None, **more):
        self.asks += 1
        ask = Ask(self.asks if number is None else number, purse, limit, least, least if want is None else want, **more)
        return self(calls.acquire, holder, run, [ask], self.now_us + skew)[0]

    def settle(self, lease, used, holder=A):
        self(calls.settle, holder, [Settled(lease, used)])

    def beat(self, holder=A, run="r1", seen=0):
        return self(calls.beat, holder, run, seen, {})

    def tell(self, kind, agent="ann", origin="x/w0/1", epoch=0, **said):
        return self(calls.tell, News(kind, agent, origin, said, epoch=epoch))

    def repost(self, totals=(), leases=(), holder=A):
        self(calls.repost, holder, totals, leases)

    def balance(self, purse=TOTAL):
        found = {each.purse: each[1:] for each in self(calls.overview).balances}
        return found.get(purse)

    def leases(self):
        return [held.lease for _, held in self(calls.overview).leases]


@pytest.fixture
def ledger():
    made = Ledger()
    made.join()
    return made


def hour(ledger, ago=0):
    return Purse("llm", "requests", "ann", (ledger.now_us // HOUR - ago) * 4 + 1)


# What is granted.

@pytest.mark.parametrize(("least", "want", "limit", "amount"), [
    pytest.param(1, 50, 800, 50, id="as much as is wanted"),
    pytest.param(1, 500, 800, 100, id="at most an eighth of what is left"),
    pytest.param(300, 500, 800, 300, id="at least what is needed"),
    pytest.param(800, 800, 800, 800, id="all there is"),
    pytest.param(801, 801, 800, 0, id="nothing where less is left than is needed"),
    pytest.param(1, 5, 3, 1, id="single units near the end"),
    pytest.param(0, 0, 800, 0, id="nothing was asked for"),
    pytest.param(-5, 50, 800, 0, id="less than nothing"),
    pytest.param(1, 1, -7, 0, id="a limit below nothing"),
    pytest.param(2**70, 2**70, 2**80, 0, id="beyond all numbers"),
])
def test_a_grant_is_between_what_is_needed_and_what_is_wanted(ledger, least, want, limit, amount):
    grant = ledger.ask(least, want, limit=limit)

    assert (grant.amount, grant.lease, grant.why) == ((amount, 1, None) if amount else (0, None, Why.EXHAUSTED))


@pytest.mark.parametrize("used", [MOST, MOST - 57])
def test_what_a_lane_that_was_lost_counts_as_used_up_leaves_every_number_exact(ledger, used):
    for holder in (B, OTHER):
        ledger.join(holder)
        ledger.settle(ledger.ask(50, holder=holder).lease, 47, holder)
    held = ledger.ask(3, holder=B)
    ledger.repost([Total(TOTAL, used, used)])
    before = [ledger.ask(1, limit=10**15, holder=holder).elsewhere for holder in (A, B, OTHER)]
    ledger.settle(held.lease, 3, B)

    assert before == [97, MOST - 50, MOST - 47]
    assert ledger.balance() == (10**15, MOST, 0, 0)
    assert ledger.ask(1, limit=10**15, holder=OTHER).why is Why.EXHAUSTED


def test_the_share_of_a_process_shrinks_with_the_processes_that_live(ledger):
    ledger.join(B)
    ledger.join(OTHER)

    assert ledger.ask(1, 800, limit=2400).amount == 100


def test_leases_are_numbered_within_a_log_and_a_refusal_takes_no_number(ledger):
    ledger.join(B)
    ledger.join(OTHER)
    asked = [(A, 1), (B, 1), (A, 1000), (OTHER, 1), (A, 1)]

    assert [ledger.ask(least, holder=holder).lease for holder, least in asked] == [1, 2, None, 1, 3]


def test_an_ask_that_is_sent_again_is_granted_once(ledger):
    first = ledger.ask(1, 10, number=5)
    again = ledger.ask(1, 10, number=5)

    assert again == first
    assert ledger.balance()[2] == first.amount


def test_an_ask_that_arrives_after_its_lease_was_settled_is_granted_nothing(ledger):
    ledger.settle(ledger.ask(10, number=5).lease, 3)

    assert ledger.ask(10, number=5).why is Why.STALE
    assert ledger.ask(10, number=4).why is Why.STALE
    assert ledger.ask(10, number=6).amount == 10


def test_an_ask_that_was_refused_is_granted_nothing_when_it_arrives_again(ledger):
    granted = ledger.ask(100)
    refused = ledger.ask(10, number=7)
    ledger.settle(granted.lease, 0)

    assert (refused.why, ledger.ask(10, number=7).why) == (Why.EXHAUSTED, Why.STALE)
    assert ledger.balance() == (100, 0, 0, 0)


def test_asks_of_another_life_begin_anew(ledger):
    ledger.ask(10, number=5)
    ledger.join(run="r2")

    assert ledger.ask(10, run="r2", number=1).lease == 2


def test_what_others_have_is_told_without_what_one_has_oneself(ledger):
    ledger.join(B)
    ledger.settle(ledger.ask(10).lease, 7)
    ledger.ask(5)

    assert ledger.ask(3, holder=B).elsewhere == 12
    assert ledger.ask(1).elsewhere == 3


def test_what_one_has_lost_is_elsewhere_for_others_alone(ledger):
    ledger.join(B)
    ledger.ask(10)
    ledger.now_us += LEASE
    ledger.join(B)

    assert ledger.ask(1).elsewhere == 0
    assert ledger.ask(1, holder=B).elsewhere == 11


def test_the_newest_limit_holds(ledger):
    ledger.ask(60, limit=100)

    assert ledger.ask(1, limit=50).why is Why.EXHAUSTED
    assert ledger.balance() == (50, 0, 60, 0)
    assert ledger.ask(40, limit=100).amount == 40


@pytest.mark.parametrize("used", [0, 3, 10])
def test_what_is_not_used_goes_back_once(ledger, used):
    lease = ledger.ask(10).lease
    for said in (used, 0, 10):
        ledger.settle(lease, said)

    assert ledger.balance() == (100, used, 0, 0)


@pytest.mark.parametrize(("said", "spent"), [(-4, 0), (11, 10), (2**80, 10)])
def test_no_more_than_a_lease_and_no_less_than_nothing_is_settled(ledger, said, spent):
    ledger.settle(ledger.ask(10).lease, said)

    assert ledger.balance()[1] == spent


def test_nobody_settles_what_another_holds(ledger):
    ledger.join(B)
    ledger.settle(ledger.ask(10).lease, 0, holder=B)

    assert ledger.balance()[2] == 10


def test_an_item_is_counted_once_whoever_asks(ledger):
    ledger.join(B)
    first, again = ledger.ask(item="d1"), ledger.ask(item="d1")
    other, new = ledger.ask(item="d1", holder=B), ledger.ask(item="d2", holder=B, limit=1)

    assert [(each.amount, each.lease) for each in (first, again, other)] == [(1, 1), (1, None), (1, None)]
    assert new.why is Why.EXHAUSTED


def test_a_new_item_is_spent_whatever_is_settled(ledger):
    ledger.settle(ledger.ask(item="d1").lease, 0)

    assert ledger.balance() == (100, 1, 0, 0)


# Clocks and windows.

@pytest.mark.parametrize(("skew", "why"), [
    (CLOCKS_APART_US, None), (CLOCKS_APART_US + 1, Why.CLOCK),
    (-CLOCKS_APART_US, None), (-CLOCKS_APART_US - 1, Why.CLOCK)])
def test_a_process_with_another_clock_is_granted_nothing(ledger, skew, why):
    assert ledger.ask(skew=skew).why is why


def test_an_older_window_is_closed_once_a_later_one_has_begun(ledger):
    old = ledger.ask(10, purse=hour(ledger, ago=1))
    ledger.ask(10, purse=hour(ledger))

    assert ledger.ask(10, purse=hour(ledger, ago=1)).why is Why.FENCED
    ledger.settle(old.lease, 4)
    assert ledger.ask(10, purse=hour(ledger, ago=1)).why is Why.FENCED


def test_a_window_is_forgotten_with_its_last_lease_and_not_before(ledger):
    old = ledger.ask(10, purse=hour(ledger, ago=1))
    ledger.ask(10, purse=hour(ledger))

    assert ledger.balance(hour(ledger, ago=1)) == (100, 0, 10, 0)
    ledger.settle(old.lease, 4)
    assert ledger.balance(hour(ledger, ago=1)) is None


def test_an_older_session_is_closed_once_the_agent_was_released_or_has_a_new_token(ledger):
    ledger.tell(Kind.RELEASE)
    ledger.tell(Kind.SESSION)

    assert ledger.ask(purse=Purse("llm", "requests", "ann", 1 * 4)).why is Why.FENCED
    assert ledger.ask(purse=Purse("llm", "requests", "ann", 2 * 4)).why is None
    assert ledger.ask(purse=Purse("llm", "requests", "bob", 0)).why is None


@pytest.mark.parametrize(("kind", "length", "monday"), [(1, HOUR, 0), (2, DAY, 0), (3, 7 * DAY, 4 * DAY)])
def test_what_ended_days_ago_is_forgotten_and_cannot_begin_anew(ledger, kind, length, monday):
    number = (START - monday) // length
    purse = Purse("llm", "requests", "ann", number * 4 + kind)
    ledger.settle(ledger.ask(10, purse=purse).lease, 10)
    end = monday + (number + 1) * length

    ledger.now_us = end + 2 * DAY - 1
    ledger.join(run="r2")
    assert ledger.balance(purse) == (100, 10, 0, 0)
    ledger.now_us = end + 2 * DAY
    ledger.join(run="r3")
    assert ledger.balance(purse) is None
    assert ledger.ask(run="r3", purse=purse).why is Why.FENCED
    ledger.now_us = end - 1  # a clock that is set back opens nothing
    assert ledger.ask(run="r3", purse=purse).why is Why.FENCED


def test_the_ledger_grows_with_what_is_open_and_not_with_time(ledger):
    for number in range(200):
        ledger.now_us += HOUR
        ledger.join(run=f"r{number}")
        for agent in range(3):
            purse = hour(ledger)._replace(agent=f"{number}-{agent}")
            ledger.settle(ledger.ask(5, run=f"r{number}", purse=purse, number=agent).lease, 5)

    assert len(ledger(calls.overview).balances) < 3 * 60
    assert len(ledger.tables.table("fences")) < 3 * 60
    assert len(ledger.tables.table("parts")) < 3 * 60


@given(st.integers(0, 2**40), st.integers(0, 3))
def test_no_window_is_forgotten_before_it_ended_in_every_zone(now_s, kind):
    length, monday = ((1, 0), (3600, 0), (86400, 0), (604800, 345600))[kind]
    for zone in (-12 * 3600, 0, 14 * 3600):
        local = now_s + (zone if kind > 1 else 0)
        end = windows.forgotten_at_us(Purse("", "", "", (local - monday) // length * 4 + kind))

        assert end is None if kind == 0 else end > now_s * SECOND + DAY


# Processes.

def test_who_is_silent_for_too_long_has_lost_what_it_held(ledger):
    ledger.join(B)
    ledger.ask(10)
    ledger.now_us += LEASE - 1
    ledger.beat(B)
    assert ledger.balance() == (100, 0, 10, 0)
    ledger.now_us += 1
    beat = ledger.beat(B)

    assert (beat.alive, ledger.balance(), ledger.leases()) == (1, (100, 10, 0, 10), [])


def test_who_lost_what_it_held_is_told_until_it_asks_again(ledger):
    lease = ledger.ask(10).lease
    ledger.now_us += LEASE
    lost = [ledger.beat().lost, ledger.beat().lost]
    ledger.settle(lease, 0)
    granted = ledger.ask(10)

    assert (lost, ledger.beat().lost, granted.lease) == ([True, True], False, 2)
    assert ledger.balance() == (100, 10, 10, 10)


def test_a_lease_that_was_lost_is_told_to_the_next_life_until_it_settles_it(ledger):
    ledger.ask(10, number=7)
    ledger.now_us += LEASE
    left = [Held(1, TOTAL, 10, "r1", 7)]

    assert ledger.join(run="r2") == left
    assert ledger.join(run="r3") == left
    ledger.settle(1, 0)
    assert ledger.join(run="r4") == []
    assert ledger.balance() == (100, 10, 0, 10)


def test_a_lease_that_was_lost_is_the_answer_to_its_ask_and_is_counted_once(ledger):
    granted = ledger.ask(10, number=7)
    ledger.now_us += LEASE
    again = ledger.ask(10, number=7)
    ledger.repost([Total(TOTAL, 100, 10)])

    assert (again.lease, again.amount) == (granted.lease, 10)
    assert (ledger.balance(), ledger.leases()) == ((100, 10, 0, 10), [])


def test_who_left_is_told_of_what_it_left_when_it_comes_back(ledger):
    ledger.ask(10, number=7)
    ledger(calls.leave, A)

    assert ledger.join(run="r2") == [Held(1, TOTAL, 10, "r1", 7)]


def test_who_joins_again_has_nothing_to_lose(ledger):
    ledger.ask(10)
    ledger.now_us += LEASE

    assert ledger.join() == []
    assert not ledger.beat().lost


def test_a_new_life_is_told_of_the_leases_of_the_old_one_until_it_settles_them(ledger):
    ledger.ask(10, number=7)
    left = [Held(1, TOTAL, 10, "r1", 7)]

    assert ledger.join(run="r2") == left
    assert ledger.join(run="r2") == left
    ledger.settle(1, 3)
    assert ledger.join(run="r2") == []


def test_an_old_life_is_over_once_a_new_one_has_begun(ledger):
    ledger.join(run="r2")

    for call in (ledger.ask, ledger.beat):
        with pytest.raises(NotJoined, match="another life"):
            call(run="r1")


def test_who_has_not_joined_is_not_heard(ledger):
    with pytest.raises(NotJoined):
        ledger.ask(holder=B)
    with pytest.raises(NotJoined):
        ledger.repost(holder=B)


def test_who_leaves_has_spent_what_it_still_held(ledger):
    ledger.ask(10)
    ledger(calls.leave, A)

    assert ledger.balance() == (100, 10, 0, 0)
    assert ledger(calls.overview).members == ()


def test_who_was_silent_for_a_day_is_forgotten(ledger):
    ledger.join(B)
    ledger.now_us += DAY
    ledger.join(OTHER)

    assert [member.holder for member in ledger(calls.overview).members] == [OTHER]


def test_a_look_tells_the_processes_the_news_and_of_the_purses_that_are_asked_for_those_drawn_on(ledger):
    ledger.ask(10)
    ledger.ask(10, purse=hour(ledger))
    ledger.join(B)
    ledger.tell(Kind.HALT)
    found, everything = ledger(calls.look, [TOTAL, hour(ledger, 1)]), ledger(calls.overview)

    assert [(each.purse, each.held) for each in found.balances] == [(TOTAL, 10)]
    assert (found.members, found.news) == (everything.members, everything.news)
    assert [member.holder for member in found.members] == [A, B]
    assert ledger(calls.look).balances == ()


# News.

def test_news_are_numbered_and_told_once(ledger):
    halted = ledger.tell(Kind.HALT, reason="loop")
    again = ledger.tell(Kind.HALT, reason="another word")
    released = ledger.tell(Kind.RELEASE)

    assert (halted.number, again, released.number, released.epoch) == (1, halted, 2, 1)
    assert ledger.beat().news == (halted, released)
    assert ledger.beat(seen=1).news == (released,)
    assert ledger.beat(seen=2).news == ()


def test_a_halt_of_an_epoch_that_is_over_is_not_published(ledger):
    ledger.tell(Kind.RELEASE)

    assert ledger.tell(Kind.HALT, origin="x/w1/9").number == 0
    assert ledger.tell(Kind.HALT, origin="x/w1/9", epoch=1).number == 2
    assert [each.kind for each in ledger.beat().news] == [Kind.RELEASE, Kind.HALT]


def test_a_heartbeat_brings_at_most_256_news(ledger):
    for number in range(300):
        ledger.tell(Kind.HALT, origin=f"x/w0/{number}")

    assert [each.number for each in ledger.beat().news] == list(range(1, 257))
    assert [each.number for each in ledger.beat(seen=256).news] == list(range(257, 301))


def test_numbers_that_an_older_state_did_not_know_hide_nothing_that_comes_after_them(ledger):
    ledger.join(B)
    ledger.beat(seen=600)
    halted = ledger.tell(Kind.HALT)
    heard, seen = [], 0
    while (beat := ledger.beat(B, seen=seen)).seen > seen:
        heard += beat.news
        seen = beat.seen

    assert (halted.number, heard, seen) == (601, [halted], 601)


@pytest.mark.parametrize("heard", [1, MOST_UNKNOWN, 2 * MOST_UNKNOWN + 1])
def test_what_is_told_to_an_older_state_has_a_number_that_nobody_has_heard(ledger, heard):
    while ledger.beat(seen=heard).seen < heard:
        pass
    halted = ledger.tell(Kind.HALT)

    assert (halted.number, ledger.beat(seen=heard).news) == (heard + 1, (halted,))


# Another server.

def changed(ledger):
    ledger.server = "second"


def test_an_older_state_grants_nothing_until_all_have_said_what_they_know(ledger):
    ledger.join(B)
    held = ledger.ask(8, limit=1000).lease
    changed(ledger)

    assert (ledger.ask(1, limit=1000).why, ledger.beat().repost, ledger.beat(B).repost) == (Why.RECOVERING, True, True)
    assert ledger.balance() == (1000, 2 * 8, 8, 0)
    ledger.repost([Total(TOTAL, 1000, 5)], [Held(held, TOTAL, 8, "r1", 1)])
    assert ledger.balance() == (1000, 8 + 5, 8, 0)
    assert ledger.ask(1, limit=1000).why is Why.RECOVERING
    ledger.repost(holder=B)
    assert ledger.balance() == (1000, 5, 8, 0)
    assert (ledger.beat().repost, ledger.ask(1, limit=1000).amount) == (False, 1)


def test_who_never_speaks_stays_charged_and_is_granted_nothing_more(ledger):
    ledger.join(B)
    ledger.ask(8, limit=1000)
    changed(ledger)
    ledger.repost([], [Held(1, TOTAL, 8, "r1", 1)])
    ledger.now_us += LEASE - 1
    ledger.beat()
    assert ledger.ask(1, limit=1000).why is Why.RECOVERING
    ledger.now_us += 1

    assert ledger.ask(1, limit=1000).amount == 1
    assert ledger.balance()[1] == 8
    assert ledger.ask(1, limit=1000, holder=B).why is Why.RECOVERING


def test_the_time_to_speak_begins_with_the_first_call_that_comes_whatever_it_is(ledger):
    ledger.join(B)
    lease = ledger.ask(8, limit=1000).lease
    changed(ledger)
    ledger.settle(lease, 8)
    ledger.now_us += LEASE
    ledger.repost([Total(TOTAL, 1000, 8)])

    assert ledger.ask(1, limit=1000).amount == 1


def test_leases_that_a_chain_does_not_know_go_back_and_those_that_only_it_knows_are_held(ledger):
    ledger.ask(8, limit=1000)
    changed(ledger)
    ledger.repost([], [Held(5, TOTAL, 6, "r1", 9), Held(7, TOTAL, 0, "", 0)])

    assert (ledger.leases(), ledger.balance()) == ([5], (1000, 0, 6, 0))
    assert ledger.ask(1, number=20).lease == 8


def test_a_word_that_comes_late_neither_takes_back_what_was_granted_since_nor_holds_what_was_settled(ledger):
    old = ledger.ask(8, limit=1000).lease
    changed(ledger)
    word = [], [Held(old, TOTAL, 8, "r1", 1)]
    ledger.repost(*word)
    ledger.settle(old, 5)
    new = ledger.ask(6, limit=1000).lease
    ledger.repost(*word)

    assert (ledger.leases(), ledger.balance()) == ([new], (1000, 5, 6, 0))


@pytest.mark.parametrize("late", [False, True])
def test_what_was_used_beside_a_lease_that_counts_as_lost_is_counted_too(ledger, late):
    ledger.join(B)
    lost = ledger.ask(8, limit=1000).lease
    changed(ledger)
    word = [Total(TOTAL, 1000, 5)], [Held(lost, TOTAL, 8, "r1", 1)]
    ledger.repost(holder=B)
    if late:
        ledger.repost([Total(TOTAL, 1000, 3)], word[1])
    ledger.now_us += LEASE
    ledger.beat(B)
    ledger.repost(*word)
    ledger.settle(lost, 2)

    assert ledger.balance() == (1000, 8 + 5, 0, 8)


def test_what_is_kept_of_use_never_goes_down(ledger):
    ledger.settle(ledger.ask(8).lease, 8)
    ledger.repost([Total(TOTAL, 100, 3)])
    assert ledger.balance()[1] == 8
    ledger.repost([Total(TOTAL, 100, 11), Total(Purse("rows", "bytes", "", 0), 50, 20)])

    assert (ledger.balance()[1], ledger.balance(Purse("rows", "bytes", "", 0))) == (11, (50, 20, 0, 0))


def test_one_that_the_older_state_does_not_know_has_to_speak_too(ledger):
    ledger.ask(8, limit=1000)
    changed(ledger)
    ledger.join(OTHER)

    assert ledger.balance()[1] == 16
    assert ledger.beat(OTHER).repost
    ledger.repost(holder=OTHER)
    assert ledger.balance()[1] == 8


def test_a_second_change_charges_nobody_twice(ledger):
    ledger.ask(8, limit=1000)
    changed(ledger)
    ledger.beat()
    ledger.server = "third"
    ledger.beat()

    assert ledger.balance()[1] == 8


def test_a_ledger_is_made_anew_from_what_chains_say(ledger):
    ledger.tell(Kind.RELEASE)
    ledger.ask(8)
    ledger(calls.leave, A)
    chains = {A: ([Total(TOTAL, 100, 30)], [Held(4, TOTAL, 6, "r1", 2)]), OTHER: ([Total(TOTAL, 100, 9)], [])}
    ledger(calls.rebuild, chains)

    assert ledger.balance() == (100, 39, 6, 0)
    assert ledger.join(run="r2") == [Held(4, TOTAL, 6, "r1", 2)]
    assert ledger.ask(1, run="r2").lease == 5
    assert [each.epoch for each in ledger.beat(run="r2").news] == [1]


def test_a_ledger_that_is_made_anew_knows_nothing_but_what_chains_say(ledger):
    for _ in range(3):
        ledger.ask(8, purse=hour(ledger))
    changed(ledger)
    ledger(calls.leave, A)
    ledger(calls.rebuild, {A: ([Total(hour(ledger, ago=1), 100, 30)], [])})
    ledger.join()

    assert ledger.balance(hour(ledger)) is None
    assert ledger.ask(1, purse=hour(ledger, ago=1)).lease == 1


def test_who_comes_to_a_ledger_that_was_made_anew_after_a_change_has_nothing_to_say(ledger):
    ledger(calls.leave, A)
    changed(ledger)
    ledger.tell(Kind.SESSION)
    ledger(calls.rebuild, {})
    ledger.join()

    assert not ledger.beat().repost
    assert ledger.ask().amount == 1


def test_a_ledger_that_is_made_anew_forgets_that_its_clock_was_ahead(ledger):
    now_us = ledger.now_us
    ledger.now_us += 365 * DAY
    ledger.join(run="r2")
    ledger.now_us = now_us
    fenced = ledger.ask(purse=hour(ledger), run="r2").why
    ledger(calls.leave, A)
    ledger(calls.rebuild, {A: ([Total(hour(ledger), 100, 30)], [])})
    ledger.join()

    assert fenced is Why.FENCED
    assert (ledger.ask(purse=hour(ledger)).amount, ledger.balance(hour(ledger))) == (1, (100, 30, 1, 0))


def test_no_ledger_is_made_anew_while_a_process_draws_on_it(ledger):
    with pytest.raises(StillJoined, match=A):
        ledger(calls.rebuild, {})


# Rates.

RATE = Purse("calls", "", "", 0)


def rate(ledger, least=1, want=1, *, burst=10, each=SECOND, **more):
    return ledger.ask(least, want, limit=burst, purse=RATE, each_us=each, **more)


def test_a_rate_gives_its_burst_at_once_and_then_a_turn_in_its_time(ledger):
    assert [rate(ledger).amount for _ in range(11)] == [1] * 10 + [0]
    assert rate(ledger).wait_us == SECOND
    ledger.now_us += SECOND
    assert (rate(ledger).amount, rate(ledger).amount) == (1, 0)


@pytest.mark.parametrize(("burst", "least", "want", "amount"), [
    pytest.param(10, 1, 10, 5, id="one to draw and four to keep"),
    pytest.param(10, 7, 10, 10, id="what is drawn at once is not kept"),
    pytest.param(10, 10, 10, 10, id="the burst"),
    pytest.param(10, 11, 11, 0, id="more than the burst"),
    pytest.param(1, 1, 10, 1, id="nothing to keep of one"),
    pytest.param(2, 1, 10, 1, id="nor of two"),
    pytest.param(3, 1, 10, 2, id="one of three"),
])
def test_less_than_half_a_burst_is_in_hands(ledger, burst, least, want, amount):
    assert rate(ledger, least, want, burst=burst).amount == amount


def test_hands_of_all_processes_share_the_half(ledger):
    ledger.join(B)

    assert [rate(ledger, 1, 4).amount, rate(ledger, 1, 4, holder=B).amount] == [4, 2]


@pytest.mark.parametrize("burst", [1, 2, 3, 4, 10, 37])
@pytest.mark.parametrize("want", [1, 2, 5, 100])
def test_whoever_always_wants_more_gets_the_whole_rate(ledger, burst, want):
    """One process that draws as fast as it may, whatever it takes ahead."""
    drawn, due = 0, ledger.now_us
    end = ledger.now_us + 1000 * SECOND
    while ledger.now_us < end:
        grant = rate(ledger, 1, want, burst=burst)
        drawn += grant.amount
        # What is in hand is drawn at the pace of the rate.
        ledger.now_us += grant.wait_us or grant.amount * SECOND
        ledger.beat()

    assert drawn >= 1000, due


moves = st.lists(st.tuples(
    st.sampled_from((A, B, OTHER)), st.integers(1, 12), st.integers(0, 12), st.integers(0, 6_000_000),
    st.lists(st.integers(0, 100), max_size=12)), max_size=40)


@settings(max_examples=scaled(200))
@given(moves, st.integers(1, 12), st.sampled_from((1, 300_000, 1_000_000, 7_000_000)))
def test_no_interval_sees_more_turns_than_the_burst_and_the_rate(moves, burst, each):
    """Each turn of a hand is drawn at any time from its grant until its process asks again, or never does."""
    ledger, drawn, hands = Ledger(), [], {}
    for holder in (A, B, OTHER):
        ledger.join(holder)
    for holder, least, want, pause, when in [*moves, *((holder, 12, 0, 0, [100]) for holder in (A, B, OTHER))]:
        ledger.now_us += pause
        for each_holder in (A, B, OTHER):
            ledger.beat(each_holder)
        since, turns = hands.pop(holder, (0, 0))
        at = [*when, *([100] * 12)]
        drawn += [since + (ledger.now_us - since) * at[turn] // 100 for turn in range(turns)]
        grant = rate(ledger, least, want, burst=burst, each=each, holder=holder)
        now = min(least, grant.amount)
        drawn += [ledger.now_us] * now
        hands[holder] = (ledger.now_us, grant.amount - now)
    drawn.sort()

    for first in range(len(drawn)):
        for last in range(first, len(drawn)):
            assert last - first + 1 <= burst + (drawn[last] - drawn[first]) // each


def test_turns_of_a_process_that_fell_silent_are_counted_as_drawn(ledger):
    ledger.join(B)
    rate(ledger, 1, 5)
    ledger.now_us += 100 * SECOND
    ledger.beat(B)

    assert [rate(ledger, 1, 20, holder=B, burst=10).amount for _ in range(4)] == [5, 1, 0, 0]


def test_a_rate_of_an_older_state_begins_with_nothing(ledger):
    rate(ledger)
    changed(ledger)

    assert rate(ledger).wait_us == SECOND
    ledger.now_us += SECOND
    assert rate(ledger).amount == 1


def test_a_clock_that_was_set_back_leaves_a_turn(ledger):
    for _ in range(10):
        rate(ledger)
    ledger.now_us -= DAY

    assert (rate(ledger).amount, rate(ledger).amount) == (1, 0)


def test_a_rate_beyond_all_numbers_is_still_one(ledger):
    assert rate(ledger, 2**70, 2**70, burst=2**70, each=2**70).amount == 0
    assert rate(ledger, 1, 1, burst=MOST, each=1).amount == 1

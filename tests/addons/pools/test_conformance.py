"""Every kind of ledger answers as the kernel's tables in memory do, whatever processes, networks and clocks do."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from addons.pools import in_redis
from addons.pools.protocol import LedgerError
from kernel.leases import Ask, Held, Kind, News, Purse, Settled, Total
from tests.addons.pools.ledgers import Clock, clocked_script, subjects
from tests.addons.pools.redis_servers import forgetful, needs_redis  # noqa: F401
from tests.conftest import scaled

KINDS = [pytest.param("file"), pytest.param("redis", marks=needs_redis)]
HOLDERS = st.sampled_from(("governor/a/w0", "governor/a/w1", "governor/b/main"))
RUNS = st.sampled_from(("r1", "r2", "r3"))
LIVES = st.sampled_from((0, 0, 0, 0, 0, 0, -1))
"""The life of a holder that is now, or the one before."""
HOUR, DAY = 3_600_000_000, 86_400_000_000
AMOUNTS = st.sampled_from((-1, 0, 1, 2, 3, 10, 100, 2**53 - 1, 2**60))
LIMITS = st.sampled_from((0, 1, 5, 20, 100, 1000, 2**53 - 1))
SKEWS = st.sampled_from((0, 0, 0, 0, 2_000_000, -2_000_000, 2_000_001, -2_000_001))
STEPS = st.sampled_from((
    1, 400_000, 1_000_000, 5_000_000, 14_999_999, 15_000_000, 16_000_000, HOUR, DAY, 3 * DAY, -1_000_000, -2 * HOUR))
SAID = st.sampled_from(({}, {"pid": 7}, {"reason": "ünïcode \u2028", "list": [1, "x"], "deep": {"a": None}}))
AGENTS = st.sampled_from(("", "ann", "böb \"x\""))
NUMBERS = st.integers(0, 12)


@st.composite
def places(draw):
    """A purse, in a window that is about now."""
    return draw(st.sampled_from(("llm", "rows"))), draw(AGENTS), draw(st.integers(0, 3)), draw(st.integers(-2, 1))


@st.composite
def asks(draw):
    item = draw(st.sampled_from(("", "", "", "d1", "d2")))
    each_us = 0 if item else draw(st.sampled_from((0, 0, 0, 1, 700_000, 60_000_000)))
    number = draw(st.none() | st.none() | NUMBERS)
    return number, draw(places()), draw(LIMITS), draw(AMOUNTS), draw(AMOUNTS), item, each_us


class Compared(RuleBasedStateMachine):
    """One ledger and the model, told the same."""

    def __init__(self, make):
        super().__init__()
        self._stack = ExitStack()
        self.clock, self.lives, self.asks = Clock(), {}, 0
        self.model = self._stack.enter_context(subjects(None, None, "model", self.clock))
        self.subject = self._stack.enter_context(make(self.clock))

    def teardown(self):
        self._stack.close()

    def purse(self, place):
        budget, agent, kind, ago = place
        length = (0, HOUR, DAY, 7 * DAY)[kind]
        number = max(0, 2 + ago) if kind == 0 else (self.clock.now_us - (4 * DAY if kind == 3 else 0)) // length + ago
        return Purse(budget, "requests", agent, number * 4 + kind)

    def both(self, call):
        answers = []
        for each in (self.model, self.subject):
            try:
                answers.append(call(each.ledger))
            except LedgerError as refused:
                answers.append(type(refused))
        ours, theirs = (list(answer) if isinstance(answer, (list, tuple)) and not hasattr(answer, "_fields") else answer
                        for answer in answers)

        assert without_server(theirs) == without_server(ours)
        return ours

    @initialize(holders=st.lists(HOLDERS, min_size=1, unique=True))
    def some_have_joined(self, holders):
        for holder in holders:
            self.join(holder, {}, 1)

    @rule(holder=HOLDERS, said=SAID, life=LIVES)
    def join(self, holder, said, life):
        self.lives[holder] = self.lives.get(holder, 0) + 1 + life
        self.both(lambda ledger: ledger.join(holder, self.run(holder), said))

    def run(self, holder, life=0):
        return f"r{self.lives.get(holder, 0) + life}"

    @rule(holder=HOLDERS, life=LIVES, wanted=st.lists(asks(), min_size=1, max_size=4), skew=SKEWS)
    def acquire(self, holder, life, wanted, skew):
        listed = []
        for number, place, *rest in wanted:
            self.asks += 1
            listed.append(Ask(self.asks if number is None else self.asks - number, self.purse(place), *rest))
        self.both(lambda ledger: ledger.acquire(holder, self.run(holder, life), listed, self.clock.now_us + skew))

    @rule(data=st.data(), stranger=st.booleans())
    def settle(self, data, stranger):
        live = [(holder, held.lease) for holder, held in self.model.ledger.overview().leases]
        holder, lease = data.draw(st.sampled_from(live or [("governor/b/main", 1)]))
        settled = [Settled(lease, data.draw(AMOUNTS)), Settled(data.draw(NUMBERS), 1)]
        holder = data.draw(HOLDERS) if stranger else holder
        self.both(lambda ledger: ledger.settle(holder, settled))

    @rule(holder=HOLDERS, life=LIVES, seen=st.integers(-1, 4), said=SAID)
    def beat(self, holder, life, seen, said):
        run = self.run(holder, life)
        self.both(lambda ledger: ledger.beat(holder, run, seen, self.clock.now_us, said))

    @rule(holder=HOLDERS, kind=st.sampled_from(list(Kind)), agent=AGENTS, origin=st.sampled_from(("a/w0/1", "a/w0/2")),
          said=SAID, epoch=st.integers(0, 2))
    def tell(self, holder, kind, agent, origin, said, epoch):
        self.both(lambda ledger: ledger.tell(holder, News(kind, agent, origin, said, epoch=epoch)))

    @rule(holder=HOLDERS, often=st.integers(0, 3))
    def leave(self, holder, often):
        if often == 0:
            self.both(lambda ledger: ledger.leave(holder))

    @rule(step=STEPS)
    def time_passes_or_is_set(self, step):
        self.clock.now_us += step

    @initialize()
    def there_is_a_copy(self):
        self.a_copy_is_made()

    @rule()
    def a_copy_is_made(self):
        self.model.save()
        self.subject.save()

    @rule(often=st.integers(0, 3))
    def the_copy_comes_back_on_another_server(self, often):
        if often == 0:
            self.model.put_back()
            self.subject.put_back()

    @rule()
    def all_say_what_they_hold(self):
        for holder in self.lives:
            held = [each for owner, each in self.model.ledger.overview().leases if owner == holder]
            self.both(lambda ledger, holder=holder, held=held: ledger.repost(holder, [], held))

    totals = st.lists(st.tuples(places(), LIMITS, st.sampled_from((-1, 0, 1, 2, 10, 2**53 - 1))), max_size=3)
    leases = st.lists(st.tuples(NUMBERS, places(), st.integers(0, 9), RUNS, NUMBERS), max_size=3,
                      unique_by=lambda lease: lease[0])

    @rule(holder=HOLDERS, totals=totals, leases=leases)
    def repost(self, holder, totals, leases):
        said = self.chain(totals, leases)
        self.both(lambda ledger: ledger.repost(holder, *said))

    @rule(posts=st.dictionaries(HOLDERS, st.tuples(totals, leases), max_size=2))
    def rebuild(self, posts):
        said = {holder: self.chain(*post) for holder, post in posts.items()}
        self.both(lambda ledger: ledger.rebuild(said))

    def chain(self, totals, leases):
        return ([Total(self.purse(place), *rest) for place, *rest in totals],
                [Held(number, self.purse(place), *rest) for number, place, *rest in leases])

    @invariant()
    def the_same_is_kept(self):
        self.both(lambda ledger: ledger.overview())

    @rule(asked=st.lists(places(), max_size=3))
    def look(self, asked):
        purses = [self.purse(place) for place in asked]
        self.both(lambda ledger: ledger.look(purses))


def without_server(answer):
    """Servers have names of their own."""
    if hasattr(answer, "_fields") and "server" in answer._fields:
        return answer._replace(server="")
    return replace(answer, server="") if hasattr(answer, "server") else answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_ledger_answers_and_keeps_as_the_model_does(request, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(in_redis, "_script", clocked_script)

    run_state_machine_as_test(
        lambda: Compared(lambda clock: subjects(request, tmp_path, kind, clock)),
        settings=settings(max_examples=scaled(25 if kind == "redis" else 10), stateful_step_count=40, deadline=None,
                          suppress_health_check=list(HealthCheck)))



"""Every order of what can happen to processes that share a budget: no more is drawn than there is, and units come back.

Three processes draw on one purse. An answer may be lost, so that a process asks again or dies without it; a process may
settle, twice if it likes, and late; die and begin another life; be cut off until all it holds counts as spent; and the
ledger may come back from an older state in another server, where what a process says may come once more, and late. What
a process does by itself between calls follows its chain: it keeps what was granted there, draws, and says it again when
it is asked to.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import pytest

from kernel.errors import NotJoined
from kernel.leases import LEASE_SECONDS, Ask, Held, Purse, Settled, Total
from kernel.ledger import calls, holding, recovery
from kernel.ledger.tables import HEAD, SHAPES, Draft, InMemory
from tests.conftest import SCALE

PURSE = Purse("llm", "requests", "", 0)
SECOND = 1_000_000
SILENT_US = LEASE_SECONDS * SECOND
NOW = 1_000 * SECOND


class Chain(NamedTuple):
    """One process: what its log says, and what it knows besides.

    `open` are the leases that it has written down and not settled, each (number, amount, drawn, run, ask); `settled`
    are the others, each (number, drawn), which it may tell the ledger at any time, or again. `used` is what they have
    drawn, `newest` the greatest number of all. `waits`: its newest ask has no answer yet. `said` is what it has told of
    all this to another server, which may come there once more, and late.
    """

    life: int = 1
    dead: bool = False
    asks: int = 0
    waits: bool = False
    open: tuple[tuple[int, int, int, str, int], ...] = ()
    used: int = 0
    newest: int = 0
    settled: tuple[tuple[int, int], ...] = ()
    said: tuple[tuple[Total, ...], tuple[Held, ...]] | None = None

    @property
    def run(self):
        return f"r{self.life}"

    @property
    def numbers(self):
        return [lease[0] for lease in (*self.open, *self.settled)]

    @property
    def drawn(self):
        return self.used + sum(lease[2] for lease in self.open)


class World(NamedTuple):
    """`ledger` and `saved` number what a ledger keeps; `since` are the grants from then on: who, which, how much."""

    ledger: int
    chains: tuple[Chain, ...]
    saved: int | None = None
    since: frozenset[tuple[int, int, int]] = frozenset()
    changed: bool = False
    late: bool = False
    deaths: int = 0
    cut_offs: int = 0


class Explorer:
    """All worlds that can be reached within what `limits` say."""

    def __init__(self, processes, limit, *, asks, deaths, cut_offs, changes):
        self.processes, self.limit = processes, limit
        self.asks, self.deaths, self.cut_offs, self.changes = asks, deaths, cut_offs, changes
        self.transitions = 0
        self._kept, self._numbers, self._answers = [], {}, {}

    def explore(self):
        first = self._begin()
        seen, queue = {first}, deque([first])
        while queue:
            for world in self._next(queue.popleft()):
                self.transitions += 1
                if world not in seen:
                    self.check(world)
                    seen.add(world)
                    queue.append(world)
        return len(seen)

    def check(self, world):
        drawn = sum(chain.drawn for chain in world.chains)
        assert drawn <= self.limit, f"{drawn} of {self.limit} drawn: {world}"
        if not world.changed:
            account = self._tables(world).table("accounts").get(PURSE)
            if account is not None:
                assert account.spent + account.held <= self.limit, world
                assert account.spent + account.held >= drawn, world
                assert account.spent - account.stranded <= drawn, world

    def _begin(self):
        world = World(self._number(InMemory()), tuple(Chain() for _ in range(self.processes)))
        for place in range(self.processes):
            world, _ = self._call(world, calls.join, holder(place), "r1", {})
        return world

    def _call(self, world, call, *arguments):
        key = (world.ledger, world.changed, world.late, call, repr(arguments))
        if key not in self._answers:
            draft = Draft(self._tables(world), "second" if world.changed else "first", now(world))
            try:
                answer = call(draft, *arguments)
            except NotJoined:
                self._answers[key] = (world.ledger, None)
            else:
                kept = copied(self._tables(world))
                kept.keep(draft)
                self._answers[key] = (self._number(kept), answer)
        ledger, answer = self._answers[key]
        return world._replace(ledger=ledger), answer

    def _tables(self, world):
        return self._kept[world.ledger]

    def _number(self, kept):
        """The same number for all that are equal."""
        rows = tuple((name, frozenset(kept.table(name).items())) for name in SHAPES)
        number = self._numbers.setdefault(rows, len(self._kept))
        if number == len(self._kept):
            self._kept.append(kept)
        return number

    def _next(self, world):
        for place, chain in enumerate(world.chains):
            if chain.dead:
                yield from self._begins_again(world, place, chain)
                continue
            yield from self._asks(world, place, chain)
            yield from self._draws_and_settles(world, place, chain)
            if world.deaths < self.deaths:
                yield put(world, place, chain._replace(dead=True, waits=False))._replace(deaths=world.deaths + 1)
            if world.cut_offs < self.cut_offs:
                yield from self._is_cut_off(world, place)
            if world.changed and self._owes(world, place):
                yield self._reposts(world, place, chain)
            if chain.said is not None:
                yield self._call(world, calls.repost, holder(place), *chain.said)[0]
        yield from self._changes(world)

    def _asks(self, world, place, chain):
        """A new ask, or the one that had no answer; its answer comes or is lost."""
        if not chain.waits:
            if chain.asks >= self.asks:
                return
            chain = chain._replace(asks=chain.asks + 1, waits=True)
        ask = Ask(chain.asks, PURSE, self.limit, 1 if place else 2, self.limit)
        asked = put(world, place, chain)
        yield asked
        after, grants = self._call(asked, calls.acquire, holder(place), chain.run, [ask], now(asked))
        if grants is None:
            return
        grant, = grants
        if grant.lease is not None and after.saved is not None and not after.changed:
            after = after._replace(since=after.since | {(place, grant.lease, grant.amount)})
        yield after
        yield self._keeps(after, place, chain, grant)

    def _keeps(self, world, place, chain, grant):
        """The process writes down what it was granted. A number that stands in a chain stands in no other.

        Unless time to speak was over, for somebody of whose last number the ledger could not know.
        """
        chain = chain._replace(waits=False)
        if grant.lease is None:
            return put(world, place, chain)
        assert world.late or grant.lease not in [number for each in world.chains for number in each.numbers], world
        lease = (grant.lease, grant.amount, 0, chain.run, chain.asks)
        chain = chain._replace(open=tuple(sorted((*chain.open, lease))), newest=max(chain.newest, grant.lease))
        return put(world, place, chain)

    def _draws_and_settles(self, world, place, chain):
        for lease in chain.open:
            number, amount, drawn, run, ask = lease
            rest = tuple(each for each in chain.open if each != lease)
            if drawn < amount:
                more = (number, amount, drawn + 1, run, ask)
                yield put(world, place, chain._replace(open=tuple(sorted((*rest, more)))))
            over = chain._replace(open=rest, used=chain.used + drawn, settled=(*chain.settled, (number, drawn)))
            yield put(world, place, over)
        for number, used in chain.settled:
            yield self._call(world, calls.settle, holder(place), [Settled(number, used)])[0]

    def _begins_again(self, world, place, chain):
        """Another life settles what its chain says of the leases that it is told of; it draws on none of them."""
        life = chain._replace(life=chain.life + 1, dead=False, waits=False)
        world, left = self._call(world, calls.join, holder(place), life.run, {})
        ended = (*chain.settled, *((number, drawn) for number, _, drawn, _, _ in chain.open))
        settled = [Settled(held.lease, dict(ended).get(held.lease, 0)) for held in left]
        life = life._replace(open=(), used=chain.drawn, settled=ended)
        yield self._call(put(world, place, life), calls.settle, holder(place), settled)[0]

    def _is_cut_off(self, world, place):
        """Another process is heard of while nothing comes from this one."""
        others = [other for other in range(self.processes) if other != place and not world.chains[other].dead]
        silent = copied(self._tables(world))
        life = silent.table("lives")[(holder(place),)]
        silent.table("lives")[(holder(place),)] = life._replace(seen_us=now(world) - SILENT_US)
        aged = world._replace(ledger=self._number(silent), cut_offs=world.cut_offs + 1)
        for other in others[:1]:
            yield self._call(aged, calls.beat, holder(other), world.chains[other].run, 0, {})[0]

    def _owes(self, world, place):
        kept = self._tables(world)
        return kept.table("lives")[(holder(place),)].owes or kept.table("head")[HEAD].server == "first"

    def _reposts(self, world, place, chain):
        leases = [Held(number, PURSE, amount, run, ask) for number, amount, _, run, ask in chain.open]
        if chain.newest not in [lease.lease for lease in leases]:
            leases.append(Held(chain.newest, PURSE, 0, "", 0))
        said = (Total(PURSE, self.limit, chain.used),), tuple(leases)
        return self._call(put(world, place, chain._replace(said=said)), calls.repost, holder(place), *said)[0]

    def _changes(self, world):
        """A copy is made, and the ledger comes back from it in another server; later the time to speak is over.

        The copy knows all but the last grant of everybody, and one that was as large: more is not promised.
        """
        if self.changes and world.saved is None:
            yield world._replace(saved=world.ledger)
        elif self.changes and not world.changed:
            largest = max((row.largest for row in self._kept[world.saved].table("accounts").values()), default=0)
            places = [place for place, _, _ in world.since]
            if len(set(places)) == len(places) and all(amount <= largest for _, _, amount in world.since):
                yield world._replace(ledger=world.saved, changed=True)
        elif world.changed and not world.late:
            yield self._waits(world)

    def _waits(self, world):
        """Nothing comes from those who have not spoken, while the others are heard of."""
        waited = world._replace(late=True)
        kept = copied(self._tables(world))
        for place, chain in enumerate(world.chains):
            life = kept.table("lives")[(holder(place),)]
            if not chain.dead and not life.owes:
                kept.table("lives")[(holder(place),)] = life._replace(seen_us=now(waited))
        return waited._replace(ledger=self._number(kept))


def now(world):
    return NOW + SILENT_US * world.late


def holder(place):
    return f"governor/a/w{place}"


def put(world, place, chain):
    return world._replace(chains=(*world.chains[:place], chain, *world.chains[place + 1:]))


def copied(kept):
    copy = InMemory()
    for name in SHAPES:
        copy.table(name).update(kept.table(name))
    return copy


WORLDS = [
    pytest.param(Explorer(2, 3, asks=2, deaths=1, cut_offs=0, changes=False), id="two processes"),
    pytest.param(Explorer(3, 3, asks=1, deaths=0, cut_offs=1, changes=False), id="three, one is cut off"),
    pytest.param(Explorer(2, 4, asks=1, deaths=0, cut_offs=0, changes=True), id="two and another server"),
]
MORE = [
    pytest.param(Explorer(2, 2, asks=2, deaths=0, cut_offs=0, changes=True), id="two, another server, two asks each"),
    pytest.param(Explorer(2, 3, asks=2, deaths=1, cut_offs=1, changes=False), id="two, one dies, one is cut off"),
    pytest.param(Explorer(3, 4, asks=1, deaths=1, cut_offs=1, changes=False), id="three, one dies, one is cut off"),
    pytest.param(Explorer(3, 3, asks=1, deaths=2, cut_offs=0, changes=False), id="three, two die"),
    pytest.param(Explorer(2, 4, asks=1, deaths=1, cut_offs=0, changes=True), id="two and another server, one dies"),
    pytest.param(Explorer(2, 3, asks=2, deaths=0, cut_offs=0, changes=True), id="two, another server, more units"),
    pytest.param(Explorer(3, 3, asks=1, deaths=0, cut_offs=0, changes=True), id="three and another server"),
]


@pytest.mark.parametrize("explorer", WORLDS + (MORE if SCALE >= 10 else []))
def test_no_order_of_events_draws_more_than_there_is(explorer):
    states = explorer.explore()

    print(f"{states} states, {explorer.transitions} transitions")
    assert states > 10_000


def goes_back(draft, name, *, silent):
    """The fault: what a silent process held is there again."""
    for (_, number), lease in draft.leases.under(name):
        holding.give_up(draft, name, number, lease)


def refunds_always(real):
    """The fault: a lease that is over is settled again."""
    def settle(draft, name, number, used):
        real(draft, name, number, used)
        part = draft.parts.get((*PURSE, name))
        if part is not None and draft.leases.get((name, number)) is None and part.used:
            holding._move(draft, name, PURSE, spent=-1, used=-1)
    return settle


def always_first(real):
    """The fault: what a process has said before takes back what it was granted since."""
    return lambda *said, first: real(*said, first=True)


FAULTS = {
    "what a silent process held is there again":
        lambda patch: patch.setattr("kernel.ledger.members.strand", goes_back),
    "a lease is settled twice": lambda patch: patch.setattr(calls, "settle_one", refunds_always(holding.settle)),
    "what is left of a lease stays away": lambda patch: patch.setattr(holding, "clamped", lambda used, amount: amount),
    "an older state is charged nothing": lambda patch: patch.setattr(recovery, "_charge_all", lambda draft: None),
    "a reported lease is not held": lambda patch: patch.setattr(recovery, "hold", lambda *said: None),
    "numbers go back": lambda patch: patch.setattr(recovery, "count", lambda *said: None),
    "a late word is taken like the first": lambda patch: patch.setattr(recovery, "_take", always_first(recovery._take)),
}
WITH_CHANGE = {"an older state is charged nothing", "a reported lease is not held", "numbers go back",
               "a late word is taken like the first"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_rule_is_found(monkeypatch, fault):
    FAULTS[fault](monkeypatch)
    if fault in WITH_CHANGE:
        explorer = Explorer(2, 2, asks=2, deaths=0, cut_offs=0, changes=True)
    else:
        explorer = Explorer(2, 3, asks=2, deaths=1, cut_offs=1, changes=False)

    with pytest.raises(AssertionError):
        explorer.explore()

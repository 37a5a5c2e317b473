"""What this process has leased of each purse: asked for, written down, drawn on, given back.

A lease is durable in the ledger, then an entry of the lane, then its units may be drawn: the entry is queued before any
decision that draws on it, and a decision takes effect only when all before it is durable.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from addons.pools.line import PATIENCE_SECONDS
from addons.pools.protocol import LedgerError
from kernel import entry
from kernel.arithmetic import clamped
from kernel.budget import SPENT, Unit
from kernel.leases import Ask, Grant, Held, Purse, Settled, Why
from kernel.posting import held, totals
from kernel.state import RATE
from kernel.transition import GRANTED, LOST_LEASE, REFUSED, SETTLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from addons.pools.clock import Clock
    from addons.pools.line import Line
    from addons.pools.protocol import Ledger
    from kernel.state import AccountKey, Draw, State
    from kernel.step import Want

_AT_ONCE = {Unit.REQUESTS: 64, Unit.BYTES: 16, Unit.SECONDS: 16}
"""How many times what a request wants is asked for, of what all requests use alike."""
_IDLE_SECONDS = 2.0
_REFUSED_SECONDS = 0.25
_LOW = 4


class Writes(Protocol):
    """The kernel's state in this process, and the way in which entries change it."""

    @property
    def state(self) -> State: ...

    @property
    def durable(self) -> int: ...

    def record(self, kind: str, fields: Mapping[str, Any], agent: str) -> int: ...

    def record_now(self, kind: str, fields: Mapping[str, Any], agent: str) -> int: ...

    def take_news(self, kind: str, fields: Mapping[str, Any], agent: str, *,
                  ours: bool) -> tuple[int, asyncio.Future[None]]: ...

    def spread_heard(self, origin: str, decision: str) -> None: ...


@dataclass(slots=True)
class _Asking:
    ask: Ask
    answered: asyncio.Future[None]
    sent: bool = False


@dataclass(slots=True)
class _Busy:
    """A purse that is drawn on: how it is asked for, what was granted last, and when it was drawn on."""

    ask: Ask
    granted: int
    at: float


class Leasing:
    """The leases of one life of a lane. On the event loop; `line` has the thread that speaks with the ledger."""

    def __init__(self, ledger: Ledger, line: Line, clock: Clock, holder: str, run: str, book: Writes) -> None:
        """`holder` is LOG/LANE, `run` names this life of it."""
        self._ledger, self._line, self._clock = ledger, line, clock
        self._holder, self._run, self._book = holder, run, book
        self.pool = ""
        """The id of the ledger."""
        self._numbers = count(1)
        # By account: of one of them only one thing is asked at a time, so that its leases are written in their order.
        self._asking: dict[AccountKey, _Asking] = {}
        self._sending: asyncio.Task[None] | None = None
        self._refused_until: dict[Purse, float] = {}
        self._busy: dict[Purse, _Busy] = {}
        self._over: list[Settled] = []
        self._written: dict[int, int] = {}
        """By lease of this life: the number of its entry. The ledger forgets none before that is on disk."""

    def begin(self, said: Mapping[str, object]) -> None:
        """Join, and settle what former lives of the lane have leased, as their entries say. Blocks."""
        known_there = sorted(self._line.call_patiently(self._ledger.join, self._holder, self._run, said))
        known = {each.lease for each in known_there}
        for settled in [each for key in self._leased_of() for each in self._give_back(key, idle=True)]:
            self._over += [settled] if settled.lease in known else []
        for each in known_there:
            if each.lease > self._newest_of(each.purse):
                self._never_drawn(each)
            elif all(each.lease != settled.lease for settled in self._over):
                # The lane has settled it, and the ledger did not hear of it.
                self._over.append(Settled(each.lease, each.amount))
        self.give_up_turns()
        self._line.call_patiently(self._ledger.settle, self._holder, self._taken())
        self._line.call_patiently(self._ledger.repost, self._holder, list(totals(self._book.state)),
                                   held(self._book.state, self._run))

    def _newest_of(self, purse: Purse) -> int:
        """The newest lease of an account that was written down; 0 where none was."""
        leased = self._book.state.leased.get(purse[:3])
        return leased.lease or 0 if leased is not None else 0

    def give_up_turns(self) -> None:
        """Draw no turn that is in hand: the ledger has counted it as drawn, or may not know of it any more."""
        state = self._book.state
        for key, leased in [(key, leased) for key, leased in state.leased.items() if key[1] == RATE]:
            free = leased.amount - state.account(key).spent
            if free:
                self._record(LOST_LEASE, None, Purse(*key, leased.window), free, leased.elsewhere)

    def _never_drawn(self, late: Held) -> None:
        """Write down a lease that came too late for the life that had asked for it, before the ledger forgets it."""
        self._record(GRANTED, late.lease, late.purse, late.amount, 0)
        self._record(SETTLED, late.lease, late.purse, late.amount, 0, now=True)
        self._over.append(Settled(late.lease, 0))

    async def obtain(self, wants: Sequence[Want]) -> int | None:
        """Have leased what is wanted; others may draw on it first, so look again, and want again.

        Where some of it is not to be had: after how many microseconds it may be asked for again. `LedgerError` where
        the ledger does not say.
        """
        purses = [_purse(want) for want in wants]
        asking = [self._entered(purse, want).answered for purse, want in zip(purses, wants, strict=True)
                  if not self._was_refused(purse)]
        self._send_soon()
        if asking:
            answered, unanswered = await asyncio.wait(asking, timeout=PATIENCE_SECONDS)
            if unanswered:
                raise LedgerError("the ledger does not answer in time")
            for each in answered:
                each.result()
        waits = [self._refused_until[purse] - self._clock.seconds() for purse in purses if self._was_refused(purse)]
        return max(int(max(waits) * 1_000_000), 0) if waits else None

    def obtain_now(self, wants: Sequence[Want]) -> None:
        """The same for what cannot wait: a stream that goes on. Blocks."""
        asking = [self._entered(_purse(want), want) for want in wants if not self._was_refused(_purse(want))]
        if asking:
            self._ask_all(asking, self._line.call_now(self._acquire, [each.ask for each in asking]))

    def _was_refused(self, purse: Purse) -> bool:
        return self._refused_until.get(purse, 0.0) > self._clock.seconds()

    def _entered(self, purse: Purse, want: Want) -> _Asking:
        """What is asked of the purse. One that was not answered is asked again as it was: it may have been granted."""
        found = self._asking.get(purse[:3])
        if found is None:
            wanted = want.want * _AT_ONCE.get(Unit(purse.unit), 1) if purse.unit != RATE else want.limit
            item = blake3(want.item.encode()).hexdigest(length=8) if want.item else ""
            ask = Ask(next(self._numbers), purse, want.limit, want.least, wanted, item, want.each_us)
            found = self._asking[purse[:3]] = _Asking(ask, asyncio.get_running_loop().create_future())
        elif found.answered.done():
            found.answered, found.sent = asyncio.get_running_loop().create_future(), False
        return found

    def _send_soon(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        """Send what is asked, all that has come together at a time."""
        while asking := [each for each in self._asking.values() if not each.sent]:
            for each in asking:
                each.sent = True
            try:
                grants = await self._line.call(self._acquire, [each.ask for each in asking])
            except Exception as fault:  # noqa: BLE001
                # Each that waits is refused for it. What was asked stays: it may have been granted.
                for each in asking:
                    _answer(each, fault)
            else:
                self._ask_all(asking, grants)

    def _acquire(self, asks: Sequence[Ask]) -> Sequence[Grant]:
        return self._ledger.acquire(self._holder, self._run, asks, self._clock.micros())

    def _ask_all(self, asking: Sequence[_Asking], grants: Sequence[Grant]) -> None:
        for each, grant in zip(asking, grants, strict=True):
            if self._asking.get(each.ask.purse[:3]) is not each:
                # A stream that could not wait has asked the same meanwhile, and taken the answer.
                continue
            del self._asking[each.ask.purse[:3]]
            if grant.why in (None, Why.EXHAUSTED):
                self._take(each.ask, grant)
            if grant.why in (None, Why.EXHAUSTED, Why.STALE):
                # One that is stale is asked again under a new number, where it is still wanted.
                _answer(each, None)
            else:
                _answer(each, LedgerError(_WHY[grant.why]))

    def _take(self, ask: Ask, grant: Grant) -> None:
        """Write down what was granted, or that nothing was."""
        key, window = ask.purse[:3], ask.purse.window
        if grant.amount:
            old = self._book.state.leased.get(key)
            if old is not None and old.window != window:
                self._over += self._give_back(key, idle=True)
            number = self._record(GRANTED, grant.lease, ask.purse, grant.amount, grant.elsewhere)
            if grant.lease is not None:
                self._written[grant.lease] = number
            if not ask.item:
                self._busy[ask.purse] = _Busy(ask, grant.amount, self._clock.seconds())
            return
        self._refused_until[ask.purse] = self._clock.seconds() + (grant.wait_us / 1_000_000 or _REFUSED_SECONDS)
        if self._book.state.lease(key, window).elsewhere != grant.elsewhere and not ask.each_us:
            self._record(REFUSED, None, ask.purse, 0, grant.elsewhere)

    def _record(self, act: str, number: int | None, purse: Purse, amount: int, elsewhere: int, *,
                now: bool = False) -> int:
        """Write an entry, with `now` at once and with all before it."""
        fields = entry.lease(act, self.pool, number, purse[:3], purse.window, amount, elsewhere)
        write = self._book.record_now if now else self._book.record
        return write("lease", fields, purse.agent)

    def drawn(self, draws: Iterable[Draw]) -> None:
        """A decision has drawn. What runs low is asked for again before it is wanted."""
        state = self._book.state
        for draw in draws:
            busy = self._busy.get(Purse(*draw.key, draw.window))
            if busy is None:
                continue
            busy.at = self._clock.seconds()
            leased, account = state.lease(draw.key, draw.window), state.account(draw.key)
            # Turns of a rate that are in hand when more are asked for are given up.
            if (not busy.ask.each_us and busy.granted >= _LOW
                    and (leased.amount - account.spent - account.held) * _LOW < busy.granted):
                self._ask_ahead(busy.ask)

    def _ask_ahead(self, ask: Ask) -> None:
        if ask.purse[:3] not in self._asking and not self._was_refused(ask.purse):
            ahead = ask._replace(number=next(self._numbers), least=1)
            self._asking[ask.purse[:3]] = _Asking(ahead, asyncio.get_running_loop().create_future())
            self._send_soon()

    async def settle(self) -> None:
        """Give back what nobody draws on any more, and send once more what the ledger did not answer."""
        now, state = self._clock.seconds(), self._book.state
        for key in self._leased_of():
            busy = self._busy.get(Purse(*key, state.leased[key].window))
            idle = busy is None or key[1] in SPENT or now - busy.at > _IDLE_SECONDS
            self._over += self._give_back(key, idle=idle)
        self._refused_until = {purse: until for purse, until in self._refused_until.items() if until > now}
        self._busy = {purse: busy for purse, busy in self._busy.items() if now - busy.at <= _IDLE_SECONDS}
        for each in self._asking.values():
            each.sent = each.sent and not each.answered.done()
        self._send_soon()
        if over := self._taken():
            try:
                await self._line.call(self._ledger.settle, self._holder, over)
            except LedgerError:
                self._over += over
                raise

    def _leased_of(self) -> list[AccountKey]:
        """The accounts that leases are of, in one order."""
        return sorted({lease.key for lease in self._book.state.leases.values()})

    def _taken(self) -> list[Settled]:
        """What the ledger may hear of now; the rest later."""
        over: list[Settled] = []
        later: list[Settled] = []
        for each in self._over:
            (over if self._is_on_disk(each.lease) else later).append(each)
        self._over = later
        for each in over:
            self._written.pop(each.lease, None)
        return over

    def _is_on_disk(self, lease: int) -> bool:
        return self._written.get(lease, -1) < self._book.durable

    def _give_back(self, key: AccountKey, *, idle: bool, now: bool = False) -> list[Settled]:
        """Settle the leases of an account that are used up, and with `idle` the others, as far as they were drawn.

        With `now` the ledger may hear of each at once.
        """
        state = self._book.state
        leased, account = state.leased[key], state.account(key)
        gone = account.spent + account.held if account.window == leased.window else 0
        mine = sorted((number, lease) for number, lease in state.leases.items() if lease.key == key)
        before = leased.amount - sum(lease.amount for _, lease in mine if lease.window == leased.window)
        settled = []
        for number, lease in mine:
            used = lease.amount
            if lease.window == leased.window:
                used = clamped(gone - before, lease.amount)
                before += lease.amount
            if idle or used == lease.amount:
                purse = Purse(*key, lease.window)
                self._record(SETTLED, number, purse, lease.amount - used, leased.elsewhere,
                             now=now and not self._is_on_disk(number))
                settled.append(Settled(number, used))
        return settled

    def lose(self) -> None:
        """The ledger counts all that is leased as spent, as it did not hear of this process. It may still be drawn."""
        self.give_up_turns()
        for number, lease in sorted(self._book.state.leases.items()):
            self._over.append(Settled(number, lease.amount))
            self._record(LOST_LEASE, number, Purse(*lease.key, lease.window), 0, 0)

    def end(self) -> None:
        """Give everything back. Blocks; a ledger that does not answer counts it as spent in time."""
        for key in self._leased_of():
            self._over += self._give_back(key, idle=True, now=True)
        self._line.call_now(self._ledger.settle, self._holder, self._taken())
        self._line.call_now(self._ledger.leave, self._holder)


_WHY = {
    Why.FENCED: "a later window of this budget, or a later session of this agent, has begun elsewhere",
    Why.CLOCK: "the clock of this process is not the ledger's",
    Why.RECOVERING: "the ledger came back from an older state, and waits for what other processes have to say",
}


def _purse(want: Want) -> Purse:
    return Purse(*want.key, want.window)


def _answer(asking: _Asking, fault: Exception | None) -> None:
    if asking.answered.done():
        return
    if fault is None:
        asking.answered.set_result(None)
    else:
        asking.answered.set_exception(fault)
        # Where nobody waits, nobody is told.
        asking.answered.exception()

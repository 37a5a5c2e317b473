"""One process among those that share a ledger: its heartbeat, its leases, its news."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING

from addons.pools.clock import Clock
from addons.pools.leasing import Leasing
from addons.pools.line import Line
from addons.pools.news import KINDS, decision_of, epoch_of, halted, held_back, standings_of, still_holding, taken, write
from addons.pools.protocol import LedgerError, NewsUnreadable, NotJoined
from kernel.leases import CUT_OFF_SECONDS, Beat, Held, Kind, News, Total
from kernel.posting import held, totals
from kernel.state import UNMET
from kernel.transition import act_number
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from addons.pools.leasing import Writes
    from addons.pools.news import Written
    from addons.pools.protocol import Ledger
    from kernel.leases import Purse, Roster
    from kernel.state import Draw
    from kernel.step import Want

TELL_SECONDS = 5.0
CUT_OFF = Verdict(Action.DENY, Code.POOL_UNREACHABLE, reason="the ledger of shared budgets does not answer")

_STRANGER = (
    "until this process is started again: the ledger has lost what it knew, or has heard nothing of this process for a "
    "day, or another process has this lane. If it has lost what it knew, stop all that share it first, and have it "
    "made anew from their logs (governor pool rebuild)")


class Member:
    """A life of one lane in a ledger. `on_cut_off` is called when the ledger has not answered for too long."""

    def __init__(self, ledger: Ledger, log_id: str, lane: str, book: Writes, say: Callable[[str], object],
                 beat_seconds: float = 1.0, line: Line | None = None, clock: Clock | None = None) -> None:
        """`line` is how the ledger is spoken with, and `clock` what this process goes by; the machine's own."""
        self._ledger, self._log_id, self._lane, self._book, self._say = ledger, log_id, lane, book, say
        self._holder, self._run = f"{log_id}/{lane}", token_hex(8)
        self._line, self._clock = line or Line(), clock or Clock()
        self._leasing = Leasing(ledger, self._line, self._clock, self._holder, self._run, book)
        self._beat_seconds = beat_seconds
        self._said: Mapping[str, object] = {}
        self._tells: Mapping[str, object] = self._said
        self._heard_at = self._clock.seconds()
        self._newest = 0
        self._untold: deque[News] = deque()
        # Agents whose halts were heard of and what follows from them is still to be done, each with the decision.
        self._halted: deque[tuple[str, str]] = deque()
        self._waiting: dict[str, asyncio.Future[Written | None]] = {}
        """By the origin of news that this process publishes: what resolves once they are written here."""
        self._poked = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None
        self._was_cut_off = False
        self._owes = False
        self.on_cut_off: Callable[[], object] = lambda: None
        self.about: Callable[[], Mapping[str, object]] = dict
        """What this process tells of itself as it is, beside what it told when it joined: asked for each heartbeat."""
        self.on_told: Callable[[], object] = lambda: None
        """Called when this process has told something: others on this host may be poked."""

    @property
    def cut_off(self) -> bool:
        """Whether the ledger has not answered for so long that nothing may pass."""
        return self._clock.seconds() - self._heard_at > CUT_OFF_SECONDS

    def begin(self, said: Mapping[str, object]) -> None:
        """Join, settle what former lives left, tell what they did, and take the news since.

        Blocks; `LedgerError` where it fails.
        """
        self._said = self._tells = said
        heard = self._book.state.heard
        self._newest = max(0, heard)
        began = self._clock.seconds()
        known = self._line.call_patiently(self._ledger.look)
        self._leasing.pool = known.server
        self._leasing.begin(said)
        # A ledger that knows nothing, or less than this lane has heard from it, was made anew.
        is_known = heard != UNMET and 0 < known.news >= heard
        for news in self._held_back(heard=False) if is_known else self._meet():
            self._line.call_patiently(self._ledger.tell, self._holder, news)
        self._hear(self._line.call_patiently(self._beat), began)
        if not is_known:
            # All that was ever told: whom it halted, halted long before this process had others beside it.
            self._halted.clear()

    def _meet(self) -> list[News]:
        """Take what binds of all that a ledger knows to which this lane is new; what it is to be told."""
        state, held = self._book.state, self._held_back(heard=True)
        self._newest = 0
        there = self._line.call_patiently(self._beat)
        past = there.news
        # By both clocks, so that one that is ahead lets nobody go.
        now_us = min(self._clock.micros(), there.now_us)
        binding = list(still_holding(past, state, self._lane, now_us))
        for news in binding:
            self._note(news, write(self._book, news, self._holder))
        self._newest = max(state.heard, there.seen)
        # Numbers that this lane knows are not given again from here on.
        self._line.call_patiently(self._beat)
        epochs = {news.agent: news.epoch for news in past}
        halted_there = {(news.kind, news.agent) for news in binding if news.kind is not Kind.QUARANTINE}
        return [*standings_of(state, self._log_id, self._lane),
                *(replace(each, epoch=max(each.epoch, epochs.get(each.agent, 0)))
                  for each in held if (each.kind, each.agent) not in halted_there)]

    def _held_back(self, *, heard: bool) -> list[News]:
        now_us = self._clock.micros()
        return list(held_back(self._book.state, self._log_id, self._lane, now_us, heard=heard))

    def _beat(self) -> Beat:
        """All news there are since the last time. In the line's thread."""
        before, beat = self._newest, self._beat_after(self._newest)
        while beat.seen < before:
            beat = self._beat_after(before)
        while before < beat.seen:
            before, more = beat.seen, self._beat_after(beat.seen)
            beat = beat._replace(news=beat.news + more.news, seen=more.seen)
        return beat

    def _beat_after(self, seen: int) -> Beat:
        return self._ledger.beat(self._holder, self._run, seen, self._clock.micros(), self._tells)

    def take_over(self, acts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Have the acts of verbs that found nobody running done everywhere, once; those that are this process' alone.

        Blocks, at a start.
        """
        alone = []
        for fields in acts:
            kind = KINDS.get(fields["act"])
            if kind is None:
                alone.append(fields)
            else:
                agent = fields["agent"] or ""
                news = News(kind, agent, f"{self._log_id}/{fields['by']}", fields,
                            epoch=epoch_of(self._book.state, kind, agent),
                            session=self._book.state.agent(agent).session)
                self._line.call_patiently(self._ledger.tell, self._holder, news)
        self._hear(self._line.call_patiently(self._beat), self._clock.seconds())
        return alone

    def start(self) -> None:
        """Beat from now on."""
        self._beating = asyncio.get_running_loop().create_task(self._beat_on())

    async def _beat_on(self) -> None:
        while True:
            await self.turn()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), self._beat_seconds)
            self._poked.clear()

    async def turn(self) -> None:
        """One heartbeat: tell what is to be told, hear what is new, settle what is over."""
        began = self._clock.seconds()
        try:
            if self._untold:
                # A ledger that came back from an older state takes the numbers that were heard, before it gives what is
                # told one of them: nobody who has heard of it would take that for new.
                await self._line.call(self._beat)
            while self._untold:
                await self._line.call(self._ledger.tell, self._holder, self._untold[0])
                self._untold.popleft()
                if not self._untold:
                    # Others hear of a halt together with what follows from it here.
                    self.on_told()
            # Here, as the line has a thread of its own.
            self._tells = {**self._said, **self.about()}
            beat = await self._line.call(self._beat)
            self._hear(beat, began)
            while self._halted:
                self._book.spread_heard(*self._halted.popleft())
            # Said again until there is an answer: an older word that comes late would end the asking for a newer one.
            self._owes = self._owes or beat.repost
            if self._owes:
                self._leasing.give_up_turns()
                await self._line.call(self._ledger.repost, self._holder, *self._posts())
                self._owes = False
            await self._leasing.settle()
            if beat.news:
                # Whoever waits for all to have heard of it hears so at once.
                self.poke()
        except LedgerError as problem:
            self._look(problem)
        except Exception as fault:  # noqa: BLE001
            # Whatever it is, the heart goes on beating; while none succeeds nothing passes.
            self._say(f"a heartbeat failed: {type(fault).__name__}: {fault}")
            self._look(LedgerError("no heartbeat succeeds"))

    def _look(self, problem: LedgerError) -> None:
        if self.cut_off and not self._was_cut_off:
            self._was_cut_off = True
            self._say(f"{problem}; nothing passes {_until(problem)}")
            self.on_cut_off()

    def _hear(self, beat: Beat, began: float) -> None:
        """Take the news. Only with all of them it is heard: who cannot take one is cut off."""
        self._leasing.pool = beat.server
        if beat.lost:
            self._leasing.lose()
        for news in beat.news:
            written = taken(self._book, news, self._holder)
            self._newest = news.number
            self._note(news, written)
            awaited = self._waiting.get(news.origin)
            if awaited is not None and not awaited.done():
                awaited.set_result(written)
        self._newest = beat.seen
        self._heard_at = began
        if self._was_cut_off:
            self._was_cut_off = False
            self._say("the ledger answers again")

    def _note(self, news: News, written: Written | None) -> None:
        """Keep in mind what a decision of another process has halted, for what follows from it."""
        if written is None or news.kind is not Kind.HALT or news.origin.startswith(f"{self._holder}/"):
            return
        decision = decision_of(news, self._log_id)
        if decision is not None:
            self._halted.append((news.agent, decision))

    def _posts(self) -> tuple[list[Total], list[Held]]:
        return list(totals(self._book.state)), held(self._book.state, self._run)

    def poke(self) -> None:
        """Something was told elsewhere: hear of it at once."""
        self._poked.set()

    def tell_halt(self, agent: str) -> None:
        """Tell others that this lane has halted an agent."""
        halt = self._book.state.agent(agent).halt
        if halt is not None:
            self._tell(halted(self._book.state, self._log_id, agent, halt))

    def tell(self, kind: Kind, agent: str, fields: Mapping[str, Any], name: str) -> None:
        """Tell others what the entry `name` of this lane has done already."""
        epoch = epoch_of(self._book.state, kind, agent)
        self._tell(News(kind, agent, f"{self._log_id}/{name}", fields, epoch=epoch))

    def _tell(self, news: News) -> None:
        """It is tried again until the ledger has taken it."""
        self._untold.append(news)
        self.poke()

    async def publish(self, kind: Kind, agent: str, fields: Mapping[str, Any]) -> str:
        """Have an act done everywhere; the name of its entry here, once it is in force and durable.

        `LedgerError` where the ledger does not take it: then it is done nowhere.
        """
        by = fields.get("by", "")
        # What all processes take over of lane cli is told once.
        origin = f"{self._log_id}/{by}" if act_number(by) is not None else f"{self._holder}/{token_hex(8)}"
        told = News(kind, agent, origin, fields, epoch=epoch_of(self._book.state, kind, agent),
                    session=self._book.state.agent(agent).session)
        awaited = self._waiting[origin] = asyncio.get_running_loop().create_future()
        try:
            number = (await self._line.call(self._ledger.tell, self._holder, told)).number
            if not number:
                raise LedgerError(f"{agent or 'the system'} was released elsewhere meanwhile; do it again")
            self.on_told()
            self.poke()
            # What was heard before it was asked for is not heard again.
            written = await asyncio.wait_for(awaited, TELL_SECONDS) if number > self._newest or awaited.done() else None
        except TimeoutError:
            raise LedgerError("the ledger has taken it, and it is not in force here yet") from None
        finally:
            self._waiting.pop(origin, None)
        if written is None:
            # It stands in this lane already.
            return f"pool/{number}"
        await written[1]
        return f"{self._lane}/{written[0]}"

    async def look(self, purses: Sequence[Purse]) -> Roster:
        """How the others stand, and these purses; `LedgerError` where the ledger does not answer in time."""
        return await self._line.call(self._ledger.look, purses)

    async def obtain(self, wants: Sequence[Want]) -> int | None:
        """See `Leasing.obtain`."""
        return await self._leasing.obtain(wants)

    def obtain_now(self, wants: Sequence[Want]) -> None:
        """See `Leasing.obtain_now`."""
        self._leasing.obtain_now(wants)

    def drawn(self, draws: Iterable[Draw]) -> None:
        """See `Leasing.drawn`."""
        self._leasing.drawn(draws)

    def end(self) -> None:
        """Give back what is leased, leave, and let go of the ledger. Blocks."""
        if self._beating is not None:
            self._beating.cancel()
        with suppress(LedgerError):
            self._leasing.end()
        self.close()

    def close(self) -> None:
        """Let go of the ledger without a word to it. Blocks."""
        with suppress(LedgerError):
            # In the thread that speaks with it, after whatever it is at.
            self._line.call_now(self._ledger.close)
        self._line.close()


def _until(problem: LedgerError) -> str:
    """Until when nothing passes: what ends it."""
    match problem:
        case NotJoined():
            return _STRANGER
        case NewsUnreadable():
            return "until it can be taken"
    return "until it answers"

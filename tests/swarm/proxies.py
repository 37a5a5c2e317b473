"""A proxy of a swarm: the book, the leases and the membership of the product, with a lane in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

from addons.book import Book
from addons.pools.acts import SharedActs
from addons.pools.clock import Clock
from addons.pools.member import Member
from addons.pools.protocol import LedgerError
from kernel import entry
from kernel.step import Asked
from kernel.verdict import Code, Verdict
from tests.addons.workers import POOLED, judged
from tests.swarm.memory_lane import MemoryLane
from tests.swarm.network import FarLine, Network
from tests.swarm.watching import SeenLedger, Watch

START_US = 1_800_000_000_000_000 - 15_000_000
"""Fifteen seconds before the hour: each swarm goes through the end of a window."""
BEAT_SECONDS = 1.0
_AGAIN_SECONDS = 0.5


class ProxyClock(Clock):
    """The clock of a proxy, which is a little wrong."""

    def __init__(self, seconds: Callable[[], float], wrong_us: int) -> None:
        self._seconds, self._wrong_us = seconds, wrong_us

    def seconds(self) -> float:
        return self._seconds()

    def micros(self) -> int:
        return START_US + round(self._seconds() * 1_000_000) + self._wrong_us


class HeardBook(Book):
    """The book, and whoever watches what it hears of others."""

    heard: Callable[[str, Mapping[str, Any]], None]

    def take_news(self, kind: str, fields: Mapping[str, Any], agent: str, *, ours: bool) -> Any:
        self.heard(kind, fields)
        return super().take_news(kind, fields, agent, ours=ours)


class Proxy:
    """One lane through all its lives."""

    def __init__(self, log_id: str, lane: str, governed: SimpleNamespace, ledger: SeenLedger, network: Network,
                 watch: Watch, clock: ProxyClock) -> None:
        self.name, self.log_id = f"{log_id}/{lane}", log_id
        self.lane = MemoryLane(lane, clock)
        self._governed, self._ledger, self._network, self._watch, self._clock = (
            governed, ledger, network, watch, clock)
        self._work: set[asyncio.Task[Any]] = set()
        self._starting: asyncio.Task[None] | None = None
        self.in_force: dict[str, float] = {}
        """Since when an agent's newest halt is in force here."""
        self.first_asked: dict[str, float] = {}
        """When an agent asked for something here for the first time in this life."""
        self.acted_on: set[str] = set()
        """To whom something was done here, in this life, because another one was halted."""
        self.runs = False
        self.began_at = 0.0

    @property
    def state(self) -> Any:
        return self.book.state

    def start_soon(self) -> None:
        self._starting = asyncio.get_running_loop().create_task(self.start())
        self._starting.add_done_callback(self._done)

    async def start(self) -> None:
        """Go on from what the log says, once the ledger answers."""
        while not self.runs:
            try:
                self._begin()
            except LedgerError:
                self.lane.die()
                await asyncio.sleep(_AGAIN_SECONDS)

    def _begin(self) -> None:
        self.first_asked, self.acted_on = {}, set()
        self.book = HeardBook(self.lane, self.lane.replayed(), lambda: self._governed, lambda agent: ())  # type: ignore[arg-type,return-value]
        self.book.on_halt = self._halted
        self.book.on_preventive = self._prevented
        self.book.heard = partial(self._watch.heard, self.name)
        self._watch.restarted(self.name, self.state)
        self.book.record("config", entry.config(POOLED, {}), "")
        for decision, flow in sorted(self.state.open.items()):
            self.book.record("outcome", entry.outcome(flow.flow, decision, "unknown"), flow.agent)
        self.member = Member(self._ledger, self.log_id, self.lane.name, self.book, self._heard, BEAT_SECONDS,
                             FarLine(self._network, self.name), self._clock)  # type: ignore[arg-type]
        self.book.pool = self.member
        self.acts = SharedActs(self.book, self.member)
        self.member.begin({"lane": self.lane.name})
        self.member.start()
        self.member._beating.add_done_callback(self._done)
        self.runs, self.began_at = True, self._clock.seconds()

    @staticmethod
    def _heard(said: str) -> None:
        assert "failed" not in said, said

    def _halted(self, agent: str, verdict: Verdict) -> None:
        self.in_force[agent] = self._clock.seconds()

    def _prevented(self, fields: Mapping[str, Any]) -> None:
        self.acted_on.add(fields["agent"])
        self._watch.prevented(self.name, self.book.states, self._clock, fields)

    def die(self) -> None:
        """As when it is killed: what is not durable is gone, and nobody is told."""
        self.runs = False
        for task in (*self._work, self.member._beating, self.member._leasing._sending):
            if task is not None:
                task.cancel()
        self.lane.die()

    def do(self, work: Any) -> None:
        """Begin something that ends with this life."""
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()

    async def ask(self, asked: Asked, seconds: float) -> None:
        """A request, and its answer after `seconds`."""
        if self.member.cut_off:
            self._watch.codes[Code.POOL_UNREACHABLE] += 1
            return
        verdict, number = await judged(self.book, self._governed, asked)
        name = f"{self.lane.name}/{number}"
        self.first_asked.setdefault(asked.agent, self._clock.seconds())
        self._watch.codes[verdict.code] += 1
        flow = self.state.open.get(name)
        if not verdict.lets_through or flow is None:
            return
        self._watch.drew(self.name, self.state, flow.draws)
        self._watch.turned(flow.draws, asked.agent)
        if self.member.cut_off or self.book.halted(asked.agent, None) is not None:
            self._end(name, asked.agent, "not_sent", 0)
            return
        self._watch.let_through(self.name, asked.agent)
        await asyncio.sleep(seconds)
        self._end(name, asked.agent, "completed", asked.body_bytes)

    def _end(self, decision: str, agent: str, result: str, up: int) -> None:
        flow = self.state.open[decision]
        self.book.record("outcome", entry.outcome("f", decision, result, 200, up, 10_000), agent)
        self._watch.drew(self.name, self.state, flow.draws)

    async def act(self, act: str, agent: str) -> None:
        """An operator's act, which may fail."""
        with suppress(LedgerError):
            await self.acts.act(act, agent, "because", "ann", "control")

    def leave(self) -> None:
        self.member.end()
        self.runs = False

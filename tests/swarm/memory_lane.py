"""A lane without files: entries as the log writes them, and what a process that dies has not yet made durable."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from addons import codec
from addons.journal import Moment
from addons.pools.clock import Clock
from kernel.folding import States
from kernel.lease_numbers import LEASE, Number, granted
from kernel.transition import written

LINGER_SECONDS, SYNC_SECONDS = 0.1, 0.002
"""How long an entry waits for which nobody waits, and how long it takes to make a group of entries durable."""


class MemoryLane:
    """What `addons.lane.Lane` does for a book. `lines` outlive a process as far as they are durable."""

    last_ts = ""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name, self._clock = name, clock
        self.lines: list[bytes] = []
        self.kinds: Counter[str] = Counter()
        """How many entries of each kind were written, in all lives."""
        self.durable = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.TimerHandle | None = None

    def now(self) -> Moment:
        return Moment(int(self._clock.seconds() * 1e9), self._clock.micros())

    def record(self, kind: str, fields: Mapping[str, Any], at: Moment | None = None) -> int:
        self.kinds[kind] += 1
        self.lines.append(codec.encode({
            **fields, "v": 1, "type": kind, "seq": len(self.lines), "lane": self.name,
            "ts": written((at or self.now()).micros)}))
        self._sync_in(LINGER_SECONDS)
        return len(self.lines) - 1

    def _sync_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._syncing is None or self._syncing.when() > loop.time() + seconds:
            if self._syncing is not None:
                self._syncing.cancel()
            self._syncing = loop.call_later(seconds, self._sync)

    def commit(self, kind: str, fields: Mapping[str, Any], vault: object = None,
               at: Moment | None = None) -> tuple[int, asyncio.Future[None]]:
        number, waiter = self.record(kind, fields, at), asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._sync_in(SYNC_SECONDS)
        return number, waiter

    def write_now(self, kind: str, fields: Mapping[str, Any], at: Moment | None = None) -> int:
        number = self.record(kind, fields, at)
        self._sync()
        return number

    def _sync(self) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
        self.durable, self._syncing = len(self.lines), None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def die(self) -> None:
        """Lose what is not durable, as when the process is killed."""
        if self._syncing is not None:
            self._syncing.cancel()
        self._syncing, self._waiting = None, []
        del self.lines[self.durable:]

    def leases(self) -> list[Number]:
        """Those that were granted, in their order."""
        said = (granted(codec.read(line)) for line in self.lines if LEASE in line)
        return [number for number in said if number is not None]

    def replayed(self) -> States:
        """What the entries make."""
        states = States()
        for number, line in enumerate(self.lines):
            states.fold(codec.read(line), f"{self.name}/{number}")
        return states

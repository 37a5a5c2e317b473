"""The network between proxies and their ledger: messages take time, are lost, come twice, come late, or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, NamedTuple

from addons.pools.line import PATIENCE_SECONDS
from addons.pools.protocol import LedgerError

CLIENT_SECONDS = 0.1
"""How long a client of the ledger waits for an answer before it gives up the connection."""


class Weather(NamedTuple):
    """How likely it is that a message is lost, is carried out twice, or is late by up to `late_seconds`."""

    lost: float = 0.01
    twice: float = 0.01
    late: float = 0.005
    late_seconds: float = 4.0


USUAL, CALM = Weather(), Weather(0.0, 0.0, 0.0)


class Network:
    """Carries calls to the ledger."""

    def __init__(self, chance: Random, weather: Weather) -> None:
        self._chance, self.weather = chance, weather
        self._cut: Counter[str] = Counter()
        self._failed: dict[str, list[float]] = defaultdict(list)

    def cut(self, name: str) -> None:
        """From now on nothing reaches this one, and nothing comes from it."""
        self._cut[name] += 1

    def mend(self, name: str) -> None:
        """End what `cut` has begun, unless it was cut more often."""
        self._cut[name] -= 1

    def failed(self, name: str, begin: float, end: float) -> bool:
        """Whether a call of this one failed in that time."""
        return any(begin <= at <= end for at in self._failed[name])

    async def carry[T](self, name: str, work: Callable[[], T]) -> T:
        """One call: there, carried out, back. `LedgerError` after the client's time-out where nothing comes back."""
        there, back = self._delay(), self._delay()
        if self._is_lost(name):
            return await self._nothing(name, CLIENT_SECONDS)
        if there >= CLIENT_SECONDS:
            self._again(name, work, there)
            return await self._nothing(name, CLIENT_SECONDS)
        await asyncio.sleep(there)
        if self._cut[name]:
            return await self._nothing(name, CLIENT_SECONDS - there)
        answer = work()
        if self._chance.random() < self.weather.twice:
            self._again(name, work, self._chance.uniform(0.0, self.weather.late_seconds))
        if self._is_lost(name) or there + back >= CLIENT_SECONDS:
            return await self._nothing(name, CLIENT_SECONDS - there)
        await asyncio.sleep(back)
        return answer

    def carry_now[T](self, name: str, work: Callable[[], T]) -> T:
        """The same in no time, for what blocks."""
        if self._is_lost(name):
            self._fail(name)
        answer = work()
        if self._is_lost(name):
            self._fail(name)
        return answer

    def _delay(self) -> float:
        if self._chance.random() < self.weather.late:
            return self._chance.uniform(0.05, self.weather.late_seconds)
        return self._chance.uniform(0.0003, 0.004)

    def _is_lost(self, name: str) -> bool:
        return self._cut[name] > 0 or self._chance.random() < self.weather.lost

    def _again(self, name: str, work: Callable[[], Any], seconds: float) -> None:
        """Have it carried out when nobody waits for it any more."""
        def arrive() -> None:
            if not self._cut[name]:
                with suppress(LedgerError):
                    work()

        asyncio.get_running_loop().call_later(seconds, arrive)

    async def _nothing(self, name: str, seconds: float) -> Any:
        await asyncio.sleep(seconds)
        self._fail(name)

    def _fail(self, name: str) -> None:
        self._failed[name].append(asyncio.get_running_loop().time())
        raise LedgerError("no answer came")


class FarLine:
    """What `addons.pools.line.Line` promises, over the network: one call after the other."""

    def __init__(self, network: Network, name: str) -> None:
        self._network, self._name, self._turn = network, name, asyncio.Lock()

    async def call[**P, T](self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        exchange = asyncio.get_running_loop().create_task(self._exchange(partial(work, *arguments, **named)))
        exchange.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(exchange), PATIENCE_SECONDS)
        except TimeoutError:
            raise LedgerError("the ledger does not answer in time") from None

    async def _exchange[T](self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await self._network.carry(self._name, work)

    def call_now[**P, T](self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return self._network.carry_now(self._name, partial(work, *arguments, **named))

    call_patiently = call_now

    def close(self) -> None:
        """Nothing is open."""

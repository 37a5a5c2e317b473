"""The numbers of all workers as one: counts are added up, what stands at a moment is put together by its meaning."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from addons.metrics import NOT_STOPPING, Gauge, Metrics
from addons.workers.channel import ChannelError, Refused
from addons.workers.slot import Slot, Stage
from kernel.standings import Total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from addons.control import Message
    from addons.metrics import Counts, Readings

# A scrape waits no longer for a worker, which is then left out.
ANSWER_SECONDS = 1.0
_RENDER_SECONDS = 5.0


class SummedMetrics(Metrics):
    """What the supervisor counts itself, and what its workers tell when they are asked: at each scrape.

    A worker that does not answer in time is left out of what stands, and counts with what it told last: a count never
    goes down. What a crashed one counted after that is in its log alone.
    """

    def __init__(self, version: str, mitmproxy: str, slots: Sequence[Slot], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(version, mitmproxy)
        self._slots, self._loop = slots, loop
        self._answers: dict[str, Message] = {}
        self.stopping = False
        self.read_others(self._counted)
        self.read(Gauge.READY, lambda: all(self._checks().values()))
        self.read(Gauge.OPEN_STREAMS, lambda: sum(self._each(Gauge.OPEN_STREAMS)))
        self.read(Gauge.UNANCHORED, lambda: sum(self._each(Gauge.UNANCHORED)))
        self.read(Gauge.ANCHOR_OVERDUE, lambda: max(self._each(Gauge.ANCHOR_OVERDUE), default=0))
        self.read_standings(lambda: halted(self._now()), lambda: totals(self._now()))
        self.read(Gauge.POOL_UP, lambda: min(self._each(Gauge.POOL_UP), default=0))
        self.read_held_back(lambda: held_back(self._now()))
        self.read_anchors(lambda: oldest(self._now()))

    async def look(self, *, readings: bool = False) -> None:
        """Ask every worker whether it is ready and what it has counted, all at once; with `readings` how it stands."""
        answers = await asyncio.gather(*(self._ask(slot, readings=readings) for slot in self._slots))
        self._answers = {slot.name: answer for slot, answer in zip(self._slots, answers, strict=True) if answer}

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """As of this moment. For the thread of the metrics server."""

        async def rendered() -> tuple[bytes, str]:
            await self.look(readings=True)
            self._tell_policy()
            return super(SummedMetrics, self).render(accept)

        # On the loop, where workers come and go: what one counted is there once, in its own life or after it.
        return asyncio.run_coroutine_threadsafe(rendered(), self._loop).result(_RENDER_SECONDS)

    def ready(self) -> Mapping[str, bool]:
        """The conditions of readiness: those of all workers together, and each worker's own. For that thread, too."""

        async def checks() -> Mapping[str, bool]:
            await self.look()
            return self._checks()

        return asyncio.run_coroutine_threadsafe(checks(), self._loop).result(_RENDER_SECONDS)

    def turns(self) -> bool:
        """Whether the event loop of the supervisor turns. For that thread, too."""
        turned = threading.Event()
        self._loop.call_soon_threadsafe(turned.set)
        return turned.wait(ANSWER_SECONDS)

    async def _ask(self, slot: Slot, *, readings: bool) -> Message | None:
        if slot.stage is not Stage.SERVING:
            return None
        try:
            answer = await slot.ask("samples", ANSWER_SECONDS, readings=readings)
        except (ChannelError, Refused):
            return None
        slot.counted = answer["counts"]
        return answer

    def _counted(self) -> list[Counts]:
        return [slot.counted for slot in self._slots if slot.counted is not None]

    def _now(self) -> list[Readings]:
        return [answer["readings"] for answer in self._answers.values()]

    def _each(self, gauge: Gauge) -> list[float]:
        return [readings["gauges"][gauge] for readings in self._now() if gauge in readings["gauges"]]

    def _checks(self) -> dict[str, bool]:
        checks: dict[str, bool] = {}
        for answer in self._answers.values():
            for name, holds in answer["checks"].items():
                checks[name] = checks.get(name, True) and holds
        checks[NOT_STOPPING] = not self.stopping
        return checks | {slot.name: slot.name in self._answers for slot in self._slots}

    def _tell_policy(self) -> None:
        loaded = [tuple(readings["policy"]) for readings in self._now() if readings["policy"]]
        if loaded:
            self.policy_loaded(*max(loaded, key=lambda policy: policy[2]))


def halted(readings: Sequence[Readings]) -> dict[str, str]:
    """The agents that any worker knows as halted, each with the reason that is known first."""
    found: dict[str, str] = {}
    for each in readings:
        for agent, reason in each["halted"].items():
            found.setdefault(agent, reason)
    return found


def held_back(readings: Sequence[Readings]) -> dict[str, int]:
    """How many agents others' halts hold back, by how: each worker holds back the same, some a little later."""
    found: dict[str, int] = {}
    for each in readings:
        for do, number in each["held_back"].items():
            found[do] = max(number, found.get(do, 0))
    return found


def totals(readings: Sequence[Readings]) -> list[Total]:
    """One total for each budget and unit: its limit, and what all workers together have drawn and hold."""
    found: dict[tuple[str, str], Total] = {}
    for each in readings:
        for *numbers, agents in each["budgets"]:
            other = Total._make([*numbers, None if agents is None else frozenset(agents)])
            mine = found.get((other.budget, other.unit))
            found[other.budget, other.unit] = other if mine is None else mine.with_other(other)
    return list(found.values())


def oldest(readings: Sequence[Readings]) -> dict[str, float]:
    """For how long entries have waited for each kind of anchor, of the worker whose wait longest."""
    ages: defaultdict[str, float] = defaultdict(float)
    for each in readings:
        for kind, seconds in each["anchor_ages"].items():
            ages[kind] = max(ages[kind], seconds)
    return dict(ages)

"""The supervisor: keeps what there is once, starts the workers, and stays with them to their end.

A worker that crashes is started again. One that refuses to start, or stops on a fault, ends all: what it found holds
for the others, too.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from mitmproxy import version
from mitmproxy.proxy.mode_specs import ProxyMode

from addons import ahead_keys, listeners, settings
from addons.draining import DRAIN_SECONDS
from addons.errors import StartRefused
from addons.home import home_folder
from addons.identity import Registry
from addons.lineage import newest
from addons.own_output import place, say
from addons.pools.joining import bring_over
from addons.pools.setting import pool_for
from addons.premises import Premises
from addons.workers import ports
from addons.workers.answers import Answers
from addons.workers.common_policy import CommonPolicy
from addons.workers.post import Post, lane_of
from addons.workers.slot import Slot, Stage, ending
from addons.workers.summed import SummedMetrics
from kernel.trial import Mode
from kernel.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mitmproxy.addonmanager import Loader

    from addons.control import Message
    from addons.workers.channel import Channel

ASKED_TO_STOP, START_REFUSED, USAGE, FAULT = 0, 1, 2, 3
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
# Whoever has served for so long has not crashed at once again.
HEALTHY_SECONDS = 60.0
# After what is open was cut: the last entries, heads and anchors, each of which has five seconds.
_CLOSING_SECONDS = 20.0
_AT_ONCE_SECONDS = 3.0
_LOOK_SECONDS = 1.0


class Supervisor:
    """Supervises `workers` processes, which take the same arguments as this one."""

    def __init__(self, options: Any, workers: int, arguments: Sequence[str]) -> None:
        self._options = options
        self._slots = tuple(Slot(lane_of(number), arguments) for number in range(workers))
        loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = loop.create_future()
        self._at_once = asyncio.Event()
        # Held by whoever opens a lane or changes the policy: each start finds the lanes and the policy as they are.
        self._turns = asyncio.Lock()
        self._all_opened, self._all_serving = asyncio.Event(), asyncio.Event()
        self._metrics = SummedMetrics(VERSION, version.VERSION, self._slots, loop)
        self._policy: CommonPolicy
        self._premises: Premises
        self._metrics_port = 0

    async def run(self, loader: Loader) -> int:
        """Serve until asked to stop, or until that is no use any more; the exit status."""
        with ExitStack() as opened:
            try:
                settings.declare(loader)
                if problem := _unfit(self._options):
                    print(problem, file=sys.stderr, flush=True)
                    return USAGE
                self._open(opened)
            except StartRefused as refused:
                print(refused, file=sys.stderr, flush=True)
                return START_REFUSED
            tasks = [asyncio.create_task(self._keep(number, slot)) for number, slot in enumerate(self._slots)]
            tasks.append(asyncio.create_task(self._start()))
            for task in tasks:
                task.add_done_callback(self._check)
            status = await self._end
            await self._end_workers()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return status

    def stop(self) -> None:
        """End in order; asked a second time, at once."""
        if self._end.done():
            self._at_once.set()
        self._finish(ASKED_TO_STOP)

    def _open(self, opened: ExitStack) -> None:
        """Take and check everything that there is once, before any worker starts."""
        options = self._options
        settings.check_at_start(options)
        asked = settings.read(options)
        pool = pool_for(asked.pool, home_folder(asked.home), len(self._slots))
        options.update(mode=list(ports.chosen(options.mode, options.listen_host, options.listen_port)))
        self._premises = Premises(options, asked)
        opened.callback(self._premises.close)
        opened.enter_context(ports.kept(settings.listen_addresses(options)))
        home = self._premises.home
        served = [newest(home.paths, slot.name, home.root) for slot in self._slots]
        for lane in served:
            ahead_keys.demand(home, lane)
        self._premises.keep_accounts(pool)
        bring_over(pool, home, served, say)
        self._policy = CommonPolicy(asked, home.paths, Registry(home.paths.agents), self._slots, self._turns)
        self._policy.on_refused, self._policy.on_fault = self._metrics.reload_failed, self._metrics.fault
        self._premises.read_gauges(self._metrics)
        self._metrics_port = self._premises.show_metrics(
            self._metrics, self._metrics.turns, self._metrics.ready)

    async def _start(self) -> None:
        """Once all workers serve, let operators in and say where everything is."""
        await self._all_serving.wait()
        answers = Answers(self._slots, self._policy)
        try:
            await self._premises.open(answers.handlers(), self._metrics.fault, self._policy.reload_soon)
        except StartRefused as refused:
            print(refused, file=sys.stderr, flush=True)
            self._finish(START_REFUSED)
            return
        governed = self._policy.governed
        observed_until = governed.observed_until if self._policy.mode is Mode.OBSERVE else None
        self._premises.show_banner(self._proxies(), observed_until, len(self._slots))
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._metrics.look()

    def _proxies(self) -> list[tuple[str, str, int]]:
        modes = [ProxyMode.parse(text) for text in self._options.mode]
        places = settings.listen_addresses(self._options)
        return [(listeners.scheme_of(mode), host, port)
                for mode, (host, port) in zip(modes, places, strict=True)]

    async def _keep(self, number: int, slot: Slot) -> None:
        """Start the worker, and start it again as long as it only crashes."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
        while not self._end.done():
            began = loop.time()
            status, how = await self._life(number, slot)
            self._buried(slot)
            if self._end.done() or self._ends_all(slot, status, how):
                return
            pause = FIRST_PAUSE_SECONDS if loop.time() - began > HEALTHY_SECONDS else pause
            say(f"worker {slot.name} {how}; it starts again in {pause:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._end), pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _life(self, number: int, slot: Slot) -> tuple[int | None, str]:
        """A worker from its start to its end: its status, None where no process could be made, and that in words."""
        try:
            status = await slot.live(lambda channel: self._post(number, channel), lambda end: self._meet(slot, end))
        except OSError as problem:
            return None, f"could not be started: {problem}"
        return status, ending(status)

    def _ends_all(self, slot: Slot, status: int | None, how: str) -> bool:
        """Whether the end of this worker is that of all."""
        if status in (START_REFUSED, FAULT):
            # It has said why itself.
            self._finish(status)
        elif not self._all_serving.is_set():
            say(f"worker {slot.name} {how} before all served")
            self._finish(FAULT)
        return self._end.done()

    def _buried(self, slot: Slot) -> None:
        """What a life leaves behind: what it counted, and the turn that it may have had."""
        if slot.counted is not None:
            self._metrics.absorb(slot.counted)
            slot.counted = None
        self._give_turn_back(slot)

    def _give_turn_back(self, slot: Slot) -> None:
        if slot.has_turn:
            slot.has_turn = False
            self._turns.release()

    def _post(self, number: int, channel: int) -> Post:
        return Post(number, len(self._slots), tuple(self._options.mode), self._metrics_port, channel)

    def _meet(self, slot: Slot, channel: Channel) -> None:
        """Hear what a worker says in its life, which is over before it begins where all end meanwhile."""
        if self._end.done():
            channel.close()
        channel.on_fault = partial(self._failed, slot)
        for word, heard in {"turn": self._turn, "opened": self._opened, "serving": self._serving,
                            "poke": self._poke}.items():
            channel.on(word, partial(heard, slot))

    async def _turn(self, slot: Slot, _: Message) -> Message:
        await self._turns.acquire()
        slot.has_turn = True
        return self._policy.told()

    async def _opened(self, slot: Slot, _: Message) -> None:
        slot.stage = Stage.OPENED
        if not self._all_opened.is_set():
            self._give_turn_back(slot)
        if all(each.stage in (Stage.OPENED, Stage.SERVING) for each in self._slots):
            self._all_opened.set()
        await self._all_opened.wait()

    async def _serving(self, slot: Slot, _: Message) -> None:
        slot.stage = Stage.SERVING
        # Kept until here at a later start: the policy is not to change before it is asked to change its own.
        self._give_turn_back(slot)
        if all(each.stage is Stage.SERVING for each in self._slots):
            self._all_serving.set()

    async def _poke(self, slot: Slot, _: Message) -> None:
        for other in self._slots:
            if other is not slot:
                other.tell("poke")

    def _failed(self, slot: Slot, fault: Exception) -> None:
        self._metrics.fault("workers")
        say(f"what worker {slot.name} said was not heard: {place(fault)}")

    def _check(self, task: asyncio.Task[None]) -> None:
        """A fault in a task of the supervisor's own ends all: nobody would do its work any more."""
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            say(f"stopped on a fault: {type(fault).__name__}: {fault}")
            self._finish(FAULT)

    def _finish(self, status: int) -> None:
        if not self._end.done():
            self._metrics.stopping = True
            self._end.set_result(status)

    async def _end_workers(self) -> None:
        """Have all workers finish what they have, then go; whoever does not is killed."""
        for slot in self._slots:
            if slot.stage is Stage.SERVING:
                slot.tell("drain", seconds=DRAIN_SECONDS)
            else:
                slot.leave()
        await self._gone(DRAIN_SECONDS + _CLOSING_SECONDS, unless=self._at_once)
        for slot in self._slots:
            slot.leave()
        await self._gone(_AT_ONCE_SECONDS)
        for slot in self._slots:
            slot.kill()
        await self._gone(_AT_ONCE_SECONDS)

    async def _gone(self, seconds: float, unless: asyncio.Event | None = None) -> None:
        """Wait until no worker is left, so many seconds at most."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while any(slot.lives for slot in self._slots) and loop.time() < until:
            if unless is not None and unless.is_set():
                return
            await asyncio.sleep(0.02)


def _unfit(options: Any) -> str | None:
    """What was asked for that several processes cannot give."""
    asked = sorted(name for name in options.deferred if name.startswith("web_"))
    if asked:
        return f"governor serve: {', '.join(asked)}: mitmweb shows the flows of one process; leave --workers out"
    return None

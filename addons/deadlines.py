"""Deadlines: no hook takes longer than a verdict may, whoever's hook it is.

mitmproxy waits for a hook as long as the hook likes, and the client waits with it. Here the running hooks stand in one
table that is swept twice a second, because a timer for each of them would cost more than the hooks. What is overdue is
cancelled, and the gate refuses it. A flow that is held on purpose has all the time its client has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from mitmproxy.flow import Flow
from mitmproxy.proxy.server import ConnectionHandler

DEADLINE_SECONDS = 5.0
_SWEEPS_IN_A_DEADLINE = 10


class Running:
    """One hook that is running, in the task that runs it."""

    __slots__ = ("calls", "data", "handler", "since", "task")

    def __init__(self, handler: ConnectionHandler, data: Any, since: float) -> None:
        self.handler, self.data, self.since = handler, data, since
        self.task = asyncio.current_task()
        self.calls = 0

    @property
    def held(self) -> bool:
        """True while an operator or an addon holds this hook's flow."""
        return isinstance(self.data, Flow) and self.data.intercepted

    def check(self) -> None:
        """Raise `TimeoutError` when this was called off and somebody has swallowed that."""
        if self.calls:
            raise TimeoutError

    def call_off(self) -> None:
        """Cancel what this hook waits for."""
        if self.task is not None:
            self.calls += 1
            self.task.cancel()

    def settle(self) -> bool:
        """True when this was called off; the cancellation is then no longer one of its task."""
        for _ in range(self.calls):
            assert self.task is not None
            self.task.uncancel()
        called_off, self.calls = self.calls > 0, 0
        return called_off


class Deadlines:
    """The hooks of one process that are running. `abandon` ends the connections of one that cannot be called off."""

    def __init__(self, abandon: Callable[[ConnectionHandler], None], seconds: float = DEADLINE_SECONDS) -> None:
        self._abandon, self._seconds = abandon, seconds
        self._running: set[Running] = set()
        self._timer: asyncio.TimerHandle | None = None
        # The time of the last sweep, less what the loop or the process stood still: nobody is overdue because of that.
        self._now = 0.0

    def begin(self, handler: ConnectionHandler, data: Any, *, patient: bool = False) -> Running:
        """A hook begins, in the task that is running. One that is patient is never overdue."""
        running = Running(handler, data, self._now)
        if not patient:
            self._running.add(running)
        return running

    def end(self, running: Running) -> None:
        self._running.discard(running)
        if running.calls:
            running.settle()

    def held(self) -> list[Running]:
        """The hooks whose flows are held."""
        return [running for running in self._running if running.held]

    def runs(self, handler: ConnectionHandler) -> bool:
        """Whether a hook of this client's is running."""
        return any(running.handler is handler for running in self._running)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sweep from here on, in this loop."""
        self._next(loop, monotonic())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _next(self, loop: asyncio.AbstractEventLoop, swept: float) -> None:
        self._timer = loop.call_later(self._seconds / _SWEEPS_IN_A_DEADLINE, self._turn, loop, swept)

    def _turn(self, loop: asyncio.AbstractEventLoop, last: float) -> None:
        swept = monotonic()
        self._next(loop, swept)
        self._sweep(min(swept - last, 2 * self._seconds / _SWEEPS_IN_A_DEADLINE))

    def _sweep(self, passed: float) -> None:
        self._now += passed
        for running in tuple(self._running):
            if running.held:
                running.since = self._now
            elif self._now - running.since >= self._seconds:
                if running.calls:
                    self._abandon(running.handler)
                running.call_off()

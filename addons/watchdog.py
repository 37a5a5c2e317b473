"""The watchdog: a thread that ends the process when its event loop stands still.

While the loop stands still nothing is judged, refused or cut, and every client waits. Nothing inside the loop can help
there, so the process ends, loudly, and whoever supervises it starts it again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kernel import entry
from kernel.verdict import Code

if TYPE_CHECKING:
    from addons.lane import Lane

STALLED = 70
STANDSTILL_SECONDS = 10.0
_LOOKS_IN_A_STANDSTILL = 20
_LAST_WORDS_SECONDS = 1.0


class Watchdog:
    """Watches one loop from `start` to `stop`; `leave` ends the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lane: Lane, seconds: float = STANDSTILL_SECONDS,
                 leave: Callable[[int], object] = os._exit) -> None:
        self._loop, self._lane, self._seconds, self._leave = loop, lane, seconds, leave
        self._turns = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch from here on; for the loop's own thread."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._timer.cancel()

    @property
    def _pause(self) -> float:
        return self._seconds / _LOOKS_IN_A_STANDSTILL

    def _turn(self) -> None:
        self._turns += 1
        self._timer = self._loop.call_later(self._pause, self._turn)

    def _watch(self) -> None:
        # Looks are counted, not seconds: a process that was suspended has missed none.
        seen = missed = 0
        while not self._stopping.wait(self._pause):
            missed = missed + 1 if self._turns == seen else 0
            seen = self._turns
            if missed >= _LOOKS_IN_A_STANDSTILL:
                self._end()
                return

    def _end(self) -> None:
        # Each in a thread of its own: a full pipe or a hanging disk may be why the loop stands still.
        _try(_LAST_WORDS_SECONDS, (self._say, self._close))
        self._leave(STALLED)

    def _say(self) -> None:
        print(f"governor: the event loop has stood still for {self._seconds:g} s: the process ends", file=sys.stderr,
              flush=True)

    def _close(self) -> None:
        self._lane.record("fault", entry.fault("loop", "Standstill", Code.FAULT, None))
        self._lane.close("standstill")


def _try(seconds: float, acts: Sequence[Callable[[], None]]) -> None:
    """Do all of these at once, and go on when they are done or the time is over."""
    threads = [threading.Thread(target=act, daemon=True) for act in acts]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))

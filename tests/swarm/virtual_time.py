"""An event loop that never waits: where nothing is left to do, it goes on to the moment of the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Leaping(selectors.SelectSelector):
    """Nothing comes from outside, so to wait is to move the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is to come")
        self.now += max(0.0, timeout)
        return []


class VirtualTime(asyncio.SelectorEventLoop):
    """No files, sockets or threads. Its time begins at 0."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


def run[T](work: Coroutine[Any, Any, T]) -> T:
    """What the work returns, at once, however long it lasts in its own time."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(work)

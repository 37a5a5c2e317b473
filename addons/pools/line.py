"""The one thread of a process that speaks with the ledger, and how long anybody waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from addons.pools.protocol import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATIENCE_SECONDS = 0.25
"""How long a request waits for the ledger: its client's own time-out, and a turn of the thread."""
_STARTING_SECONDS = 10.0


class Line:
    """Calls one after the other. What is waited for in vain may still be done: the ledger knows what is asked twice."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "ledger")

    async def call[**P, T](self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `work` returns; `LedgerError` where that takes too long."""
        done = asyncio.wrap_future(self._thread.submit(work, *arguments, **named))
        try:
            return await asyncio.wait_for(asyncio.shield(done), PATIENCE_SECONDS)
        except TimeoutError:
            done.add_done_callback(_seen)
            raise LedgerError("the ledger does not answer in time") from None

    def call_now[**P, T](self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The same, blocking: at a start, an end, or where a stream cannot wait."""
        return self._wait(self._thread.submit(work, *arguments, **named), PATIENCE_SECONDS)

    def call_patiently[**P, T](self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The same at a start, where nobody else waits."""
        return self._wait(self._thread.submit(work, *arguments, **named), _STARTING_SECONDS)

    @staticmethod
    def _wait[T](done: Future[T], seconds: float) -> T:
        try:
            return done.result(seconds)
        except TimeoutError:
            raise LedgerError("the ledger does not answer in time") from None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _seen(done: asyncio.Future[Any]) -> None:
    """Take note of how a call ended that nobody waits for any more."""
    if not done.cancelled():
        done.exception()

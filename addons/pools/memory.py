"""A ledger in memory, for the workers of a test, or for one process."""

from __future__ import annotations

import secrets
import time
from threading import Lock
from typing import TYPE_CHECKING

from addons.pools.by_tables import LedgerByTables
from kernel.ledger.tables import Draft, InMemory

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryLedger(LedgerByTables):
    """Lives as long as this object; any number of threads may share it. `clock` gives microseconds since 1970."""

    def __init__(self, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.tables = InMemory()
        self.server = secrets.token_hex(8)
        self._clock, self._lock = clock, Lock()

    def _transact[T](self, call: Callable[[Draft], T]) -> T:
        with self._lock:
            draft = Draft(self.tables, self.server, self._clock())
            answer = call(draft)
            self.tables.keep(draft)
            return answer

    def _read[T](self, call: Callable[[Draft], T]) -> T:
        with self._lock:
            tables = self.tables.copy()
        return call(Draft(tables, self.server, self._clock()))

    def close(self) -> None:
        """Nothing is open."""

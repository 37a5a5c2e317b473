"""Who may open another connection: bounded in total and for each address, and slowed where an address sends garbage.

Until it has said who it is, a client is its address: agents behind one address share these bounds.
"""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass

from addons.refusal_rate import MOST_WAIT_SECONDS, RefusalRate
from kernel.verdict import Code

MOST = 8192
EACH = 1024
# For the log, the listeners, look-ups and bodies that wait in files.
_RESERVED_FILES = 256
# A client's connection and one to its origin.
_FILES_EACH = 2
# A connection that is turned away is open as long as it has to wait for that.
_MOST_STALLED = 256
# Longer than anybody waits: who would have to is dropped.
_LONGEST_SECONDS = 2 * MOST_WAIT_SECONDS
_TURN_SECONDS = 0.25
# Half of what a body has that makes no progress.
_LONGEST_TURN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Stall:
    """A new connection has to wait, unread; then it is served or dropped."""

    seconds: float
    admitted: bool


def raise_file_limit() -> int:
    """How many files this process may have open, after it has asked for all that it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard


class Admission:
    """The open connections of this process by address."""

    def __init__(self, rate: RefusalRate, files: int) -> None:
        self._rate = rate
        # RLIM_INFINITY is negative.
        room = (files - _RESERVED_FILES) // _FILES_EACH if files > 0 else MOST
        self.most = max(1, min(MOST, room))
        # So that one address alone cannot take all there are.
        self.each = max(1, min(EACH, self.most // 2))
        self._open: Counter[str] = Counter()
        self._together = self._stalled = 0

    def enter(self, address: str) -> Stall | None:
        """Count one more connection, unless it is to be dropped. None: it is served at once."""
        source = f"{address} connections"
        if self._together >= self.most or self._open[address] >= self.each:
            return self._dropped(source)
        stall = None
        if self._rate.is_over(source):
            wait = self._rate.wait_seconds(source, _LONGEST_SECONDS)
            if wait > MOST_WAIT_SECONDS:
                return self._dropped(source)
            stall = Stall(wait, admitted=True)
        self._open[address] += 1
        self._together += 1
        return stall

    def leave(self, address: str) -> None:
        """A connection that was counted has ended."""
        self._together -= 1
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]

    def turned_away(self) -> None:
        """A connection that had to wait for being dropped is."""
        self._stalled -= 1

    def turn_seconds(self, address: str) -> float:
        """When the next piece of work is due that one of an address's connections brings more of than it should.

        One that has been given up still has megabytes waiting in the kernel, so that many short ones are as bad as one.
        """
        return max(_TURN_SECONDS, self._rate.wait_seconds(f"{address} turns", _LONGEST_TURN_SECONDS))

    def _dropped(self, source: str) -> Stall:
        self._rate.count(source, Code.BUSY)
        self._stalled += 1
        return Stall(MOST_WAIT_SECONDS if self._stalled <= _MOST_STALLED else 0.0, admitted=False)

"""How much one WebSocket may carry: the size of a message, and how many of them a client sends in a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from kernel.measures import Rate

DEFAULT_MESSAGE_BYTES = 1024 * 1024
_NANOSECONDS = 1_000_000_000
# A rate may be a million a day. Room comes back later than it could by at most this part of the window.
_MOST_BURSTS = 1024


@dataclass(slots=True)
class _Burst:
    """What was sent so close together that it leaves the window together."""

    first: int
    last: int
    number: int = 1


class RateWindow:
    """Counts what one sender sends: no window ever holds more than `count`, however many that is in little memory."""

    __slots__ = ("_bursts", "_count", "_grain", "_held", "_window")

    def __init__(self, rate: Rate) -> None:
        self._count, self._window = rate.count, rate.seconds * _NANOSECONDS
        self._grain = self._window // _MOST_BURSTS
        self._bursts: deque[_Burst] = deque()
        self._held = 0

    def admits(self, now_ns: int) -> bool:
        """Count one more at this time of a monotonic clock, or say that it is one too many."""
        bursts = self._bursts
        while bursts and now_ns - bursts[0].last >= self._window:
            self._held -= bursts.popleft().number
        if self._held >= self._count:
            return False
        self._held += 1
        if bursts and now_ns - bursts[-1].first < self._grain:
            bursts[-1].last, bursts[-1].number = now_ns, bursts[-1].number + 1
        else:
            bursts.append(_Burst(now_ns, now_ns))
        return True

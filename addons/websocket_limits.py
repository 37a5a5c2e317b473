"""How much one WebSocket may carry: the size of a message, and how many of them a client sends in a time."""

from __future__ import annotations

from collections import deque

from kernel.measures import Rate

DEFAULT_MESSAGE_BYTES = 1024 * 1024
_NANOSECONDS = 1_000_000_000


class RateWindow:
    """Counts what one sender sends. It remembers at most `count` times, and no window holds more than `count`."""

    __slots__ = ("_count", "_times", "_window")

    def __init__(self, rate: Rate) -> None:
        self._count, self._window = rate.count, rate.seconds * _NANOSECONDS
        self._times: deque[int] = deque()

    def admits(self, now_ns: int) -> bool:
        """Count one more at this time of a monotonic clock, or say that it is one too many."""
        times = self._times
        while times and now_ns - times[0] >= self._window:
            times.popleft()
        if len(times) >= self._count:
            return False
        times.append(now_ns)
        return True

"""The clocks by which a process takes part in a ledger."""

from __future__ import annotations

import time

# It goes on while the machine sleeps.
_PASSING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """What this machine's clocks say."""

    def seconds(self) -> float:
        """For how long something lasts: never goes back, and goes on while the machine sleeps."""
        return time.clock_gettime(_PASSING)

    def micros(self) -> int:
        """The moment, in microseconds since 1970, as far as the machine knows it."""
        return time.time_ns() // 1000

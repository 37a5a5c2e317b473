"""Fairness of the log: an agent whose refusals come too fast gets 429, and one entry a second counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

PER_SECOND = 20
_REMEMBERED = 10_000


@dataclass(slots=True)
class _Second:
    number: int
    refused: int = 0


@dataclass(slots=True)
class Uncounted:
    """Refusals of one source since `start` (wall time, seconds) that stand in no decision entry."""

    start: float
    counts: Counter[str] = field(default_factory=Counter)


class RefusalRate:
    """Counts refusals by source: an agent id, or the address of a client that has no identity."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: dict[str, _Second] = {}
        self._uncounted: dict[str, Uncounted] = {}

    def exceeded(self, source: str, code: str) -> bool:
        """Count one refusal; True when it is over the rate and must be answered 429 instead of being written."""
        now = self._clock()
        second = self._seconds.get(source)
        if second is None or second.number != int(now):
            if len(self._seconds) >= _REMEMBERED:
                self._seconds.clear()
            second = self._seconds[source] = _Second(int(now))
        second.refused += 1
        if second.refused <= PER_SECOND:
            return False
        # As plain text: the log's encoder takes no enum for a key.
        self._uncounted.setdefault(source, Uncounted(now)).counts[str(code)] += 1
        return True

    def drain(self) -> dict[str, Uncounted]:
        """What was counted and not yet written, by source; forgotten here."""
        drained, self._uncounted = self._uncounted, {}
        return drained

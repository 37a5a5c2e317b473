"""Fairness: an agent whose refusals come too fast gets 429 after a wait, and one entry a second counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import uniform
from time import monotonic

PER_SECOND = 20
# Over the rate, so many answers a second go to one source. At a millisecond each they are a few hundredths of a core.
ANSWERS_PER_SECOND = 25
# Well within the deadline of a hook.
MOST_WAIT_SECONDS = 2.0
# Behind its answer a client is not read from for so much longer. Meanwhile nobody would see it leave.
MOST_PAUSE_SECONDS = 5.0
_REMEMBERED = 10_000
_HOUR_SECONDS = 3600


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

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float] = monotonic) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._seconds: dict[tuple[str, str], _Second] = {}
        self._uncounted: dict[str, Uncounted] = {}
        # When a refusal of a quiet rule was last written down, by source and rule.
        self._written: dict[tuple[str, str], float] = {}
        # When the last answer is due that a source over its rate waits for.
        self._due: dict[str, float] = {}

    def exceeded(self, source: str, code: str, stage: str = "") -> bool:
        """Count one refusal; True when it is over the rate and must be answered 429 instead of being written.

        A source has a rate of its own in a `stage` that is named: what it is refused there uses up no other turns.
        """
        now, key = self._clock(), (source, stage)
        second = self._seconds.get(key)
        if second is None or second.number != int(now):
            if len(self._seconds) >= _REMEMBERED:
                self._seconds.clear()
            second = self._seconds[key] = _Second(int(now))
        second.refused += 1
        if second.refused <= PER_SECOND:
            return False
        self.count(source, code)
        return True

    def is_over(self, source: str) -> bool:
        """True while this second's refusals of the source are more than are written."""
        second = self._seconds.get((source, ""))
        return second is not None and second.refused > PER_SECOND and second.number == int(self._clock())

    def is_repeated(self, source: str, rule: str) -> bool:
        """True where this rule has refused this source within the hour, as what is written once an hour asks."""
        now, key = self._clock(), (source, rule)
        written = self._written.get(key)
        if written is not None and written <= now < written + _HOUR_SECONDS:
            return True
        if len(self._written) >= _REMEMBERED:
            self._written.clear()
        self._written[key] = now
        return False

    def count(self, source: str, code: str) -> None:
        """Have one refusal stand in the next count, and nowhere else."""
        # As plain text: the log's encoder takes no enum for a key.
        self._uncounted.setdefault(source, Uncounted(self._clock())).counts[str(code)] += 1

    def wait_seconds(self, source: str, most: float) -> float:
        """How long the next answer to a source over its rate waits for its turn; about `most` where too many wait."""
        now = self._monotonic()
        due = max(now, self._due.get(source, now)) + 1 / ANSWERS_PER_SECOND
        if due - now > most:
            # Not all at the same moment.
            return most * uniform(0.75, 1.0)  # noqa: S311
        if len(self._due) >= _REMEMBERED:
            self._due = {each: at for each, at in self._due.items() if at > now}
        self._due[source] = due
        return due - now

    def drain(self) -> dict[str, Uncounted]:
        """What was counted and not yet written, by source; forgotten here."""
        drained, self._uncounted = self._uncounted, {}
        return drained

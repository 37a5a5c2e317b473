"""Hours of a week in the local time of a place, exact where its clocks are put forward or back.

A moment is a whole number of seconds since 1970 in UTC. Which local time it has is looked up in a table that the caller
brings: a zone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

DAY_SECONDS = 86400
DAY_MINUTES = 1440
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# No window is looked at further ahead than that.
HORIZON_SECONDS = 400 * DAY_SECONDS
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Zone:
    """The local time of a place: from `begins[n]` on it is `offsets[n]` seconds ahead of UTC.

    `begins` is sorted. What is before its first moment has the first offset.
    """

    name: str
    begins: tuple[int, ...]
    offsets: tuple[int, ...]

    def offset(self, at: int) -> int:
        return self.offsets[max(bisect_right(self.begins, at) - 1, 0)]

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The parts of [start, end) within which the offset is the same, each with its offset."""
        while start < end:
            place = bisect_right(self.begins, start)
            stop = min(self.begins[place], end) if place < len(self.begins) else end
            yield start, stop, self.offsets[max(place - 1, 0)]
            start = stop

    def moment(self, day: int, second: int = 0) -> int:
        """When the local clock first shows `second` of a day (a date ordinal) or, where it skips that, a later time."""
        local = (day - _EPOCH) * DAY_SECONDS + second
        spread = range(local - DAY_SECONDS, local + DAY_SECONDS)
        for start, stop, offset in self.pieces(spread.start, spread.stop):
            if local - offset < stop:
                return max(local - offset, start)
        return spread.stop


UTC_ZONE = Zone("UTC", (0,), (0,))


@dataclass(frozen=True, slots=True)
class Zones:
    """Where zones come from: the zone of a name, None for a name that is none, and the names there are."""

    find: Callable[[str], Zone | None]
    names: Callable[[], Iterable[str]]


def _only_utc(name: str) -> Zone | None:
    return UTC_ZONE if name == UTC_ZONE.name else None


ONLY_UTC = Zones(_only_utc, tuple)


@dataclass(frozen=True, slots=True)
class Window:
    """`days` of a week (0 is Monday) between two minutes of the day, but not on the dates `not_on` (ordinals).

    Where `last_minute` is not after `first_minute`, the window ends on the next day; it belongs to the day on which it
    begins. `last_minute` is the first that is outside.
    """

    days: frozenset[int]
    first_minute: int
    last_minute: int
    zone: Zone
    not_on: frozenset[int] = frozenset()

    @property
    def is_whole_day(self) -> bool:
        return (self.first_minute, self.last_minute) == (0, DAY_MINUTES)

    def contains(self, at: int) -> bool:
        day, second = divmod(at + self.zone.offset(at), DAY_SECONDS)
        day += _EPOCH
        first, last = self.first_minute * 60, self.last_minute * 60
        if first < last:
            return first <= second < last and self._opens_on(day)
        return (second >= first and self._opens_on(day)) or (second < last and self._opens_on(day - 1))

    def _opens_on(self, day: int) -> bool:
        return (day - 1) % 7 in self.days and day not in self.not_on

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of [start, end) that are inside, as [begin, stop), in order and none touching the next."""
        waiting: tuple[int, int] | None = None
        for begin, stop in self._parts(start, end):
            if waiting is not None and begin <= waiting[1]:
                waiting = (waiting[0], stop)
                continue
            if waiting is not None:
                yield waiting
            waiting = (begin, stop)
        if waiting is not None:
            yield waiting

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        length = self.last_minute - self.first_minute
        seconds = 60 * (length if length > 0 else length + DAY_MINUTES)
        for begin, stop, offset in self.zone.pieces(start, end):
            first_day = (begin + offset) // DAY_SECONDS - 1
            last_day = (stop + offset - 1) // DAY_SECONDS
            for day in range(first_day, last_day + 1):
                opens = day * DAY_SECONDS + self.first_minute * 60 - offset
                inside = max(opens, begin), min(opens + seconds, stop)
                if inside[0] < inside[1] and self._opens_on(day + _EPOCH):
                    yield inside

    def opens(self, at: int) -> int | None:
        """When the window is next open, `at` itself where it is; None where that is beyond the horizon."""
        return next((begin for begin, _ in self.spans(at, at + HORIZON_SECONDS)), None)

    def changes(self, at: int) -> int:
        """The next moment at which the answer may be another: the end of this span, or the begin of the next."""
        begin, stop = next(self.spans(at, at + HORIZON_SECONDS), (at + HORIZON_SECONDS, 0))
        return stop if begin == at else begin

    def __str__(self) -> str:
        days = ",".join(WEEKDAYS[day] for day in sorted(self.days))
        return f"{days} {clock(self.first_minute)}-{clock(self.last_minute)} {self.zone.name}"


def clock(minute: int) -> str:
    """A minute of the day as clocks show it."""
    return f"{minute // 60:02}:{minute % 60:02}"


def told(at: int) -> str:
    """A moment as people and logs write it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

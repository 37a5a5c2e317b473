"""Time zones as tables, from the data of this machine or of the package `tzdata`, whichever Python finds."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

from kernel.hours import DAY_SECONDS, Zone, Zones

# A zone changes its clocks at least a day apart.
_STEP_SECONDS = DAY_SECONDS
_END = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())


@cache
def find(name: str) -> Zone | None:
    """The zone of a name of the tz database; None where there is none."""
    try:
        zone = zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
    changes = [(0, _offset(zone, 0)), *_changes(zone)]
    return Zone(name, tuple(at for at, _ in changes), tuple(offset for _, offset in changes))


def _changes(zone: zoneinfo.ZoneInfo) -> Iterator[tuple[int, int]]:
    """The moments from which on the zone has another offset, each with that offset."""
    before, offset = 0, _offset(zone, 0)
    for at in range(_STEP_SECONDS, _END, _STEP_SECONDS):
        if _offset(zone, at) != offset:
            low, high = before, at
            while high - low > 1:
                middle = (low + high) // 2
                if _offset(zone, middle) == offset:
                    low = middle
                else:
                    high = middle
            offset = _offset(zone, high)
            yield high, offset
        before = at


def _offset(zone: zoneinfo.ZoneInfo, at: int) -> int:
    ahead = datetime.fromtimestamp(at, zone).utcoffset()
    assert ahead is not None
    return ahead.days * DAY_SECONDS + ahead.seconds


ZONES = Zones(find, zoneinfo.available_timezones)

"""A lane walked in parts, each by itself, and put together where each begins as the one before it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from kernel.errors import ChainError
from kernel.lease_numbers import LeaseNumbers
from kernel.report import Anchored, KeyRange
from kernel.walk import Found


def joined(parts: Sequence[Found]) -> Found | None:
    """What one walk over all of them would have found. None where something does not hold: that walk says what."""
    if any(part.broken is not None for part in parts):
        return None
    if any(before.end != after.begin for before, after in pairwise(parts)):
        return None
    leases = _leases(parts)
    if leases is None:
        return None
    first, last = parts[0], parts[-1]
    lane = replace(last.lane, entries=last.end.size - first.begin.size, first=first.begin.size)
    return replace(
        last,
        lane=lane,
        segments=sum(part.segments for part in parts),
        has_genesis=first.has_genesis,
        first_ts=first.first_ts,
        begin=first.begin,
        anchored=_anchored(parts),
        checkpoints=sum(part.checkpoints for part in parts),
        keys=_ranges(parts),
        leases=leases,
    )


def _leases(parts: Sequence[Found]) -> LeaseNumbers | None:
    leases = LeaseNumbers()
    try:
        twice = [leases.add(part.leases) for part in parts]
    except ChainError:
        return None
    return leases if not any(twice) else None


def _anchored(parts: Sequence[Found]) -> Anchored | None:
    return max((part.anchored for part in parts if part.anchored), key=lambda anchored: anchored.entries, default=None)


def _ranges(parts: Sequence[Found]) -> list[KeyRange]:
    ranges: list[KeyRange] = []
    for each in (key for part in parts for key in part.keys):
        if ranges and ranges[-1].kid == each.kid:
            ranges[-1] = replace(ranges[-1], last=each.last)
        else:
            ranges.append(each)
    return ranges

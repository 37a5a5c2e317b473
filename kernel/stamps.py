"""Timestamps of the log, checked as they pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

_TIMESTAMP = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_SECOND = slice(20)


class Stamps:
    """The timestamps of one lane: the first and the last that were taken, None before."""

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
        self._first = self._last = b""

    @property
    def first(self) -> str | None:
        return self._first.decode() or None

    @property
    def last(self) -> str | None:
        return self._last.decode() or None

    def take(self, stamp: bytes) -> bool:
        """Whether `stamp` is a timestamp; remembered when it is."""
        if not _is_timestamp(stamp):
            return False
        self._first, self._last = self._first or stamp, stamp
        return True

    def take_all(self, stamps: Sequence[bytes]) -> bool:
        """Whether all are timestamps, remembered when they are; each is known to end in a point, six digits and Z."""
        if not all(_is_timestamp(second + b"000000Z") for second in {stamp[_SECOND] for stamp in stamps}):
            return False
        self._first, self._last = self._first or stamps[0], stamps[-1]
        return True


def _is_timestamp(stamp: bytes) -> bool:
    if not _TIMESTAMP.fullmatch(stamp):
        return False
    try:
        datetime.fromisoformat(stamp.decode())
    except ValueError:
        return False
    return True

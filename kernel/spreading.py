"""The preventive acts that had to follow from the halts of a lane, held against those that its entries tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kernel.entry import Body

type Found = tuple[str, Any, Any]
"""Field, recorded, computed."""

NONE_FOLLOWS = "none follows from a halt here"


class Spreading:
    """One lane, or a part of it. Acts whose cause lies before the part, or in another process, are taken as given.

    Acts are written in one go with the halt. Where a process ended in the midst of that, the next start says so, and
    what was not written did not happen.
    """

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._first: int | None = None
        self._due: list[list[Body]] = []
        self._untold: str | None = None

    def begin_with(self, seq: int) -> None:
        """Note the first entry of the part."""
        if self._first is None:
            self._first = seq

    def halted(self, ways: Sequence[list[Body]]) -> None:
        """These acts follow now, in this order; in one of several ways where the log does not say which."""
        self._due = list(ways)

    def untold(self, cause: str) -> None:
        """What follows from this halt cannot be said: its acts are taken as given."""
        self._due, self._untold = [], cause

    def acted(self, entry: Mapping[str, Any]) -> Found | None:
        """Compare an act with the next that follows."""
        told = {name: entry[name] for name in _FIELDS}
        kept = [way[1:] for way in self._due if way and way[0] == {"type": "preventive", **told}]
        if kept:
            self._due = kept
            return None
        if "heard" in entry or self._is_given(entry["cause"]):
            return None
        way = next((way for way in self._due if way), None)
        self._due = []
        return "preventive", told, NONE_FOLLOWS if way is None else way[0]

    def _is_given(self, cause: str) -> bool:
        lane, _, number = cause.rpartition("/")
        return cause == self._untold or lane != self._lane or (self._first is not None and int(number) < self._first)

    def missing(self) -> Found | None:
        """The first act that had to follow and did not."""
        found = min(self._due, key=len, default=[])
        self._due = []
        return ("preventive", None, found[0]) if found else None

    def started(self) -> None:
        """A process began: what an earlier one had not written did not happen."""
        self._due = []


_FIELDS = ("agent", "do", "until", "origin", "path", "hop", "cause", "by", "degraded")

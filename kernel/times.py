"""`when` and `expires`, from text to a window and a moment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime

from kernel.document import Node, Reader, Scalar, did_you_mean, quote
from kernel.errors import PatternError
from kernel.hours import DAY_MINUTES, UTC_ZONE, WEEKDAYS, Window, Zone, Zones
from kernel.vocabulary import WHEN

_HOURS = re.compile(r"([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1970, 2100
_ALL_DAYS = frozenset(range(7))


@dataclass(frozen=True, slots=True)
class TimeReader:
    """Reads what one document says of time. `now` tells what has expired."""

    reader: Reader
    zones: Zones
    now: int

    def when(self, node: Node) -> Window | None:
        """The window of a `when:`; None where it has a finding."""
        before = len(self.reader.findings)
        found = self.reader.mapping(node, WHEN)
        if found is None:
            return None
        if not found.keys() & {"days", "hours", "not-on"}:
            hint = "say days:, hours: or not-on:"
            self.reader.error("E104", node, '"when:" without days, hours or dates is every time', hint)
        zone = self.zone(found["timezone"]) if "timezone" in found else None
        if "timezone" not in found:
            hint = "timezone: Europe/Berlin, or timezone: UTC"
            self.reader.error("E104", node, '"when:" needs "timezone:"', hint)
        days = self._days(found["days"]) if "days" in found else _ALL_DAYS
        first, last = self._hours(found["hours"]) if "hours" in found else (0, DAY_MINUTES)
        not_on = self._dates(found["not-on"]) if "not-on" in found else frozenset[int]()
        if zone is None or len(self.reader.findings) > before:
            return None
        return Window(days, first, last, zone, not_on)

    def expires(self, node: Node, zone: Zone | None) -> int | None:
        """The first moment at which what `expires:` stands beside no longer holds."""
        text = self.reader.text(node, "expires")
        if text is None or not isinstance(node, Scalar):
            return None
        moment = self.reader.parsed("E212", node, lambda text: _moment(text, zone or UTC_ZONE))
        if moment is not None and moment <= self.now:
            hint = "take it out, or write a later date"
            self.reader.warn("W306", node, f"this expired: it has no effect since {text}", hint)
        return moment

    def until(self, node: Node) -> int | None:
        """The end of a trial, in UTC."""
        text = self.reader.text(node, "until")
        if text is None or not isinstance(node, Scalar):
            return None
        moment = self.reader.parsed("E212", node, lambda text: _moment(text, UTC_ZONE))
        if moment is not None and moment <= self.now:
            hint = "take mode: and until: out, or write a later date"
            self.reader.warn("W306", node, f"the trial is over: this policy enforces since {text}", hint)
        return moment

    def zone(self, node: Node) -> Zone | None:
        """The zone of a `timezone:`; None where it has a finding."""
        name = self.reader.text(node, "timezone")
        if name is None:
            return None
        zone = self.zones.find(name)
        if zone is not None:
            return zone
        names = frozenset(self.zones.names())
        if names:
            hint = did_you_mean(name, _near(name, names)) or "write one of the tz database, such as Europe/Berlin"
            self.reader.error("E213", node, f"{quote(name)} is not a time zone", hint)
        else:
            hint = "install the system's tzdata, or the Python package of that name; timezone: UTC needs neither"
            self.reader.error("E213", node, "this machine has no time zone data", hint)
        return None

    def _days(self, node: Node) -> frozenset[int]:
        words = self.reader.words(node, "days")
        days = [self.reader.parsed("E214", word, _days_of) for word in words]
        return frozenset(day for each in days if each is not None for day in each)

    def _hours(self, node: Node) -> tuple[int, int]:
        text = self.reader.text(node, "hours")
        if text is None or not isinstance(node, Scalar):
            return 0, DAY_MINUTES
        return self.reader.parsed("E215", node, _hours_of) or (0, DAY_MINUTES)

    def _dates(self, node: Node) -> frozenset[int]:
        dates = [self.reader.parsed("E212", word, _date) for word in self.reader.words(node, "not-on")]
        return frozenset(each.toordinal() for each in dates if each is not None)


def moment(text: str) -> int:
    """The second of an RFC 3339 time, or `PatternError`."""
    if not _MOMENT.fullmatch(text):
        raise PatternError(f"{quote(text)} is not a time", "write 2026-12-31T18:00:00Z or 2026-12-31T18:00:00+01:00")
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError as fault:
        raise PatternError(f"{quote(text)} is not a time: {fault}") from None
    _check_year(text, found.year)
    return -int(-found.timestamp() // 1)


def _moment(text: str, zone: Zone) -> int:
    if _DATE.fullmatch(text):
        return zone.moment(_date(text).toordinal() + 1)
    return moment(text)


def _date(text: str) -> date:
    try:
        found = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        found = None
    if found is None:
        raise PatternError(f"{quote(text)} is not a date", "write 2026-12-31")
    _check_year(text, found.year)
    return found


def _check_year(text: str, year: int) -> None:
    if not _FIRST_YEAR <= year < _LAST_YEAR:
        raise PatternError(f"{quote(text)} is not between {_FIRST_YEAR} and {_LAST_YEAR}")


def _days_of(text: str) -> frozenset[int]:
    first, dash, last = text.partition("-")
    for word in (first, last) if dash else (first,):
        if word not in WEEKDAYS:
            hint = f"write {word[:3].lower()}" if word[:3].lower() in WEEKDAYS else f"write {', '.join(WEEKDAYS)}"
            raise PatternError(f"{quote(word)} is not a day", hint)
    begin = WEEKDAYS.index(first)
    length = (WEEKDAYS.index(last) - begin) % 7 if dash else 0
    return frozenset((begin + step) % 7 for step in range(length + 1))


def _hours_of(text: str) -> tuple[int, int]:
    parts = _HOURS.fullmatch(text)
    hint = 'write "08:00-18:00", or "22:00-06:00" for a night'
    if parts is None:
        raise PatternError(f"{quote(text)} is not a span of hours", hint)
    first, last = int(parts[1]) * 60 + int(parts[2]), int(parts[3]) * 60 + int(parts[4])
    if first >= DAY_MINUTES or last > DAY_MINUTES:
        raise PatternError(f"{quote(text)}: a day goes from 00:00 to 24:00", hint)
    if first == last:
        raise PatternError(f"{quote(text)} begins and ends at the same time", "leave hours out to mean the whole day")
    return first, last


def _near(name: str, names: frozenset[str]) -> frozenset[str]:
    """Those of the names that could be meant: of the same area, or of the same city."""
    area, _, city = name.lower().rpartition("/")
    near = {each for each in names if each.lower().startswith(f"{area}/") or each.lower().endswith(f"/{city}")}
    return frozenset(near) if area and near else names

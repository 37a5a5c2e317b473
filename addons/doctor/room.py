"""The home: there, whole, pinned; and for how long the disk has room for its log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from addons import pins
from addons.doctor.check import Check, State
from addons.errors import StartRefused
from addons.home import Home, Paths
from addons.segment import segment_names

DAY = timedelta(days=1)
_SHORT_DAYS, _LAST_DAYS = 14, 1
_LEAST_BYTES = 2**30
# Over less than this a rate says more about how the log begins than about how it grows.
_LEAST_TIME = timedelta(minutes=10)
_UNITS = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "KB"))


def checks(paths: Paths, now: datetime) -> Iterator[Check]:
    """The home, then its disk."""
    try:
        if not any(paths.folder.iterdir()):
            raise FileNotFoundError
    except FileNotFoundError:
        yield Check(
            "home", State.WARN, f"there is no home at {paths.folder} yet", f"governor init --home {paths.folder}")
        return
    except PermissionError:
        yield Check(
            "home", State.FAIL, f"{paths.folder} belongs to another user",
            "run governor doctor as the user that Governor runs as")
        return
    yield from _whole(paths)
    yield _room(paths, now)


def _whole(paths: Paths) -> Iterator[Check]:
    if paths.fresh.exists():
        yield Check("home", State.WARN, f"home {paths.folder} is made, and its log has not begun", "governor serve")
        return
    try:
        home = Home.open(paths.folder)
    except StartRefused as refused:
        yield Check("home", State.FAIL, f"{refused.code}: {refused.text}", "a start would be refused")
        return
    mode = paths.folder.stat().st_mode & 0o777
    if pins.read(home.log_id) is None:
        yield Check(
            "home", State.WARN, f"home {paths.folder} (0{mode:o}); its log is not pinned for this user",
            "bring the pin from where the home was made: governor init prints it")
    else:
        yield Check("home", State.OK, f"home {paths.folder} (0{mode:o}), whole and pinned")


def _room(paths: Paths, now: datetime) -> Check:
    free = shutil.disk_usage(paths.audit if paths.audit.exists() else paths.folder).free
    grows = daily_bytes(paths.lanes, now)
    told = f"{size(free)} free"
    if grows is None:
        state = State.OK if free >= _LEAST_BYTES else State.WARN
        return Check("disk", state, told, "" if state is State.OK else _MORE_ROOM)
    days = free // max(1, grows)
    told += f": {'years' if days > 3650 else f'{days} days'} at today's {size(grows)} a day"
    state = State.FAIL if days < _LAST_DAYS else State.WARN if days < _SHORT_DAYS or free < _LEAST_BYTES else State.OK
    return Check("disk", state, told, "" if state is State.OK else _MORE_ROOM)


_MORE_ROOM = "move old segments to a bucket (addons/anchors/README.md, segments:), or give the home a larger disk"


@dataclass(frozen=True, slots=True)
class _Span:
    """When a segment was written, and how much of it there is."""

    begin: datetime
    end: datetime
    size_bytes: int

    def within(self, since: datetime) -> float:
        """As many of its bytes as fall behind that moment, if they came evenly."""
        whole = (self.end - self.begin).total_seconds()
        part = (self.end - max(self.begin, since)).total_seconds()
        return self.size_bytes if whole <= 0 else self.size_bytes * max(0.0, min(1.0, part / whole))


def daily_bytes(lanes: Path, now: datetime) -> int | None:
    """By how much the log grew in the last day; None where it has not been written for long enough to say."""
    spans = [span for lane in (lanes.iterdir() if lanes.is_dir() else ()) for span in _spans(lane)]
    recent = [span for span in spans if span.end > now - DAY]
    if not recent:
        return None
    begun = max(min(span.begin for span in spans), now - DAY)
    if now - begun < _LEAST_TIME:
        return None
    return int(sum(span.within(now - DAY) for span in recent) * (DAY / (now - begun)))


def _spans(lane: Path) -> Iterator[_Span]:
    for name in segment_names(lane):
        path = lane / name
        status = path.stat()
        with path.open("rb") as file:
            begin = _moment(file.readline())
        if begin is not None:
            yield _Span(begin, datetime.fromtimestamp(status.st_mtime, UTC), status.st_size)


def _moment(line: bytes) -> datetime | None:
    """When the entry of a line was written."""
    try:
        return datetime.fromisoformat(json.loads(line)["e"]["ts"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return None


def size(number: int) -> str:
    """A number of bytes as people say it."""
    for unit, name in _UNITS:
        if number >= unit:
            return f"{number / unit:.0f} {name}" if number >= 10 * unit else f"{number / unit:.1f} {name}"
    return f"{number} bytes"

"""A quick look at the log: does it reach its last signed head, and does it end before now. `audit verify` does more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from addons.doctor.check import Check, State
from addons.home import Paths
from addons.segment import segment_names
from kernel import note, trust
from kernel.errors import KernelError

_TAIL_BYTES = 1 << 20
_AHEAD = timedelta(minutes=1)


def checks(paths: Paths, now: datetime) -> Iterator[Check]:
    """One line for the log, and one for the clock where it is behind the log."""
    last = {lane: _last_entry(paths.lane(lane)) for lane in _lanes(paths)}
    if not last:
        return
    yield _reaches(paths, last)
    latest = max((moment for entry in last.values() if entry and (moment := _moment(entry))), default=None)
    if latest is not None and latest > now + _AHEAD:
        behind = int((latest - now).total_seconds())
        yield Check(
            "clock", State.FAIL, f"the clock is {behind} s behind the last entry of the log",
            "set it right, then: governor clock accept --reason ... --operator ...")
    else:
        yield Check("clock", State.OK, f"the clock is not behind the log ({now:%Y-%m-%d %H:%M:%S} UTC)")


def _reaches(paths: Paths, last: dict[str, dict[str, Any] | None]) -> Check:
    """Whether each lane has what its newest head covers."""
    verify = f"governor audit verify {paths.folder}"
    try:
        heads = trust.parse_minimum_file(paths.minimum.read_bytes()).notes
        sizes = {lane: note.stated_checkpoint(head).size for lane, head in heads.items()}
    except FileNotFoundError:
        sizes = {}
    except KernelError as fault:
        return Check("log", State.FAIL, f"{paths.minimum} cannot be read: {fault}", verify)
    short = [
        f"{lane} ends at {_length(last.get(lane))} of {size}"
        for lane, size in sizes.items()
        if _length(last.get(lane)) < size
    ]
    if short:
        return Check("log", State.FAIL, f"the log is shorter than its signed head: {', '.join(short)}", verify)
    entries = sum(_length(entry) for entry in last.values())
    return Check(
        "log", State.OK,
        f"log of {entries:,} entries in {len(last)} lanes reaches its signed heads; {verify} checks it all")


def _length(entry: dict[str, Any] | None) -> int:
    seq = entry.get("seq") if entry else None
    return seq + 1 if isinstance(seq, int) else 0


def _lanes(paths: Paths) -> tuple[str, ...]:
    try:
        return tuple(sorted(name for name in os.listdir(paths.lanes) if segment_names(paths.lane(name))))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _last_entry(lane: Path) -> dict[str, Any] | None:
    """The last whole entry; None where the newest segment has none."""
    path = lane / segment_names(lane)[-1]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    for line in reversed(lines[:-1]):
        try:
            entry = json.loads(line)["e"]
        except (ValueError, KeyError, TypeError):
            continue
        return entry if isinstance(entry, dict) else None
    return None


def _moment(entry: dict[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(entry["ts"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return None

"""What of a log goes into a bundle: whole segments that overlap a period, and all that is needed to verify them.

A segment overlaps by the times of its first and last entry; a lane's segments are taken from the first to the last that
does, without a gap, and on a side on which the period is open from its first or to its last one. All sizes are taken at
one moment: a writer may be at work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from addons import audit_log, codec
from addons.audit_log import KEYS, TRUST, AuditLog, AuditLogError, lines, open_regular
from addons.bundle_tar import is_member_name
from addons.key_lines import key_lines
from addons.replay_parts import marked_lines
from addons.segment import segment_names
from kernel import chain
from kernel.errors import CanonicalError, ChainError, NoteError
from kernel.manifest import Part, Period
from kernel.marks import CHECKPOINTS, MINIMUM
from kernel.note import split_notes, stated_checkpoint
from kernel.replay import LOADS

_CHUNK = 2**20
# Found by their bytes, which no text inside a string can have: there every quote has a backslash before it.
_POLICY = re.compile(rb'"policy":"([0-9a-f]{64})"')
_STATE = re.compile(rb'"digest":"([0-9a-f]{64})"[^{}]*"type":"state_snapshot"')
_CARRIED = re.compile(rb'"result":"[a-z_]+","state":"([0-9a-f]{64})"\}')
"""The end of what a lane_open says of a lost lane."""

type Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a bundle: `size` bytes of the file at `path` from `start` on, or these bytes.

    One that is `passing` may be gone by the time it is read, and is left out then.
    """

    name: str
    size: int
    path: Path | None = None
    start: int = 0
    content: bytes = b""
    passing: bool = False

    @classmethod
    def of(cls, name: str, content: bytes) -> Member:
        return cls(name, len(content), content=content)

    @classmethod
    def whole(cls, name: str, path: Path) -> Member:
        """The file as it is now."""
        with open_regular(path) as file:
            return cls(name, os.fstat(file.fileno()).st_size, path)

    def chunks(self) -> Iterator[bytes]:
        """The content; `AuditLogError` where the file has become shorter."""
        if self.path is None:
            yield self.content
            return
        left = self.size
        with open_regular(self.path) as file:
            file.seek(self.start)
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise AuditLogError(f"{self.path}: it became shorter while it was read")
                left -= len(chunk)
                yield chunk


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as far as its last whole line. `first` and `last` are its entries there, None where they are none."""

    path: Path
    size: int
    first: Entry | None
    last: Entry | None

    @property
    def number(self) -> int:
        return int(self.path.stem)

    def overlaps(self, period: Period) -> bool:
        """Whether the period may hold an entry of it. What cannot be read is never left out."""
        first, last = _ts(self.first), _ts(self.last)
        return ((period.start is None or last is None or last >= period.start)
                and (period.end is None or first is None or first < period.end))


@dataclass(frozen=True, slots=True)
class Lane:
    """What of a lane is taken."""

    name: str
    segments: Sequence[Segment]
    part: Part
    members: Sequence[Member]


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of a bundle, but for those that say what it is."""

    members: Sequence[Member] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    covered: Period = field(default_factory=Period)


def select(log: AuditLog, period: Period, always: Sequence[str] = ()) -> Selection:
    """What of the log tells of the period. The keys of the lanes in `always` are taken, whatever else is."""
    beside = [Member.whole(f"audit/{TRUST}", log.audit / TRUST)]
    if log.minimum.is_file():
        beside.append(Member.of(MINIMUM, b"".join(Member.whole(MINIMUM, log.minimum).chunks())))
    lanes = [lane for lane in _lanes(log, period) if lane.segments]
    here = {lane.name for lane in lanes}
    beside += [keys(log, name) for name in always if name not in here]
    of_lanes = [member for lane in lanes for member in lane.members]
    return Selection([*beside, *of_lanes, *_named(log, lanes), *_receipts(log.audit / "receipts")],
                     {lane.name: lane.part for lane in lanes}, _covered(lanes))


def _lanes(log: AuditLog, period: Period) -> list[Lane]:
    # What a lane_open says of another lane was there before it was written: of the lanes that have begun by now the
    # sizes are taken only now. Checkpoints come before both, as they are written after what they cover.
    names = log.lanes()
    checkpoints = {name: _size(log.lane(name) / CHECKPOINTS) for name in names}
    begun = [name for name in names if any(_size(path) for path in _paths(log, name))]
    segments = {name: [_segment(path) for path in _paths(log, name)] for name in begun}
    return [_lane(log, name, segments[name], checkpoints[name], period) for name in begun]


def _paths(log: AuditLog, lane: str) -> list[Path]:
    folder = log.lane(lane)
    return [folder / name for name in segment_names(folder)]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _segment(path: Path) -> Segment:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = _entry(file.readline(chain.MAX_LINE_BYTES))
        start = max(0, size - 2 * chain.MAX_LINE_BYTES)
        file.seek(start)
        tail = file.read(size - start)
    end = tail.rfind(b"\n") + 1
    if not end:
        # Nothing here is a line; the verifier says so of all of it.
        return Segment(path, size, first, None)
    return Segment(path, start + end, first, _entry(tail[tail.rfind(b"\n", 0, end - 1) + 1 : end]))


def _entry(line: bytes) -> Entry | None:
    try:
        entry: Any = codec.read(chain.split_text(line)[0])
    except (ChainError, CanonicalError):
        return None
    return entry if isinstance(entry, dict) else None


def _ts(entry: Entry | None) -> str | None:
    ts = entry.get("ts") if entry else None
    return ts if isinstance(ts, str) else None


def _lane(log: AuditLog, name: str, segments: Sequence[Segment], checkpoint_bytes: int, period: Period) -> Lane:
    chosen = [number for number, segment in enumerate(segments) if segment.overlaps(period)]
    if not chosen:
        return Lane(name, (), Part(), ())
    # The clock may have been set: where the period is open, the lane goes on to that side, whatever its times say.
    begin = 0 if period.start is None else chosen[0]
    end = len(segments) if period.end is None else chosen[-1] + 1
    taken, following = segments[begin:end], segments[end:]
    part = Part(taken[0].number, _seq(following[0].first) if following else None)
    folder, where = log.lane(name), f"audit/lanes/{name}"
    members = [Member(f"{where}/{segment.path.name}", segment.size, segment.path) for segment in taken]
    if checkpoint_bytes:
        members.append(_checkpoints(f"{where}/{CHECKPOINTS}", folder / CHECKPOINTS, checkpoint_bytes,
                                    _seq(taken[0].first) or 0, part.end))
    if part.first:
        before = [segment.path for segment in segments[:begin]]
        loads = b"".join(line for path in before for line in marked_lines(path, sorted(LOADS)))
        members.append(Member.of(f"{where}/{audit_log.LOADS}", loads))
    return Lane(name, taken, part, [*members, keys(log, name)])


def _seq(entry: Entry | None) -> int | None:
    seq = entry.get("seq") if entry else None
    return seq if isinstance(seq, int) and seq > 0 else None


def _checkpoints(name: str, path: Path, size: int, first: int, end: int | None) -> Member:
    """The checkpoints of more than `first` and of at most `end` entries; all of them where they cannot be read."""
    start, stop = (0, size) if first == 0 else (None, size)
    if first or end is not None:
        try:
            with open_regular(path) as file:
                for note in split_notes(_limited(file, size)):
                    entries = stated_checkpoint(note.text).size
                    if start is None and entries > first:
                        start = note.offset
                    if end is not None and entries > end:
                        stop = note.offset or 0
                        break
        except NoteError:
            start, stop = 0, size
    start = stop if start is None else start
    return Member(name, max(0, stop - start), path, start)


def _limited(file: Any, size: int) -> Iterator[bytes]:
    for line in lines(file):
        size -= len(line)
        if size < 0:
            return
        yield line


def keys(log: AuditLog, lane: str) -> Member:
    """The lines that brought the keys of a lane."""
    return Member.of(f"audit/lanes/{lane}/{KEYS}", b"".join(key_lines(_paths(log, lane))))


def _named(log: AuditLog, lanes: Sequence[Lane]) -> list[Member]:
    """The policies and states that entries name by their digest, of those that were kept: a writer keeps few states."""
    policies, states = set[bytes](), set[bytes]()
    for segment in (segment for lane in lanes for segment in lane.segments):
        with open_regular(segment.path) as file:
            for line in _limited(file, segment.size):
                policies.update(_POLICY.findall(line))
                states.update(_STATE.findall(line), _CARRIED.findall(line))
    kept = [*(log.policies / f"{digest.decode()}.yaml" for digest in sorted(policies)),
            *(log.states / f"{digest.decode()}.json" for digest in sorted(states))]
    members = []
    for path in filter(Path.is_file, kept):
        with suppress(FileNotFoundError):
            members.append(replace(Member.whole(f"audit/{path.parent.name}/{path.name}", path), passing=True))
    return members


def _receipts(folder: Path) -> list[Member]:
    """What anchors have answered. A name that begins with a dot is a file that is being written."""
    if not folder.is_dir():
        return []
    found = [Member.whole(f"audit/receipts/{path.relative_to(folder).as_posix()}", path)
             for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    for member in found:
        if not is_member_name(member.name):
            raise AuditLogError(f"{member.path}: no name that a bundle can hold (letters, digits, `.`, `_`, `-`)")
    return found


def _covered(lanes: Sequence[Lane]) -> Period:
    """The times of the first and the last entry that are there."""
    firsts = [ts for lane in lanes if (ts := _ts(lane.segments[0].first)) is not None]
    lasts = [ts for lane in lanes if (ts := _ts(lane.segments[-1].last)) is not None]
    return Period(min(firsts, default=None), max(lasts, default=None))

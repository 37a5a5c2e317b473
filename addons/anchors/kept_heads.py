"""Heads of a log that somebody else keeps, as a verification asks for them: of a file of notes or of a bucket."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from addons.anchors.note_file import NoteFile
from addons.anchors.protocol import AnchorError
from addons.audit_log import AuditLogError, verify_signature
from kernel.cosignature import WitnessKey, cosignatures, parse_witness_key
from kernel.errors import NoteError
from kernel.marks import SIGHTING, Held, Sighted
from kernel.note import opened, parse_checkpoint
from kernel.trust import is_lane

# Of each lane as they were signed; of all others the size and the first bytes of the root are compared.
MOST_NOTES = 64
ROOT_BYTES = 8
MOST_ALARMS = 5
S3 = "s3://"


class Head(NamedTuple):
    """A head that is kept: the first bytes of its root, and its note where that was looked at."""

    lane: str
    size: int
    root: bytes
    note: str | None


@dataclass(frozen=True, slots=True)
class Keeper:
    """Somebody who keeps heads: `heads` gives those of a log, by its origin, and may end in `AnchorError`."""

    by: str
    heads: Callable[[str], Iterable[Head]]


@dataclass(slots=True)
class Kept:
    """What keepers hold of a log: the heads of each lane, what is wrong with them, and who holds none."""

    held: dict[str, list[Held | Sighted]] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def keeper(target: str) -> Keeper:
    """Who keeps heads at `target`, a file or s3://BUCKET/PREFIX; `AuditLogError` where there is nothing like that."""
    if target.startswith(S3):
        return Keeper(target, lambda origin: _in_bucket(target, origin))
    path = Path(target)
    if not path.is_file():
        raise AuditLogError(f"{target}: no such file of heads")
    return Keeper(target, lambda origin: _of_log(target, NoteFile(path).notes(), origin))


def witness(key: str, receipts: Path) -> Keeper:
    """What a witness has cosigned of a log and the log keeps itself; `AuditLogError` where the key is none."""
    try:
        trusted = parse_witness_key(key)
    except NoteError as problem:
        raise AuditLogError(f"--witness {key}: {problem}") from None
    return Keeper(f"witness {trusted.name}", lambda origin: _of_log(trusted.name, _cosigned(trusted, receipts), origin))


def kept(keepers: Sequence[Keeper], origin: str, sent: Mapping[str, int] = MappingProxyType({})) -> Kept:
    """The heads that they keep of one log, of lanes in `sent` those up to that size.

    `AuditLogError` where one cannot be asked.
    """
    found = Kept()
    for each in keepers:
        lanes: dict[str, _Lane] = {}
        try:
            for head in each.heads(origin):
                lane = lanes.setdefault(head.lane, _Lane())
                if head.size <= sent.get(head.lane, head.size):
                    lane.take(head)
        except AnchorError as problem:
            if not lanes:
                raise AuditLogError(str(problem)) from None
            found.alarms.append(str(problem))
        for name, lane in lanes.items():
            found.held.setdefault(name, []).extend(lane.held(each.by))
        if not lanes:
            found.silent.append(each.by)
    return found


class _Lane:
    """The heads that somebody keeps of a lane, in bounded memory: of each 16 bytes, and the newest as they are."""

    def __init__(self) -> None:
        self._records: set[bytes] = set()
        self._newest: list[tuple[int, str]] = []

    def take(self, head: Head) -> None:
        record = SIGHTING.pack(head.size, head.root[:ROOT_BYTES])
        if record in self._records:
            return
        self._records.add(record)
        if head.note is not None:
            heapq.heappush(self._newest, (head.size, head.note))
            if len(self._newest) > MOST_NOTES:
                heapq.heappop(self._newest)

    def held(self, by: str) -> Iterator[Held | Sighted]:
        yield Sighted(b"".join(sorted(self._records)), by)
        yield from (Held(note, by, anchor=True) for _, note in self._newest)


def _of_log(by: str, notes: Iterable[str], origin: str) -> Iterator[Head]:
    """The heads of one log; those of others are passed over."""
    for note in notes:
        log, _, lane = note.partition("\n")[0].rpartition("/")
        if log != origin or not is_lane(lane):
            continue
        try:
            head = parse_checkpoint(opened(note)[0])
        except NoteError as fault:
            raise AnchorError(f"{by}: a head of lane {lane}: {fault}") from None
        yield Head(lane, head.size, head.root, note)


def _cosigned(trusted: WitnessKey, receipts: Path) -> Iterator[str]:
    for path in sorted(receipts.glob(f"{trusted.kid}-*.note")):
        for note in NoteFile(path).notes():
            try:
                if cosignatures(note, [trusted], verify_signature):
                    yield note
            except NoteError as problem:
                raise AnchorError(f"{path.name}: {problem}") from None


def _in_bucket(target: str, origin: str) -> Iterator[Head]:
    """The newest heads of each lane read, the others by their keys, which were given for good with them."""
    from datetime import timedelta

    from addons.anchors.bucket import Bucket, Location
    from addons.anchors.s3 import S3Anchor

    try:
        location = Location.parse(target)
    except ValueError as problem:
        raise AuditLogError(str(problem)) from None
    anchor = S3Anchor(Bucket(location), origin, timedelta())
    holdings = anchor.holdings()
    for lane, heads in holdings.heads.items():
        for at, held in enumerate(heads):
            if at < MOST_NOTES:
                yield from _of_log(target, [anchor.note(held)], origin)
            else:
                yield Head(lane, held.size, held.root, None)
    if holdings.alarms:
        raise AnchorError(f"{target}: {'; '.join(holdings.alarms[:MOST_ALARMS])}")

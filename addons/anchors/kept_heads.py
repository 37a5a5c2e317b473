"""Heads of a log that somebody else keeps, as a verification asks for them: of a file of notes or of a bucket."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from addons.anchors.note_file import NoteFile
from addons.anchors.protocol import AnchorError
from addons.audit_log import AuditLogError, verify_signature
from kernel.cosignature import WitnessKey, cosignatures, parse_witness_key
from kernel.errors import NoteError
from kernel.marks import Held
from kernel.note import opened, parse_checkpoint
from kernel.trust import is_lane

# Of each lane; older ones say nothing that these do not, but for a log that was forked between them.
MOST_HEADS = 4096
S3 = "s3://"


@dataclass(frozen=True, slots=True)
class Keeper:
    """Somebody who keeps heads: `notes` gives those of a log, by its origin, and may end in `AnchorError`."""

    by: str
    notes: Callable[[str], Iterable[str]]


@dataclass(slots=True)
class Kept:
    """What keepers hold of a log: the newest heads of each lane, what is wrong with them, and who holds none."""

    held: dict[str, list[Held]] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def keeper(target: str) -> Keeper:
    """Who keeps heads at `target`, a file or s3://BUCKET/PREFIX; `AuditLogError` where there is nothing like that."""
    if target.startswith(S3):
        return Keeper(target, lambda origin: _in_bucket(target, origin))
    path = Path(target)
    if not path.is_file():
        raise AuditLogError(f"{target}: no such file of heads")
    return Keeper(target, lambda origin: NoteFile(path).notes())


def witness(key: str, receipts: Path) -> Keeper:
    """What a witness has cosigned of a log and the log keeps itself; `AuditLogError` where the key is none."""
    try:
        trusted = parse_witness_key(key)
    except NoteError as problem:
        raise AuditLogError(f"--witness {key}: {problem}") from None
    return Keeper(f"witness {trusted.name}", lambda origin: _cosigned(trusted, receipts))


def kept(keepers: Sequence[Keeper], origin: str, sent: Mapping[str, int] = MappingProxyType({})) -> Kept:
    """The heads that they keep of one log, of lanes in `sent` those up to that size.

    `AuditLogError` where one cannot be asked.
    """
    found = Kept()
    for each in keepers:
        newest: dict[str, list[tuple[int, str]]] = {}
        try:
            for lane, size, note in _of_log(each, origin):
                heap = newest.setdefault(lane, [])
                if size > sent.get(lane, size):
                    continue
                if len(heap) < MOST_HEADS:
                    heapq.heappush(heap, (size, note))
                else:
                    heapq.heappushpop(heap, (size, note))
        except AnchorError as problem:
            if not newest:
                raise AuditLogError(str(problem)) from None
            found.alarms.append(str(problem))
        for lane, heap in newest.items():
            found.held.setdefault(lane, []).extend(Held(note, each.by, anchor=True) for _, note in heap)
        if not newest:
            found.silent.append(each.by)
    return found


def _of_log(each: Keeper, origin: str) -> Iterator[tuple[str, int, str]]:
    """Lane, size and text of the heads of one log; those of others are passed over."""
    for note in each.notes(origin):
        log, _, lane = note.partition("\n")[0].rpartition("/")
        if log != origin or not is_lane(lane):
            continue
        try:
            yield lane, parse_checkpoint(opened(note)[0]).size, note
        except NoteError as fault:
            raise AnchorError(f"{each.by}: a head of lane {lane}: {fault}") from None


def _cosigned(trusted: WitnessKey, receipts: Path) -> Iterator[str]:
    for path in sorted(receipts.glob(f"{trusted.kid}-*.note")):
        for note in NoteFile(path).notes():
            try:
                if cosignatures(note, [trusted], verify_signature):
                    yield note
            except NoteError as problem:
                raise AnchorError(f"{path.name}: {problem}") from None


def _in_bucket(target: str, origin: str) -> Iterator[str]:
    from datetime import timedelta

    from addons.anchors.bucket import Bucket, Location
    from addons.anchors.s3 import S3Anchor

    try:
        location = Location.parse(target)
    except ValueError as problem:
        raise AuditLogError(str(problem)) from None
    yield from S3Anchor(Bucket(location), origin, timedelta()).notes()

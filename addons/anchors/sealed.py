"""Sealed segments in a locked bucket: what will not change any more, under names that say what it must hash to.

Below `PREFIX/ORIGIN/`: `segments/LANE/NNNNNN-SHA256.jsonl` are segments, `segments/LANE/NNNNNN-SHA256.note` the
checkpoints that were signed while each was written, `trust-SHA256.json`, and `policies/DIGEST.yaml` as in the log. One
after the other, the checkpoints of a lane are its checkpoints.note.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

from addons import codec
from addons.anchors.bucket import COMPLIANCE, SKEW, Bucket, Digests, Lock, Stored
from addons.anchors.lock_contract import whole_seconds
from addons.anchors.protocol import AnchorError
from addons.audit_log import TRUST, AuditLog, lines, open_regular
from addons.audit_text import escaped
from addons.forked import Progress
from addons.segment import segment_name, segment_names
from kernel.chain import MAX_LINE_BYTES, split
from kernel.errors import KernelError
from kernel.marks import CHECKPOINTS
from kernel.note import split_notes, stated_checkpoint

# A segment ends at 64 MiB and holds its last group of entries whole.
MOST_BYTES = 2**27
_CHUNK_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class Sealed:
    """One object, there and locked until `until`; `sent` is False where it was there before."""

    key: str
    version: str
    until: datetime
    sent: bool


@dataclass(slots=True)
class SealedStore:
    """Sends the sealed segments of a log, each object locked for `retain` from its writing on. `origin` is the log's.

    What is there is not sent again, so a run that was cut off goes on where it ended.
    """

    bucket: Bucket
    origin: str
    retain: timedelta
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _sealed: dict[str, Sealed] = field(default_factory=dict)
    """By key: what this process found to be there."""
    _keys: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """By path, length and time of change: the keys of segments, which are not hashed again."""

    def send(
        self, log: AuditLog, lane: str, *, ended: bool = False, progress: Progress = lambda _: None
    ) -> Iterator[Sealed]:
        """Send the segments of a lane but its last, and with `ended` the last one, too; each with its checkpoints.

        A lane that ended and goes on later sends its last segment again, longer. `AnchorError` where an object is not
        there as sent, or the log is not one that can be sent; OSError where a file cannot be read.
        """
        folder = log.lane(lane)
        names, ends = _segments(folder)
        known = self._known(self._key("segments", lane, ""))
        for name in names if ended else names[:-1]:
            yield self._segment(folder / name, lane, known, progress)
        for name, notes in _slices(folder / CHECKPOINTS, names, ends, ended=ended):
            digests = Digests.of([notes])
            key = self._key("segments", lane, f"{Path(name).stem}-{digests.sha256_hex}.note")
            yield self._object(key, io.BytesIO(notes), digests, known)

    def send_surroundings(self, log: AuditLog) -> Iterator[Sealed]:
        """Send trust.json and the policies that are not there yet."""
        known = self._known(self._key("trust-")) | self._known(self._key("policies", ""))
        for path in (log.audit / TRUST, *sorted(log.policies.glob("*.yaml"))):
            with open_regular(path) as file:
                digests = Digests.of(_chunks(file))
                named = (f"trust-{digests.sha256_hex}.json",) if path.name == TRUST else ("policies", path.name)
                yield self._object(self._key(*named), file, digests, known)

    def _key(self, *parts: str) -> str:
        return self.bucket.location.key(self.origin, *parts)

    def _known(self, prefix: str) -> dict[str, str]:
        """The first version of each key below `prefix`: of one key the newest is listed first."""
        return {version.key: version.version for version in self.bucket.versions(prefix) if not version.is_marker}

    def _segment(self, path: Path, lane: str, known: dict[str, str], progress: Progress) -> Sealed:
        status = path.stat()
        mark = (str(path), status.st_size, status.st_mtime_ns)
        if mark in self._keys:
            return self._sealed[self._keys[mark]]
        with open_regular(path, progress) as file:
            digests = Digests.of(_chunks(file))
            key = self._key("segments", lane, f"{path.stem}-{digests.sha256_hex}.jsonl")
            sealed = self._object(key, file, digests, known)
        self._keys[mark] = key
        return sealed

    def _object(self, key: str, file: BinaryIO, digests: Digests, known: dict[str, str]) -> Sealed:
        if key not in self._sealed:
            version = known.get(key)
            sealed = self._sent(key, file, digests) if version is None else self._found(key, version, digests)
            self._sealed[key] = replace(sealed, sent=False)
            return sealed
        return self._sealed[key]

    def _sent(self, key: str, file: BinaryIO, digests: Digests) -> Sealed:
        lock = Lock(COMPLIANCE, whole_seconds(self.now() + self.retain))
        file.seek(0)
        version = self.bucket.put(key, file, digests, lock)
        self._check(key, self.bucket.head(key, version), lock.until)
        self._check_bytes(key, version, digests)
        return Sealed(key, version, lock.until, sent=True)

    def _found(self, key: str, version: str, digests: Digests) -> Sealed:
        stored = self.bucket.head(key, version)
        until = self._check(key, stored, stored.modified + self.retain - SKEW)
        if stored.sha256 != digests.sha256:
            # A server that keeps no SHA-256 tells by the bytes alone.
            self._check_bytes(key, version, digests)
        return Sealed(key, version, until, sent=False)

    def _check(self, key: str, stored: Stored, least: datetime) -> datetime:
        where = f"{self.bucket.location.url}: {key}"
        until = stored.compliance_lock(where).until
        if until < least:
            raise AnchorError(f"{where} is locked until {until} only, for less than {self.retain}")
        return until

    def _check_bytes(self, key: str, version: str, digests: Digests) -> None:
        if Digests.of(self.bucket.read(key, version, MOST_BYTES)) != digests:
            where = f"{self.bucket.location.url}: {key} (version {escaped(version)})"
            raise AnchorError(f"{where} holds other bytes than were sent")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    return iter(partial(file.read, _CHUNK_BYTES), b"")


def _segments(folder: Path) -> tuple[list[str], list[int]]:
    """The segments of a lane that have begun, and how many entries it has at the end of each of them but the last."""
    names = segment_names(folder)
    if names != [segment_name(number) for number in range(len(names))]:
        raise AnchorError(f"{folder}: a segment is missing; governor audit verify says which")
    ends: list[int] = []
    for name in names[1:]:
        with open_regular(folder / name) as file:
            line = file.readline(MAX_LINE_BYTES + 1)
        if name == names[-1] and not line.endswith(b"\n"):
            # A writer is about to begin it, or a crash left it so.
            return names[:-1], ends
        ends.append(_entries_before(folder / name, line))
    return names, ends


def _entries_before(path: Path, line: bytes) -> int:
    try:
        opening = codec.parse(split(line)[0])
    except KernelError:
        opening = None
    entries = opening.get("entries") if isinstance(opening, dict) else None
    if not isinstance(entries, int):
        raise AnchorError(f"{path} does not begin with segment_open; governor audit verify says more")
    return entries


def _slices(path: Path, names: list[str], ends: list[int], *, ended: bool) -> Iterator[tuple[str, bytes]]:
    """The checkpoints of each segment, as far as no more of them can come: later ones are there, or the lane ended."""
    number, notes = 0, bytearray()
    try:
        for note in _notes(path):
            size = stated_checkpoint(note).size
            while number < len(ends) and size > ends[number]:
                yield names[number], bytes(notes)
                number, notes = number + 1, bytearray()
            notes += note.encode()
    except KernelError as error:
        raise AnchorError(f"{path}: {error}") from None
    while ended and number < len(names):
        yield names[number], bytes(notes)
        number, notes = number + 1, bytearray()


def _notes(path: Path) -> Iterator[str]:
    if path.exists():
        with open_regular(path) as file:
            for note in split_notes(lines(file)):
                yield note.text

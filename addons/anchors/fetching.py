"""A log fetched from a bucket into a folder that is read like a home, and what of it is not as Governor left it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from addons import durable
from addons.anchors.bucket import Bucket, Location, S3Damaged, Version
from addons.anchors.protocol import AnchorError
from addons.anchors.s3 import S3Anchor, at_one_log, first_version
from addons.anchors.sealed import MOST_BYTES
from addons.audit_log import TRUST
from addons.segment import segment_name
from kernel.marks import CHECKPOINTS, MINIMUM
from kernel.trust import Minimum, minimum_file

_PART = re.compile(r"segments/([a-z0-9][a-z0-9-]{0,63})/([0-9]{6})-([0-9a-f]{64})\.(jsonl|note)")
_TRUST = re.compile(r"trust-([0-9a-f]{64})\.json")
_POLICY = re.compile(r"policies/([0-9a-f]{64}\.yaml)")
_SMALL_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Fetched:
    """`folder` is a home to read. `alarms` are what somebody did to the bucket: with one, no log from it is whole.

    `unsealed` are the lanes that are anchored further than their segments were sent: entries here, entries anchored.
    That is as it should be while they are written.
    """

    folder: Path
    origin: str
    alarms: tuple[str, ...]
    unsealed: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Copy:
    """An object under a name that says what it hashes to, with all versions of it, the oldest first."""

    key: str
    digest: str
    versions: tuple[Version, ...]

    @property
    def size_bytes(self) -> int:
        return self.versions[0].size_bytes


@dataclass(slots=True)
class _Listing:
    """What is listed below an origin, by what it is. Of a segment and of its checkpoints there can be several."""

    parts: dict[str, dict[str, dict[int, list[_Copy]]]] = field(default_factory=dict)
    """By lane, then by `jsonl` or `note`, then by number."""
    trust: list[_Copy] = field(default_factory=list)
    policies: dict[str, _Copy] = field(default_factory=dict)


def fetch(url: str, into: Path) -> Fetched:
    """Download the log at `url`, `s3://BUCKET/PREFIX` or one origin below it, into the folder `into`, absent or empty.

    Region and endpoint are those of the AWS configuration. Nothing is believed: `verify_log` judges what was fetched.
    `AnchorError` where the bucket does not answer, holds no log, or the folder cannot be written.
    """
    try:
        location = Location.parse(url)
    except ValueError as error:
        raise AnchorError(str(error)) from None
    return fetch_from(Bucket(location), into)


def fetch_from(bucket: Bucket, into: Path) -> Fetched:
    """As `fetch`, from a bucket that is open."""
    bucket, origin = at_one_log(bucket)
    try:
        return _Fetching(bucket, origin, into).run()
    except OSError as error:
        raise AnchorError(f"{error.filename or into}: {error.strerror or error}") from None


class _Fetching:
    def __init__(self, bucket: Bucket, origin: str, into: Path) -> None:
        self._bucket, self._origin, self._into = bucket, origin, into
        self._audit = into / "audit"
        self._alarms: list[str] = []
        self._anchor = S3Anchor(bucket, origin, timedelta())

    def run(self) -> Fetched:
        for folder in (self._into, self._audit, self._audit / "lanes", self._audit / "policies"):
            folder.mkdir(mode=durable.PRIVATE_FOLDER, exist_ok=folder == self._into)
        listing = self._listing()
        entries = {lane: self._lane(lane, parts) for lane, parts in sorted(listing.parts.items())}
        self._surroundings(listing)
        unsealed = self._minimum(entries)
        return Fetched(self._into, self._origin, tuple(self._alarms), unsealed)

    def _listing(self) -> _Listing:
        listing, prefix = _Listing(), self._bucket.location.key(self._origin, "")
        for key, found in groupby(self._bucket.versions(prefix), lambda version: version.key):
            versions = list(found)
            name = key.removeprefix(prefix)
            part, trust, policy = _PART.fullmatch(name), _TRUST.fullmatch(name), _POLICY.fullmatch(name)
            if not (part or trust or policy):
                continue
            first, alarm = first_version(key, versions)
            if alarm:
                self._alarms.append(alarm)
            if first is None:
                continue
            if first.size_bytes > MOST_BYTES:
                self._alarms.append(f"{key} is longer than anything Governor writes there")
                continue
            whole = tuple(reversed([version for version in versions if not version.is_marker]))
            if part:
                copies = listing.parts.setdefault(part[1], {}).setdefault(part[4], {}).setdefault(int(part[2]), [])
                copies.append(_Copy(key, part[3], whole))
            elif trust:
                listing.trust.append(_Copy(key, trust[1], whole))
            elif policy:
                listing.policies[policy[1]] = _Copy(key, "", whole)
        return listing

    def _lane(self, lane: str, parts: Mapping[str, Mapping[int, Sequence[_Copy]]]) -> int:
        """Fetch one lane; how many entries it has here."""
        folder = self._audit / "lanes" / lane
        folder.mkdir(mode=durable.PRIVATE_FOLDER)
        segments, notes = parts.get("jsonl", {}), parts.get("note", {})
        entries = 0
        for number in self._complete(lane, "segments", segments):
            entries += self._part(folder / segment_name(number), segments[number])
        for number in self._complete(lane, "checkpoints of segments", notes):
            slice_ = folder / f".{number:06d}.note"
            self._part(slice_, notes[number])
            if slice_.exists():
                with (folder / CHECKPOINTS).open("ab") as whole:
                    whole.write(slice_.read_bytes())
                slice_.unlink()
        return entries

    def _complete(self, lane: str, what: str, numbers: Mapping[int, object]) -> list[int]:
        """The numbers in order, with an alarm where one is left out below the last."""
        if numbers and (missing := [number for number in range(max(numbers)) if number not in numbers]):
            told = ", ".join(map(str, missing[:10])) + (" and more" if len(missing) > 10 else "")
            self._alarms.append(f"lane {lane}: {what} {told} are not in the bucket, and later ones are")
        return sorted(numbers)

    def _part(self, path: Path, copies: Sequence[_Copy]) -> int:
        """Fetch the longest of the copies: each other one must be its beginning, sent before the lane went on.

        Where one is not, there are two histories, and the one that was written first is taken. The number of lines.
        """
        *others, longest = sorted(copies, key=lambda copy: copy.size_bytes)
        lines, beginnings = self._download(path, longest, [other.size_bytes for other in others])
        strays = [copy.key for copy, digest in zip(others, beginnings, strict=True) if copy.digest != digest]
        if strays:
            self._alarms.append(f"{longest.key} and {', '.join(strays)} are different histories of one segment")
            first = min(copies, key=lambda copy: copy.versions[0].modified)
            path.unlink(missing_ok=True)
            lines, _ = self._download(path, first, [])
        return lines

    def _download(self, path: Path, copy: _Copy, marks: Sequence[int]) -> tuple[int, list[str]]:
        """Write to `path` the first version that hashes to its name, or nothing, with an alarm.

        The number of lines, and the digest of the bytes up to each of the `marks`, which ascend.
        """
        for version in copy.versions:
            digest, lines, at = sha256(), 0, 0
            beginnings: list[str] = []
            ahead = list(marks)
            with _new_file(path) as file, suppress(S3Damaged):
                for chunk in self._bucket.read(version.key, version.version, MOST_BYTES):
                    while ahead and ahead[0] <= at + len(chunk):
                        beginning = digest.copy()
                        beginning.update(chunk[: ahead.pop(0) - at])
                        beginnings.append(beginning.hexdigest())
                    digest.update(chunk)
                    at, lines = at + len(chunk), lines + chunk.count(b"\n")
                    file.write(chunk)
            if digest.hexdigest() == copy.digest:
                return lines, beginnings + [""] * len(ahead)
            path.unlink()
        self._alarms.append(f"{copy.key} holds other bytes than its name says")
        return 0, [""] * len(marks)

    def _surroundings(self, listing: _Listing) -> None:
        for name, copy in sorted(listing.policies.items()):
            self._write(self._audit / "policies" / name, self._small(copy))
        if listing.trust:
            # It proves nothing, whoever wrote it: what was added later changes nothing.
            first = min(listing.trust, key=lambda copy: copy.versions[0].modified)
            self._write(self._audit / TRUST, self._small(first))

    def _minimum(self, entries: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Write minimum.json from the newest anchored heads within the fetched lanes; what is anchored beyond them."""
        held = self._anchor.holdings()
        self._alarms += held.alarms
        notes, unsealed = {}, {}
        for lane, heads in held.heads.items():
            here = entries.get(lane, 0)
            if heads[0].size > here:
                unsealed[lane] = (here, heads[0].size)
            reached = next((head for head in heads if head.size <= here), None)
            if reached is not None:
                notes[lane] = self._anchor.note(reached)
        if notes:
            log_id = self._origin.removeprefix("governor/")
            self._write(self._into / MINIMUM, minimum_file(Minimum(log_id, notes)))
        return unsealed

    def _small(self, copy: _Copy) -> bytes:
        return b"".join(self._bucket.read(copy.key, copy.versions[0].version, _SMALL_BYTES))

    def _write(self, path: Path, content: bytes) -> None:
        with _new_file(path) as file:
            file.write(content)


def _new_file(path: Path) -> BinaryIO:
    """A private file at `path`, where nothing is yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, durable.PRIVATE_FILE), "wb")

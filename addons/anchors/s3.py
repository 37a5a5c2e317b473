"""Heads of the log in a bucket with S3 Object Lock: one object a head, locked in COMPLIANCE mode, read by version."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched, groupby

from addons.anchors import lock_contract
from addons.anchors.bucket import COMPLIANCE, SKEW, Bucket, Digests, Lock, Version
from addons.anchors.lock_contract import Outcome, whole_seconds
from addons.anchors.protocol import AnchorError, Receipt
from kernel.entry import timestamp
from kernel.errors import NoteError
from kernel.note import Checkpoint, stated_checkpoint

MOST_NOTE_BYTES = 2**16
_READERS = 8
_AT_ONCE = 64
_KEY = re.compile(r"([a-z0-9][a-z0-9-]{0,63})/([0-9]{20})-([0-9a-f]{16})\.note")
_ORIGIN = re.compile(r"governor/[0-9a-f]{16}")
_AT_ORIGIN = re.compile(r"(?:(.*)/)?(governor/[0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Held:
    """A head that the bucket holds: its first version, told from its key, which has the first bytes of the root."""

    size: int
    root: bytes
    key: str
    version: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """The heads of each lane, the newest first, and what is not as Governor left it."""

    heads: Mapping[str, tuple[Held, ...]]
    alarms: tuple[str, ...]


@dataclass(slots=True)
class S3Anchor:
    """Heads below `PREFIX/ORIGIN/LANE/`, each locked for `retain` from its writing on. `origin` is the log's.

    The first `publish` of a process has the bucket prove its lock, unless that is `proved`.
    """

    bucket: Bucket
    origin: str
    retain: timedelta
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    proved: bool = False

    @property
    def kind(self) -> str:
        return "s3"

    @property
    def target(self) -> str:
        return self.bucket.location.url

    def preflight(self) -> None:
        """Prove the lock with a canary, in some 25 calls; `AnchorError` with what the bucket lets happen."""
        for finding in lock_contract.examine(self.bucket, self.now(), preflight=True):
            if finding.needed and finding.outcome is Outcome.FAILED:
                told = f"{finding.name}: expected {finding.expected}, seen: {finding.seen}"
                raise AnchorError(f"{self.target}: this bucket proves nothing: {told} (governor audit anchor selftest)")
        self.proved = True

    def publish(self, lane: str, note: str) -> Receipt:
        """Write and lock the checkpoint of `lane`, and look that it is there as written; else `AnchorError`."""
        head, body = self._parsed(lane, note), note.encode()
        if not self.proved:
            self.preflight()
        key = self.bucket.location.key(self.origin, lane, f"{head.size:020d}-{head.root.hex()[:16]}.note")
        lock = Lock(COMPLIANCE, whole_seconds(self.now() + self.retain))
        # Looked for first, since not every server knows If-None-Match: a head that is sent again is one version.
        version, asked = self._only_version(key), None
        if version is None:
            version, asked = self._put(key, body, lock), lock
        until = self._checked(key, version, body, asked)
        proof = {"key": key, "version": version, "retain_until": timestamp(until)}
        return Receipt(self.kind, self.target, lane, head.size, head.root.hex(), timestamp(self.now()), proof)

    def notes(self) -> Iterator[str]:
        """Every head of this log, lane by lane, the newest first: of each key the first version.

        After the last one `AnchorError` where a key has further versions or a delete marker, or holds what is too long
        for a head: somebody tried to lay something over one, or in front. What was locked first was given out by then.
        """
        found = self.holdings()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="s3-notes") as readers:
            for lane in sorted(found.heads):
                for some in batched(found.heads[lane], _AT_ONCE):
                    yield from readers.map(self.note, some)
        if found.alarms:
            raise AnchorError(f"{self.target}: {'; '.join(found.alarms[:5])}{_more(len(found.alarms) - 5)}")

    def note(self, held: Held) -> str:
        """The text of one head."""
        body = b"".join(self.bucket.read(held.key, held.version, MOST_NOTE_BYTES))
        # What is not UTF-8 cannot verify; replaced, it is told as a bad note.
        return body.decode(errors="replace")

    def holdings(self) -> Holdings:
        """What the bucket holds of this log, from its list of versions alone."""
        prefix = self.bucket.location.key(self.origin, "")
        heads: dict[str, list[Held]] = {}
        alarms = []
        for key, versions in groupby(self.bucket.versions(prefix), lambda version: version.key):
            named = _KEY.fullmatch(key.removeprefix(prefix))
            if named is None:
                continue
            first, alarm = first_version(key, list(versions))
            if alarm:
                alarms.append(alarm)
            if first is not None and first.size_bytes > MOST_NOTE_BYTES:
                # Read, it would end the answer before the heads behind it.
                alarms.append(f"{key} is longer than any head")
            elif first is not None:
                heads.setdefault(named[1], []).append(Held(int(named[2]), bytes.fromhex(named[3]), key, first.version))
        newest_first = {lane: tuple(reversed(found)) for lane, found in heads.items()}
        return Holdings(newest_first, tuple(alarms))

    def _parsed(self, lane: str, note: str) -> Checkpoint:
        try:
            head = stated_checkpoint(note)
        except NoteError as error:
            raise AnchorError(f"{self.target}: what was to be anchored of lane {lane}: {error}") from None
        if head.origin != f"{self.origin}/{lane}":
            raise AnchorError(f"{self.target}: a checkpoint of {head.origin}, not of {self.origin}/{lane}")
        return head

    def _put(self, key: str, body: bytes, lock: Lock) -> str:
        version = self.bucket.put(key, body, Digests.of([body]), lock, only_new=True)
        # Without versioning there is one version, `null`, which the next put replaces.
        if version in ("", "null"):
            raise AnchorError(f"{self.target}: {key} was taken without a version id: the bucket keeps no versions")
        return version

    def _only_version(self, key: str) -> str | None:
        """The one version of `key`, None where there is none; `AnchorError` where there are several."""
        first, alarm = first_version(key, [version for version in self.bucket.versions(key) if version.key == key])
        if alarm:
            raise AnchorError(f"{self.target}: {alarm}")
        return first.version if first else None

    def _checked(self, key: str, version: str, body: bytes, asked: Lock | None) -> datetime:
        """Until when a version is locked; `AnchorError` unless it is ours, whole, and locked for long enough.

        `asked` is None for one that was there before: it must be locked for as long, counted from its own writing.
        """
        stored, where = self.bucket.head(key, version), f"{self.target}: {key}"
        until = stored.compliance_lock(where).until
        if asked is not None and until != asked.until:
            raise AnchorError(f"{where} is locked until {until}; asked was {asked.until}")
        if asked is None and until < stored.modified + self.retain - SKEW:
            raise AnchorError(f"{where} was there before, and locked for less than {self.retain}")
        # Read back, since a server may keep the SHA-256 that it was told and other bytes.
        if b"".join(self.bucket.read(key, version, MOST_NOTE_BYTES)) != body:
            raise AnchorError(f"{where} holds other bytes than the head that was to be anchored")
        return until


def first_version(key: str, versions: list[Version]) -> tuple[Version | None, str]:
    """The oldest version of a key, and what is wrong with there being others; `versions` stand newest first."""
    whole = [version for version in versions if not version.is_marker]
    markers = len(versions) - len(whole)
    parts = [f"{len(whole) - 1} versions laid over the first"] if len(whole) > 1 else []
    parts += [f"{markers} delete markers"] if markers else []
    return (whole[-1] if whole else None), f"{key} has {' and '.join(parts)}" if parts else ""


def at_one_log(bucket: Bucket) -> tuple[Bucket, str]:
    """The bucket at the prefix of the one log there, and the log's origin; `AnchorError` for none, or several.

    A prefix that ends with an origin chooses that log.
    """
    location = bucket.location
    if named := _AT_ORIGIN.fullmatch(location.prefix):
        return bucket.at(named[1] or ""), named[2]
    found = [f"governor/{name}" for name in bucket.folders(location.key("governor", ""))]
    origins = [name for name in found if _ORIGIN.fullmatch(name)]
    if not origins:
        raise AnchorError(f"{location.url}: no log of Governor's here (expected {location.url}/governor/LOG_ID)")
    if len(origins) > 1:
        told = ", ".join(f"{location.url}/{origin}" for origin in origins[:5])
        raise AnchorError(f"several logs, ask for one: {told}{_more(len(origins) - 5)}")
    return bucket, origins[0]


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""

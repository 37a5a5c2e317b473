"""What S3 Object Lock must do for a log to rest on it, asked of a bucket one call at a time.

The same checks are run by `governor audit anchor selftest`, by an anchor's preflight and by the tests. Where servers
differ: moto lets a COMPLIANCE lock be shortened, s3rver takes the lock and ignores it, Ceph ignores If-None-Match.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from addons.anchors.bucket import COMPLIANCE, Bucket, Digests, Lock, S3Damaged, S3Refused, Stored, Version

FOLDER = "governor-selftest"
CANARY_SECONDS = 300
_BODY = b"A canary of Governor's. It is locked for some minutes and says nothing.\n"
_OTHER = b"Not the canary.\n"
_GOVERNANCE = "GOVERNANCE"
_MOST_BYTES = 2**12


class Outcome(StrEnum):
    """`untold`: these credentials may not ask, which is no fault of the bucket's."""

    PASSED = "passed"
    FAILED = "failed"
    UNTOLD = "untold"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: without a `needed` one an anchor proves nothing."""

    name: str
    expected: str
    seen: str
    outcome: Outcome
    needed: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    outcome: Outcome
    text: str


@dataclass(slots=True)
class Bench:
    """What the checks share: one canary, and what was done to it."""

    bucket: Bucket
    folder: str
    now: datetime
    version: str = ""
    lock: Lock = field(init=False)

    def __post_init__(self) -> None:
        self.lock = Lock(COMPLIANCE, whole_seconds(self.now + timedelta(seconds=CANARY_SECONDS)))

    @property
    def canary(self) -> str:
        return f"{self.folder}/canary"

    def another(self, name: str) -> str:
        """The key of something else that a check writes."""
        return f"{self.folder}/{name}"

    def moved(self, seconds: int) -> Lock:
        """The canary's lock, ending so much later."""
        return replace(self.lock, until=self.lock.until + timedelta(seconds=seconds))

    def head(self) -> Stored:
        return self.bucket.head(self.canary, self.version)

    def versions(self) -> list[Version]:
        return [version for version in self.bucket.versions(self.canary) if version.key == self.canary]


type _Ask = Callable[[Bench], _Seen]


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    expected: str
    ask: _Ask
    needed: bool = True
    preflight: bool = True


def whole_seconds(moment: datetime) -> datetime:
    """`moment` in UTC, rounded up to a second: S3 keeps no fractions of a retention."""
    return moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1 if moment.microsecond else 0)


def size(*, preflight: bool = False) -> int:
    """How many checks there are."""
    return sum(check.preflight or not preflight for check in _CHECKS)


def examine(bucket: Bucket, now: datetime, *, preflight: bool = False) -> Iterator[Finding]:
    """Run the checks in their order, `preflight` only those without which no start is safe.

    They leave a few small objects below the prefix, locked for minutes. `S3Unreachable` where nothing answers.
    """
    folder = bucket.location.key(FOLDER, f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}")
    bench = Bench(bucket, folder, now)
    for check in _CHECKS:
        if check.preflight or not preflight:
            seen = _asked(check, bench)
            yield Finding(check.name, check.expected, seen.text, seen.outcome, check.needed)


def _asked(check: _Check, bench: Bench) -> _Seen:
    if check.ask in _WITHOUT_CANARY or bench.version:
        try:
            return check.ask(bench)
        except S3Refused as refused:
            return _Seen(Outcome.FAILED, _answer(refused))
        except S3Damaged:
            return _Seen(Outcome.FAILED, "other bytes")
    return _Seen(Outcome.FAILED, "not asked: there is no locked canary")


def _answer(refused: S3Refused) -> str:
    return f"{refused.status} {refused.code}"


def _when(holds: object, text: str) -> _Seen:
    return _Seen(Outcome.PASSED if holds else Outcome.FAILED, text)


def _refused(act: Callable[[], object]) -> _Seen:
    try:
        act()
    except S3Refused as refused:
        # What is not found was lost before. A fault of the server's is no answer, but that it cannot do this is one.
        held = 400 <= refused.status < 500 and refused.status != 404
        return _when(held or refused.status == 501, _answer(refused))
    return _Seen(Outcome.FAILED, "accepted")


def _accepted(act: Callable[[], object]) -> _Seen:
    try:
        act()
    except S3Refused as refused:
        return _Seen(Outcome.UNTOLD if refused.status == 403 else Outcome.FAILED, _answer(refused))
    return _Seen(Outcome.PASSED, "accepted")


def _object_lock(bench: Bench) -> _Seen:
    return _when(bench.bucket.rules().locked, "Enabled" if bench.bucket.rules().locked else "not enabled")


def _versioning(bench: Bench) -> _Seen:
    status = bench.bucket.versioning()
    return _when(status == "Enabled", status or "never enabled")


def _default_mode(bench: Bench) -> _Seen:
    mode = bench.bucket.rules().default_mode
    return _when(mode != _GOVERNANCE, f"default {mode}" if mode else "no default")


def _suspend(bench: Bench) -> _Seen:
    seen = _refused(lambda: bench.bucket.set_versioning("Suspended"))
    if seen.outcome is Outcome.FAILED:
        bench.bucket.set_versioning("Enabled")
    return seen


def _put(bench: Bench) -> _Seen:
    bench.version = bench.bucket.put(bench.canary, _BODY, Digests.of([_BODY]), bench.lock, only_new=True)
    if bench.version in ("", "null"):
        bench.version = ""
        return _Seen(Outcome.FAILED, "accepted, without a version id")
    return _Seen(Outcome.PASSED, f"version {bench.version}")


def _mode(bench: Bench) -> _Seen:
    lock = bench.head().lock
    return _when(lock and lock.mode == COMPLIANCE, lock.mode if lock else "no lock")


def _date(bench: Bench) -> _Seen:
    lock = bench.head().lock
    return _when(lock == bench.lock, f"{lock.until:%Y-%m-%dT%H:%M:%SZ}" if lock else "no lock")


def _retention(bench: Bench) -> _Seen:
    try:
        lock = bench.bucket.retention(bench.canary, bench.version)
    except S3Refused as refused:
        return _Seen(Outcome.UNTOLD if refused.status == 403 else Outcome.FAILED, _answer(refused))
    return _when(lock == bench.lock, f"{lock.mode} {lock.until:%Y-%m-%dT%H:%M:%SZ}" if lock else "no lock")


def _body(bench: Bench) -> _Seen:
    return _when(_read(bench) == _BODY, "the same bytes" if _read(bench) == _BODY else "other bytes")


def _read(bench: Bench) -> bytes:
    return b"".join(bench.bucket.read(bench.canary, bench.version, _MOST_BYTES))


def _sha256_kept(bench: Bench) -> _Seen:
    kept = bench.head().sha256
    return _when(kept == Digests.of([_BODY]).sha256, "the right one" if kept else "none")


def _wrong_secret(bench: Bench) -> _Seen:
    return _refused(lambda: bench.bucket.with_wrong_secret().put(
        bench.another("wrong-secret"), _OTHER, Digests.of([_OTHER])))


def _anonymous(bench: Bench) -> _Seen:
    return _refused(lambda: bench.bucket.anonymously().put(bench.another("anonymous"), _OTHER, Digests.of([_OTHER])))


def _wrong_md5(bench: Bench) -> _Seen:
    wrong = Digests(Digests.of([_OTHER]).md5, Digests.of([_BODY]).sha256)
    return _refused(lambda: bench.bucket.put(bench.another("wrong-md5"), _BODY, wrong, bench.lock))


def _wrong_sha256(bench: Bench) -> _Seen:
    wrong = Digests(Digests.of([_BODY]).md5, Digests.of([_OTHER]).sha256)
    return _refused(lambda: bench.bucket.put(bench.another("wrong-sha256"), _BODY, wrong, bench.lock))


def _past(bench: Bench) -> _Seen:
    past = Lock(COMPLIANCE, whole_seconds(bench.now - timedelta(days=2)))
    return _refused(lambda: bench.bucket.put(bench.another("past"), _OTHER, Digests.of([_OTHER]), past))


def _no_date(bench: Bench) -> _Seen:
    return _refused(lambda: bench.bucket.put_half_locked(
        bench.another("no-date"), _OTHER, Digests.of([_OTHER]), bench.lock))


def _unknown_mode(bench: Bench) -> _Seen:
    nonsense = Lock("FOREVER", bench.lock.until)
    return _refused(lambda: bench.bucket.put(bench.another("no-mode"), _OTHER, Digests.of([_OTHER]), nonsense))


def _only_new(bench: Bench) -> _Seen:
    return _refused(lambda: bench.bucket.put(bench.canary, _OTHER, Digests.of([_OTHER]), bench.lock, only_new=True))


def _deleted(*, bypass: bool, batch: bool) -> _Ask:
    def ask(bench: Bench) -> _Seen:
        act = bench.bucket.delete_in_batch if batch else bench.bucket.delete
        return _refused(lambda: act(bench.canary, bench.version, bypass=bypass))

    return ask


def _shortened(*, bypass: bool) -> _Ask:
    return lambda bench: _refused(
        lambda: bench.bucket.retain(bench.canary, bench.version, bench.moved(-CANARY_SECONDS // 2), bypass=bypass))


def _downgraded(*, bypass: bool) -> _Ask:
    return lambda bench: _refused(lambda: bench.bucket.retain(
        bench.canary, bench.version, replace(bench.lock, mode=_GOVERNANCE), bypass=bypass))


def _cleared(*, bypass: bool) -> _Ask:
    return lambda bench: _refused(lambda: bench.bucket.retain(bench.canary, bench.version, None, bypass=bypass))


def _extended(bench: Bench) -> _Seen:
    longer = bench.moved(60)
    seen = _accepted(lambda: bench.bucket.retain(bench.canary, bench.version, longer))
    if seen.outcome is Outcome.PASSED:
        bench.lock = longer
    return seen


def _overwritten(bench: Bench) -> _Seen:
    seen = _accepted(lambda: bench.bucket.put(bench.canary, _OTHER, Digests.of([_OTHER]), bench.lock))
    return _and_unchanged(bench, seen)


def _marked(bench: Bench) -> _Seen:
    return _and_unchanged(bench, _accepted(lambda: bench.bucket.delete(bench.canary)))


def _and_unchanged(bench: Bench, seen: _Seen) -> _Seen:
    if _read(bench) != _BODY:
        return _Seen(Outcome.FAILED, "the first version has other bytes")
    return replace(seen, text=f"{seen.text}, the first unchanged")


def _listed(bench: Bench) -> _Seen:
    versions = bench.versions()
    whole = [version for version in versions if not version.is_marker]
    text = f"{len(whole)} and {len(versions) - len(whole)} delete markers"
    # The newest first: the canary is the last, whatever was laid over it.
    return _when(whole and whole[-1].version == bench.version, text)


def _still_locked(bench: Bench) -> _Seen:
    lock, same = bench.head().lock, _read(bench) == _BODY
    return _when(lock == bench.lock and same, "lock and bytes as they were" if lock == bench.lock and same else
                 f"{lock.mode} until {lock.until:%Y-%m-%dT%H:%M:%SZ}" if lock else "no lock")


def _inherited(bench: Bench) -> _Seen:
    mode = bench.bucket.rules().default_mode
    if mode is None:
        return _Seen(Outcome.UNTOLD, "the bucket has no default")
    key = bench.another("default")
    try:
        version = bench.bucket.put(key, _OTHER, Digests.of([_OTHER]))
    except S3Refused as refused:
        return _Seen(Outcome.UNTOLD if refused.status == 403 else Outcome.FAILED, _answer(refused))
    lock = bench.bucket.head(key, version).lock
    return _when(lock and lock.mode == mode and lock.until > bench.now, lock.mode if lock else "no lock")


_WITHOUT_CANARY = frozenset({_object_lock, _versioning, _default_mode, _put})
_CHECKS = (
    _Check("bucket has Object Lock", "Enabled", _object_lock),
    _Check("bucket keeps versions", "Enabled", _versioning),
    _Check("default lock", "none, or COMPLIANCE", _default_mode, needed=False, preflight=False),
    _Check("put with a lock", "accepted, with a version id", _put),
    _Check("mode of the lock", COMPLIANCE, _mode),
    _Check("end of the lock", "to the second as asked", _date),
    _Check("the lock, by its own call", "the same", _retention, preflight=False),
    _Check("read by version", "the same bytes", _body),
    _Check("SHA-256 is kept", "the right one", _sha256_kept, needed=False, preflight=False),
    _Check("delete the version", "refused", _deleted(bypass=False, batch=False)),
    _Check("delete it with the bypass flag", "refused", _deleted(bypass=True, batch=False)),
    _Check("delete it in a batch", "refused", _deleted(bypass=False, batch=True)),
    _Check("delete it in a batch with the bypass flag", "refused", _deleted(bypass=True, batch=True)),
    _Check("shorten the lock", "refused", _shortened(bypass=False)),
    _Check("shorten it with the bypass flag", "refused", _shortened(bypass=True)),
    _Check("make it GOVERNANCE", "refused", _downgraded(bypass=False)),
    _Check("make it GOVERNANCE with the bypass flag", "refused", _downgraded(bypass=True)),
    _Check("clear the lock", "refused", _cleared(bypass=False)),
    _Check("clear it with the bypass flag", "refused", _cleared(bypass=True)),
    _Check("extend the lock", "accepted", _extended, preflight=False),
    _Check("wrong Content-MD5", "refused", _wrong_md5),
    _Check("wrong SHA-256", "refused", _wrong_sha256, needed=False, preflight=False),
    _Check("lock that ends in the past", "refused", _past, preflight=False),
    _Check("lock without an end", "refused", _no_date, preflight=False),
    _Check("lock of an unknown mode", "refused", _unknown_mode, preflight=False),
    _Check("wrong secret key", "refused", _wrong_secret),
    _Check("no credentials", "refused", _anonymous),
    _Check("put only where nothing is", "refused", _only_new, needed=False, preflight=False),
    _Check("put over the canary", "a new version, the first unchanged", _overwritten, preflight=False),
    _Check("delete without a version", "a delete marker, the first unchanged", _marked, preflight=False),
    _Check("list of versions", "ends with the canary", _listed),
    _Check("suspend versioning", "refused", _suspend, preflight=False),
    _Check("default lock is inherited", "the default mode", _inherited, preflight=False),
    _Check("the canary after all this", "lock and bytes as they were", _still_locked),
)

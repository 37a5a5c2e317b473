"""Sealed segments in a locked bucket: sent once, fetched without the host, and whatever was done to them is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from blake3 import blake3

from addons import lane as lane_module
from addons.anchors import fetching
from addons.anchors.bucket import Bucket
from addons.anchors.fetching import Fetched
from addons.anchors.protocol import AnchorError
from addons.anchors.s3 import S3Anchor
from addons.anchors.sealed import Sealed, SealedStore
from addons.audit_log import AuditLog
from addons.home import Home
from addons.verifying import verify_log
from kernel.report import Report, Result
from tests.addons.logs import decision, open_lane
from tests.addons.s3_places import PREFIX, URL, bucket_of, use_credentials
from tests.addons.s3_server import Kept, Laxness, Retention, Store
from tests.logs import LOG_ID, ROOT, Lane, Log

ORIGIN = f"governor/{LOG_ID}"
YEAR = timedelta(days=400)
BELOW = f"{PREFIX}/{ORIGIN}"


@dataclass
class Place:
    """A log on disk, and the bucket that it is sent to."""

    folder: Path
    store: Store
    bucket: Bucket
    lanes: list[Lane] = field(default_factory=list)
    _count: int = 0

    def write(self) -> AuditLog:
        self._count += 1
        return AuditLog.at(Log(self.lanes).write(self.folder / f"home{self._count}"))

    def send(self, lane: str = "main", *, ended: bool = False, by: SealedStore | None = None) -> list[Sealed]:
        store = by or SealedStore(self.bucket, ORIGIN, YEAR)
        log = self.write()
        return [*store.send(log, lane, ended=ended), *store.send_surroundings(log)]

    def anchor(self) -> None:
        for lane in self.lanes:
            S3Anchor(self.bucket, ORIGIN, YEAR, proved=True).publish(lane.name, lane.notes[-1])

    def fetch(self) -> Fetched:
        return fetching.fetch_from(self.bucket, self.into())

    def into(self) -> Path:
        self._count += 1
        return self.folder / f"fetched{self._count}"

    def keys(self, suffix: str) -> list[str]:
        return sorted(key for key in self.store.kept if key.endswith(suffix))

    def put(self, key: str, body: bytes | None) -> None:
        self.store.kept.setdefault(key, []).append(
            Kept(key, self.store.next_version(), body, datetime.now(UTC) + timedelta(seconds=self._count + 5)))


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = Store()
    with bucket_of(store) as bucket:
        yield Place(tmp_path, store, bucket, [three_segments()])


def three_segments() -> Lane:
    """The first ends with a new key, as segments do, and the second without one, as they once did."""
    main = Lane("main").open(first=True).traffic(3).checkpoint().renew().traffic(2).checkpoint().traffic(1)
    return main.checkpoint().rotate().traffic(2).checkpoint()


def verified(fetched: Fetched) -> Report:
    return verify_log(AuditLog.at(fetched.folder), ROOT.verifier, every_signature=True)


def part(number: int, body: bytes, suffix: str = "jsonl", lane: str = "main") -> str:
    return f"{BELOW}/segments/{lane}/{number:06d}-{sha256(body).hexdigest()}.{suffix}"


def test_segments_that_end_are_sent_under_their_hash_and_locked_and_the_last_is_not(place: Place):
    segments = [b"".join(lines) for _, lines in place.lanes[0].segments()]

    sealed = place.send()

    assert place.keys(".jsonl") == sorted([part(0, segments[0]), part(1, segments[1])])
    assert [place.store.kept[key][0].body for key in place.keys(".jsonl")] == segments[:2]
    assert all(each.sent for each in sealed)
    for [kept] in place.store.kept.values():
        assert kept.retention is not None
        assert kept.retention.mode == "COMPLIANCE"
        assert kept.retention.until - kept.modified > YEAR - timedelta(minutes=1)


def test_checkpoints_go_with_the_segment_that_they_end_in_once_no_more_can_come(place: Place):
    first, second, third, last = (note.encode() for note in place.lanes[0].notes)

    place.send()
    sealed = {key: kept.body for key, [kept] in place.store.kept.items() if key.endswith(".note")}
    assert sealed == {part(0, first, "note"): first, part(1, second + third, "note"): second + third}
    place.send(ended=True)

    assert place.keys(".note")[2] == part(2, last, "note")


def test_what_is_there_is_not_sent_again_by_this_process_or_the_next(place: Place):
    store = SealedStore(place.bucket, ORIGIN, YEAR)
    place.send(by=store)
    before = dict(place.store.kept)

    again, by_another = place.send(by=store), place.send()

    assert not any(each.sent for each in [*again, *by_another])
    assert {key: len(kept) for key, kept in place.store.kept.items()} == dict.fromkeys(before, 1)


def test_a_run_that_was_cut_off_goes_on_where_it_ended(place: Place):
    log = place.write()
    cut_off = SealedStore(place.bucket, ORIGIN, YEAR).send(log, "main")
    next(cut_off)
    cut_off.close()

    sealed = place.send()

    assert [each.sent for each in sealed].count(False) == 1


def test_a_whole_log_verifies_without_the_host(place: Place):
    place.send(ended=True)
    place.anchor()

    fetched = place.fetch()
    report = verified(fetched)

    assert (report.result, report.entries, report.segments) == (Result.VERIFIED, len(place.lanes[0].lines), 3)
    assert (fetched.alarms, dict(fetched.unsealed), fetched.origin) == ((), {}, ORIGIN)
    files = (path for path in fetched.folder.rglob("*") if path.is_file())
    written = {path.relative_to(fetched.folder): path.read_bytes() for path in files}
    assert written == {Path(name): data for name, data in Log(place.lanes).raise_minimum().files().items()}


def test_a_log_that_is_being_written_verifies_as_far_as_it_is_sealed(place: Place):
    place.send()
    place.anchor()
    lane = place.lanes[0]

    fetched = place.fetch()

    assert verified(fetched).result is Result.VERIFIED
    assert verified(fetched).entries == lane.starts[2]
    assert dict(fetched.unsealed) == {"main": (lane.starts[2], len(lane.lines))}


def test_a_lane_that_ended_and_went_on_is_no_alarm(place: Place):
    place.send(ended=True)
    place.lanes[0].traffic(3).checkpoint()
    place.send(ended=True)
    place.anchor()

    fetched = place.fetch()

    assert fetched.alarms == ()
    assert verified(fetched).entries == len(place.lanes[0].lines)


def test_lanes_and_policies_come_along(place: Place):
    place.lanes.append(Lane("w0").open(siblings=place.lanes).traffic(1).checkpoint())
    policy = b"version: 1\n"
    log = place.write()
    log.policies.mkdir()
    (log.policies / f"{blake3(policy).hexdigest()}.yaml").write_bytes(policy)
    store = SealedStore(place.bucket, ORIGIN, YEAR)
    sealed = [*store.send(log, "main", ended=True), *store.send(log, "w0", ended=True), *store.send_surroundings(log)]
    place.anchor()

    fetched = place.fetch()

    assert all(each.sent for each in sealed)
    assert [lane.lane for lane in verified(fetched).lanes] == ["main", "w0"]
    assert [path.read_bytes() for path in AuditLog.at(fetched.folder).policies.iterdir()] == [policy]


def test_an_anchored_lane_without_a_segment_is_told(place: Place):
    place.lanes.append(Lane("w0").open(siblings=place.lanes).traffic(1).checkpoint())
    place.send(ended=True)
    place.anchor()

    assert dict(place.fetch().unsealed) == {"w0": (0, len(place.lanes[1].lines))}


@pytest.mark.parametrize("begun", [b"", b'{"e":{"entries":9'])
def test_a_segment_that_has_just_begun_does_not_seal_the_one_before(place: Place, begun: bytes):
    log = place.write()
    (log.audit / "lanes" / "main" / "000003.jsonl").write_bytes(begun)

    list(SealedStore(place.bucket, ORIGIN, YEAR).send(log, "main"))

    assert len(place.keys(".jsonl")) == 2


@pytest.mark.parametrize("damage", ["missing", "no opening"])
def test_a_damaged_lane_is_not_sent(place: Place, damage: str):
    log = place.write()
    second = log.audit / "lanes" / "main" / "000001.jsonl"
    second.unlink() if damage == "missing" else second.write_bytes(b"{}\n")

    with pytest.raises(AnchorError, match="governor audit verify"):
        list(SealedStore(place.bucket, ORIGIN, YEAR).send(log, "main"))


@pytest.mark.parametrize(("laxness", "expected"), [
    (Laxness.IGNORES_LOCKS, "no lock"),
    (Laxness.GOVERNS, "GOVERNANCE lock"),
    (Laxness.DAMAGES, "checksum"),
    (Laxness.DAMAGES | Laxness.OVERWRITES, "other bytes"),
])
def test_a_segment_counts_as_sealed_only_as_it_was_sent(tmp_path: Path, laxness: Laxness, expected: str):
    store = Store(laxness=laxness)

    with bucket_of(store) as bucket, pytest.raises(AnchorError, match=expected):
        Place(tmp_path, store, bucket, [three_segments()]).send()


@pytest.mark.parametrize(("retention", "body", "expected"), [
    pytest.param(None, None, "no lock", id="without a lock"),
    pytest.param(timedelta(days=1), None, "for less than", id="for a day"),
    pytest.param(YEAR, b"short", "other bytes", id="other bytes under its name"),
])
def test_what_is_there_already_must_be_it_and_locked(
        place: Place, retention: timedelta | None, body: bytes | None, expected: str):
    place.send()
    [kept] = place.store.kept[place.keys(".jsonl")[0]]
    kept.retention = Retention("COMPLIANCE", datetime.now(UTC) + retention) if retention else None
    kept.body, kept.sha256 = (body, None) if body else (kept.body, kept.sha256)

    with pytest.raises(AnchorError, match=expected):
        place.send()


def lay_over(place: Place, _: list[bytes]) -> None:
    place.put(place.keys(".jsonl")[0], b"something else\n")


def mark(place: Place, _: list[bytes]) -> None:
    place.put(place.keys(".jsonl")[0], None)


def lay_over_a_head(place: Place, _: list[bytes]) -> None:
    place.put(next(key for key in place.keys(".note") if "/segments/" not in key), b"something else\n")


def add_another_history(place: Place, segments: list[bytes]) -> None:
    other = segments[1].replace(b"GET", b"PUT") + b"more\n"
    place.put(part(1, other), other)


def add_another_history_and_lay_over(place: Place, segments: list[bytes]) -> None:
    add_another_history(place, segments)
    place.put(part(1, segments[1]), b"something else\n")
    place.store.kept[part(1, segments[1])][-1].modified += timedelta(seconds=5)


def add_what_does_not_hash(place: Place, segments: list[bytes]) -> None:
    place.put(part(3, segments[0]), b"something else\n")


def add_what_is_too_long(place: Place, segments: list[bytes]) -> None:
    place.put(part(3, segments[0]), b"")
    place.store.kept[part(3, segments[0])][0].size_bytes = 2**27 + 1


@pytest.mark.parametrize(("attack", "told"), [
    (lay_over, "1 versions laid over the first"),
    (mark, "1 delete markers"),
    (lay_over_a_head, "1 versions laid over the first"),
    (add_another_history, "different histories of one segment"),
    (add_another_history_and_lay_over, "different histories of one segment"),
    (add_what_does_not_hash, "holds other bytes than its name says"),
    (add_what_is_too_long, "longer than anything"),
])
def test_what_is_done_to_the_bucket_is_told_and_the_log_that_was_locked_is_read(place: Place, attack, told: str):
    place.send(ended=True)
    place.anchor()
    attack(place, [b"".join(lines) for _, lines in place.lanes[0].segments()])

    fetched = place.fetch()

    assert told in "; ".join(fetched.alarms)
    assert verified(fetched).result is Result.VERIFIED
    assert verified(fetched).entries == len(place.lanes[0].lines)


@pytest.mark.parametrize(("suffix", "told"), [(".jsonl", "segments 1"), (".note", "checkpoints of segments 1")])
def test_a_number_that_is_left_out_is_told(place: Place, suffix: str, told: str):
    place.send(ended=True)
    del place.store.kept[next(key for key in place.keys(suffix) if "/segments/main/000001-" in key)]

    fetched = place.fetch()

    assert f"lane main: {told} are not in the bucket, and later ones are" in fetched.alarms
    if suffix == ".jsonl":
        assert verified(fetched).result is Result.TAMPERED


@pytest.mark.parametrize("name", [
    "segments/../../x/000000-" + "0" * 64 + ".jsonl", "segments/main/../000000-" + "0" * 64 + ".jsonl",
    "segments/main/000000-" + "0" * 63 + ".jsonl", "policies/../../x.yaml", "trust-x.json", "\u202e", "segments/A/1",
])
def test_a_name_that_governor_does_not_give_is_no_file_here(place: Place, name: str):
    place.send(ended=True)
    place.put(f"{BELOW}/{name}", b"x")

    fetched = place.fetch()

    assert verified(fetched).result is Result.VERIFIED
    assert not any(path.read_bytes() == b"x" for path in fetched.folder.parent.rglob("*") if path.is_file())


def test_a_later_trust_file_changes_nothing(place: Place):
    place.send(ended=True)
    other = b'{"root":"of somebody else"}\n'
    place.put(f"{BELOW}/trust-{sha256(other).hexdigest()}.json", other)

    assert verified(place.fetch()).result is Result.VERIFIED


def test_a_real_lane_that_goes_from_segment_to_segment_verifies_from_the_bucket(
        home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lane_module, "SEGMENT_BYTES", 4096)
    lane = open_lane(home, vault=False)
    for _ in range(30):
        lane.write_now("decision", decision("f"))
    log, origin = AuditLog.at(home.paths.folder), home.root.name

    with bucket_of(Store()) as bucket:
        store = SealedStore(bucket, origin, YEAR)
        running = [*store.send(log, "main"), *store.send_surroundings(log)]
        lane.close("done")
        ended = [sealed for sealed in store.send(log, "main", ended=True) if sealed.sent]
        fetched = fetching.fetch_from(bucket, tmp_path / "fetched")

    report = verify_log(AuditLog.at(fetched.folder), home.root, every_signature=True)
    assert len(running) > 6
    assert ended
    assert fetched.alarms == ()
    assert report.as_json()["lanes"] == verify_log(log, home.root).as_json()["lanes"]
    assert report.result is Result.VERIFIED


def test_a_log_can_be_asked_for_by_its_origin(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(place.bucket.location.endpoint))
    place.send(ended=True)

    fetched = fetching.fetch(f"{URL}/{ORIGIN}", place.into())

    assert verified(fetched).result is Result.VERIFIED


@pytest.mark.parametrize("url", ["s3://example-bucket/nothing-here", "https://example.org/", "s3://no-such-bucket/x"])
def test_where_there_is_no_log_it_says_so(place: Place, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(place.bucket.location.endpoint))
    with pytest.raises(AnchorError, match=r"no log|expected s3|NoSuchBucket"):
        fetching.fetch(url, place.into())


def test_a_folder_that_holds_something_is_not_written_into(place: Place):
    place.send(ended=True)
    into = place.folder / "taken"
    (into / "audit").mkdir(parents=True)

    with pytest.raises(AnchorError, match="taken/audit"):
        fetching.fetch_from(place.bucket, into)

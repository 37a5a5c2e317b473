"""Sealed segments leave the host by themselves: at the start, at each new one, at the end, and after a failure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from addons.anchors import fetching, sealing
from addons.anchors.bucket import Bucket
from addons.anchors.protocol import AnchorError
from addons.anchors.s3 import S3Anchor
from addons.anchors.sealed import SealedStore
from addons.anchors.sealing import Sealing
from addons.anchors.signed_heads import newest_head
from addons.audit_log import AuditLog
from addons.home import Home
from addons.lane import Lane
from addons.verifying import verify_log
from kernel.report import Result
from tests.addons.logs import decision, kinds, open_lane
from tests.addons.s3_places import bucket_of, use_credentials
from tests.addons.s3_server import Store

YEAR = timedelta(days=400)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    use_credentials(monkeypatch)
    with bucket_of(Store()) as bucket:
        yield bucket


def sealing_of(home: Home, bucket: Bucket, lane: Lane, said: list[str]) -> Sealing:
    found = Sealing(SealedStore(bucket, home.root.name, YEAR), AuditLog.at(home.paths.folder), lane, said.append)
    lane.on_rotate(found.wake)
    found.start()
    return found


def sent(home: Home, bucket: Bucket, lane: str = "main") -> int:
    prefix = bucket.location.key(home.root.name, "segments", lane, "")
    return len({version.key for version in bucket.versions(prefix) if version.key.endswith(".jsonl")})


def until(count: int, home: Home, bucket: Bucket, lane: str = "main") -> None:
    deadline = time.monotonic() + 20
    while sent(home, bucket, lane) < count:
        assert time.monotonic() < deadline, f"{sent(home, bucket, lane)} of {count} segments came"
        time.sleep(0.02)


def test_each_segment_goes_out_once_the_next_begins_and_the_last_at_the_end(home, bucket, tmp_path):
    lane = open_lane(home, vault=False)
    away = sealing_of(home, bucket, lane, [])
    for count in (1, 2):
        lane.write_now("decision", decision("f"))
        lane.rotate("operator")
        until(count, home, bucket)
    lane.close("done")
    S3Anchor(bucket, home.root.name, YEAR, proved=True).publish("main", newest_head(home.paths.lane("main")))
    away.close()
    fetched = fetching.fetch_from(bucket, tmp_path / "fetched")

    assert sent(home, bucket) == 3
    assert fetched.alarms == ()
    assert verify_log(AuditLog.at(fetched.folder), home.root).result is Result.VERIFIED


@pytest.mark.parametrize("fault", [
    pytest.param(AnchorError("s3://example-bucket/audit: no answer"), id="the bucket's"),
    pytest.param(ZeroDivisionError("by zero"), id="our own"),
])
def test_a_bucket_that_takes_nothing_is_told_once_and_tried_until_it_does(home, bucket, monkeypatch, fault):
    monkeypatch.setattr(sealing, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(sealing, "LONGEST_PAUSE_SECONDS", 0.01)
    real, tries, said = SealedStore.send, list[int](), list[str]()

    def failing(*arguments: object, **more: object) -> object:
        tries.append(1)
        if len(tries) < 5:
            raise fault
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(SealedStore, "send", failing)
    lane = open_lane(home, vault=False)
    lane.rotate("operator")
    lane.write_now("decision", decision("f"))
    away = sealing_of(home, bucket, lane, said)
    until(1, home, bucket)
    away.close()
    lane.close("done")

    assert kinds(home).count("fault") == 1
    assert [text.partition(":")[0] for text in said] == ["segments", "segments"]
    assert "tried again" in said[0]
    assert "again" in said[1]


def test_a_terminal_that_is_gone_ends_no_thread(home, bucket, monkeypatch):
    monkeypatch.setattr(sealing, "FIRST_PAUSE_SECONDS", 0.01)
    real, tries = SealedStore.send, list[int]()

    def failing(*arguments: object, **more: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise AnchorError("no answer")
        return real(*arguments, **more)  # type: ignore[arg-type]

    class Gone(list[str]):
        def append(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(SealedStore, "send", failing)
    lane = open_lane(home, vault=False)
    lane.rotate("operator")
    lane.write_now("decision", decision("f"))
    away = sealing_of(home, bucket, lane, Gone())
    until(1, home, bucket)
    away.close()
    lane.close("done")

    assert kinds(home).count("fault") == 1


def test_what_another_lane_left_is_sent_by_whoever_runs(home, bucket):
    other = open_lane(home, "cli", vault=False)
    other.close("done")
    lane = open_lane(home, vault=False)
    away = sealing_of(home, bucket, lane, [])
    until(1, home, bucket, "cli")
    away.close()
    lane.close("done")

    assert sent(home, bucket, "cli") == 1

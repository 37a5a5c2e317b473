"""The lock contract, heads and sealed segments against a real S3 server with Object Lock: Ceph's gateway."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from addons import cli
from addons.anchors import fetching
from addons.anchors.bucket import Bucket, Location
from addons.anchors.lock_contract import Outcome, examine
from addons.anchors.protocol import AnchorError
from addons.anchors.s3 import S3Anchor
from addons.anchors.sealed import SealedStore
from addons.audit_log import AuditLog
from addons.verifying import verify_log
from kernel.report import Result
from tests.addons.s3_places import use_credentials
from tests.e2e.radosgw import Gateway, Unavailable, serving
from tests.logs import LOG_ID, ROOT, Lane, Log, three_segments

pytestmark = [pytest.mark.e2e, pytest.mark.radosgw]

ORIGIN = f"governor/{LOG_ID}"
# What Ceph 16 leaves out, and a proof does not need.
LACKING = {"SHA-256 is kept", "wrong SHA-256", "put only where nothing is"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    try:
        with serving(tmp_path_factory.mktemp("ceph")) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def bucket(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    """A new bucket with Object Lock."""
    use_credentials(monkeypatch, gateway.access_key, gateway.secret_key)
    return make_bucket(gateway, f"bucket-{abs(hash(request.node.name)):x}")


def make_bucket(gateway: Gateway, name: str, *, locked: bool = True, days: int = 0) -> Bucket:
    client = boto3.client("s3", endpoint_url=gateway.endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
    if days:
        client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": days}}})
    return Bucket(Location(name, "audit", None, gateway.endpoint))


def test_ceph_keeps_what_a_proof_needs(gateway: Gateway, bucket: Bucket):
    found = list(examine(make_bucket(gateway, "with-default", days=1), datetime.now(UTC)))

    assert {finding.name for finding in found if finding.outcome is Outcome.FAILED} == LACKING
    assert not [finding for finding in found if finding.outcome is Outcome.UNTOLD]
    assert not [finding for finding in found if finding.name in LACKING and finding.needed]


def test_a_bucket_without_object_lock_is_found(gateway: Gateway, bucket: Bucket):
    unlocked = make_bucket(gateway, "without-lock", locked=False)

    with pytest.raises(AnchorError, match="proves nothing: bucket has Object Lock"):
        S3Anchor(unlocked, ORIGIN, timedelta(days=1)).preflight()


def test_the_verb_says_that_what_is_lacking_is_not_needed(bucket: Bucket, capsys: pytest.CaptureFixture[str]):
    where = ["--s3", bucket.location.url, "--endpoint", str(bucket.location.endpoint)]

    status = cli.run(["audit", "anchor", "selftest", *where])

    assert status == 3
    assert "the lock holds; what is lacking is not needed" in capsys.readouterr().out


def test_heads_are_locked_and_given_out_again(bucket: Bucket):
    anchor, lane = S3Anchor(bucket, ORIGIN, timedelta(days=1)), Lane("main").open(first=True)
    for _ in range(3):
        lane.traffic(1).checkpoint()
    receipts = [anchor.publish("main", note) for note in [*lane.notes, lane.notes[-1]]]

    assert list(anchor.notes()) == [*reversed(lane.notes)]
    assert receipts[-1].proof == receipts[-2].proof


def test_a_head_that_was_laid_over_is_read_and_told(bucket: Bucket):
    anchor, lane = S3Anchor(bucket, ORIGIN, timedelta(days=1)), Lane("main").open(first=True).checkpoint()
    key = str(anchor.publish("main", lane.notes[0]).proof["key"])
    client = boto3.client("s3", endpoint_url=bucket.location.endpoint, region_name="us-east-1")
    client.put_object(Bucket=bucket.location.bucket, Key=key, Body=b"something else\n")
    client.delete_object(Bucket=bucket.location.bucket, Key=key)

    given = anchor.notes()

    assert next(given) == lane.notes[0]
    with pytest.raises(AnchorError, match="1 versions laid over the first and 1 delete markers"):
        next(given)


def test_a_log_is_sealed_and_verified_without_the_host(bucket: Bucket, tmp_path: Path):
    lane = three_segments().lanes[0]
    log = AuditLog.at(Log([lane]).write(tmp_path / "home"))
    store = SealedStore(bucket, ORIGIN, timedelta(days=1))
    list(store.send(log, "main", ended=True))
    list(store.send_surroundings(log))
    S3Anchor(bucket, ORIGIN, timedelta(days=1)).publish("main", lane.notes[-1])

    fetched = fetching.fetch_from(bucket, tmp_path / "fetched")
    report = verify_log(AuditLog.at(fetched.folder), ROOT.verifier, every_signature=True)

    assert (fetched.alarms, report.result, report.entries) == ((), Result.VERIFIED, len(lane.lines))
    assert not any(sealed.sent for sealed in SealedStore(bucket, ORIGIN, timedelta(days=1)).send(log, "main"))


def test_the_storage_operator_can_still_take_the_bucket_away(gateway: Gateway, bucket: Bucket):
    S3Anchor(bucket, ORIGIN, timedelta(days=1)).publish("main", Lane("main").open(first=True).checkpoint().notes[0])

    gateway.admin("bucket", "rm", f"--bucket={bucket.location.bucket}", "--purge-objects", "--bypass-gc")

    with pytest.raises(AnchorError, match="NoSuchBucket"):
        bucket.rules()

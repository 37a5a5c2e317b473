"""The contract of Object Lock: a strict server keeps it, and each careless one is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from addons.anchors import lock_contract
from addons.anchors.bucket import Bucket, Location, S3Unreachable
from addons.anchors.lock_contract import Finding, Outcome, examine, whole_seconds
from tests.addons.s3_places import NAME, bucket_of, use_credentials
from tests.addons.s3_server import Laxness, Store, serving


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)


def findings(store: Store) -> list[Finding]:
    with bucket_of(store) as bucket:
        return list(examine(bucket, datetime.now(UTC)))


def failed(found: list[Finding], *, needed: bool) -> set[str]:
    return {finding.name for finding in found if finding.outcome is Outcome.FAILED and finding.needed is needed}


def test_a_strict_server_keeps_every_line_of_the_contract():
    found = findings(Store(default=("COMPLIANCE", 1)))

    assert {finding.outcome for finding in found} == {Outcome.PASSED}
    assert len(found) == lock_contract.size()


@pytest.mark.parametrize(("laxness", "expected"), [
    pytest.param(Laxness.IGNORES_LOCKS, {"mode of the lock", "delete the version", "shorten the lock"},
                 id="lock headers are taken and ignored, as by s3rver"),
    pytest.param(Laxness.SHORTENS, {"shorten the lock", "make it GOVERNANCE", "clear the lock", "suspend versioning",
                                    "lock that ends in the past"}, id="COMPLIANCE can be shortened, as with moto"),
    pytest.param(Laxness.GOVERNS, {"mode of the lock", "shorten it with the bypass flag",
                                   "delete it with the bypass flag"}, id="COMPLIANCE becomes GOVERNANCE"),
    pytest.param(Laxness.FORGETS_MD5, {"wrong Content-MD5"}, id="a damaged body is taken"),
    pytest.param(Laxness.TRUSTS_ANYBODY, {"wrong secret key", "no credentials"}, id="anybody may write"),
    pytest.param(Laxness.LOSES, {"put over the canary", "delete without a version", "list of versions",
                                 "the canary after all this"}, id="what lies there can be written over"),
    pytest.param(Laxness.DAMAGES, {"read by version"}, id="other bytes are kept"),
])
def test_a_careless_server_is_found(laxness: Laxness, expected: set[str]):
    assert expected <= failed(findings(Store(laxness=laxness)), needed=True)


def test_what_ceph_leaves_out_is_not_needed():
    found = findings(Store(laxness=Laxness.OVERWRITES))

    assert failed(found, needed=True) == set()
    assert failed(found, needed=False) == {"SHA-256 is kept", "wrong SHA-256", "put only where nothing is"}


@pytest.mark.parametrize(("store", "expected"), [
    pytest.param(Store(locked=False), "bucket has Object Lock", id="no Object Lock"),
    pytest.param(Store(versioning=""), "bucket keeps versions", id="never versioned"),
    pytest.param(Store(versioning="Suspended"), "bucket keeps versions", id="versioning suspended"),
])
def test_a_bucket_that_keeps_nothing_is_found(store: Store, expected: str):
    assert expected in failed(findings(store), needed=True)


def test_without_a_locked_canary_what_is_asked_of_it_fails():
    found = findings(Store(denied=frozenset({"PUT"})))

    assert "put with a lock" in failed(found, needed=True)
    assert any(finding.seen == "not asked: there is no locked canary" for finding in found)


def test_what_these_credentials_may_not_ask_is_untold_and_no_failure():
    store = Store(denied=frozenset({"DELETE", "POST delete", "PUT retention", "PUT versioning", "GET retention"}))

    found = findings(store)

    assert failed(found, needed=True) == set()
    assert {finding.name for finding in found if finding.outcome is Outcome.UNTOLD} == {
        "the lock, by its own call", "extend the lock", "delete without a version", "default lock is inherited"}


def test_a_default_of_governance_is_told():
    assert "default lock" in failed(findings(Store(default=("GOVERNANCE", 1))), needed=False)


def test_the_preflight_never_touches_what_the_bucket_does_by_itself():
    store = Store()

    with bucket_of(store) as bucket:
        found = list(examine(bucket, datetime.now(UTC), preflight=True))

    assert "PUT versioning" not in {what for what, _ in store.asked}
    assert len(found) == lock_contract.size(preflight=True)


def test_a_server_that_is_none_is_told_in_words():
    with serving(Store(), NAME) as endpoint:
        pass
    with pytest.raises(S3Unreachable, match=r"s3://example-bucket: .*Could not connect"):
        list(examine(Bucket(Location(NAME, "", None, endpoint)), datetime.now(UTC)))


@pytest.mark.parametrize(("moment", "expected"), [
    (datetime(2026, 1, 2, 3, 4, 5, 0, UTC), datetime(2026, 1, 2, 3, 4, 5, 0, UTC)),
    (datetime(2026, 1, 2, 3, 4, 5, 1, UTC), datetime(2026, 1, 2, 3, 4, 6, 0, UTC)),
])
def test_a_lock_ends_at_a_whole_second_and_never_early(moment: datetime, expected: datetime):
    assert whole_seconds(moment) == expected
    assert whole_seconds(moment) - moment < timedelta(seconds=1)

"""Heads in a locked bucket: written once, looked at after, and read by version whatever is laid over them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from addons.anchors.bucket import Bucket, Location
from addons.anchors.protocol import AnchorError
from addons.anchors.s3 import S3Anchor, at_one_log
from kernel.entry import timestamp
from tests.addons.s3_places import PREFIX, URL, bucket_of, use_credentials
from tests.addons.s3_server import Kept, Laxness, Retention, Store
from tests.logs import LOG_ID, Lane

ORIGIN = f"governor/{LOG_ID}"
YEAR = timedelta(days=400)
# Ahead of the server, whose clock goes on while a long run of tests comes this far: no lock may have ended by then.
NOW = datetime.now(UTC) + timedelta(hours=12)


@dataclass
class Place:
    """A bucket, and what is behind it."""

    store: Store
    anchor: S3Anchor

    def lay_over(self, key: str, body: bytes | None) -> None:
        self.store.kept[key].append(Kept(key, self.store.next_version(), body, datetime.now(UTC)))


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)


@pytest.fixture
def place() -> Iterator[Place]:
    store = Store()
    with bucket_of(store) as bucket:
        yield Place(store, S3Anchor(bucket, ORIGIN, YEAR, lambda: NOW, proved=True))


def heads(count: int, lane: str = "main") -> list[str]:
    written = Lane(lane).open(first=lane == "main")
    for _ in range(count):
        written.traffic(1).checkpoint()
    return written.notes


def test_a_head_is_locked_under_its_size_and_root(place: Place):
    [note] = heads(1)

    receipt = place.anchor.publish("main", note)

    [kept] = place.store.kept[str(receipt.proof["key"])]
    assert receipt.proof["key"] == f"{PREFIX}/{ORIGIN}/main/{receipt.size:020d}-{receipt.root[:16]}.note"
    assert kept.body == note.encode()
    assert kept.retention == Retention("COMPLIANCE", NOW.replace(microsecond=0) + YEAR + timedelta(seconds=1))
    assert (receipt.kind, receipt.target, receipt.lane, receipt.at) == ("s3", URL, "main", timestamp(NOW))
    assert receipt.proof["version"] == kept.version
    assert receipt.proof["retain_until"] == timestamp(kept.retention.until)


def test_what_was_put_is_given_out_again_lane_by_lane_the_newest_first(place: Place):
    written = {lane: heads(3, lane) for lane in ("w0", "main")}
    for lane, notes in written.items():
        for note in notes:
            place.anchor.publish(lane, note)

    assert list(place.anchor.notes()) == [*reversed(written["main"]), *reversed(written["w0"])]


def test_a_long_list_is_read_page_by_page(place: Place):
    place.store.page_size = 2
    notes = heads(5)
    for note in notes:
        place.anchor.publish("main", note)

    assert list(place.anchor.notes()) == [*reversed(notes)]


def test_a_head_that_is_there_is_taken_as_anchored_and_not_written_again(place: Place):
    [note] = heads(1)
    first = place.anchor.publish("main", note)

    again = place.anchor.publish("main", note)

    assert again.proof == first.proof
    assert len(place.store.kept[str(first.proof["key"])]) == 1


def test_a_head_sent_again_to_a_server_without_conditions_is_one_version_too():
    [note] = heads(1)
    store = Store(laxness=Laxness.OVERWRITES)

    with bucket_of(store) as bucket:
        anchor = S3Anchor(bucket, ORIGIN, YEAR, proved=True)
        receipts = [anchor.publish("main", note), anchor.publish("main", note)]

        assert receipts[0].proof == receipts[1].proof
        assert list(anchor.notes()) == [note]


@pytest.mark.parametrize(("kept", "expected"), [
    pytest.param(Kept("", "v1", b"something else\n", NOW, Retention("COMPLIANCE", NOW + YEAR)), "other bytes",
                 id="other bytes in its place"),
    pytest.param(Kept("", "v1", None, NOW), "1 delete markers", id="a delete marker"),
    pytest.param(Kept("", "v1", b"", NOW), "no lock", id="without a lock"),
    pytest.param(Kept("", "v1", b"", NOW, Retention("GOVERNANCE", NOW + YEAR)), "GOVERNANCE lock", id="a weaker lock"),
    pytest.param(Kept("", "v1", b"", NOW, Retention("COMPLIANCE", NOW + timedelta(days=1))), "locked for less",
                 id="locked for a day"),
])
def test_what_lies_where_a_head_is_to_be_must_be_that_head_and_locked(place: Place, kept: Kept, expected: str):
    [note] = heads(1)
    key = str(place.anchor.publish("main", note).proof["key"])
    body = note.encode() if kept.body == b"" else kept.body
    place.store.kept[key] = [replace(kept, key=key, body=body)]

    with pytest.raises(AnchorError, match=expected):
        place.anchor.publish("main", note)


@pytest.mark.parametrize(("laxness", "expected"), [
    (Laxness.IGNORES_LOCKS, "no lock"),
    (Laxness.GOVERNS, "GOVERNANCE lock"),
    (Laxness.DAMAGES, "checksum|other bytes"),
    (Laxness.DAMAGES | Laxness.OVERWRITES, "other bytes"),
])
def test_a_head_counts_as_anchored_only_as_it_was_sent(laxness: Laxness, expected: str):
    with bucket_of(Store(laxness=laxness)) as bucket, pytest.raises(AnchorError, match=expected):
        S3Anchor(bucket, ORIGIN, YEAR, proved=True).publish("main", heads(1)[0])


def test_a_bucket_that_keeps_no_versions_takes_no_head():
    with bucket_of(Store(versioning="Suspended")) as bucket, pytest.raises(AnchorError):
        S3Anchor(bucket, ORIGIN, YEAR, proved=True).publish("main", heads(1)[0])


@pytest.mark.parametrize(("over", "told"), [
    pytest.param(b"another head\n", "1 versions laid over the first", id="a version over it"),
    pytest.param(None, "1 delete markers", id="a delete marker"),
])
def test_what_is_laid_over_a_head_is_told_and_does_not_hide_it(place: Place, over: bytes | None, told: str):
    notes = heads(2)
    keys = [str(place.anchor.publish("main", note).proof["key"]) for note in notes]
    place.lay_over(keys[0], over)

    given = place.anchor.notes()
    found = [next(given), next(given)]

    assert found == [*reversed(notes)]
    with pytest.raises(AnchorError, match=told) as told_by:
        next(given)
    assert keys[0] in str(told_by.value)


@pytest.mark.parametrize("note", [
    pytest.param("", id="nothing"),
    pytest.param("governor/00/main\n1\nAAAA\n\n", id="no root"),
    pytest.param(heads(1, "w0")[0], id="another lane's"),
])
def test_only_a_checkpoint_of_the_lane_is_written(place: Place, note: str):
    with pytest.raises(AnchorError):
        place.anchor.publish("main", note)

    assert place.store.kept == {}


def test_a_head_longer_than_any_is_told_and_neither_read_nor_hides_the_others(place: Place):
    older, newer = heads(2)
    place.anchor.publish("main", older)
    key = str(place.anchor.publish("main", newer).proof["key"])
    place.store.kept[key][0].body = b"x" * (2**16 + 1)
    place.store.kept[key][0].sha256 = None

    given = place.anchor.notes()

    assert next(given) == older
    with pytest.raises(AnchorError, match="longer than any head"):
        next(given)


def test_the_preflight_refuses_a_bucket_without_a_lock_that_holds(place: Place):
    place.anchor.preflight()

    for laxness in (Laxness.IGNORES_LOCKS, Laxness.SHORTENS):
        with bucket_of(Store(laxness=laxness)) as bucket, pytest.raises(AnchorError, match="proves nothing"):
            S3Anchor(bucket, ORIGIN, YEAR, proved=True).preflight()


def test_the_first_head_has_the_bucket_prove_its_lock_and_the_next_ones_do_not(place: Place):
    place.anchor.proved = False
    first, second = heads(2)

    place.anchor.publish("main", first)
    after_the_first = len(place.store.asked)
    place.anchor.publish("main", second)

    assert {"PUT retention", "DELETE"} <= {what for what, _ in place.store.asked}
    assert len(place.store.asked) - after_the_first == 4
    with bucket_of(Store(laxness=Laxness.SHORTENS)) as bucket, pytest.raises(AnchorError, match="proves nothing"):
        S3Anchor(bucket, ORIGIN, YEAR).publish("main", first)


def test_an_anchor_needs_no_more_than_the_policy_for_publishing_allows(place: Place):
    place.store.denied = frozenset({"DELETE", "POST delete", "PUT retention", "PUT versioning"})
    note = heads(1)[0]

    place.anchor.preflight()
    place.anchor.publish("main", note)

    assert list(place.anchor.notes()) == [note]


def test_the_one_log_below_a_prefix_is_found_and_one_of_several_must_be_asked_for(place: Place):
    with pytest.raises(AnchorError, match="no log of Governor's here"):
        at_one_log(place.anchor.bucket)
    place.anchor.publish("main", heads(1)[0])
    assert at_one_log(place.anchor.bucket)[1] == ORIGIN
    other = f"{PREFIX}/governor/{'ab' * 8}/main/x"
    place.store.kept[other] = [Kept(other, "v1", b"", NOW)]

    with pytest.raises(AnchorError, match=f"{URL}/{ORIGIN}"):
        at_one_log(place.anchor.bucket)
    bucket, origin = at_one_log(place.anchor.bucket.at(f"{PREFIX}/{ORIGIN}"))

    assert (bucket.location.prefix, origin) == (PREFIX, ORIGIN)


@pytest.mark.parametrize("url", [
    "https://example-bucket", "s3:/example-bucket", "s3://", "s3://Example", "s3://example-bucket/a//b",
    "s3://example-bucket/../x", "s3://example-bucket/a b", "s3://example-bucket/\u202e",
])
def test_what_is_no_place_in_a_bucket_is_refused(url: str):
    with pytest.raises(ValueError, match=r"s3://|prefix"):
        Location.parse(url)


@pytest.mark.parametrize("endpoint", ["s3.example.org", "ftp://example.org", "https://user:pw@example.org", "https://"])
def test_an_endpoint_is_a_url_without_a_secret(endpoint: str):
    with pytest.raises(ValueError, match="endpoint") as refused:
        Location.parse("s3://example-bucket", endpoint=endpoint)

    assert "pw" not in str(refused.value)


def test_without_credentials_it_says_so(monkeypatch: pytest.MonkeyPatch, place: Place):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    with pytest.raises(AnchorError, match="credentials"):
        S3Anchor(Bucket(place.anchor.bucket.location), ORIGIN, YEAR, proved=True).publish("main", heads(1)[0])


def test_what_a_server_says_is_kept_short_and_without_control_characters(place: Place):
    place.store.denied, place.store.denial = frozenset({"PUT"}), "\u202e" + "x" * 10_000

    with pytest.raises(AnchorError) as refused:
        place.anchor.publish("main", heads(1)[0])

    assert "\u202e" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_without_the_extra_it_names_it():
    program = ("import sys; sys.modules['boto3'] = None\n"
               "from addons.anchors.bucket import Bucket, Location\n"
               "try: Bucket(Location('example-bucket'))\n"
               "except Exception as error: print(type(error).__name__, error)")

    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert said.startswith("AnchorError")
    assert "governor-proxy[s3]" in said

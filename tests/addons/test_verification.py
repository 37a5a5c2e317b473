"""`governor audit verify` with heads that somebody else keeps, with a period, from a bucket, and held to the letter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from addons.anchors.bucket import Bucket
from addons.anchors.s3 import S3Anchor
from addons.anchors.sealed import SealedStore
from addons.anchors.signed_heads import newest_head
from addons.audit_log import AuditLog
from addons.home import Home
from addons.verbs.audit import audit
from kernel.cosignature import WitnessKey, cosign
from kernel.note import opened
from tests.addons.logs import decision, entries, open_lane, segments
from tests.addons.s3_places import URL, bucket_of, use_credentials
from tests.addons.s3_server import Store

YEAR = timedelta(days=400)


def asked(*arguments: object) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(audit, ["verify", *map(str, arguments), "--json"], standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value, json.loads(result.stdout)


def told(*arguments: object) -> str:
    return CliRunner().invoke(audit, ["verify", *map(str, arguments)], standalone_mode=False).stdout


@pytest.fixture
def written(home: Home) -> Home:
    """A log of three segments, closed."""
    lane = open_lane(home, vault=False)
    for _ in range(2):
        lane.write_now("decision", decision("f"))
        lane.rotate("operator")
    lane.write_now("decision", decision("f"))
    lane.close("done")
    return home


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    use_credentials(monkeypatch)
    with bucket_of(Store()) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(bucket.location.endpoint))
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield bucket


def test_a_file_of_heads_vouches_for_the_log_and_says_how_far(written, tmp_path):
    heads = tmp_path / "heads"
    heads.write_text(newest_head(written.paths.lane("main")))
    code, found = asked(written.paths.folder, "--anchor", heads, "--strict")

    assert (code, found["result"], found["reservations"]) == (0, "verified", [])
    assert found["unanchored"] == {"entries": 0, "seconds": 0}
    assert f"anchored up to main/{len(entries(written)) - 1}" in told(written.paths.folder, "--anchor", heads)


def test_strict_counts_what_the_answer_leaves_open(written):
    code, found = asked(written.paths.folder, "--strict")

    assert (code, found["result"]) == (3, "verified")
    assert found["reservations"] == [f"not anchored: {len(entries(written))}"]
    assert "on this host's word alone" in told(written.paths.folder)


def test_strict_does_not_soften_what_does_not_hold(written):
    path = segments(written)[0]
    path.write_bytes(path.read_bytes().replace(b'"allow"', b'"aLlow"', 1))

    assert asked(written.paths.folder, "--strict")[0] == 1


def test_a_home_put_back_whole_is_rolled_back_by_a_head_that_somebody_kept(written, tmp_path):
    shutil.copytree(written.paths.folder, tmp_path / "older")
    lane = open_lane(Home.open(written.paths.folder), vault=False)
    lane.write_now("decision", decision("f"))
    lane.close("done")
    heads = tmp_path / "heads"
    heads.write_text(newest_head(written.paths.lane("main")))

    assert asked(tmp_path / "older")[0] == 0
    assert asked(tmp_path / "older", "--anchor", heads)[0] == 5


def test_what_a_witness_cosigned_is_an_anchor_for_who_trusts_it(written):
    witness, private = cosigner("w.example.org")
    note = newest_head(written.paths.lane("main"))
    cosigned = note + cosign(opened(note)[0], witness, 1_700_000_000, private.sign)
    (written.paths.audit / "receipts" / f"{witness.kid}-main.note").write_text(cosigned)
    code, found = asked(written.paths.folder, "--witness", witness, "--strict")

    assert (code, found["result"]) == (0, "verified")
    assert found["anchored"][0]["by"] == ["witness w.example.org"]  # type: ignore[index]
    assert asked(written.paths.folder, "--witness", cosigner("x.example.org")[0])[0] == 4


def cosigner(name: str) -> tuple[WitnessKey, Ed25519PrivateKey]:
    private = Ed25519PrivateKey.generate()
    return WitnessKey(name, private.public_key().public_bytes_raw()), private


@pytest.mark.parametrize("wrong", [("--witness", "no key"), ("--anchor", "/no/such/file"), ("--anchor", "s3://B/")])
def test_a_question_that_cannot_be_asked_is_wrong_usage(written, wrong):
    result = CliRunner().invoke(audit, ["verify", str(written.paths.folder), *wrong])

    assert result.exit_code == 2
    assert wrong[1] in result.stderr


def test_a_bucket_vouches_for_the_log_and_gives_it_back_without_the_host(written, bucket):
    log = AuditLog.at(written.paths.folder)
    store = SealedStore(bucket, written.root.name, YEAR)
    for _ in [*store.send(log, "main", ended=True), *store.send_surroundings(log)]:
        pass
    S3Anchor(bucket, written.root.name, YEAR, proved=True).publish("main", newest_head(written.paths.lane("main")))
    pin = str(written.root)
    here, there = asked(written.paths.folder, "--anchor", URL), asked(URL, "--trust", pin, "--anchor", URL, "--strict")

    assert (here[0], there[0]) == (0, 0)
    assert here[1]["lanes"] == there[1]["lanes"]


def test_a_bucket_that_is_behind_its_own_anchors_has_a_log_that_goes_on_elsewhere(written, bucket):
    log = AuditLog.at(written.paths.folder)
    store = SealedStore(bucket, written.root.name, YEAR)
    for _ in [*store.send(log, "main"), *store.send_surroundings(log)]:
        pass
    S3Anchor(bucket, written.root.name, YEAR, proved=True).publish("main", newest_head(written.paths.lane("main")))
    code, found = asked(URL, "--trust", written.root, "--anchor", URL)

    assert (code, found["segments"]) == (0, 2)
    here, whole = found["entries"], len(entries(written))
    assert found["unsealed"] == {"main": {"entries": here, "anchored": whole}}
    assert f"lane main: {here} entries were sent there, and {whole} are anchored" in told(URL, "--trust", written.root)
    assert asked(URL, "--trust", written.root, "--anchor", URL, "--strict")[0] == 3


def test_what_somebody_laid_over_the_bucket_is_told(written, bucket):
    log = AuditLog.at(written.paths.folder)
    store = SealedStore(bucket, written.root.name, YEAR)
    sent = [*store.send(log, "main", ended=True), *store.send_surroundings(log)]
    bucket.delete(sent[0].key)
    code, found = asked(URL, "--trust", written.root)

    assert (code, found["result"]) == (1, "tampered")


def test_a_period_is_named_with_what_it_covers(written):
    begins = [json.loads(path.read_text().split("\n")[0])["e"]["ts"] for path in segments(written)]
    code, found = asked(written.paths.folder, "--since", begins[1], "--until", begins[2])

    assert (code, found["segments"]) == (0, 1)
    assert found["asked"] == {"since": begins[1], "until": begins[2]}
    assert found["covered"]["from"] == begins[1]  # type: ignore[index]


def test_a_lane_without_its_end_is_said_and_no_failure(written, tmp_path):
    lane = open_lane(Home.open(written.paths.folder), "w0", vault=False)
    lane.write_now("decision", decision("f"))
    shutil.copytree(written.paths.folder, tmp_path / "crashed", ignore=shutil.ignore_patterns(".*"))
    lane.close("done")
    code, found = asked(tmp_path / "crashed")

    assert (code, found["result"]) == (0, "verified")
    assert "lane w0 ended without close" in found["reservations"]  # type: ignore[operator]
    assert "ended without close" in told(tmp_path / "crashed")


def test_nothing_is_anchored_where_the_folder_is_gone(tmp_path: Path) -> None:
    result = CliRunner().invoke(audit, ["verify", str(tmp_path / "gone")])

    assert result.exit_code == 2

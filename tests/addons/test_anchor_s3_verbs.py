"""`governor audit anchor selftest` and `iam`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from addons import cli
from addons.anchors import lock_contract
from addons.home import Home
from tests.addons.anchored_logs import GrowingLog, size_of
from tests.addons.s3_places import NAME, URL, use_credentials
from tests.addons.s3_server import Laxness, Store, serving


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)


@pytest.fixture
def governor(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(["audit", "anchor", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.parametrize(("laxness", "result", "expected"), [
    (Laxness.NONE, "passed", 0),
    (Laxness.OVERWRITES, "lacking", 3),
    (Laxness.SHORTENS | Laxness.OVERWRITES, "failed", 1),
])
def test_the_selftest_tells_what_it_asked_expected_and_saw(governor, laxness: Laxness, result: str, expected: int):
    with serving(Store(laxness=laxness), NAME) as endpoint:
        status, out, _ = governor("selftest", "--s3", URL, "--endpoint", endpoint, "--json")

    told = json.loads(out)
    assert (status, told["result"], told["target"]) == (expected, result, URL)
    assert len(told["checks"]) == lock_contract.size()
    assert set(told["checks"][0]) == {"name", "expected", "seen", "outcome", "needed"}


def test_the_selftest_prints_a_table_and_what_follows_from_it(governor):
    with serving(Store(laxness=Laxness.IGNORES_LOCKS), NAME) as endpoint:
        status, out, _ = governor("selftest", "--s3", URL, "--endpoint", endpoint)

    rows = out.splitlines()
    assert status == 1
    assert any(row.split() == ["failed", "mode", "of", "the", "lock", "COMPLIANCE", "no", "lock"] for row in rows)
    assert rows[-1] == f"the lock does not hold: heads kept there prove nothing: {URL}"


@pytest.mark.parametrize("words", ["\x1b[2J", "\u202eabc", "&#155;2J"])
def test_what_a_server_answers_is_printed_as_text(governor, words: str):
    with serving(Store(denial=words, denied=frozenset({"PUT"})), NAME) as endpoint:
        status, *said = governor("selftest", "--s3", URL, "--endpoint", endpoint)

    assert status == 1
    assert not {"\x1b", "\u202e", "\x9b"} & {*said[0], *said[1]}


@pytest.mark.parametrize("arguments", [
    ["selftest"],
    ["selftest", "--s3", "https://example.org"],
    ["selftest", "--s3", URL, "--endpoint", "s3.example.org"],
    ["iam", "--s3", "s3://"],
])
def test_a_question_that_is_none_ends_with_2(governor, arguments: list[str]):
    assert governor(*arguments)[0] == 2


def test_a_server_that_does_not_answer_ends_with_1_and_a_line(governor):
    with serving(Store(), NAME) as endpoint:
        pass

    status, _, err = governor("selftest", "--s3", URL, "--endpoint", endpoint)

    assert status == 1
    assert err.startswith(f"governor: {URL}: ")
    assert len(err.splitlines()) == 1


def named(home: Home, endpoint: str) -> None:
    home.paths.anchors.write_text(f"anchors:\n  - s3: {URL}\n    endpoint: {endpoint}\n    retain: 30d\n")


def test_a_head_goes_to_the_bucket_that_anchors_yaml_names(governor, home: Home):
    log, store = GrowingLog(home), Store()
    note = log.kept(3)
    log.close()

    with serving(store, NAME) as endpoint:
        named(home, endpoint)
        status, out, _ = governor("now", "--home", str(home.paths.folder), "--json")

    [answer] = json.loads(out)["anchored"]
    heads = {key: kept for key, [kept] in store.kept.items() if key.startswith(f"audit/{home.root.name}/main/")}
    assert (status, answer["error"], answer["kind"], answer["target"]) == (0, None, "s3", URL)
    assert answer["size"] >= size_of(note)
    [kept] = heads.values()
    assert kept.retention.mode == "COMPLIANCE"
    assert timedelta(days=29) < kept.retention.until - kept.modified < timedelta(days=31)


def test_a_bucket_whose_lock_does_not_hold_takes_no_head(governor, home: Home):
    log, store = GrowingLog(home), Store(laxness=Laxness.SHORTENS)
    log.kept(3)
    log.close()

    with serving(store, NAME) as endpoint:
        named(home, endpoint)
        status, out, _ = governor("now", "--home", str(home.paths.folder), "--json")

    assert status == 1
    assert "this bucket proves nothing: shorten the lock" in json.loads(out)["anchored"][0]["error"]
    assert not [key for key in store.kept if home.root.name in key]


def statements(document: str) -> dict[str, dict[str, Any]]:
    return {statement["Sid"]: statement for statement in json.loads(document)["Statement"]}


def test_the_policy_for_publishing_gives_no_way_to_take_back(governor):
    status, out, _ = governor("iam", "--s3", URL)

    found = statements(out)
    allowed = [action for each in found.values() if each["Effect"] == "Allow" for action in each["Action"]]
    assert status == 0
    assert not [action for action in allowed if "Delete" in action or "Bypass" in action or "Lifecycle" in action]
    assert {"s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"} <= set(found["TakeNothingBack"]["Action"])
    assert found["WriteAndCheckHeads"]["Resource"] == "arn:aws:s3:::example-bucket/audit/*"
    assert found["ListHeads"]["Condition"] == {"StringLike": {"s3:prefix": "audit/*"}}


def test_the_policy_for_a_reader_writes_nothing(governor):
    _, out, _ = governor("iam", "--s3", "s3://example-bucket", "--reader")

    found = statements(out)
    assert [action for each in found.values() for action in each["Action"]] == [
        "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:ListBucketVersions"]
    assert found["ReadHeads"]["Resource"] == "arn:aws:s3:::example-bucket/*"
    assert "Condition" not in found["ListHeads"]

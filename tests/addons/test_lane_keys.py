"""Keys of a lane: a new one with every segment, the old one gone, and a crash at any moment of that loses nothing."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

from addons import durable, keys
from addons import lane as lane_module
from addons.errors import StartCode, StartRefused
from addons.home import Home
from addons.journal import Journal, drafts
from addons.keys import SigningKey
from addons.lane_keys import LaneKeys
from addons.opening import open_journal
from addons.segment import Segment
from addons.takeover import acts
from kernel import chain, entry
from kernel.note import parse_verifier_key
from kernel.transition import micros
from tests.addons.logs import KERNEL, decision, entries, kinds, open_lane, report, segment, segments

STEPS = [(LaneKeys, "certify"), (Journal, "append"), (Segment, "create"), (LaneKeys, "turn"), (LaneKeys, "settle")]


def rotated(home: Home, times: int = 1) -> None:
    lane = open_lane(home, vault=False)
    for _ in range(times):
        lane.write_now("decision", decision("f"))
        lane.rotate("operator")
        lane.write_now("decision", decision("f"))
    lane.close("done")


def kid_of(line: bytes) -> str:
    return chain.split(line)[1]


def test_each_segment_is_signed_by_a_key_of_its_own_that_the_one_before_certified(home):
    rotated(home, 3)

    kids = [{kid_of(line) for line in path.read_bytes().splitlines(keepends=True)[first:]}
            for path, first in zip(segments(home), (1, 0, 0, 0), strict=True)]
    brought = [each["key"] for each in entries(home) if each["type"] in ("lane_open", "key_rotate")]
    assert [{parse_verifier_key(key).kid} for key in brought] == kids
    assert len(set(brought)) == 4
    assert [kid for each in report(home).keys[1:] for kid in [each.kid]] == [kid for each in kids for kid in each]
    assert report(home).result == "verified"


def test_a_key_that_has_signed_its_segment_is_destroyed(home):
    open_lane(home, vault=False).close("done")
    before = home.paths.lane_key("main").read_bytes()
    link = home.paths.folder / "a second name of the old key"
    link.hardlink_to(home.paths.lane_key("main"))
    lane = open_lane(Home.open(home.paths.folder), vault=False)
    lane.rotate("operator")
    lane.write_now("decision", decision("f"))
    lane.close("done")

    held = [path.read_bytes() for path in home.paths.folder.rglob("*") if path.is_file()]
    assert all(before not in content for content in held)
    assert link.read_bytes() == bytes(len(before))
    assert not home.paths.next_key("main").exists()


def test_a_long_segment_and_an_old_one_end_with_their_key(home, monkeypatch):
    monkeypatch.setattr(lane_module, "SEGMENT_BYTES", 4096)
    lane = open_lane(home, vault=False)
    while len(segments(home)) < 2:
        lane.write_now("decision", decision("f"))
    monkeypatch.setattr(lane_module, "SEGMENT_BYTES", 2**20)
    monkeypatch.setattr(lane_module, "SEGMENT_SECONDS", 0)
    lane.write_now("decision", decision("f"))
    lane.write_now("decision", decision("f"))
    lane.close("done")

    assert [each["reason"] for each in entries(home) if each["type"] == "key_rotate"][:2] == ["size", "time"]
    assert report(home).result == "verified"


def test_the_age_of_a_segment_outlives_a_restart(home):
    open_lane(home, vault=False).close("done")
    lane = open_lane(Home.open(home.paths.folder), vault=False)
    lane.close("done")

    assert lane._journal._began_us == micros(entries(home)[0]["ts"])


def test_a_lane_in_which_there_was_nothing_to_write_keeps_its_key(home, monkeypatch):
    monkeypatch.setattr(lane_module, "IDLE_SECONDS", 0.02)
    rotated(home)
    monkeypatch.setattr(lane_module, "SEGMENT_SECONDS", 0)
    lane = open_lane(Home.open(home.paths.folder), vault=False)
    heads = SimpleQueue[str]()
    lane.on_checkpoint(lambda head, _: heads.put(head))
    lane.rotate("operator")
    lane.write_now("heartbeat", entry.heartbeat())
    count = len(segments(home))
    while kinds(home).count("heartbeat") < 4 and len(segments(home)) <= count + 1:
        heads.get(timeout=20)
    lane.close("done")

    assert len(segments(home)) <= count + 1


def test_a_crash_at_any_step_of_a_rotation_is_put_in_order_by_the_next_start(home, tmp_path, monkeypatch):
    copies: list[Path] = []

    def copying(original: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            copy()
            return original(*arguments)

        return step

    def copy() -> None:
        copies.append(tmp_path / f"copy-{len(copies)}")
        shutil.copytree(home.paths.folder, copies[-1], ignore=shutil.ignore_patterns(".*"))

    lane = open_lane(home, vault=False)
    lane.write_now("decision", decision("f"))
    with monkeypatch.context() as patched:
        for owner, name in STEPS:
            patched.setattr(owner, name, copying(getattr(owner, name)))
        lane.rotate("operator")
        lane.write_now("decision", decision("f"))
        copy()
    lane.close("done")

    assert len(copies) >= len(STEPS) + 1
    assert sum((each / "keys" / "main.next").exists() for each in copies) >= 4
    for each in copies:
        rotated(Home.open(each))
        assert report(Home.open(each)).result == "verified"
        assert not (each / "keys" / "main.next").exists()


@pytest.mark.parametrize("lose", [
    pytest.param(lambda home: shutil.copy(home.paths.lane_key("cli"), home.paths.lane_key("main")), id="another's"),
    pytest.param(lambda home: (home.paths.lane_key("main").unlink(),
                               SigningKey.create(home.paths.lane_key("main"), f"governor/{home.log_id}/main")),
                 id="a new one"),
])
def test_a_key_that_the_log_does_not_call_for_refuses_to_start(home, lose: Callable[[Home], object]):
    open_lane(home, "cli", vault=False).close("done")
    rotated(home)
    lose(home)

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder), vault=False)
    assert caught.value.code is StartCode.TAMPERED


def test_a_former_key_copied_back_refuses_to_start(home, tmp_path):
    open_lane(home, vault=False).close("done")
    stolen = tmp_path / "stolen"
    shutil.copy(home.paths.lane_key("main"), stolen)
    rotated(Home.open(home.paths.folder))
    durable.replace(home.paths.lane_key("main"), stolen.read_bytes())

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder), vault=False)
    assert caught.value.code is StartCode.TAMPERED


def test_a_thief_of_the_current_key_cannot_rewrite_an_earlier_segment(home):
    rotated(home, 2)
    thief = SigningKey.load(home.paths.lane_key("main"), f"governor/{home.log_id}/main")
    lines = segment(home).read_bytes().splitlines(keepends=True)
    at = next(at for at, line in enumerate(lines) if b'"type":"decision"' in line)
    raw = chain.split(lines[at])[0].replace(b'"verdict":"allow"', b'"verdict":"deny"')
    lines[at] = chain.line(raw, thief.kid, thief.sign(chain.signed_bytes(chain.entry_hash(raw))))
    segment(home).write_bytes(b"".join(lines))
    (home.paths.lane("main") / "checkpoints.note").write_bytes(b"")

    assert report(home).result == "tampered"


def test_a_log_cut_back_before_its_newest_key_is_a_rollback(home):
    rotated(home, 2)
    for path in segments(home)[1:]:
        path.unlink()

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder), vault=False)
    assert caught.value.code is StartCode.ROLLED_BACK


def test_a_rotation_proves_that_the_next_key_has_a_holder(home):
    rotated(home)
    told = next(each for each in entries(home) if each["type"] == "key_rotate")
    key = parse_verifier_key(told["key"])
    message = entry.possession_bytes(home.log_id, "main", told["key"], told["prev"], told["seq"])

    assert keys.verifies(key.public, base64.b64decode(told["proof"]), message)


def test_acts_in_a_lane_with_several_keys_are_taken_over(home):
    lane = open_lane(home, "cli", vault=False)
    for _ in range(3):
        lane.write_now("operator", entry.operator("agents halt", "coder-1", "r", "ana", "cli"))
        lane.rotate("operator")
    lane.close("done")

    assert [each["by"] for each in acts(home, -1)] == ["cli/2", "cli/5", "cli/8"]


def test_a_policy_change_begins_a_segment(home):
    lane = open_lane(home, vault=False)
    lane.rotate("policy")
    lane.write_now("policy_load", entry.policy_load("00" * 32, [], "enforce", {"version": "1", "digest": "0"}))
    lane.close("done")

    assert kinds(home)[2:5] == ["key_rotate", "segment_open", "policy_load"]


def test_the_policy_that_was_in_force_is_known_at_the_next_start(home):
    lane = open_lane(home, vault=False)
    assert lane.last_policy is None
    for digest in ("00" * 32, "11" * 32):
        lane.write_now("policy_load", entry.policy_load(digest, [], "enforce", {"version": "1", "digest": "0"}))
    lane.close("done")
    again = open_lane(Home.open(home.paths.folder), vault=False)
    again.close("done")

    assert again.last_policy == "11" * 32


def test_a_rotation_in_the_midst_of_a_segment_refuses_to_start(home):
    open_lane(home, vault=False).close("done")
    journal, _ = open_journal(Home.open(home.paths.folder), "main", KERNEL)
    told = journal.certify("operator")
    journal.append(drafts([told, decision("f")], journal.size))
    journal.segment.close()

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder), vault=False)
    assert caught.value.code is StartCode.TAMPERED

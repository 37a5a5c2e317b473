"""A lane that is lost and given up: what goes on in its place, what of it goes on, and what stays said of it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import string
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from addons import accepted_loss, acts_alone, codec
from addons.accepted_loss import NothingLost, accept, distrust
from addons.audit_log import AuditLog
from addons.book import Book
from addons.bundling import bundle
from addons.errors import StartCode, StartRefused
from addons.halts_on_disk import state_on_disk
from addons.home import Home
from addons.keys import SigningKey
from addons.lane import Lane
from addons.lineage import lineage, newest
from addons.operator_acts import Deed
from addons.replay_parts import parts_of
from addons.rotation import rotate
from addons.snapshots import Snapshots
from addons.takeover import acts
from addons.verbs.audit import audit
from kernel import chain, entry
from kernel.loss import Loss
from kernel.manifest import Period
from kernel.report import Result
from kernel.state import LOST, TOGETHER
from kernel.transition import CLI
from tests.addons.logs import crashed_copy, decision, entries, kinds, open_lane, report, segment, segments

ROOT = Path(__file__).parents[2]

type Harm = Callable[[Home], object]


def halt(agent: str) -> entry.Body:
    return entry.operator("agents halt", agent, "it uploads", "ann", "control")


def release(agent: str) -> entry.Body:
    return entry.operator("agents release", agent, "it is well", "ann", "control")


def written(home: Home, *bodies: entry.Body, lane: str = "main") -> Home:
    opened = open_lane(home, lane, vault=False)
    for body in bodies:
        opened.write_now(body["type"], body)
    opened.close("done")
    return Home.open(home.paths.folder)


def given_up(home: Home, lane: str = "main") -> Loss:
    return accept(home.paths.folder, lane, "the disk failed", "ann").loss


def next_start(home: Home) -> Lane:
    """What a start makes of the home, closed again."""
    again = Home.open(home.paths.folder)
    lane = open_lane(again, newest(again.paths, "main", again.root), vault=False)
    lane.close("looked at")
    return lane


def changed(home: Home, old: bytes, new: bytes, lane: str = "main") -> None:
    path = segment(home, lane)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def cut_back(home: Home) -> None:
    lines = segment(home).read_bytes().splitlines(keepends=True)
    segment(home).write_bytes(b"".join(lines[:-2]))


def second_opinion(home: Home) -> int:
    command = [sys.executable, ROOT / "scripts" / "verify_log.py", home.paths.audit, "--trust", str(home.root)]
    return subprocess.run(command, check=False, capture_output=True).returncode


def untouched(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


HARMS: dict[str, tuple[Harm, str, int, Result]] = {
    "a line was edited": (
        lambda home: changed(home, b'"coder-2"', b'"coder-3"'), "tampered", 3, Result.TAMPERED),
    "the end was cut off": (cut_back, "rolled_back", 4, Result.ROLLED_BACK),
    "the log was emptied": (lambda home: segment(home).write_bytes(b""), "rolled_back", 0, Result.ROLLED_BACK),
    "the log was deleted": (lambda home: shutil.rmtree(home.paths.lane("main")), "incomplete", 0, Result.INCOMPLETE),
    "the key was deleted": (lambda home: home.paths.lane_key("main").unlink(), "incomplete", 6, Result.VERIFIED),
    "log and key were deleted": (
        lambda home: (shutil.rmtree(home.paths.lane("main")), home.paths.lane_key("main").unlink()),
        "incomplete", 0, Result.INCOMPLETE),
    "another key lies in its place": (
        lambda home: SigningKey.create(home.paths.lane_key("main"), f"governor/{home.log_id}/main"),
        "incomplete", 6, Result.VERIFIED),
    "minimum.json was deleted": (lambda home: home.paths.minimum.unlink(), "incomplete", 6, Result.VERIFIED),
    "minimum.json is damaged": (lambda home: home.paths.minimum.write_bytes(b"{"), "tampered", 6, Result.VERIFIED),
    "the checkpoints are damaged": (
        lambda home: (home.paths.lane("main") / "checkpoints.note").write_bytes(
            (home.paths.lane("main") / "checkpoints.note").read_bytes().replace(b"\n\n", b"\nmore\n\n")),
        "tampered", 6, Result.TAMPERED),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_lane_that_is_given_up_is_followed_by_another_and_stays_what_it_is(home, harm):
    do, result, whole, verdict = HARMS[harm]
    written(home, halt("coder-1"), halt("coder-2"), release("coder-2"))
    do(home)
    with pytest.raises(StartRefused):
        next_start(home)
    before = untouched(home.paths.lane("main"))

    loss = given_up(home)

    assert (loss.lane, loss.entries, loss.result, loss.reason, loss.operator) == (
        "main", whole, result, "the disk failed", "ann")
    assert untouched(home.paths.lane("main")) == before
    assert next_start(home).name == "main-1"
    assert report(home).result is verdict
    assert second_opinion(home) == verdict.exit_code
    assert entries(home, "main-1")[0]["loss"] == loss.fields()
    assert (next_start(home).states.real.agent("coder-1").halt is not None) is (whole > 2)


def test_a_whole_lane_is_not_given_up(home):
    written(home, halt("coder-1"))

    with pytest.raises(NothingLost):
        given_up(home)
    assert home.lanes() == ("main",)


def test_a_lane_that_a_crash_left_is_whole_and_stays_as_it_was(home, tmp_path):
    lane = open_lane(home, vault=False)
    lane.write_now("decision", decision("f"))
    copy = crashed_copy(home, tmp_path / "copy")
    lane.close("the original goes on")
    with segment(copy).open("ab") as file:
        file.write(b'{"e":{"torn')
    with (copy.paths.lane("main") / "checkpoints.note").open("ab") as file:
        file.write(b"governor/")
    before = untouched(copy.paths.lane("main"))

    with pytest.raises(NothingLost):
        given_up(copy)
    assert untouched(copy.paths.lane("main")) == before


def test_a_loss_is_not_accepted_while_a_lane_is_written(home):
    written(home)
    running = open_lane(home, "w0", vault=False)
    cut_back(home)

    with pytest.raises(StartRefused) as caught:
        given_up(home)
    assert caught.value.code is StartCode.LANE_BUSY
    running.close("done")


@pytest.mark.parametrize("harm", [
    pytest.param(lambda home: segment(home).chmod(0o644), id="a log that others can read"),
    pytest.param(lambda home: home.paths.lane_key("main").chmod(0o644), id="a key that others can read"),
])
def test_what_another_lane_does_not_help_against_is_refused_as_by_a_start(home, harm):
    written(home)
    harm(home)

    with pytest.raises(StartRefused) as caught:
        given_up(home)
    assert caught.value.code in (StartCode.HOME_UNWRITABLE, StartCode.KEY_PERMISSIONS)


def test_losses_follow_one_another(home):
    written(home, halt("coder-1"), halt("coder-2"))
    cut_back(home)
    given_up(home)
    next_start(home)
    changed(home, b'"looked at"', b'"lOoked at"', "main-1")
    second = given_up(home)

    assert (second.lane, second.entries) == ("main-1", 1)
    assert next_start(home).name == "main-2"
    assert [lane for lane, _ in lineage(home.paths, "main", home.root)] == ["main", "main-1", "main-2"]
    assert next_start(home).states.real.agent("coder-1").halt is not None
    assert [each["successor"] for each in report(home).as_json()["losses"]] == ["main-1", "main-2"]


def test_a_halt_behind_the_damage_counts_and_a_release_there_does_not(home):
    written(home, halt("early"), entry.fault("lane", "E", "FAULT", None), release("early"), halt("late"))
    changed(home, b'"fault"', b'"fAult"')
    loss = given_up(home)
    halted = {name for name, each in next_start(home).states.real.agents.items() if each.halt}

    assert loss.entries == 3
    assert halted == {"early", "late"}
    assert {name for name, each in state_on_disk(home.paths).agents.items() if each.halt} == halted


def test_a_halt_of_which_only_a_kept_state_is_left_counts(home, monkeypatch):
    lane = open_lane(home, vault=False)
    book = Book(lane, lane.states, lambda: None, lambda agent: ())
    asyncio.run(book.act("agents halt", "coder-1", "it uploads", "ann", "control"))
    lane.rotate("operator")
    lane.write_now("decision", decision("f"))
    Snapshots(home.paths, lane, lane.states).finish()
    lane.close("done")
    segments(home)[0].unlink()
    loss = given_up(home)

    assert loss.entries == 0
    assert next_start(home).states.real.agent("coder-1").halt is not None


def test_flows_that_were_open_are_closed_as_unknown_in_the_lane_that_goes_on(home, tmp_path):
    lane = open_lane(home, vault=False)
    for flow in ("first", "second"):
        lane.write_now("decision", decision(flow))
    lane.write_now("fault", entry.fault("lane", "E", "FAULT", None))
    copy = crashed_copy(home, tmp_path / "copy")
    lane.close("the original goes on")
    with segment(copy).open("ab") as file:
        file.write(b"damage\n" * 2)
    given_up(copy)
    next_start(copy)

    assert [(each["decision"], each["result"]) for each in entries(copy, "main-1") if each["type"] == "outcome"] == [
        ("main/2", "unknown"), ("main/3", "unknown")]


def test_a_lane_rewritten_with_its_own_key_holds_as_far_as_the_last_head_that_it_agrees_with(home, tmp_path):
    lane = open_lane(home, vault=False)
    lane.write_now("operator", halt("coder-1"))
    fork = crashed_copy(home, tmp_path / "fork")
    lane.close("done")
    forged = open_lane(fork, vault=False)
    forged.write_now("operator", release("coder-1"))
    forged.close("done")
    segment(home).write_bytes(segment(fork).read_bytes())
    loss = given_up(home)

    assert loss.result == "tampered"
    assert loss.entries == 2
    assert report(home).result is Result.TAMPERED
    assert next_start(home).states.real.agent("coder-1").halt is not None


def test_a_lost_state_that_was_carried_over_refuses_to_start(home):
    written(home, halt("coder-1"))
    cut_back(home)
    loss = given_up(home)
    home.paths.state(str(loss.state)).write_bytes(b"{}")

    with pytest.raises(StartRefused) as caught:
        next_start(home)
    assert caught.value.code is StartCode.HOME_INCOMPLETE


def test_what_was_carried_over_is_kept_although_newer_states_are(home):
    written(home, halt("coder-1"))
    cut_back(home)
    loss = given_up(home)
    again = Home.open(home.paths.folder)
    lane = open_lane(again, "main-1", vault=False)
    for _ in range(4):
        lane.write_now("fault", entry.fault("lane", "E", "FAULT", None))
        Snapshots(home.paths, lane, lane.states).finish()
    lane.close("done")

    assert home.paths.state(str(loss.state)).exists()
    assert len(list(home.paths.states.glob("*.json"))) == 3


def test_the_lane_that_was_given_up_is_never_taken_up_again(home):
    written(home, halt("coder-1"))
    whole = segment(home).read_bytes()
    cut_back(home)
    given_up(home)
    segment(home).write_bytes(whole)
    open_lane(Home.open(home.paths.folder), "w0", vault=False).close("done")

    assert segment(home).read_bytes() == whole
    assert next_start(home).name == "main-1"
    assert "main" not in [each["lane"] for each in entries(home, "w0")[0]["siblings"]]


@pytest.mark.parametrize("harm", [
    pytest.param(lambda home: shutil.rmtree(home.paths.lane("main-1")), id="deleted"),
    pytest.param(lambda home: changed(home, b'"the disk failed"', b'"the disk fAiled"', "main-1"), id="edited"),
    pytest.param(lambda home: changed(home, b'"loss"', b'"lost"', "main-1"), id="without its loss"),
])
def test_a_start_does_not_go_back_to_the_lost_lane_when_the_one_that_goes_on_is_harmed(home, harm):
    written(home)
    home.paths.lane_key("main").rename(home.paths.folder / "aside")
    given_up(home)
    (home.paths.folder / "aside").rename(home.paths.lane_key("main"))
    harm(home)

    with pytest.raises(StartRefused) as caught:
        next_start(home)
    assert caught.value.code in (StartCode.TAMPERED, StartCode.HOME_INCOMPLETE)


@pytest.mark.parametrize("step", ["state", "folder", "key", "line", "checkpoint"])
def test_a_crash_at_any_step_of_it_is_gone_through_again(home, monkeypatch, step):
    written(home, halt("coder-1"), halt("coder-2"))
    cut_back(home)
    calls = {"state": "addons.accepted_loss.durable.replace", "folder": "addons.opening.take",
             "key": "addons.keys.SigningKey.create", "line": "addons.segment.Segment.append",
             "checkpoint": "addons.keeper.Keeper.write_checkpoint"}

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(calls[step], die)
        with pytest.raises(KeyboardInterrupt):
            given_up(home)
    if step != "checkpoint":
        with pytest.raises(StartRefused):
            next_start(home)
        given_up(home)

    assert next_start(home).name == "main-1"
    assert next_start(home).states.real.agent("coder-1").halt is not None
    assert report(home).result is Result.ROLLED_BACK


def test_what_a_successor_says_of_the_lost_lane_is_held_against_it(home):
    written(home, halt("coder-1"))
    home.paths.lane_key("main").unlink()
    given_up(home)
    other = home.paths.folder.parent / "other"
    for change in (("entries", 3), ("head", "ab" * 32)):
        shutil.copytree(home.paths.folder, other)
        _rewritten_opening(Home.open(other), *change)

        assert report(Home.open(other)).result is Result.TAMPERED
        assert second_opinion(Home.open(other)) == 1
        shutil.rmtree(other)


def _rewritten_opening(home: Home, name: str, value: object) -> None:
    """The same lane_open with another word on the loss, signed by its key as its owner could."""
    key = SigningKey.load(home.paths.lane_key("main-1"), f"governor/{home.log_id}/main-1")
    body = entries(home, "main-1")[0]
    body["loss"][name] = value
    raw = codec.encode(body)
    segment(home, "main-1").write_bytes(chain.line(raw, key.kid, key.sign(chain.signed_bytes(chain.entry_hash(raw)))))
    (home.paths.lane("main-1") / "checkpoints.note").unlink()
    minimum = json.loads(home.paths.minimum.read_bytes())
    del minimum["lanes"]["main-1"]
    home.paths.minimum.write_bytes(codec.encode(minimum) + b"\n")


def test_acts_of_verbs_go_on_in_a_lane_of_their_own_after_a_loss(home):
    written(home)
    acts_alone.act(home.paths.folder, Deed.HALT, "anonymous", "it uploads", "ann", 0)
    acts_alone._write(home.paths.folder, halt("coder-1"))
    changed(home, b'"it uploads","seq":3', b'"it uplOads","seq":3', "cli")
    with pytest.raises(StartRefused):
        acts(home, -1)
    loss = given_up(home, CLI)
    told = acts_alone.act(home.paths.folder, Deed.HALT, "anonymous", "again", "ann", 0)
    acts_alone._write(home.paths.folder, halt("coder-2"))
    found = acts(Home.open(home.paths.folder), -1)

    assert loss.lane == CLI
    assert told["entry"] is None
    assert [(each["agent"], each["by"].partition("/")[0]) for each in found] == [
        ("anonymous", "cli"), ("coder-2", "cli-1")]
    halted = {name for name, each in state_on_disk(home.paths).agents.items() if each.halt}
    assert halted == {"anonymous", "coder-2"}
    lane = open_lane(Home.open(home.paths.folder), vault=False)
    book = Book(lane, lane.states, lambda: None, lambda agent: ())
    book.take_over(found)
    lane.close("done")
    assert acts(Home.open(home.paths.folder), book.state.taken_over) == []


def test_a_lost_minimum_names_the_other_lanes_again(home):
    written(home)
    written(home, halt("coder-1"), lane="cli")
    home.paths.minimum.unlink()
    given_up(home)

    assert set(home.minimum()) == {"cli", "main-1"}
    next_start(home)
    assert report(home).result is Result.VERIFIED


def test_an_operator_accepts_a_loss_by_a_verb_and_reads_of_it_in_the_report(home):
    written(home, halt("coder-1"))
    run = CliRunner().invoke
    where = ["--home", str(home.paths.folder)]
    assert run(audit, ["accept-loss", "the disk failed", "--operator", "ann", *where]).exit_code == 1
    cut_back(home)

    result = run(audit, ["accept-loss", "the disk failed", "--operator", "ann", "--json", *where])
    report_of = json.loads(run(audit, ["verify", "--json", *where]).stdout)
    text = run(audit, ["verify", *where])

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["successor"] == "main-1"
    assert report_of["losses"] == [{"lane": "main", "successor": "main-1", "entries": 2,
                                    "head": json.loads(result.stdout)["head"], "result": "rolled_back",
                                    "reason": "the disk failed", "operator": "ann"}]
    assert report_of["result"] == "rolled_back"
    assert "lane main was given up" in text.stdout


def test_a_home_that_is_none_is_not_made_by_accepting_a_loss(tmp_path):
    result = CliRunner().invoke(audit, ["accept-loss", "why", "--home", str(tmp_path / "mistyped")])

    assert result.exit_code == 1
    assert not (tmp_path / "mistyped").exists()


def test_the_moment_of_the_loss_and_the_sessions_then_are_carried_over(home):
    written(home, halt("coder-1"), release("coder-1"), entry.operator("agents add", "coder-1", "", "ann", "control"))
    cut_back(home)
    given_up(home)
    accounts = next_start(home).states.real.accounts

    assert accounts[(*LOST, TOGETHER)].window > 10**15
    assert accounts[(*LOST, "coder-1")].window == 1


def test_a_replay_goes_on_from_what_was_carried_over(home):
    written(home, halt("coder-1"), halt("coder-2"))
    cut_back(home)
    loss = given_up(home)
    again = Home.open(home.paths.folder)
    lane = open_lane(again, "main-1", vault=False)
    Snapshots(home.paths, lane, lane.states).finish()
    lane.close("done")

    result = CliRunner().invoke(audit, ["replay", "--json", "--home", str(home.paths.folder)])
    first = parts_of(AuditLog.at(home.paths.folder), "main-1")[0]
    assert json.loads(result.stdout)["first_divergence"] is None
    assert first.known
    assert first.states is not None
    home.paths.state(str(loss.state)).unlink()
    assert not parts_of(AuditLog.at(home.paths.folder), "main-1")[0].known


def kid_of(home: Home) -> str:
    return SigningKey.load(home.paths.lane_key("main"), f"governor/{home.log_id}/main").kid


def distrusted(home: Home, first: int) -> Loss:
    return distrust(home.paths.folder, "main", kid_of(home), first, "a copy was found", "ann").loss


def test_what_a_key_in_other_hands_has_signed_is_listed_and_does_not_let_go(home):
    written(home, halt("coder-1"), halt("coder-2"), release("coder-1"), halt("coder-3"))
    kid = kid_of(home)
    loss = distrusted(home, 4)
    lane = next_start(home)
    told = report(home).as_json()

    assert (loss.lane, loss.entries, loss.result) == ("main", 4, "key_compromised")
    assert kinds(home, "main-1")[:2] == ["lane_open", "key_compromised"]
    assert {name for name, each in lane.states.real.agents.items() if each.halt} == {"coder-1", "coder-2", "coder-3"}
    assert (told["result"], told["unattested"]) == (
        "verified", [{"lane": "main", "kid": kid, "from": "main/4", "to": "main/6"}])
    assert second_opinion(home) == 0


def test_what_a_thief_writes_under_a_key_that_the_stolen_one_certified_is_listed_too(home, tmp_path):
    written(home, halt("coder-1"))
    stolen = crashed_copy(home, tmp_path / "thief")
    distrusted(home, 2)
    lane = open_lane(stolen, vault=False)
    lane.rotate("operator")
    number = lane.write_now("decision", decision("forged"))
    lane.close("done")
    shutil.rmtree(home.paths.lane("main"))
    shutil.copytree(stolen.paths.lane("main"), home.paths.lane("main"))
    told = report(home).as_json()

    kids = {key["kid"] for key in told["keys"] if key["from"].startswith("main/") and key["to"] != "main/0"}
    assert len(kids) == 2
    assert {each["kid"] for each in told["unattested"]} == kids
    assert told["unattested"][-1]["to"] == f"main/{number + 1}"


@pytest.mark.parametrize("lane", ["main", "cli"])
def test_a_lane_that_was_given_up_is_written_by_nobody(home, lane, tmp_path):
    written(written(home, halt("coder-1")), halt("coder-1"), lane="cli")
    kid = SigningKey.load(home.paths.lane_key(lane), f"governor/{home.log_id}/{lane}").kid
    distrust(home.paths.folder, lane, kid, 1 if lane == "cli" else 2, "a copy was found", "ann")
    before = untouched(home.paths.lane(lane))

    with pytest.raises(StartRefused, match=f"lane {lane}-1 goes on"):
        open_lane(Home.open(home.paths.folder), lane, vault=False)
    bundle(AuditLog.at(home.paths.folder), Period(), tmp_path / "b.tar")
    assert untouched(home.paths.lane(lane)) == before


def test_a_key_in_other_hands_waits_for_the_lane_that_it_writes(home, monkeypatch):
    written(home, halt("coder-1"))
    kid = kid_of(home)
    monkeypatch.setattr(accepted_loss, "is_live", lambda _: False)
    writing = open_lane(home, vault=False)

    with pytest.raises(StartRefused, match="another process writes lane main"):
        distrust(home.paths.folder, "main", kid, 2, "a copy was found", "ann")
    writing.close("done")
    assert home.lanes() == ("main",)


@pytest.mark.parametrize("change", [{"entries": 3}, {"head": "ab" * 32}, {"kid": "00000000"}, {"of": "cli"},
                                    {"statement": "AAAA"}, {"statement": 1}])
def test_a_statement_that_the_root_did_not_make_is_tampering(home, change):
    written(home, halt("coder-1"))
    distrusted(home, 2)
    restated(home, lambda said: change)

    assert report(home).result is Result.TAMPERED
    assert second_opinion(home) == 1


def test_a_statement_in_another_spelling_of_base64_is_tampering(home):
    written(home, halt("coder-1"))
    distrusted(home, 2)
    restated(home, lambda said: {"statement": respelled(said["statement"])})

    assert report(home).result is Result.TAMPERED
    assert second_opinion(home) == 1


def respelled(text: str) -> str:
    """The same 64 bytes, with an unused bit set."""
    digits = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    other = text[:-3] + digits[digits.index(text[-3]) + 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(text)
    return other


def restated(home: Home, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write the key_compromised of lane main-1 anew, with its key, where nothing else has seen it."""
    key = SigningKey.load(home.paths.lane_key("main-1"), f"governor/{home.log_id}/main-1")
    first, second = segment(home, "main-1").read_bytes().splitlines(keepends=True)
    said = json.loads(second)["e"]
    raw = codec.encode(said | change(said))
    forged = chain.line(raw, key.kid, key.sign(chain.signed_bytes(chain.entry_hash(raw))))
    segment(home, "main-1").write_bytes(first + forged)
    (home.paths.lane("main-1") / "checkpoints.note").unlink()
    minimum = json.loads(home.paths.minimum.read_bytes())
    del minimum["lanes"]["main-1"]
    home.paths.minimum.write_bytes(codec.encode(minimum) + b"\n")


@pytest.mark.parametrize(("kid", "first"), [("00000000", 3), (None, 99), (None, 1)])
def test_only_the_newest_key_and_an_entry_of_its_own_can_be_distrusted(home, kid, first):
    written(home, halt("coder-1"))
    if first == 1:
        lane = open_lane(Home.open(home.paths.folder), vault=False)
        lane.rotate("operator")
        lane.write_now("decision", decision("f"))
        lane.close("done")

    with pytest.raises(NothingLost):
        distrust(home.paths.folder, "main", kid or kid_of(home), first, "why", "ann")
    assert home.lanes() == ("main",)


def test_a_bundle_holds_the_state_with_which_a_successor_began(home, tmp_path):
    cut_back(written(home, halt("coder-1"), decision("f")))
    lost = given_up(home)
    next_start(home)
    bundle(AuditLog.at(home.paths.folder), Period(None, None), tmp_path / "all.tar", None)

    with tarfile.open(tmp_path / "all.tar") as archive:
        assert f"audit/state/{lost.state}.json" in archive.getnames()


def test_a_rotation_is_of_the_lane_that_goes_on(home):
    cut_back(written(home, decision("f")))
    given_up(home)
    next_start(home)

    assert [each["lane"] for each in rotate(home.paths.folder, "main", None)] == ["main-1"]

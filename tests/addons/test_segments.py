"""Segments of a lane: one after the other without a gap, a crash at any moment of it, and starts that read the last."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from addons import lane as lane_module
from addons.errors import AuditUnavailable, StartCode, StartRefused
from addons.home import Home
from addons.journal import Journal, drafts
from addons.keeper import Keeper
from addons.lane import Lane
from addons.opening import open_journal
from addons.segment import Segment
from addons.snapshots import Snapshots
from kernel import entry
from kernel.state import OpenFlow
from tests.addons.logs import (
    KERNEL,
    crashed_copy,
    decision,
    entries,
    kinds,
    minimum,
    open_lane,
    outcome,
    report,
    segment,
    segments,
)
from tests.conftest import scaled

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "SEGMENT_BYTES", 4096)


def reopened(home: Home, lane: str = "main") -> Home:
    again = Home.open(home.paths.folder)
    open_lane(again, lane, vault=False).close("done")
    return again


def refusal(home: Home) -> StartCode:
    with pytest.raises(StartRefused) as caught:
        reopened(home)
    return caught.value.code


def written(home: Home, count: int, lane: str = "main") -> None:
    """Write so many segments, keep the state that they make, and close the lane."""
    writing = open_lane(home, lane, vault=False)
    while len(segments(home, lane)) < count:
        number = writing.write_now("decision", decision("f"))
        writing.write_now("outcome", outcome("f", number, lane))
    Snapshots(home.paths, writing, writing.states).finish()
    writing.close("done")


async def commit_without_end(lane: Lane) -> None:
    while True:
        await asyncio.wait_for(lane.commit("decision", decision("f"))[1], 10)


async def test_segments_follow_one_another_under_load_without_a_gap(home):
    lane = open_lane(home, vault=False)
    acknowledged: list[int] = []

    async def client(name: str) -> None:
        for _ in range(20):
            number, durable = lane.commit("decision", decision(name))
            await durable
            acknowledged.append(number)
            lane.record("outcome", outcome(name, number))

    await asyncio.wait_for(asyncio.gather(*(client(f"c{number}") for number in range(16))), 60)
    lane.close("done")

    log = entries(home)
    assert len(segments(home)) > 5
    assert [each["seq"] for each in log] == list(range(len(log)))
    assert {log[number]["type"] for number in acknowledged} == {"decision"}
    assert len(acknowledged) == kinds(home).count("decision") == kinds(home).count("outcome")
    assert report(home).result == "verified"


def test_a_segment_ends_with_the_group_that_makes_it_long_enough(home):
    written(home, 4)

    assert [path.name for path in segments(home)] == [f"{number:06d}.jsonl" for number in range(4)]
    assert all(4096 <= path.stat().st_size < 8192 for path in segments(home)[:-1])
    openings = [each for each in entries(home) if each["type"] == "segment_open"]
    assert [(each["segment"], each["entries"]) for each in openings] == [
        (f"{number:06d}.jsonl", each["seq"]) for number, each in enumerate(openings, 1)]
    assert report(home).segments == 4


def test_the_head_of_a_segment_that_begins_is_signed_at_once(home, monkeypatch):
    monkeypatch.setattr(lane_module, "CHECKPOINT_SECONDS", 60.0)
    lane = open_lane(home, vault=False)
    while len(segments(home)) < 2:
        lane.write_now("decision", decision("f"))
    number = lane.write_now("decision", decision("f"))
    begun = next(each["seq"] for each in entries(home) if each["type"] == "segment_open")
    assert begun <= number
    deadline = time.monotonic() + 5
    while signed(home) <= begun and time.monotonic() < deadline:
        time.sleep(0.01)

    assert signed(home) > begun
    lane.close("done")


async def test_each_segment_that_begins_is_told_on_the_event_loop(home):
    lane = open_lane(home, vault=False)
    told: list[threading.Thread] = []
    lane.on_rotate(lambda: told.append(threading.current_thread()))
    while len(segments(home)) < 3:
        await lane.commit("decision", decision("f"))[1]
    lane.close("done")
    await asyncio.sleep(0)

    assert told == [threading.main_thread()] * 2


def test_a_closed_lane_with_many_segments_goes_on_in_the_last(home):
    written(home, 3)
    size = segments(home)[1].stat().st_size

    open_lane(reopened(home), "cli").close("done")

    assert segments(home)[1].stat().st_size == size
    assert kinds(home)[-2:] == ["close", "close"]
    assert entries(home, "cli")[0]["siblings"] == [
        {"lane": "main", "entries": len(entries(home)), "head": report(home).lanes[1].head}]
    assert report(home).result == "verified"


def test_what_a_running_lane_has_signed_is_found_in_the_segment_before(home, monkeypatch):
    written(home, 1)
    lane = open_lane(home, vault=False)
    monkeypatch.setattr(Keeper, "take_checkpoint", lambda keeper, checkpoint: None)
    size = signed(home)
    while len(segments(home)) < 2:
        lane.write_now("decision", decision("f"))
    segments(home)[1].write_bytes(b"")

    open_lane(home, "cli").close("done")

    assert entries(home, "cli")[0]["siblings"][0]["entries"] == size


def test_a_long_segment_of_before_is_followed_by_the_next(home, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(lane_module, "SEGMENT_BYTES", 2**20)
        lane = open_lane(home, vault=False)
        for _ in range(10):
            lane.write_now("decision", decision("f"))
        lane.close("done")
    written(home, 2)

    assert len(segments(home)) == 2
    assert report(home).result == "verified"


def test_a_start_reads_the_last_segment_and_leaves_those_before_to_the_verifier(home):
    written(home, 3)
    path = segments(home)[1]
    path.write_bytes(path.read_bytes().replace(b'"completed"', b'"cOmpleted"', 1))
    reopened(home)

    assert report(home).result == "tampered"


@pytest.mark.parametrize(("missing", "code"), [
    pytest.param(0, StartCode.HOME_INCOMPLETE, id="the first"),
    pytest.param(1, StartCode.HOME_INCOMPLETE, id="one between"),
    pytest.param(2, StartCode.ROLLED_BACK, id="the last"),
])
def test_a_start_without_one_of_its_segments_is_refused(home, missing, code):
    written(home, 3)
    segments(home)[missing].unlink()

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder))
    assert caught.value.code is code


@pytest.mark.parametrize("change", ["mode", "link"])
def test_an_earlier_segment_that_others_can_write_refuses(home, change):
    written(home, 3)
    if change == "mode":
        segments(home)[1].chmod(0o660)
    else:
        segments(home)[1].with_name("second").hardlink_to(segments(home)[1])

    assert refusal(home) is StartCode.HOME_UNWRITABLE


def test_a_lane_key_that_was_not_certified_refuses_although_the_lane_opens_long_before(home, tmp_path):
    written(home, 3)
    other = Home.open(tmp_path / "other")
    written(other, 3)
    first = segments(home)[0]
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join([*segments(other)[0].read_bytes().splitlines(keepends=True)[:2], *lines[2:]]))

    assert refusal(home) is StartCode.TAMPERED


def test_every_byte_of_the_last_segment_is_guarded(home):
    written(home, 3)
    path = segments(home)[-1]
    whole = path.read_bytes()

    for offset in random.Random(7).sample(range(len(whole) - 1), min(len(whole) - 1, scaled(80))):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1:])

        assert refusal(home) is StartCode.TAMPERED, offset


def test_another_tree_in_a_segment_that_the_key_signed_is_tampering(home, monkeypatch):
    with monkeypatch.context() as patched:
        real = Journal.beginning.fget

        def other(journal: Journal):
            body = real(journal)
            return body and body | {"tree": [node and "ab" * 32 for node in body["tree"]]}

        patched.setattr(Journal, "beginning", property(other))
        written(home, 2)

    assert refusal(home) is StartCode.TAMPERED


def signed(home: Home) -> int:
    """How many entries the newest head is over."""
    return int(minimum(home).notes["main"].split("\n")[1])


@pytest.mark.parametrize("change", [
    pytest.param({}, id="in the middle of a segment"),
    pytest.param({"type": "decision"}, id="another entry in its place"),
    pytest.param({"entries": 3, "tree": ["ab" * 32, "cd" * 32]}, id="with another count"),
    pytest.param({"segment": "000003.jsonl"}, id="for another file"),
])
def test_a_segment_that_begins_wrongly_is_tampering_although_the_key_signed_it(home, change):
    written(home, 2)
    journal, _ = open_journal(home, "main", KERNEL)
    body = entry.segment_open("000002.jsonl", journal.tree)
    if change:
        journal.rotate()
    wrong = body | {"tree": ["ab" * 32 if node else None for node in body["tree"]]} | change
    journal.append(drafts([wrong], journal.size))
    journal.append(drafts([entry.close("done")], journal.size))
    journal.segment.close()

    assert refusal(home) is StartCode.TAMPERED


async def test_a_tree_that_differs_from_the_head_signed_just_before_is_tampering(home, tmp_path, monkeypatch):
    real, take = Journal.beginning.fget, Keeper.take_checkpoint

    def other(journal: Journal):
        body = real(journal)
        return body and body | {"tree": [node and "ab" * 32 for node in body["tree"]]}

    def before(keeper: Keeper, checkpoint: str) -> None:
        if len(segments(home)) == 1:
            take(keeper, checkpoint)

    monkeypatch.setattr(lane_module, "CHECKPOINT_ENTRIES", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "beginning", property(other))
        patched.setattr(Keeper, "take_checkpoint", before)
        lane = open_lane(home, vault=False)
        while len(segments(home)) < 2:
            await lane.commit("decision", decision("f"))[1]
        Snapshots(home.paths, lane, lane.states).finish()
        while signed(home) < next(each["seq"] for each in entries(home) if each["type"] == "segment_open"):
            await asyncio.sleep(0.01)
        copy = crashed_copy(home, tmp_path / "copy")
        lane.close("the original goes on")

    assert refusal(copy) is StartCode.TAMPERED


async def begun(home: Home, to: Path, monkeypatch: pytest.MonkeyPatch, *, kept: bool = False) -> Home:
    """A home as a crash leaves it in the second line of its third segment, before the head of that was signed.

    With `kept` its state was kept once more before the crash.
    """
    lane = open_lane(home, vault=False)
    lane.write_now("decision", decision("open"))
    while len(segments(home)) < 2 or segments(home)[1].stat().st_size < 2000:
        lane.write_now("decision", decision("refused", "deny", "RULE_DENY"))
    lane.states.real.open["main/2"] = OpenFlow("open", "a", 0, None, ())
    Snapshots(home.paths, lane, lane.states).finish()
    while signed(home) < lane.next_seq:
        await asyncio.sleep(0.01)
    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "take_checkpoint", lambda keeper, checkpoint: None)
        while len(segments(home)) < 3 or len(segments(home)[2].read_bytes().splitlines()) < 2:
            await lane.commit("decision", decision("late"))[1]
        if kept:
            Snapshots(home.paths, lane, lane.states).finish()
        copy = crashed_copy(home, to)
    lane.close("the original goes on")
    return copy


async def test_a_segment_may_be_cut_at_every_byte_of_its_beginning(home, tmp_path, monkeypatch):
    copy = await begun(home, tmp_path / "copy", monkeypatch)
    whole = segments(copy)[2].read_bytes()
    first = whole.find(b"\n") + 1
    before = kinds(copy)[:-len(whole.splitlines())]
    edges = {0, 1, first - 1, first, first + 1}

    for offset in edges | set(random.Random(3).sample(range(first * 2), min(first * 2, scaled(20)))):
        at = tmp_path / f"cut-{offset}"
        shutil.copytree(copy.paths.folder, at)
        cut = Home.open(at)
        segments(cut)[2].write_bytes(whole[:offset])

        reopened(cut)

        later = kinds(cut)[len(before):]
        torn = bool(whole[:offset].rpartition(b"\n")[2])
        assert kinds(cut)[:len(before)] == before
        assert later[0] == "segment_open", offset
        assert ("recovery" in later) is torn, offset
        assert later[-1] == "close"
        decided = {f"main/{each['seq']}" for each in entries(cut)
                   if each["type"] == "decision" and each["verdict"] == "allow"}
        assert decided == {each["decision"] for each in entries(cut) if each["type"] == "outcome"}
        assert report(cut).result == "verified", offset
        assert kinds(reopened(cut)).count("segment_open") == 2
        shutil.rmtree(at)


async def test_a_segment_whose_beginning_is_damaged_is_no_torn_one(home, tmp_path, monkeypatch):
    copy = await begun(home, tmp_path / "copy", monkeypatch)
    path = segments(copy)[2]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b'"tree":[', b'"tree":[ ') + b"".join(lines[1:]))
    assert refusal(copy) is StartCode.TAMPERED

    path.write_bytes(b"".join(lines[1:]))
    assert refusal(copy) is StartCode.TAMPERED

    path.write_bytes(b"".join(lines))
    whole = segments(copy)[1].read_bytes()
    segments(copy)[1].write_bytes(whole[:-1])
    assert refusal(copy) is StartCode.TAMPERED

    segments(copy)[1].write_bytes(whole)
    path.rename(path.with_name("000003.jsonl"))
    path.touch(0o600)
    assert refusal(copy) is StartCode.TAMPERED


async def test_a_head_signed_in_the_segment_before_still_holds_what_lies_below_it(home, tmp_path, monkeypatch):
    copy = await begun(home, tmp_path / "copy", monkeypatch, kept=True)
    lines = segments(copy)[1].read_bytes().splitlines(keepends=True)
    at = next(at for at, line in enumerate(lines) if b'"RULE_DENY"' in line)
    lines[at] = lines[at].replace(b'"refused"', b'"rEfused"')
    segments(copy)[1].write_bytes(b"".join(lines))

    assert refusal(copy) is StartCode.TAMPERED


@pytest.mark.parametrize("step", ["open", "sync", "append"])
async def test_a_fault_while_a_segment_is_begun_stops_and_a_restart_goes_on(home, monkeypatch, step):
    lane = open_lane(home, vault=False)
    with monkeypatch.context() as patched:
        _fail(patched, step, OSError(errno.EIO, "Input/output error"))
        with pytest.raises(AuditUnavailable):
            await commit_without_end(lane)
        lane.close("stopped")

    written(Home.open(home.paths.folder), 3)

    assert report(home).result == "verified"


@pytest.mark.parametrize("step", ["open", "sync", "append"])
async def test_a_disk_that_is_full_when_a_segment_is_begun_leaves_room_for_the_last_words(home, monkeypatch, step):
    lane = open_lane(home, vault=False)
    with monkeypatch.context() as patched:
        _fail(patched, step, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(AuditUnavailable):
            await commit_without_end(lane)
        lane.close("disk full")

    assert kinds(home)[-2:] == ["fault", "close"]
    assert report(home).result == "verified"
    reopened(home)
    assert report(home).result == "verified"


def _fail(patched: pytest.MonkeyPatch, step: str, fault: OSError) -> None:
    """Have one step of the first rotation fail, once."""
    real = {"open": Segment.create, "append": Segment.append}
    failed = []

    def fail(*_: object) -> None:
        failed.append(step)
        raise fault

    def create(path: Path) -> Segment:
        if step == "open" and not failed:
            fail()
        segment = real["open"](path)
        if step == "sync" and not failed:
            segment.close()
            fail()
        return segment

    def append(segment: Segment, content: bytes) -> None:
        if step == "append" and not failed and segment.number:
            os.pwrite(segment._descriptor, content[:100], 0)
            fail()
        real["append"](segment, content)

    patched.setattr(Segment, "create", create)
    patched.setattr(Segment, "append", append)


async def test_a_file_in_the_place_of_the_next_segment_stops_the_lane(home):
    lane = open_lane(home, vault=False)
    segment(home).with_name("000001.jsonl").write_bytes(b"{}\n")
    with pytest.raises(AuditUnavailable):
        await commit_without_end(lane)
    lane.close("stopped")

    assert segments(home)[1].read_bytes() == b"{}\n"


WRITER = """
import asyncio, pathlib, sys
from addons import lane as lane_module
from addons.home import Home
from tests.addons.logs import decision, open_lane, outcome
lane_module.SEGMENT_BYTES = 4096
async def client(lane, name):
    for flow in range(100000):
        number, durable = lane.commit("decision", decision(f"{name}-{flow}"))
        await durable
        print(number, flush=True)
        lane.record("outcome", outcome(f"{name}-{flow}", number, lane.name))
async def main():
    lane = open_lane(Home.open(pathlib.Path(sys.argv[1])), sys.argv[2], vault=False)
    print("open", flush=True)
    await asyncio.gather(*(client(lane, name) for name in range(4)))
asyncio.run(main())
"""


def killed_writer(home: Home, lane: str, seconds: float) -> set[int]:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(home.paths.folder), lane], cwd=ROOT,
                          stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read()
    return {int(number) for number in said.splitlines(keepends=True) if number.endswith("\n")}


def test_a_process_killed_among_short_segments_leaves_a_log_that_goes_on(home):
    chance = random.Random()
    for _ in range(scaled(4)):
        acknowledged = killed_writer(home, "main", chance.uniform(0.05, 0.3))
        reopened(home)

        log = entries(home)
        assert {log[number]["type"] for number in acknowledged} <= {"decision"}
        decided = {f"main/{each['seq']}" for each in log if each["type"] == "decision"}
        assert decided == {each["decision"] for each in log if each["type"] == "outcome"}
        assert report(home).result == "verified"
    assert len(segments(home)) > 2


def test_a_lane_with_segments_whose_process_is_gone_is_closed_by_the_next_start(home):
    killed_writer(home, "w0", 0.2)
    open_lane(home, "main").close("done")

    assert entries(home, "w0")[-1]["reason"] == "adopted"
    assert entries(home, "main")[0]["siblings"][0]["entries"] == len(entries(home, "w0"))
    assert report(home).result == "verified"

"""A start on a log of before: crashes are repaired and recorded, damage and rollback refuse."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from addons import pins
from addons.errors import StartCode, StartRefused
from addons.home import Home
from addons.keys import SigningKey
from kernel import entry
from tests.addons.logs import crashed_copy, decision, entries, kinds, minimum, open_lane, outcome, report, segment
from tests.conftest import scaled

ROOT = Path(__file__).parents[2]


def chosen(seed: int, offsets: Sequence[int], count: int) -> list[int]:
    """`count` of the offsets, scaled, or all of them where there are no more."""
    return random.Random(seed).sample(offsets, min(len(offsets), scaled(count)))


async def crashed(home: Home, to: Path, *flows: str, finished: tuple[str, ...] = ()) -> Home:
    """A home whose main lane died with these decisions written, some with their outcomes."""
    lane = open_lane(home, vault=False)
    for flow in flows:
        number, durable = lane.commit("decision", decision(flow))
        await durable
        if flow in finished:
            lane.record("outcome", outcome(flow, number))
    # Only the head of the first two entries is signed; what came after is the tail that a crash may tear.
    copy = crashed_copy(home, to)
    lane.close("the original goes on")
    return copy


def reopened(home: Home) -> Home:
    again = Home.open(home.paths.folder)
    open_lane(again, vault=False).close("done")
    return again


def refusal(home: Home) -> StartCode:
    with pytest.raises(StartRefused) as caught:
        reopened(home)
    return caught.value.code


async def test_open_decisions_are_closed_as_unknown(home, tmp_path):
    lane = open_lane(home, vault=False)
    for body in (decision("open"), decision("finished"), decision("refused", "deny", "RULE_DENY"),
                 decision("tunnel", code="TUNNEL", stage="connect"), outcome("finished", 3),
                 {**outcome("open", 2), "part": 1}):
        lane.write_now(body["type"], body)
    copy = crashed_copy(home, tmp_path / "copy")
    lane.close("the original goes on")

    reopened(copy)

    assert kinds(copy)[8:] == ["outcome", "close"]
    closing = entries(copy)[8]
    assert (closing["flow"], closing["decision"], closing["result"]) == ("open", "main/2", "unknown")
    assert report(copy).result == "verified"


async def test_the_last_two_lines_may_be_cut_at_every_byte(home, tmp_path):
    copy = await crashed(home, tmp_path / "copy", "first", "second")
    whole = segment(copy).read_bytes()
    starts = [0]
    while (end := whole.find(b"\n", starts[-1])) >= 0:
        starts.append(end + 1)
    edges = {starts[2], starts[2] + 1, starts[3] - 1, starts[3], starts[3] + 1, starts[4] - 1}
    inside = range(starts[2], starts[4])

    for offset in edges | set(chosen(1, inside, 60)):
        at = tmp_path / f"cut-{offset}"
        shutil.copytree(copy.paths.folder, at)
        cut = Home.open(at)
        segment(cut).write_bytes(whole[:offset])
        whole_lines = whole[:offset].count(b"\n")
        torn = whole[:offset].rpartition(b"\n")[2]

        reopened(cut)

        expected = ["genesis", "lane_open", *["decision"] * (whole_lines - 2)]
        recorded = ["recovery"] if torn else []
        assert kinds(cut) == [*expected, *recorded, *["outcome"] * (whole_lines - 2), "close"], offset
        assert report(cut).result == "verified"
        if torn:
            _assert_put_aside(cut, whole_lines, starts[whole_lines], torn)
        shutil.rmtree(at)


def _assert_put_aside(home: Home, number: int, offset: int, torn: bytes) -> None:
    recovery = entries(home)[number]
    aside = home.paths.lane("main") / f"torn-main-000000-{offset}.bin"
    assert aside.read_bytes() == torn
    assert (recovery["segment"], recovery["offset"], recovery["bytes"], recovery["blake3"]) == (
        "000000.jsonl", offset, len(torn), blake3(torn).hexdigest())


async def test_a_last_line_that_does_not_verify_is_put_aside(home, tmp_path):
    copy = await crashed(home, tmp_path / "copy", "first", "second")
    whole = segment(copy).read_bytes()
    start = whole.rfind(b"\n", 0, -1) + 1

    for offset in chosen(2, range(start, len(whole)), 20):
        at = tmp_path / f"flip-{offset}"
        shutil.copytree(copy.paths.folder, at)
        flipped = Home.open(at)
        segment(flipped).write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1:])

        reopened(flipped)

        assert kinds(flipped) == ["genesis", "lane_open", "decision", "recovery", "outcome", "close"], offset
        assert report(flipped).result == "verified"
        shutil.rmtree(at)


async def test_a_crash_between_cutting_and_recording_loses_no_record(home, tmp_path):
    copy = await crashed(home, tmp_path / "copy", "first")
    whole = segment(copy).read_bytes()
    aside = copy.paths.lane("main") / f"torn-main-000000-{len(whole)}.bin"
    aside.write_bytes(b"torn")

    reopened(copy)

    assert kinds(copy)[3:] == ["recovery", "outcome", "close"]
    assert entries(copy)[3]["bytes"] == 4
    assert kinds(reopened(copy)).count("recovery") == 1


async def test_every_byte_before_the_last_line_is_guarded(home, tmp_path):
    copy = await crashed(home, tmp_path / "copy", "first", "second")
    whole = segment(copy).read_bytes()
    last = whole.rfind(b"\n", 0, -1) + 1

    for offset in chosen(3, range(last), 60):
        segment(copy).write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1:])

        assert refusal(copy) is StartCode.TAMPERED, offset


type Lines = list[bytes]


@pytest.mark.parametrize("attack", [
    pytest.param(lambda lines: [*lines[:2], *lines[3:]], id="a line is deleted"),
    pytest.param(lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], id="two lines are swapped"),
    pytest.param(lambda lines: [*lines, lines[-1]], id="the last line is repeated"),
    pytest.param(lambda lines: [*lines[:3], lines[2], *lines[3:]], id="a line is repeated"),
    pytest.param(lambda lines: lines[1:], id="genesis is gone"),
    pytest.param(lambda lines: [*lines[:2], lines[2].replace(b'"e":', b'"e": '), *lines[3:]], id="a space is added"),
    pytest.param(lambda lines: [*lines[:2], b"\n", *lines[2:]], id="an empty line is added"),
    pytest.param(lambda lines: [*lines[:-1], b"\n", lines[-1]], id="an empty line before the last"),
    pytest.param(lambda lines: [lines[0], lines[1].replace(b"a", b"b", 1)], id="the last line of a signed head"),
])
async def test_damage_in_the_middle_refuses_to_start(home, tmp_path, attack: Callable[[Lines], Lines]):
    copy = await crashed(home, tmp_path / "copy", "a", "b", "c")
    lines = segment(copy).read_bytes().splitlines(keepends=True)
    segment(copy).write_bytes(b"".join(attack(lines)))
    before = segment(copy).read_bytes()

    assert refusal(copy) is StartCode.TAMPERED
    assert segment(copy).read_bytes() == before


async def test_a_log_below_a_signed_head_is_rolled_back(home):
    lane = open_lane(home, vault=False)
    await lane.commit("decision", decision("a"))[1]
    lane.close("done")
    whole = segment(home).read_bytes()
    lines = whole.splitlines(keepends=True)

    for shorter in (b"", lines[0], b"".join(lines[:3]), whole[:-1], whole[:-20]):
        segment(home).write_bytes(shorter)

        assert refusal(home) is StartCode.ROLLED_BACK
        assert segment(home).read_bytes() == shorter


def test_every_byte_of_a_last_line_below_a_signed_head_is_guarded(home):
    open_lane(home).close("done")
    whole = segment(home).read_bytes()
    start = whole.rfind(b"\n", 0, -1) + 1

    for offset in chosen(5, range(start, len(whole) - 1), 60):
        segment(home).write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1:])

        assert refusal(home) is StartCode.TAMPERED, offset


def test_an_old_copy_of_log_and_checkpoints_is_rolled_back(home, tmp_path):
    open_lane(home).close("first")
    shutil.copytree(home.paths.audit, tmp_path / "old")
    open_lane(home).close("second")
    shutil.rmtree(home.paths.audit)
    shutil.copytree(tmp_path / "old", home.paths.audit)

    assert refusal(home) is StartCode.ROLLED_BACK


def test_an_old_minimum_still_leaves_the_checkpoints_as_witness(home):
    open_lane(home).close("first")
    old_log, old_minimum = segment(home).read_bytes(), home.paths.minimum.read_bytes()
    open_lane(home).close("second")
    segment(home).write_bytes(old_log)
    home.paths.minimum.write_bytes(old_minimum)

    assert refusal(home) is StartCode.ROLLED_BACK


def test_a_lost_minimum_refuses(home):
    open_lane(home).close("done")
    home.paths.minimum.unlink()

    assert refusal(home) is StartCode.HOME_INCOMPLETE


def test_another_log_with_the_same_key_and_length_is_tampering(home, tmp_path):
    lane = open_lane(home)
    fork = crashed_copy(home, tmp_path / "fork")
    lane.close("one story")
    open_lane(fork).close("another story")
    segment(home).write_bytes(segment(fork).read_bytes())

    assert refusal(home) is StartCode.TAMPERED


def test_a_lane_key_that_the_root_did_not_certify_is_tampering(home):
    open_lane(home).close("done")
    SigningKey.create(home.paths.lane_key("main"), f"governor/{home.log_id}/main")

    assert refusal(home) is StartCode.TAMPERED


def test_a_lane_of_another_log_is_tampering(home, tmp_path):
    open_lane(home).close("done")
    other = Home.open(tmp_path / "other")
    open_lane(other).close("done")
    for path in ("audit/lanes/main/000000.jsonl", "keys/main.key"):
        shutil.copy(other.paths.folder / path, home.paths.folder / path)

    assert refusal(home) is StartCode.TAMPERED


@pytest.mark.parametrize("tail", [b"g", b"governor/", "— x".encode()])
def test_an_unfinished_checkpoint_is_cut_off(home, tail):
    open_lane(home).close("done")
    notes = home.paths.lane("main") / "checkpoints.note"
    with notes.open("ab") as file:
        file.write(tail)

    reopened(home)

    assert report(home).result == "verified"


def test_a_checkpoint_may_be_unfinished_at_every_byte(home):
    open_lane(home).close("done")
    notes = home.paths.lane("main") / "checkpoints.note"
    whole = notes.read_bytes()
    second = whole.find(b"governor/", whole.find(b"\n\n") + 60)
    second = whole.find(b"\ngovernor/", second - 1) + 1

    for offset in chosen(4, range(second, len(whole)), 20):
        notes.write_bytes(whole[:offset])
        reopened(home)

        assert report(home).result == "verified", offset


def test_checkpoints_that_do_not_verify_are_tampering(home):
    open_lane(home).close("done")
    notes = home.paths.lane("main") / "checkpoints.note"
    notes.write_bytes(notes.read_bytes().replace(b"\n2\n", b"\n1\n").replace(b"\n3\n", b"\n2\n"))

    assert refusal(home) is StartCode.TAMPERED


def test_a_minimum_that_does_not_verify_is_tampering(home):
    open_lane(home).close("done")
    home.paths.minimum.write_bytes(home.paths.minimum.read_bytes().replace(b"\\n3\\n", b"\\n2\\n"))

    assert refusal(home) is StartCode.TAMPERED


def test_a_log_of_a_later_version_refuses(home, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(entry, "VERSION", 2)
        open_lane(home).close("done")

    assert refusal(home) is StartCode.VERSION


@pytest.mark.parametrize("change", ["mode", "link", "symlink"])
def test_a_segment_that_others_can_write_refuses(home, change):
    open_lane(home).close("done")
    path = segment(home)
    if change == "mode":
        path.chmod(0o660)
    elif change == "link":
        path.with_name("second").hardlink_to(path)
    else:
        path.rename(path.with_name("real"))
        path.symlink_to("real")

    assert refusal(home) is StartCode.HOME_UNWRITABLE


def test_keys_without_any_log_left_are_incomplete(home):
    open_lane(home).close("done")
    segment(home).write_bytes(b"")
    (home.paths.lane("main") / "checkpoints.note").unlink()
    home.paths.minimum.unlink()

    assert refusal(home) is StartCode.HOME_INCOMPLETE


WRITER = """
import asyncio, pathlib, sys
from addons.home import Home
from tests.addons.logs import decision, open_lane, outcome
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
    """Let a process write for a while and kill it; the numbers of the entries it saw acknowledged."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(home.paths.folder), lane], cwd=ROOT,
                          stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read()
    # The last number may be cut short by the kill.
    return {int(number) for number in said.splitlines(keepends=True) if number.endswith("\n")}


def test_a_process_killed_at_any_moment_leaves_a_log_that_goes_on(tmp_path):
    chance = random.Random()
    home = Home.open(tmp_path / "home")
    for _ in range(scaled(3)):
        acknowledged = killed_writer(home, "main", chance.uniform(0.0, 0.3))
        reopened(home)

        log = entries(home)
        assert {log[number]["type"] for number in acknowledged} <= {"decision"}
        decided = {f"main/{each['seq']}" for each in log if each["type"] == "decision"}
        assert decided == {each["decision"] for each in log if each["type"] == "outcome"}
        assert report(home).result == "verified"


def test_a_lane_whose_process_is_gone_is_closed_by_the_next_start(tmp_path):
    home = Home.open(tmp_path / "home")
    killed_writer(home, "w0", 0.1)
    with segment(home, "w0").open("ab") as file:
        file.write(b'{"e":{"torn')

    open_lane(home, "main").close("done")

    assert kinds(home, "w0")[-1] == "close"
    assert "recovery" in kinds(home, "w0")
    assert entries(home, "w0")[-1]["reason"] == "adopted"
    log = entries(home, "w0")
    decided = {f"w0/{each['seq']}" for each in log if each["type"] == "decision"}
    assert decided == {each["decision"] for each in log if each["type"] == "outcome"}
    assert entries(home, "main")[0]["siblings"][0]["entries"] == len(log)
    assert report(home).result == "verified"


def test_a_lane_whose_process_lives_is_left_alone(home):
    running = open_lane(home, "w0")
    before = segment(home, "w0").read_bytes()
    open_lane(home, "main").close("done")

    assert segment(home, "w0").read_bytes() == before
    running.close("done")
    assert report(home).result == "verified"


def test_a_damaged_lane_of_a_gone_process_refuses(home):
    open_lane(home, "w0").close("done")
    segment(home, "w0").write_bytes(segment(home, "w0").read_bytes().replace(b'"close"', b'"fault"'))

    with pytest.raises(StartRefused) as caught:
        open_lane(home, "main")
    assert caught.value.code is StartCode.TAMPERED


def test_a_closed_lane_that_was_cut_back_refuses(home):
    open_lane(home, "w0").close("first")
    old = segment(home, "w0").read_bytes()
    open_lane(home, "w0").close("second")
    segment(home, "w0").write_bytes(old)

    with pytest.raises(StartRefused) as caught:
        open_lane(home, "main")
    assert caught.value.code is StartCode.ROLLED_BACK


async def test_two_first_lanes_at_once_make_one_genesis(tmp_path):
    home = Home.open(tmp_path / "home")
    lanes = await asyncio.gather(*(asyncio.to_thread(open_lane, home, f"w{number}") for number in range(4)))
    for lane in lanes:
        lane.close("done")

    assert sum(kinds(home, f"w{number}").count("genesis") for number in range(4)) == 1
    assert report(home).result == "verified"
    assert len(pins.of_home(home.paths.folder)) == 1


def test_a_head_that_is_kept_late_lowers_nothing(home):
    lane = open_lane(home, vault=False)
    early = minimum(home).notes["main"]
    lane.write_now("decision", decision("f"))
    lane.close("done")
    newest = minimum(home).notes["main"]
    home.raise_minimum("main", early)

    assert early != newest
    assert minimum(home).notes["main"] == newest

"""A crash or a disk fault at each step of writing: what was acknowledged is there, and the log goes on."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from addons.accepted_loss import accept
from addons.book import Book
from addons.errors import AuditUnavailable, StartCode, StartRefused
from addons.home import Home
from addons.keeper import Keeper
from addons.keys import SigningKey
from addons.lineage import newest
from addons.segment import Segment
from tests.addons.logs import crashed_copy, decision, entries, kinds, open_lane, report, segment, segments
from tests.conftest import SCALE, scaled

ROOT = Path(__file__).parents[2]
# A run may come through with fewer operations than the one that was measured.
KILLED = ("killed", "ended")
# A key that cannot be read is told as one that is not private.
FAILED = ("ended", StartCode.HOME_UNWRITABLE, StartCode.KEY_PERMISSIONS)
DISK_FAULTS = ("ENOSPC", "ENOSPC+", "EIO", "EIO+", "EROFS", "EROFS+")


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a process that wrote: `end` is killed, ended, or why its start was refused."""

    acknowledged: set[int]
    end: str
    operations: int | None


class Writers:
    """Starts writers that meet a fault, one after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.addons.crash_forks"], cwd=ROOT, stdin=theirs, stdout=theirs)
        with ours:
            self._talk = ours.makefile("rw")

    def run(self, home: Home, fault: str, at: int, lane: str = "main") -> Told:
        """A process that meets the fault at an operation of its, which are counted from 1."""
        print(os.environ["XDG_CONFIG_HOME"], home.paths.folder, lane, fault, at,
              sep="\t", file=self._talk, flush=True)
        said = json.loads(self._talk.readline())
        # Shown by a test that fails.
        print(fault, at, said)
        return Told(set(said["acknowledged"]), said["end"], said["operations"])

    def operations(self, home: Home) -> int:
        """How many operations there are where nothing fails."""
        told = self.run(home, "kill", 0)
        assert told.end == "ended"
        assert told.operations is not None
        return told.operations

    def stop(self) -> None:
        self._talk.close()
        self._process.wait(20)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    started = Writers()
    yield started
    started.stop()


def goes_on(home: Home, acknowledged: set[int], lane: str = "main") -> None:
    """The next start takes the log as it is, all that was acknowledged is in it, and it verifies."""
    before = len(entries_so_far(home, lane))
    open_lane(Home.open(home.paths.folder), lane, vault=False).close("looked at")
    log = entries(home, lane)

    assert len(log) >= before
    assert [each["seq"] for each in log] == list(range(len(log)))
    assert {log[number]["type"] for number in acknowledged} <= {"decision"}
    told = report(home)
    assert told.result == "verified", told.first_failure


def entries_so_far(home: Home, lane: str) -> list[bytes]:
    whole = b"".join(path.read_bytes() for path in segments(home, lane))
    return whole.splitlines()[: whole.count(b"\n") - 1]


def test_a_process_killed_at_any_step_of_writing_loses_nothing_that_was_acknowledged(writers, tmp_path):
    home = Home.open(tmp_path / "measured")
    operations = writers.operations(home)
    # The first ones also make the lane; then the same home again and again, as a machine that crashes does.
    for at in random.Random().sample(range(1, operations + 1), min(operations, scaled(12))):
        fresh = Home.open(tmp_path / f"fresh-{at}")
        told = writers.run(fresh, "kill", at)

        assert told.end in KILLED
        goes_on(fresh, told.acknowledged)
        shutil.rmtree(fresh.paths.folder)
    for at in random.Random().choices(range(1, operations), k=scaled(8)):
        told = writers.run(home, "kill", at)

        assert told.end in KILLED
        goes_on(home, told.acknowledged)


def test_a_process_killed_while_it_sees_to_what_a_crash_left_loses_nothing(writers, tmp_path):
    home = Home.open(tmp_path / "home")
    operations = writers.operations(home)
    acknowledged: set[int] = set()
    for at in random.Random().choices(range(1, operations), k=scaled(12)):
        told = writers.run(home, "kill", at)

        assert told.end in KILLED
        # No number is given out again that was acknowledged once.
        assert not acknowledged & told.acknowledged
        acknowledged |= told.acknowledged
    goes_on(home, acknowledged)


def test_every_step_of_a_rotation_may_be_the_last(writers, tmp_path):
    home = Home.open(tmp_path / "home")
    open_lane(home, vault=False).close("done")
    operations = writers.operations(Home.open(shutil.copytree(home.paths.folder, tmp_path / "measured")))
    for at in range(1, operations + 1, 1 if SCALE > 1 else 9):
        again = Home.open(shutil.copytree(home.paths.folder, tmp_path / f"at-{at}"))
        told = writers.run(again, "kill", at)

        assert told.end in KILLED
        goes_on(again, told.acknowledged)
        assert not again.paths.next_key("main").exists()
        shutil.rmtree(again.paths.folder)


@pytest.mark.parametrize("fault", DISK_FAULTS)
def test_a_disk_that_fails_at_any_step_stops_the_lane_and_loses_nothing(writers, tmp_path, fault):
    home = Home.open(tmp_path / "home")
    operations = writers.operations(home)
    for at in random.Random().choices(range(1, operations), k=scaled(3)):
        told = writers.run(home, fault, at)

        assert told.end in FAILED
        goes_on(home, told.acknowledged)


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_sync_that_fails_is_never_tried_again(home, monkeypatch, call):
    lane = open_lane(home, vault=False)
    tried: list[int] = []

    def fail(descriptor: int) -> None:
        tried.append(descriptor)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        if call == "fsync":
            lane.rotate("operator")
        for _ in range(3):
            with pytest.raises(Exception, match="restart"):
                lane.write_now("decision", decision("f"))
        written = len(tried)
        with pytest.raises(Exception, match="restart"):
            lane.write_now("decision", decision("f"))
        assert len(tried) == written
    lane.close("stopped")
    goes_on(home, set())


def test_nothing_follows_a_checkpoint_that_a_full_disk_has_torn(home, monkeypatch):
    lane = open_lane(home, vault=False)
    numbers, whole, faults = set(), os.write, [OSError(errno.ENOSPC, "No space left on device")]

    def write(descriptor: int, content: bytes) -> int:
        if descriptor == lane._keeper._notes and faults:
            whole(descriptor, content[: len(content) // 2])
            raise faults.pop()
        return whole(descriptor, content)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        lane.rotate("operator")
        with suppress(AuditUnavailable):
            for _ in range(10_000):
                numbers.add(lane.write_now("decision", decision("f")))
        lane.close("stopped")

    assert kinds(home)[-2:] == ["fault", "close"]
    goes_on(home, numbers)


def test_a_clock_that_goes_back_is_recorded_and_loses_nothing(home, monkeypatch):
    lane = open_lane(home, vault=False)
    number = lane.write_now("decision", decision("f"))
    lane.close("done")
    real = time.time_ns
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: real() - 7 * 86_400 * 10**9)
        back = open_lane(Home.open(home.paths.folder), vault=False)
        book = Book(back, back.states, lambda: None, lambda agent: ())
        book.begin_clock()
        back.rotate("operator")
        back.write_now("decision", decision("g"))
        back.close("done")

    assert "clock" in kinds(home)
    assert not book.state.clock_ok
    goes_on(home, {number})


@pytest.mark.parametrize("rotates", [True, False])
def test_a_key_that_is_swapped_while_its_lane_is_written_costs_no_entry(home, rotates):
    lane = open_lane(home, vault=False)
    SigningKey.create(home.paths.lane_key("main"), f"governor/{home.log_id}/main")
    numbers = {lane.write_now("decision", decision("f"))}
    if rotates:
        lane.rotate("operator")
        numbers.add(lane.write_now("decision", decision("g")))
    lane.close("done")
    assert report(home).result == "verified"
    if rotates:
        goes_on(home, numbers)
        return

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder))
    assert caught.value.code is StartCode.TAMPERED
    accept(home.paths.folder, "main", "somebody swapped the key", "ann")
    goes_on(home, set(), newest(home.paths, "main", home.root))
    assert {entries(home)[number]["type"] for number in numbers} == {"decision"}


# A log that was ended in order and is then cut: each cut is one that no crash explains


def nothing(_: Home) -> None:
    pass


def without_minimum(home: Home) -> None:
    home.paths.minimum.unlink()


def without_any_head(home: Home) -> None:
    home.paths.minimum.unlink()
    (home.paths.lane("main") / "checkpoints.note").unlink()


def without_checkpoints(home: Home) -> None:
    (home.paths.lane("main") / "checkpoints.note").unlink()


HEADS = {nothing: {StartCode.ROLLED_BACK}, without_checkpoints: {StartCode.ROLLED_BACK},
         without_minimum: {StartCode.HOME_INCOMPLETE}, without_any_head: {StartCode.HOME_INCOMPLETE}}


def closed(home: Home) -> None:
    lane = open_lane(home, vault=False)
    for _ in range(3):
        for _ in range(3):
            lane.write_now("decision", decision("f"))
        lane.rotate("operator")
        lane.write_now("decision", decision("f"))
    lane.close("done")


def refusal(home: Home) -> StartCode:
    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder), vault=False).close("taken")
    return caught.value.code


@pytest.mark.parametrize("heads", HEADS, ids=lambda heads: heads.__name__)
def test_a_closed_log_that_is_cut_anywhere_in_its_last_two_lines_is_never_taken(home, heads: Callable[[Home], None]):
    closed(home)
    path = segments(home)[-1]
    whole = path.read_bytes()
    start = whole.rfind(b"\n", 0, whole.rfind(b"\n", 0, -1)) + 1
    heads(home)
    inside = range(start, len(whole))
    edges = {start, len(whole) - 1, whole.rfind(b"\n", 0, -1), whole.rfind(b"\n", 0, -1) + 1}

    for offset in edges | set(random.Random(8).sample(inside, min(len(inside), scaled(15)))):
        path.write_bytes(whole[:offset])

        assert refusal(home) in HEADS[heads], offset
        assert path.read_bytes() == whole[:offset]


@pytest.mark.parametrize("heads", HEADS, ids=lambda heads: heads.__name__)
@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_closed_log_that_ends_with_an_earlier_segment_is_never_taken(home, heads, left):
    closed(home)
    for path in segments(home)[left:]:
        path.unlink()
    heads(home)

    assert refusal(home) in HEADS[heads]


def test_a_log_cut_back_to_its_opening_is_never_taken_while_any_head_is_left(home):
    closed(home)
    for path in segments(home)[1:]:
        path.unlink()
    segment(home).write_bytes(b"".join(segment(home).read_bytes().splitlines(keepends=True)[:2]))
    for heads in (without_checkpoints, without_minimum):
        copy = Home.open(shutil.copytree(home.paths.folder, home.paths.folder.parent / heads.__name__))
        heads(copy)

        assert refusal(copy) in HEADS[heads]


# Before the first head of a lane is signed


def dies(patched: pytest.MonkeyPatch, owner: type, name: str, before: Callable[..., None] = lambda *_: None) -> None:
    """A crash in the place of a call."""
    def die(*arguments: object) -> None:
        before(*arguments)
        raise KeyboardInterrupt

    patched.setattr(owner, name, die)


def half(segment: Segment, content: bytes) -> None:
    os.write(segment._descriptor, content[: len(content) // 2])


def crashes(home: Home, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, lane: str = "main",
            before: Callable[..., None] = lambda *_: None) -> None:
    with monkeypatch.context() as patched:
        dies(patched, owner, name, before)
        with pytest.raises(KeyboardInterrupt):
            open_lane(Home.open(home.paths.folder), lane, vault=False)


def test_a_new_lane_may_crash_before_its_first_head_again_and_again(home, monkeypatch):
    for _ in range(2):
        crashes(home, monkeypatch, Segment, "append", before=half)
    for _ in range(3):
        crashes(home, monkeypatch, Keeper, "write_checkpoint")

    goes_on(home, set())
    assert kinds(home) == ["genesis", "lane_open", "recovery", "close"]


def test_a_torn_opening_may_be_followed_by_crashes_before_the_first_head(home, monkeypatch):
    append, lines = Segment.append, iter(range(2))

    def second_one_is_torn(segment: Segment, content: bytes) -> None:
        if next(lines):
            half(segment, content)
            raise KeyboardInterrupt
        append(segment, content)

    with monkeypatch.context() as patched:
        patched.setattr(Segment, "append", second_one_is_torn)
        with pytest.raises(KeyboardInterrupt):
            open_lane(home, vault=False)
    for _ in range(3):
        crashes(home, monkeypatch, Keeper, "write_checkpoint")

    goes_on(home, set())
    assert kinds(home) == ["genesis", "lane_open", "recovery", "close"]


def test_a_lane_without_a_head_may_be_adopted_by_starts_that_crash(home, monkeypatch):
    for lane in ("main", "main", "w0", "w1", "w0"):
        crashes(home, monkeypatch, Keeper, "write_checkpoint", lane)

    goes_on(home, set(), "w0")
    goes_on(home, set())


def test_a_lane_that_goes_on_with_open_flows_may_crash_before_its_first_head(home, tmp_path, monkeypatch):
    lane = open_lane(home, vault=False)
    for flow in ("first", "second", "third"):
        lane.write_now("decision", decision(flow))
    copy = crashed_copy(home, tmp_path / "copy")
    lane.close("the original goes on")
    with segment(copy).open("ab") as file:
        file.write(b"damage\n" * 2)
    with monkeypatch.context() as patched:
        dies(patched, Keeper, "write_checkpoint")
        with pytest.raises(KeyboardInterrupt):
            accept(copy.paths.folder, "main", "the disk failed", "ann")
    for _ in range(3):
        crashes(copy, monkeypatch, Keeper, "write_checkpoint", "main-1")
    open_lane(Home.open(copy.paths.folder), "main-1", vault=False).close("done")

    assert kinds(copy, "main-1") == ["lane_open", "outcome", "outcome", "outcome", "close"]

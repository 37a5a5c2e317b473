"""A lane: what it acknowledges is on disk, what it cannot write stops it, and its log verifies."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from addons import lane as lane_module
from addons.errors import AuditUnavailable, StartCode, StartRefused
from addons.home import Home
from addons.lane import Lane
from kernel import entry
from kernel.errors import CanonicalError
from tests.addons.logs import decision, entries, kinds, minimum, open_lane, outcome, report, segment
from tests.conftest import scaled

ROOT = Path(__file__).parents[2]


class Disk:
    """Stands before os.fdatasync for one segment: counts, holds back, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.calls = 0
        self.passing = threading.Event()
        self.passing.set()
        self.fault: OSError | None = None
        self._file = path.stat()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)

    async def reached(self) -> None:
        """Wait until the writer asks for the first fdatasync."""
        async with asyncio.timeout(10):
            while not self.calls:
                await asyncio.sleep(0.001)

    def _fdatasync(self, descriptor: int) -> None:
        if not os.path.samestat(os.fstat(descriptor), self._file):
            return self._real(descriptor)
        self.calls += 1
        assert self.passing.wait(10)
        if self.fault is not None:
            raise self.fault
        return self._real(descriptor)


async def committed(lane: Lane, flow: str = "f") -> int:
    number, durable = lane.commit("decision", decision(flow))
    await asyncio.wait_for(durable, 10)
    return number


async def commit_without_end(lane: Lane, flow: str = "f") -> None:
    while True:
        await committed(lane, flow)


async def test_a_log_begins_with_genesis_and_verifies(home):
    lane = open_lane(home)
    first = await committed(lane)
    lane.record("outcome", outcome("f", first))
    lane.write_now("policy_load", entry.policy_load("00" * 32, ["p.yaml"], "enforce", {"version": "1", "digest": "0"}))
    lane.close("done")

    assert kinds(home) == ["genesis", "lane_open", "decision", "outcome", "policy_load", "close"]
    assert report(home).result == "verified"
    assert not home.paths.fresh.exists()
    assert oct(segment(home).stat().st_mode & 0o777) == "0o600"


def test_a_later_lane_begins_with_lane_open_and_names_its_siblings(home):
    open_lane(home).close("done")
    open_lane(home, "cli").close("done")

    assert kinds(home, "cli") == ["lane_open", "close"]
    held = entries(home, "cli")[0]["siblings"]
    assert [(each["lane"], each["entries"]) for each in held] == [("main", 3)]
    assert report(home).result == "verified"


def test_a_lane_opened_beside_a_running_one_says_what_that_one_has_signed(home):
    running = open_lane(home)
    open_lane(home, "cli").close("done")
    running.close("done")

    assert entries(home, "cli")[0]["siblings"][0]["entries"] == 2
    assert report(home).result == "verified"


def test_a_lane_goes_on_where_it_was_closed(home):
    open_lane(home).close("first")
    open_lane(home).close("second")

    assert kinds(home) == ["genesis", "lane_open", "close", "close"]
    assert report(home).result == "verified"


@pytest.mark.parametrize("name", ["", "root", "Main", "a/b", "..", "-a", "a" * 65])
def test_a_name_that_is_no_lane_is_a_mistake_of_the_caller(home, name):
    with pytest.raises(ValueError, match="lane name"):
        open_lane(home, name)


async def test_nothing_is_acknowledged_before_fdatasync_has_returned(home, monkeypatch):
    lane = open_lane(home)
    disk = Disk(monkeypatch, segment(home))
    disk.passing.clear()

    _, durable = lane.commit("decision", decision("f"))
    await disk.reached()
    await asyncio.sleep(0.1)
    early = durable.done()
    disk.passing.set()
    await asyncio.wait_for(durable, 10)

    assert not early
    assert segment(home).read_bytes().count(b"\n") == 3
    lane.close("done")


async def test_what_is_queued_meanwhile_shares_one_fdatasync(home, monkeypatch):
    lane = open_lane(home)
    disk = Disk(monkeypatch, segment(home))
    disk.passing.clear()
    _, first = lane.commit("decision", decision("0"))
    await disk.reached()

    later = [lane.commit("decision", decision(str(flow))) for flow in range(1, 51)]
    disk.passing.set()
    await asyncio.wait_for(asyncio.gather(first, *(durable for _, durable in later)), 10)

    assert disk.calls == 2
    assert [number for number, _ in later] == list(range(3, 53))
    lane.close("done")
    assert report(home).result == "verified"


async def test_a_recorded_entry_is_written_soon_without_anyone_waiting(home):
    lane = open_lane(home)
    lane.record("outcome", outcome("f", 2))
    deadline = time.monotonic() + 5
    while b"outcome" not in segment(home).read_bytes() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)

    assert kinds(home)[-1] == "outcome"
    lane.close("done")


async def test_many_callers_and_flows_make_one_chain(home):
    lane = open_lane(home)

    async def flow(name: str) -> None:
        for _ in range(scaled(20)):
            number = await committed(lane, name)
            lane.record("outcome", outcome(name, number))

    await asyncio.gather(*(flow(f"f{client}") for client in range(16)))
    threads = [threading.Thread(target=lane.write_now, args=("operator", entry.operator("a", None, "", "o", "cli")))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lane.close("done")

    assert report(home).result == "verified"
    assert len(entries(home)) == 2 + 16 * scaled(20) * 2 + 8 + 1


async def test_the_number_given_out_is_the_number_in_the_log(home):
    lane = open_lane(home)
    numbers = {f"f{flow}": await committed(lane, f"f{flow}") for flow in range(5)}
    lane.close("done")

    assert {each["flow"]: each["seq"] for each in entries(home) if each["type"] == "decision"} == numbers


async def test_a_commitment_takes_the_place_of_the_value(home):
    lane = open_lane(home)
    _, durable = lane.commit("decision", decision("f"), {"path": "/secret"})
    await durable
    lane.close("done")

    assert len(entries(home)[2]["in"]["path$c"]) == 64
    assert b"/secret" not in segment(home).read_bytes()


@pytest.mark.parametrize(("fields", "vault"), [
    pytest.param({**decision("f"), "reason": "\ud800"}, None, id="a lone surrogate"),
    pytest.param({**decision("f"), "reason": 0.5}, None, id="a float"),
    pytest.param({**decision("f"), "reason": "x" * 2**20}, None, id="too long"),
    pytest.param(decision("f"), {"path": "/\ud800"}, id="a secret that is no text"),
])
async def test_what_has_no_canonical_form_fails_alone_and_leaves_a_fault_in_its_place(home, fields, vault):
    lane = open_lane(home)
    _, bad = lane.commit("decision", fields, vault)
    with pytest.raises(CanonicalError):
        await asyncio.wait_for(bad, 10)
    await committed(lane)
    lane.close("done")

    assert kinds(home) == ["genesis", "lane_open", "fault", "decision", "close"]
    assert entries(home)[2]["flow"] == "f"
    assert report(home).result == "verified"


@pytest.mark.parametrize("fault", [errno.EIO, errno.EROFS])
async def test_a_failed_fdatasync_stops_for_good_and_is_never_tried_again(home, monkeypatch, fault):
    lane = open_lane(home)
    told: list[AuditUnavailable] = []
    lane.on_stop(told.append)
    disk = Disk(monkeypatch, segment(home))
    disk.fault = OSError(fault, os.strerror(fault))

    with pytest.raises(AuditUnavailable):
        await committed(lane)
    disk.fault = None
    for call in (lambda: lane.commit("decision", decision("g")), lambda: lane.record("fault", {}),
                 lambda: lane.write_now("fault", {})):
        with pytest.raises(AuditUnavailable):
            call()
    await asyncio.sleep(0.1)
    size = segment(home).stat().st_size
    lane.close("stopped")

    assert disk.calls == 1
    assert told == [lane.stopped]
    assert segment(home).stat().st_size == size


async def test_a_failure_fails_everything_that_is_queued(home, monkeypatch):
    lane = open_lane(home)
    disk = Disk(monkeypatch, segment(home))
    disk.passing.clear()
    disk.fault = OSError(errno.EIO, "Input/output error")
    queued = [lane.commit("decision", decision("first"))[1]]
    await disk.reached()
    queued += [lane.commit("decision", decision(str(flow)))[1] for flow in range(300)]

    disk.passing.set()
    results = await asyncio.wait_for(asyncio.gather(*queued, return_exceptions=True), 10)

    assert {type(result) for result in results} == {AuditUnavailable}
    lane.close("stopped")


async def test_an_entry_whose_fdatasync_failed_is_found_or_cut_off_by_the_next_start(home, monkeypatch):
    lane = open_lane(home)
    with monkeypatch.context() as patched:
        Disk(patched, segment(home)).fault = OSError(errno.EIO, "Input/output error")
        with pytest.raises(AuditUnavailable):
            await committed(lane)
    lane.close("stopped")

    open_lane(Home.open(home.paths.folder)).close("done")

    assert report(home).result == "verified"
    assert entries(home)[-2]["result"] == "unknown"


@pytest.mark.parametrize("attack", ["unlink", "rename", "replace by a copy", "second name", "truncate", "append"])
async def test_a_segment_that_is_not_the_file_at_its_path_any_more_stops_the_lane(home, attack):
    lane = open_lane(home)
    await committed(lane)
    path = segment(home)
    match attack:
        case "unlink":
            path.unlink()
        case "rename":
            path.rename(path.with_name("moved"))
        case "replace by a copy":
            shutil.copy(path, path.with_name("copy"))
            path.with_name("copy").rename(path)
        case "second name":
            os.link(path, path.with_name("kept"))
        case "truncate":
            os.truncate(path, 100)
        case "append":
            with path.open("ab") as file:
                file.write(b"x")

    with pytest.raises(AuditUnavailable):
        await committed(lane)

    assert lane.stopped is not None
    lane.close("stopped")


async def test_short_writes_are_continued_until_the_entry_is_whole(home, monkeypatch):
    lane = open_lane(home)
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:7]))
        await committed(lane)
    lane.close("done")

    assert report(home).result == "verified"


@pytest.mark.parametrize("written", [0, 10], ids=["nothing fits", "a part fits"])
async def test_a_full_disk_stops_and_leaves_room_for_the_last_words(home, monkeypatch, written):
    lane = open_lane(home)
    await committed(lane)
    real, file = os.write, segment(home).stat()
    whole = segment(home).stat().st_size

    def write(descriptor: int, content: bytes) -> int:
        if home.paths.ballast.exists() and os.path.samestat(os.fstat(descriptor), file):
            if written and segment(home).stat().st_size == whole:
                return real(descriptor, content[:written])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(AuditUnavailable):
            await committed(lane)
        with pytest.raises(AuditUnavailable):
            lane.record("outcome", outcome("f", 2))
        lane.close("disk full")

    assert kinds(home) == ["genesis", "lane_open", "decision", "fault", "close"]
    assert entries(home)[3]["code"] == "AUDIT_UNAVAILABLE"
    assert not home.paths.ballast.exists()
    assert report(home).result == "verified"
    open_lane(Home.open(home.paths.folder)).close("done")
    assert home.paths.ballast.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)],
                             capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_really_full_disk_stops_and_leaves_room_for_the_last_words(small_disk):
    home = Home.open(small_disk / "home")
    lane = open_lane(home)
    with pytest.raises(AuditUnavailable):
        await commit_without_end(lane, "f" * 5000)
    lane.close("disk full")

    assert kinds(home)[-2:] == ["fault", "close"]
    assert report(home).result == "verified"


async def test_a_checkpoint_that_cannot_be_written_stops_the_lane(home, monkeypatch):
    lane = open_lane(home)
    monkeypatch.setattr(Home, "raise_minimum", _input_output_error)
    monkeypatch.setattr(lane_module, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(AuditUnavailable):
        await commit_without_end(lane)

    lane.close("stopped")


def _input_output_error(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(("limit", "value"), [("CHECKPOINT_SECONDS", 0.05), ("CHECKPOINT_ENTRIES", 10)])
async def test_heads_are_signed_by_time_and_by_number(home, monkeypatch, limit, value):
    lane = open_lane(home)
    monkeypatch.setattr(lane_module, limit, value)
    for _ in range(12):
        await committed(lane)
    deadline = time.monotonic() + 5
    while _signed(home) < 12 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)

    assert _signed(home) >= 12
    lane.close("done")
    assert _signed(home) == 15


async def test_an_idle_lane_writes_that_nothing_was_to_be_written_and_signs_it_as_a_head(home, monkeypatch):
    monkeypatch.setattr(lane_module, "IDLE_SECONDS", 0.05)
    lane = open_lane(home)
    deadline = time.monotonic() + 5
    while kinds(home).count("heartbeat") < 3 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    lane.close("done")
    signed = (home.paths.lane("main") / "checkpoints.note").read_text()

    beats = [each["seq"] + 1 for each in entries(home) if each["type"] == "heartbeat"]
    assert len(beats) >= 3
    assert all(f"\n{size}\n" in signed for size in beats)
    assert report(home).result == "verified"


def _signed(home: Home) -> int:
    return int(minimum(home).notes["main"].split("\n")[1])


async def test_a_policy_load_is_signed_as_a_head_at_once(home):
    lane = open_lane(home)
    lane.write_now("policy_load", entry.policy_load("00" * 32, [], "enforce", {"version": "1", "digest": "0"}))
    deadline = time.monotonic() + 0.9
    while _signed(home) < 3 and time.monotonic() < deadline:
        await asyncio.sleep(0.005)

    assert _signed(home) == 3
    lane.close("done")


def test_a_closed_lane_takes_nothing_more(home):
    lane = open_lane(home)
    lane.close("done")
    lane.close("again")

    with pytest.raises(AuditUnavailable):
        lane.record("outcome", outcome("f", 2))
    assert kinds(home).count("close") == 1


async def test_a_meter_sees_every_entry_and_every_commit(home):
    class Meter:
        def __init__(self) -> None:
            self.kinds: list[str] = []
            self.seconds: list[float] = []

        def entry(self, kind: str) -> None:
            self.kinds.append(kind)

        def commit(self, seconds: float) -> None:
            self.seconds.append(seconds)

    lane, meter = open_lane(home), Meter()
    lane.observe(meter)
    await committed(lane)
    lane.close("done")

    assert meter.kinds == ["decision", "close"]
    assert len(meter.seconds) == 2
    assert min(meter.seconds) > 0


def test_a_second_opening_of_a_lane_is_busy(home):
    lane = open_lane(home)
    with pytest.raises(StartRefused) as caught:
        open_lane(home)

    assert caught.value.code is StartCode.LANE_BUSY
    lane.close("done")


HOLDER = """
import sys, pathlib
from addons.home import Home
from tests.addons.logs import open_lane
lane = open_lane(Home.open(pathlib.Path(sys.argv[1])), vault=False)
print("open", flush=True)
sys.stdin.readline()
lane.close("done")
"""


def test_a_second_process_on_the_lane_is_busy_and_harmless(home):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(home.paths.folder)], cwd=ROOT, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StartRefused) as caught:
            open_lane(Home.open(home.paths.folder))
        other = open_lane(Home.open(home.paths.folder), "cli")
        other.close("done")
        holder.communicate("\n")

    assert caught.value.code is StartCode.LANE_BUSY
    assert kinds(home) == ["genesis", "lane_open", "close"]
    assert report(home).result == "verified"

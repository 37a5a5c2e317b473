"""Whoever of a run is killed or stopped: nothing leaves, the command ends with the run, and nothing is left of it."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.e2e.network_hosts import needs_networks
from tests.e2e.packets import UDP, Capture, captured
from tests.e2e.run_place import ADDRESS, OTHER_ADDRESS, READS_API, RunPlace, inside, needs_run_tools, run_place

pytestmark = [pytest.mark.e2e, needs_networks, needs_run_tools]

RUN_FOLDERS = Path("/run/governor-runs")
# It asks for what it may, streams, and tries every other way, each without end.
BUSY = """
import contextlib, itertools, socket, threading, time, urllib.request

def again(act):
    for number in itertools.count():
        with contextlib.suppress(OSError):
            act(number)
        time.sleep(0.01)

def ask(number):
    urllib.request.urlopen(f"http://api.example.org/page/{number}", timeout=1).read()

def stream(number):
    with urllib.request.urlopen(f"http://api.example.org/stream/{number}", timeout=1) as answer:
        while answer.read(7):
            pass

def by_address(number):
    with socket.create_connection(("198.18.79.1", 80), timeout=0.5) as link:
        link.sendall(b"GET /past HTTP/1.1\\r\\nhost: 198.18.79.1\\r\\n\\r\\n")
        link.recv(100)

def elsewhere(number):
    with socket.create_connection(("198.18.79.1", 8080), timeout=0.2):
        pass

def datagram(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.sendto(b"past", ("198.18.79.2", 443))

def name(number):
    socket.gethostbyname(f"n{number}.unlisted.example.org")

for act in (stream, by_address, elsewhere, datagram, name):
    threading.Thread(target=again, args=(act,)).start()
again(ask)
"""


class _Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            self.send_response(200)
            if self.path.startswith("/stream"):
                self.end_headers()
                while True:
                    self.wfile.write(b"data: x")
                    time.sleep(0.05)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[RunPlace]:
    folder = tmp_path_factory.mktemp("endings")
    (folder / "none.pem").write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
    with run_place(folder, READS_API, {"api.example.org": ADDRESS}, folder / "none.pem") as made:
        with inside(made):
            server = http.server.ThreadingHTTPServer((ADDRESS, 80), _Origin)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Run:
    """A run whose command is busy. Its processes are known by a variable that they all inherit."""

    process: subprocess.Popen[bytes]
    mark: str
    folder: Path

    def processes(self) -> dict[int, str]:
        """Those that live, by what they were started as."""
        return {pid: line for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                if (line := _line_of(pid, self.mark)) is not None}

    def one(self, role: str) -> int:
        """The process that plays this part."""
        if role == "governor-run":
            return self.process.pid
        lines = self.processes()
        if role == "governor":
            return next(pid for pid, line in lines.items() if line.startswith(sys.executable) and "serve_run" in line)
        found = next(pid for pid in _children(self.process.pid) if "sandbox.network" in lines.get(pid, ""))
        for _ in range(BELOW.index(role)):
            found = _children(found)[0]
        return found


def _line_of(pid: int, mark: str) -> str | None:
    try:
        if mark.encode() not in Path(f"/proc/{pid}/environ").read_bytes():
            return None
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\\0", b" ").decode()
    except OSError:
        return None


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@contextlib.contextmanager
def busy(place: RunPlace, mark: str, *options: str) -> Iterator[Run]:
    """A run that has asked and been answered. Killed at the end where it lives."""
    script = place.work / "busy.py"
    script.write_text(BUSY)
    line = place.command("run", "--quiet", "--policy", str(place.policy), *options, "--", sys.executable, str(script))
    process = subprocess.Popen(line, cwd=place.work, env={**place.environment, "MARK": mark},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    run = Run(process, mark, place.folder)
    try:
        yield run
    finally:
        process.kill()
        process.wait()
        for pid in run.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def asked(capture: Capture) -> list[bytes]:
    return [packet.content.split(b" ")[1] for packet in capture.to(ADDRESS) if packet.content.startswith(b"GET ")]


def recorded(place: RunPlace) -> int:
    """How many requests the log lets through, in all lanes."""
    lines = [line for file in (place.home / "audit" / "lanes").glob("*/*.jsonl")
             for line in file.read_bytes().split(b"\n") if line.endswith(b"}")]
    entries = [json.loads(line)["e"] for line in lines]
    return sum(entry["type"] == "decision" and entry["stage"] == "request" and entry["code"] == "ALLOW"
               for entry in entries)


def nothing_past(place: RunPlace, capture: Capture) -> None:
    """What came to the origins' addresses is what the log has let through, and nothing else."""
    arrived = capture.to(ADDRESS, OTHER_ADDRESS)
    assert [packet for packet in arrived if packet.protocol == UDP] == []
    assert [packet for packet in arrived if packet.begins and packet.port != 80] == []
    assert not any(path.startswith(b"/past") for path in asked(capture))
    assert not any(b"unlisted" in packet.content for packet in capture.packets if packet.port == 53)
    assert len(asked(capture)) <= recorded(place)


def left_over(before: set[str]) -> set[str]:
    """Namespaces with a name, links and folders that were not there before."""
    return _standing() - before


def _standing() -> set[str]:
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    folders = {f"folder {path}" for path in RUN_FOLDERS.glob("*") if not _needed(path)}
    return folders | {f"link {line.split()[0]}" for line in links.splitlines()}


def _needed(folder: Path) -> bool:
    """Whether a run, perhaps one of another test, lives in it."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return not folder.exists()
    return True


of_the_long_run = pytest.mark.skipif(SCALE < 10, reason="takes GOVERNOR_TEST_SCALE=10")
# Each the parent of the next.
BELOW = ["network", "holder", "bubblewrap", "first-inside", "command"]
EVERYDAY = ["governor", "governor-run"]
ROLES = [*EVERYDAY, *BELOW]


@pytest.mark.parametrize("role", ROLES if SCALE >= 10 else EVERYDAY)
@pytest.mark.parametrize("tier", ["netns", "bwrap"] if SCALE >= 10 else ["netns"])
def test_whoever_is_killed_nothing_leaves_and_nothing_is_left(place, role, tier):
    before = _standing()
    with captured(inside(place)) as capture, busy(place, f"killed-{role}-{tier}", "--tier", tier) as run:
        wait_for(lambda: len(asked(capture)) > 10)
        os.kill(run.one(role), signal.SIGKILL)

        if role != "governor":
            run.process.wait(30)
        else:
            time.sleep(0.5)
            already = len(capture.to(ADDRESS, OTHER_ADDRESS))
            time.sleep(1)
            assert len(capture.to(ADDRESS, OTHER_ADDRESS)) == already
            run.process.terminate()
            run.process.wait(30)
        wait_for(lambda: not run.processes())

    nothing_past(place, capture)
    # What those two leave on the disk, the next run sweeps.
    if role in ("governor", "governor-run"):
        assert place.run("true").returncode == 0
    assert left_over(before) == set()
    assert list((place.home / "runs").iterdir()) == []


@of_the_long_run
@pytest.mark.parametrize("role", ROLES)
def test_whoever_is_stopped_nothing_leaves_past_governor_and_a_kill_ends_all(place, role):
    before = _standing()
    with captured(inside(place)) as capture, busy(place, f"stopped-{role}") as run:
        wait_for(lambda: len(asked(capture)) > 10)
        stopped = run.one(role)
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(1)
        run.process.kill()
        wait_for(lambda: not set(run.processes()) - {stopped})
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
        wait_for(lambda: not run.processes())

    nothing_past(place, capture)
    assert place.run("true").returncode == 0
    assert left_over(before) == set()


def test_the_log_of_killed_runs_verifies_and_its_lanes_are_adopted(place):
    # After the kills above, by whichever run came next.
    assert place.run("true").returncode == 0

    verified = subprocess.run(place.command("audit", "verify", str(place.home), "--json"), capture_output=True,
                              text=True, env=place.environment, check=False)

    assert verified.returncode == 0, verified.stdout + verified.stderr


@of_the_long_run
def test_a_command_that_ends_its_own_group_ends_as_outside(place):
    # The whole group, with `governor run` in it, is one of its own here.
    done = place.run("sh", "-c", "trap 'kill 0' EXIT; exit 3", options=("--quiet",), start_new_session=True)

    assert done.returncode == 128 + signal.SIGTERM


@of_the_long_run
@pytest.mark.parametrize("ahead", [(), ("nohup",)])
def test_what_the_caller_has_had_ignored_stays_so_inside_and_nothing_else_is(place, ahead):
    line = [*ahead, *place.command("run", "--quiet", "--", "grep", "SigIgn", "/proc/self/status")]

    done = subprocess.run(line, cwd=place.work, env=place.environment, capture_output=True, text=True, check=True)

    plain = [*ahead, "grep", "SigIgn", "/proc/self/status"]
    outside = subprocess.run(plain, capture_output=True, text=True, check=True)
    assert done.stdout == outside.stdout


@of_the_long_run
@pytest.mark.parametrize("delay", [number / 10 for number in range(25)])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_ended_while_it_starts_leaves_nothing(place, delay, how):
    before = _standing()
    with captured(inside(place)) as capture, busy(place, f"start-{delay}-{how}") as run:
        time.sleep(delay)
        run.process.send_signal(how)
        wait_for(lambda: not run.processes())

    nothing_past(place, capture)
    if how is signal.SIGKILL:
        assert place.run("true").returncode == 0
    assert left_over(before) == set()
    assert list((place.home / "runs").glob("*")) == []


@of_the_long_run
def test_a_governor_out_of_memory_lets_nothing_past(place):
    with captured(inside(place)) as capture, busy(place, "memory") as run:
        wait_for(lambda: len(asked(capture)) > 10)
        governor = run.one("governor")
        status = os.stat(f"/proc/{governor}")
        # By its own user: root in a container may lack the capability to limit others.
        subprocess.run(["setpriv", f"--reuid={status.st_uid}", f"--regid={status.st_gid}", "--clear-groups", "prlimit",
                        f"--pid={governor}", "--as=1048576"], check=True)
        time.sleep(5)
        run.process.terminate()
        run.process.wait(60)
        wait_for(lambda: not run.processes())

    nothing_past(place, capture)

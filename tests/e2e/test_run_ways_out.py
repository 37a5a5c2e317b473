"""Ways out of `governor run`: every attempt there is, in each tier, with a capture at the origin; and what a command
could prepare outside for the time after it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from addons.sandbox.held import OUR_CODE
from tests.conftest import SCALE
from tests.e2e.network_hosts import needs_networks
from tests.e2e.packets import Capture, captured
from tests.e2e.process import ROOT
from tests.e2e.run_place import ADDRESS, GOVERNOR, OTHER_ADDRESS, RunPlace, inside, run_place

pytestmark = [
    pytest.mark.e2e, needs_networks,
    pytest.mark.skipif(not all(map(shutil.which, ("bwrap", "nft", "nsenter", "setpriv"))),
                       reason="bwrap, nft, nsenter or setpriv missing"),
]

POLICY = """\
version: 1
rules:
  - allow: the-api
    to: "http://api.example.org/**"
    address: 198.18.79.0/24
    methods: reads
never:
  - to: [metadata, link-local]
"""
NOBODY = 65534
# The interpreter may lie in root's own folder, which is closed to everybody else.
_AS_NOBODY = """
kept=$1; shift
if [ -n "$kept" ]; then
  mkdir -p "$AREA/kept"; mount --bind "$kept" "$AREA/kept"; mount -t tmpfs -o mode=755 none /root
  mkdir -p "$kept"; mount --bind "$AREA/kept" "$kept"; umount "$AREA/kept"
fi
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "$@"
"""
LISTENS = """
import os, socket, sys, time
server = socket.socket(socket.AF_UNIX)
os.umask(0)
server.bind(sys.argv[1])
server.listen()
time.sleep(100)
"""
WRITES = """
import os, socket, sys
for what in sys.argv[1:]:
    kind, path = what.split(":", 1)
    try:
        match kind:
            case "rename":
                os.rename(path, path + "-moved"); os.rename(path + "-moved", path)
            case "connect":
                socket.socket(socket.AF_UNIX).connect(path)
            case "write":
                with open(path, "w"): pass
        print("written", path)
    except OSError as fault:
        print(fault.strerror, path)
"""


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"page\n")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def place_of(user: int) -> Iterator[RunPlace]:
    """Where a user works, in a folder that is his, with an origin that has a name and an address."""
    with tempfile.TemporaryDirectory(prefix="governor-out-") as name:
        folder = Path(name)
        with run_place(folder, POLICY, {"api.example.org": ADDRESS}, folder / "none.pem") as place, \
                contextlib.ExitStack() as made:
            (folder / "none.pem").write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
            for each in (folder, *folder.iterdir()):
                os.chown(each, user, user)
            with inside(place):
                server = http.server.ThreadingHTTPServer((ADDRESS, 80), _Page)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            made.callback(server.server_close)
            made.callback(server.shutdown)
            yield place


def line(place: RunPlace, user: int, *words: str) -> list[str]:
    """The command line of a governor verb of this user's."""
    verb = [sys.executable, "-c", GOVERNOR, str(ROOT), *words]
    if user == 0:
        return [*place.outside(), *verb]
    base = Path(sys.base_prefix)
    kept = next((str(parent) for parent in (base, *base.parents) if parent.parent == Path("/root")), "")
    return [*place.outside(), "env", f"AREA={place.folder}", "sh", "-c", _AS_NOBODY, "sh", kept, *verb]


def ran(place: RunPlace, user: int, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    env = {**place.environment, **more.pop("env", {})}
    return subprocess.run(line(place, user, "run", *words), capture_output=True, text=True, check=False, timeout=150,
                          cwd=place.work, env=env, **more)


@pytest.fixture(scope="module", params=[0, NOBODY] if SCALE >= 10 else [0], ids=lambda user: f"uid {user}")
def user(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def place(user) -> Iterator[RunPlace]:
    with place_of(user) as made:
        yield made


def attempts(place: RunPlace, user: int, tier: str) -> tuple[list[dict[str, str]], Capture]:
    """Every attempt from inside a run, then one request that is allowed; with what came by at the origin."""
    doctor = [sys.executable, "-c", GOVERNOR, str(ROOT), "doctor", "--inside", "--home", str(place.home), "--json",
              "--target", ADDRESS, "--target", OTHER_ADDRESS]
    both = '"$@"; curl -s -o /dev/null http://api.example.org/the-one-that-may'
    with captured(inside(place)) as capture:
        done = ran(place, user, "--tier", tier, "--policy", str(place.policy), "--quiet", "--", "sh", "-c", both, "sh",
                   *doctor)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return json.loads(done.stdout)["attempts"], capture


@pytest.mark.parametrize(("user", "tier"), [(0, "netns"), (NOBODY, "bwrap"), *(
    [(0, "bwrap"), (NOBODY, "netns")] if SCALE >= 10 else ())])
def test_no_attempt_is_open_and_nothing_reaches_the_origin_but_what_has_an_entry(user, tier):
    with place_of(user) as place:
        seen, capture = attempts(place, user, tier)

    assert len(seen) > 300
    assert [f"{each['name']}: {each['seen']}" for each in seen if each["result"] == "open"] == []
    arrived = capture.to(ADDRESS, OTHER_ADDRESS)
    assert {packet.port for packet in arrived if packet.port < 1024} == {80}
    assert [packet.content.split(b" ")[1] for packet in arrived if packet.content.startswith((b"GET", b"POST"))] == [
        b"/the-one-that-may"]
    assert sum(packet.begins and packet.port == 80 for packet in arrived) == 1


def test_the_same_attempts_are_open_where_a_command_is_only_advised():
    with place_of(0) as place:
        seen, capture = attempts(place, 0, "env")

    assert sum(each["result"] == "open" for each in seen) > 20
    assert len(capture.to(ADDRESS, OTHER_ADDRESS)) > 50


@dataclass(frozen=True)
class Prepared:
    """What one run found that was started after much had been prepared for it."""

    done: subprocess.CompletedProcess[str]
    mark: Path
    written: set[str]

    def closed(self, *paths: object) -> bool:
        """Whether none of these could be written, renamed or replaced."""
        return not self.written & {str(path) for path in paths}


@pytest.fixture(scope="module")
def policy(place, user) -> Path:
    file = place.work / "team" / "policies" / "policy.yaml"
    _written(file, place.policy.read_text(), user)
    return file


@pytest.fixture(scope="module")
def prepared(place, user, policy) -> Iterator[Prepared]:
    """A run beside another one, with programs in its PATH, modules in its PYTHONPATH and, for root, a second /proc. Its
    command tries to write, rename and replace, and lists what it sees of runs and processes.
    """
    mark, programs, ready = place.work / "mark", place.work / "programs", place.work / "ready"
    for name in ("bwrap", "nft", "ip", "certutil"):
        _written(programs / name, f"#!/bin/sh\necho {name} >> {mark}\nexit 1\n", user)
    _written(place.work / "mitmproxy" / "__init__.py", f"open({str(mark)!r}, 'a').write('mitmproxy')\n", user)
    environment = {**place.environment, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(place.work)}
    shown = place.work / "chroot" / "proc"
    shown.mkdir(parents=True)
    mounted = ["unshare", "-m", "sh", "-c", f"mount -t proc proc '{shown}' && exec \"$@\"", "sh"]
    kept = place.folder / "kept"
    _written(kept / "bashrc", "", user)
    _written(kept / "linked.yaml", place.policy.read_text().replace("the-api", "it-again"), user)
    (place.user / ".bashrc").symlink_to(kept / "bashrc")
    (place.work / "linked.yaml").symlink_to(kept / "linked.yaml")
    asked = [f"rename:{path}" for path in _above(place, policy)]
    asked += [f"connect:{place.work}/elsewhere.sock"]
    mine = (policy, kept / "bashrc", kept / "linked.yaml", place.work / "mine")
    asked += [f"write:{path}" for path in (*_OF_THE_HOST, *mine)]
    listener = subprocess.Popen(["unshare", "-n", sys.executable, "-c", LISTENS, str(place.work / "elsewhere.sock")])
    _wait((place.work / "elsewhere.sock").exists)
    script = (f'"$@"; for d in /run/governor-runs /run/user/*/governor-runs /tmp/governor-runs-*; do '
              f'[ -e "$d" ] && ls "$d" | sed "s/^/run /"; done; ls {shown} | sed "s/^/process /"')
    neighbour = subprocess.Popen(line(place, user, "run", "--quiet", "--", "sh", "-c", "touch ready; exec sleep 90"),
                                 cwd=place.work, env=place.environment)
    try:
        _wait(ready.exists)
        policies = ("--policy", str(policy), "--policy", str(place.work / "linked.yaml"))
        run = line(place, user, "run", "--quiet", *policies, "--", "sh", "-c", script, "sh", sys.executable, "-c",
                   WRITES, *asked)
        done = subprocess.run([*(mounted if user == 0 else ()), *run], capture_output=True, text=True, check=False,
                              timeout=120, cwd=place.work, env=environment)
        assert done.returncode == 0, done.stderr
        said = [line.split(" ", 1) for line in done.stdout.splitlines()]
        yield Prepared(done, mark, {each[1] for each in said if each[0] == "written"})
    finally:
        for each in (listener, neighbour):
            each.terminate()
            each.wait(30)
        shutil.rmtree(place.work / "mitmproxy")
        for path in _OF_THE_HOST:
            if path.endswith("governor-test"):
                Path(path).unlink(missing_ok=True)


# Where / itself can be written, a link such as /bin can be replaced.
_OF_THE_HOST = (
    "/governor-test", "/etc/cron.d/governor-test", "/opt/governor-test", "/usr/local/bin/governor-test",
    "/boot/governor-test", "/var/spool/governor-test", "/var/governor-test", "/sys/kernel/uevent_helper",
    "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger",
)


def _above(place: RunPlace, policy: Path) -> list[Path]:
    return [place.folder, place.home, place.folder / "config", place.folder / "config" / "governor", policy.parent,
            policy.parent.parent]


def test_what_the_host_runs_cannot_be_written_or_replaced(prepared):
    assert prepared.closed(*_OF_THE_HOST)


def test_no_folder_above_the_home_the_pins_or_a_policy_can_be_replaced(place, policy, prepared):
    assert prepared.closed(*_above(place, policy), policy)
    assert str(place.work / "mine") in prepared.written


def test_what_lies_beside_governors_code_is_not_imported(tmp_path):
    for name in ("addons", "kernel"):
        (tmp_path / name).mkdir()
    (tmp_path / "json.py").write_text("print('ours')")

    done = subprocess.run([sys.executable, "-I", "-c", OUR_CODE + "import json", str(tmp_path)], capture_output=True,
                          text=True, check=True)

    assert done.stdout == ""


def test_a_policy_and_a_file_of_the_shells_that_are_links_are_kept_where_they_lead(prepared, place):
    assert prepared.closed(place.folder / "kept" / "bashrc", place.folder / "kept" / "linked.yaml")


def test_a_run_sees_nothing_of_another_runs_folder(prepared):
    assert len([line for line in prepared.done.stdout.splitlines() if line.startswith("run ")]) == 1


def test_what_was_left_in_path_or_where_modules_are_looked_for_is_not_run_outside(prepared):
    assert not prepared.mark.exists()


def test_a_socket_of_somebody_in_another_network_is_not_reached(place, prepared):
    assert prepared.closed(place.work / "elsewhere.sock")


def test_a_proc_that_is_mounted_elsewhere_shows_nothing(prepared):
    assert "process " not in prepared.done.stdout


def test_who_closed_the_standard_streams_before_a_run_opens_no_way_through_its_first_process(place, user):
    # What bubblewrap opens gets their numbers, and is kept by the first process: the host's /proc.
    asked = [f"write:/proc/1/fd/{number}/sys/kernel/core_pattern" for number in range(3)]
    script = '"$@" > told 2>&1; readlink /proc/1/fd/0 /proc/1/fd/1 /proc/1/fd/2 >> told'
    run = line(place, user, "run", "--quiet", "--", "sh", "-c", script, "sh", sys.executable, "-c", WRITES, *asked)

    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *run], cwd=place.work, env=place.environment,
                          check=False, timeout=60)

    told = (place.work / "told").read_text()
    assert done.returncode == 0, told
    assert "written" not in told
    assert told.splitlines()[-3:] == ["/dev/null"] * 3


@pytest.mark.skipif(SCALE < 10, reason="takes GOVERNOR_TEST_SCALE=10")
def test_a_command_that_stops_the_first_process_of_its_namespace_does_not_keep_the_run_from_ending(place, user):
    stop = ("import ctypes, os; open('stopped', 'w'); ctypes.CDLL(None).ptrace(16, 1, 0, 0); os._exit(0)")
    process = subprocess.Popen(line(place, user, "run", "--quiet", "--", sys.executable, "-c", stop), cwd=place.work,
                               env=place.environment)
    _wait((place.work / "stopped").exists)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)

    process.terminate()

    assert process.wait(15) in (0, 128 + signal.SIGTERM)
    (place.work / "stopped").unlink()


def _written(file: Path, content: str, user: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(0o755)
    for each in (file.parent.parent, file.parent, file):
        os.chown(each, user, user)


def _wait(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

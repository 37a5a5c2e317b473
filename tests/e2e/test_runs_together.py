"""Runs beside each other and beside a Governor that serves, on one home: all go on, and a halt reaches all."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.e2e.network_hosts import needs_networks
from tests.e2e.run_place import ADDRESS, READS_API, RunPlace, inside, needs_run_tools, run_place

pytestmark = [pytest.mark.e2e, needs_networks, needs_run_tools]

TOGETHER = 10 if SCALE >= 10 else 3
ASK = "curl -s -o /dev/null -w '%{http_code}\\n' http://api.example.org/"
# Who is halted is told no address either.
ASKING = f"while sleep 0.05; do {ASK} || true; done"
HALT_SECONDS = 2.0


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def place(tmp_path) -> Iterator[RunPlace]:
    (tmp_path / "none.pem").write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
    with run_place(tmp_path, READS_API, {"api.example.org": ADDRESS}, tmp_path / "none.pem") as made:
        with inside(made):
            server = http.server.ThreadingHTTPServer((ADDRESS, 80), _Page)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()
        server.server_close()


def verb(place: RunPlace, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(place.command(*words), capture_output=True, text=True, env=place.environment, check=False,
                          timeout=60)


@contextlib.contextmanager
def running(place: RunPlace, script: str) -> Iterator[subprocess.Popen[str]]:
    line = place.command("run", "--quiet", "--policy", str(place.policy), "--", "sh", "-c", script)
    process = subprocess.Popen(line, cwd=place.work, env=place.environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def serving(place: RunPlace, *options: str) -> Iterator[None]:
    """`governor serve` on the same home, once it answers."""
    line = place.command("serve", "--listen-host", "127.0.0.1", "--listen-port", "18080", "--set",
                         "governor_metrics=127.0.0.1:0", "--set", f"governor_policy={place.policy}", *options)
    process = subprocess.Popen(line, env=place.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (place.home / "control.sock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def halted_within(process: subprocess.Popen[str], since: float) -> float:
    """Seconds until the first request that was refused, after which none passes."""
    assert process.stdout is not None
    while process.stdout.readline() == "200\n":
        pass
    seconds = time.monotonic() - since
    assert {process.stdout.readline() for _ in range(5)} <= {"403\n", "000\n"}
    return seconds


def test_runs_at_the_same_time_on_a_new_home_have_lanes_of_their_own_and_a_halt_reaches_them_all(place):
    with contextlib.ExitStack() as started:
        runs = [started.enter_context(running(place, ASKING)) for _ in range(TOGETHER)]
        for process in runs:
            assert process.stdout is not None
            assert process.stdout.readline() == "200\n"

        halted = verb(place, "agents", "halt", "local", "--reason", "enough")
        since = time.monotonic()

        assert halted.returncode == 0, halted.stdout + halted.stderr
        for process in runs:
            assert halted_within(process, since) < HALT_SECONDS
    # It holds for whoever comes next, too, who is not even told the address.
    assert place.run("sh", "-c", ASK).stdout == "000\n"
    assert len(list((place.home / "audit" / "lanes").glob("run-*"))) == TOGETHER + 1
    assert list((place.home / "runs").iterdir()) == []
    verified = verb(place, "audit", "verify", str(place.home))
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.skipif(SCALE < 10, reason="takes GOVERNOR_TEST_SCALE=10")
def test_a_halt_given_where_somebody_serves_reaches_a_run_beside_it(place):
    with serving(place, "--set", f"governor_pool=sqlite:{place.home}/pool.db"), running(place, ASKING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "200\n"

        halted = verb(place, "agents", "halt", "local", "--reason", "enough")
        since = time.monotonic()

        assert halted.returncode == 0, halted.stdout + halted.stderr
        assert halted_within(process, since) < HALT_SECONDS


@pytest.mark.skipif(SCALE < 10, reason="takes GOVERNOR_TEST_SCALE=10")
def test_a_strict_umask_is_no_obstacle_to_a_governor_that_is_another_user(place):
    assert [place.run("true", umask=0o077).returncode for _ in range(2)] == [0, 0]


def test_a_run_beside_a_governor_that_counts_in_its_memory_is_refused_with_what_to_do(place):
    with serving(place):
        done = place.run("true")

    assert done.returncode == 125
    assert "governor_pool" in done.stderr
    assert list((place.home / "runs").iterdir()) == []

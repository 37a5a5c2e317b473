"""`governor serve --workers N`: one port, one home, one answer, and no process that matters more than what it held."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCALE
from tests.e2e import wire
from tests.e2e.crew import Crew, Load, crew, entries, until
from tests.e2e.origins import Seen, serving
from tests.e2e.process import POLICY, command_line, governor, scratch_environment, started

pytestmark = pytest.mark.e2e

thorough = pytest.mark.skipif(SCALE < 10, reason="every start of workers takes seconds: scripts/test --all has them")

ALLOWED = 'governor_decisions_total{code="ALLOW",verdict="allow"}'
BAD = "version: 1\nrules:\n  - alow: everything\n"


POKING = """\
import os, pathlib, time
from mitmproxy import ctx

FOLDER = pathlib.Path({folder!r})

def note(what):
    (FOLDER / f"{{what}}-{{os.getpid()}}").write_text(str(time.monotonic()))

def running():
    ctx.master.enforcer._running.siblings.on_poke(lambda: note("woken"))

def request(flow):
    if flow.request.path == "/poke":
        note("poked")
        ctx.master.enforcer._running.siblings.poke()
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("crew")
    script = folder / "poking.py"
    script.write_text(POKING.format(folder=str(folder)))
    with crew(folder, options=["-s", str(script)]) as both:
        yield both


class Events(BaseHTTPRequestHandler):
    """An event every 50 ms until the client goes."""

    protocol_version = "HTTP/1.1"
    seen: Seen

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"data: more\n\n")
                time.sleep(0.05)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def decided(home: Path, lane: str) -> int:
    return len(entries(home, lane, "decision"))


def refused_start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A start with workers that has ended."""
    command = command_line(folder / "home", None, options, serve=True)
    return subprocess.run(command, capture_output=True, text=True, env=scratch_environment(folder), timeout=60,
                          check=False)


def test_both_workers_serve_and_the_numbers_are_those_of_both(running):
    with serving() as origin:
        before = running.numbers()
        statuses = [running.ask(f"{origin.url}/{number}") for number in range(40)]
        statuses += [running.ask(f"{origin.url}/denied/{number}") for number in range(10)]
        until(lambda: running.numbers()["governor_open_streams"] == 0)
        after = running.numbers()
        grown = {name: after[name] - before.get(name, 0) for name in after}

    assert statuses == [200] * 40 + [403] * 10
    assert min(decided(running.governor.home, lane) for lane in ("w0", "w1")) > 0
    assert grown[ALLOWED] == grown['governor_rule_hits_total{rule="read-local"}'] == 40
    assert grown['governor_decisions_total{code="DEFAULT_DENY",verdict="deny"}'] == 10
    assert grown["governor_decision_seconds_count"] == 50
    assert grown["governor_upstream_seconds_count"] == 40
    assert after["governor_ready"] == 1
    assert sum(name.startswith("governor_build_info") for name in after) == 1
    assert after["governor_audit_unanchored_entries"] == sum(
        len(running.entries(lane)) for lane in ("w0", "w1"))


def test_a_worker_wakes_the_others_at_once(running):
    folder = running.governor.home.parent
    with serving() as origin:
        running.ask(f"{origin.url}/poke")
    until(lambda: list(folder.glob("woken-*")) and list(folder.glob("poked-*")))
    (poked,), (woken,) = folder.glob("poked-*"), folder.glob("woken-*")

    print(f"woken after {1000 * (float(woken.read_text()) - float(poked.read_text())):.1f} ms")
    assert {int(path.name.partition("-")[2]) for path in (poked, woken)} == set(running.pids().values())


def test_one_status_tells_of_all(running):
    status = running.status()

    assert (status["ready"], status["workers"], status["hints"]) == (True, 2, [])
    assert [lane["lane"] for lane in status["lanes"]] == ["w0", "w1"]


def test_a_worker_that_does_not_answer_is_not_ready_and_its_counts_stay(running):
    pid, before = running.pids()["w1"], running.numbers()
    os.kill(pid, signal.SIGSTOP)
    try:
        numbers, readiness = running.numbers(), running.governor.run(
            "curl", "-s", "--noproxy", "*", running.governor.metrics.replace("metrics", "readyz")).stdout
        status = running.status()
    finally:
        os.kill(pid, signal.SIGCONT)

    assert numbers["governor_ready"] == 0
    assert numbers[ALLOWED] == before[ALLOWED]
    assert json.loads(readiness)["checks"]["w1"] is False
    assert json.loads(readiness)["checks"]["w0"] is True
    assert (status["ready"], status["workers"]) == (False, 1)
    assert "worker w1 does not answer" in status["hints"][-1]
    running.until_ready()


def test_a_worker_that_stands_still_holds_no_operator_up_and_is_named(tmp_path):
    with crew(tmp_path) as both, serving() as origin:
        verb, pid = both.governor.verb, both.pids()["w0"]
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with ThreadPoolExecutor() as at_once:
                asked = [at_once.submit(verb, *words) for words in (
                    ("agents", "halt", "local", "--reason", "it uploads", "--json"), ("agents", "list", "--json"),
                    ("reload", "--wait"))]
            halted, listed, reloaded = [each.result() for each in asked]
            took = time.monotonic() - began
            clients = [wire.dial(both.governor.port) for _ in range(16)]
            for client in clients:
                client.sendall(wire.plain("GET", f"{origin.url}/x"))
        finally:
            os.kill(pid, signal.SIGCONT)
        statuses = {answer.status for client in clients if (answer := wire.read(client)) is not None}
        both.until_ready()
        os.kill(pid, signal.SIGSTOP)
        try:
            added = verb("agents", "add", "coder-1", "--json")
        finally:
            os.kill(pid, signal.SIGCONT)
        proxy = f"http://coder-1:{json.loads(added.stdout)['token']}@127.0.0.1:{both.governor.port}"
        known = {both.governor.curl("-x", proxy, f"{origin.url}/x")[0] for _ in range(8)}
        entries = [len(both.entries(lane, "operator")) for lane in ("w0", "w1")]

    assert took < 15
    assert [ended.returncode for ended in (halted, listed, reloaded, added)] == [4, 4, 1, 4]
    assert json.loads(halted.stdout)["unanswered"] == ["w0"]
    assert isinstance(json.loads(listed.stdout), list)
    assert all("worker w0 did not answer" in ended.stderr for ended in (halted, listed, reloaded, added))
    assert (statuses, known) == ({403}, {200})
    print(f"the verbs took {took:.1f} s; operators' entries in the lanes: {entries}")


def test_a_killed_worker_costs_its_own_connections_alone_and_comes_back(running):
    with serving() as origin, Load.of(running, f"{origin.url}/load", clients=4) as load:
        load.more(20)
        counted = running.numbers()[ALLOWED]
        killed = running.kill("w0")
        load.more(20)
        assert running.numbers()[ALLOWED] >= counted
        running.until_ready()
        load.more(20)
        load.ended.set()

    assert load.statuses.count(200) + load.statuses.count(None) == len(load.statuses)
    # What each client had open with the one that was killed, or was about to have.
    assert load.statuses.count(None) <= 8
    assert running.pids()["w0"] != killed
    assert "worker w0 was killed by SIGKILL; it starts again in 0.5 s" in "\n".join(running.governor.output)
    assert len(running.entries("w0", "policy_load")) == 2


def test_an_act_holds_in_all_workers_when_its_verb_returns(running):
    verb = running.governor.verb
    with serving() as origin:
        began = time.monotonic()
        done = json.loads(verb("agents", "halt", "local", "--reason", "it uploads", "--json").stdout)
        print(f"halted in all workers {1000 * (time.monotonic() - began):.0f} ms after the verb began")
        refused = {running.ask(f"{origin.url}/x") for _ in range(8)}
        row = json.loads(verb("agents", "list", "--json").stdout)[0]
        number = running.numbers()['governor_halted{agent="local",reason="OPERATOR"}']
        acts = [[entry["agent"] for entry in running.entries(lane, "operator")] for lane in ("w0", "w1")]
        halted = running.status()["halted"]
        released = verb("agents", "release", "local", "--reason", "it was us")
        passed = {running.ask(f"{origin.url}/x") for _ in range(8)}

    assert (done["changed"], done["state"], done["in_force"]) == (True, "halted", True)
    assert (refused, acts, number, halted) == ({403}, [["local"], ["local"]], 1, ["local"])
    assert (row["id"], row["state"], row["reason"]) == ("local", "halted", "OPERATOR")
    assert (released.returncode, passed, running.status()["halted"]) == (0, {200}, [])


def test_all_lanes_go_on_with_new_keys_or_the_one_that_is_named(running):
    verb = running.governor.verb
    both = json.loads(verb("audit", "rotate", "--json").stdout)
    one = json.loads(verb("audit", "rotate", "--lane", "w1", "--json").stdout)

    assert [each["lane"] for each in both] == ["w0", "w1"]
    assert one["lane"] == "w1"
    assert verb("audit", "rotate", "--lane", "w7").returncode == 1


def test_a_reload_changes_all_workers_or_none(running):
    file = running.governor.home.parent / "policy.yaml"
    verb = running.governor.verb
    with serving() as origin:
        before = running.status()["policy"]
        file.write_text(BAD)
        bad = verb("reload", "--wait", "--json")
        still = {running.ask(f"{origin.url}/x") for _ in range(8)}
        file.write_text(POLICY.replace("/denied/**", "/closed/**"))
        good = verb("reload", "--wait", "--json")
        now = {running.ask(f"{origin.url}/closed/x") for _ in range(8)}

    told = json.loads(good.stdout)
    assert (bad.returncode, json.loads(bad.stdout)["policy"]) == (1, before)
    assert "policy.yaml:3:5" in json.loads(bad.stdout)["findings"][0]
    assert still == {200}
    assert (good.returncode, told["ok"], told["policy"] != before) == (0, True, True)
    assert now == {403}
    assert {running.entries(lane, "policy_load")[-1]["policy"] for lane in ("w0", "w1")} == {told["policy"]}
    assert running.numbers()["governor_policy_reload_failures_total"] == 1


def test_a_worker_that_starts_again_has_the_policy_in_force_and_not_its_file(running):
    file, before = running.governor.home.parent / "policy.yaml", running.status()["policy"]
    file.write_text(POLICY + "  - to: [192.0.2.7]\n")
    running.kill("w1")
    running.until_ready()

    assert running.entries("w1", "policy_load")[-1]["policy"] == before
    running.kill("w0")
    reloaded = json.loads(running.governor.verb("reload", "--wait", "--json").stdout)
    running.until_ready()
    assert reloaded["ok"] is True
    assert {running.entries(lane, "policy_load")[-1]["policy"] for lane in ("w0", "w1")} == {reloaded["policy"]}


def test_a_token_counts_in_all_workers_when_its_verb_returns(running):
    verb = running.governor.verb
    token = json.loads(verb("agents", "add", "coder-1", "--json").stdout)["token"]
    with serving() as origin:
        def asked(password: str) -> set[int]:
            proxy = f"http://coder-1:{password}@127.0.0.1:{running.governor.port}"
            return {running.governor.curl("-x", proxy, f"{origin.url}/x")[0] for _ in range(6)}

        known = asked(token)
        newer = json.loads(verb("agents", "rotate", "coder-1", "--json").stdout)["token"]

        assert known == {200}
        assert asked(token) == {407}
        assert asked(newer) == {200}
    assert json.loads(verb("agents", "show", "coder-1", "--json").stdout)["session"] == 2


def test_another_governor_on_the_home_or_the_port_is_refused(running, tmp_path):
    environment = running.governor.environment
    on_home = subprocess.run(command_line(running.governor.home, None, (), serve=False), capture_output=True, text=True,
                             env=environment, timeout=60, check=False)
    on_port = refused_start(tmp_path, "--workers", "2", "--listen-port", str(running.governor.port))

    assert on_home.returncode == 1
    assert f"LANE_BUSY: another Governor serves from {running.governor.home}" in on_home.stderr
    assert on_port.returncode == 1
    assert on_port.stderr.startswith(f"governor: refused to start: PORT_BUSY: 127.0.0.1:{running.governor.port}: ")
    assert on_port.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_asked_to_stop_it_lets_what_is_open_finish_and_closes_every_lane(running):
    port, process = running.governor.port, running.governor.process
    token = json.loads(running.governor.verb("agents", "rotate", "coder-1", "--json").stdout)["token"]
    known = "Proxy-Authorization: Basic " + base64.b64encode(f"coder-1:{token}".encode()).decode()
    with serving() as origin:
        uploading, idle = wire.dial(port), wire.dial(port)
        uploading.sendall(f"POST {origin.url}/up HTTP/1.1\r\nHost: localhost:{origin.port}\r\n{known}\r\n"
                          "Content-Length: 10\r\n\r\n01234".encode())
        idle.sendall(f"GET {origin.url}/x HTTP/1.1\r\nHost: localhost:{origin.port}\r\n{known}\r\n\r\n".encode())
        assert wire.read(idle) is not None
        until(lambda: running.numbers()["governor_ready"] == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(port))
        readiness, status = running.readiness(), running.status()
        assert idle.recv(1) == b""
        uploading.sendall(b"56789")
        answer = wire.read(uploading, "POST")

        assert answer is not None
        assert (answer.status, origin.seen.lines[-1]) == (200, "POST /up")
        assert process.wait(20) == 0
    assert (readiness["ready"], readiness["checks"]["not_stopping"]) == (False, False)
    assert status["ready"] is False
    assert any("it is being stopped" in hint for hint in status["hints"])
    verified = running.governor.verify()
    assert verified["result"] == "verified"
    assert [lane["lane"] for lane in verified["lanes"]] == ["w0", "w1"]
    assert [running.entries(lane)[-1]["type"] for lane in ("w0", "w1")] == ["close", "close"]
    assert not (running.governor.home / "control.sock").exists()


def _refuses(port: int) -> bool:
    try:
        wire.dial(port).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("again", [
    pytest.param(False, marks=thorough, id="in 10 seconds"), pytest.param(True, id="at once"),
])
def test_a_stream_that_is_still_open_ends_in_words(tmp_path, again):
    with crew(tmp_path) as both, serving(Events) as origin:
        stream = wire.dial(both.governor.port, 30)
        stream.sendall(wire.plain("GET", f"{origin.url}/events"))
        got = stream.recv(4096)
        began = time.monotonic()
        both.governor.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(both.governor.port))
        if again:
            both.governor.process.send_signal(signal.SIGTERM)
        while part := stream.recv(65536):
            got += part
        took = time.monotonic() - began

        assert both.governor.process.wait(20) == 0
    outcomes = [entry for lane in ("w0", "w1") for entry in both.entries(lane, "outcome")]
    assert [outcome["result"] for outcome in outcomes] == ["cut"]
    assert both.governor.verify()["result"] == "verified"
    assert again or (took > 9 and b"event: error" in got and b"Governor is being stopped" in got)
    assert not again or took < 9


def test_workers_without_their_supervisor_end_in_order(tmp_path):
    with crew(tmp_path) as both:
        pids = both.pids().values()
        both.governor.stop(signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))

        assert [both.entries(lane)[-1]["type"] for lane in ("w0", "w1")] == ["close", "close"]
        assert both.governor.verify()["result"] == "verified"


@thorough
def test_a_smaller_crew_puts_in_order_what_a_larger_one_left(tmp_path):
    with crew(tmp_path) as both:
        for pid in (both.governor.process.pid, *both.pids().values()):
            os.kill(pid, signal.SIGKILL)
        both.governor.process.wait()
    with started(tmp_path, serve=True) as alone:
        alone.stop()

    assert [entries(alone.home, lane)[-1]["type"] for lane in ("w0", "w1")] == ["close", "close"]
    assert alone.verify()["result"] == "verified"


@thorough
def test_crews_of_all_sizes_go_on_in_the_same_lanes(tmp_path):
    for workers in (2, 4, 1, 3):
        with crew(tmp_path, workers) as some:
            some.until_ready()
            assert some.governor.stop() == 0
    verified = some.governor.verify()

    assert verified["result"] == "verified"
    assert [lane["lane"] for lane in verified["lanes"]] == ["main", "w0", "w1", "w2", "w3"]
    assert [entry["type"] for entry in entries(some.governor.home, "w3")].count("lane_open") == 1


@thorough
def test_four_workers_under_load_lose_nothing_but_what_was_killed(tmp_path):
    with crew(tmp_path, workers=4) as four, serving() as origin, Load.of(four, f"{origin.url}/load", clients=8) as load:
        counted = 0.0
        for number in range(8):
            load.more(50)
            four.kill(f"w{number % 4}")
            now = four.numbers()[ALLOWED]
            assert now >= counted
            counted = now
            four.until_ready()
        load.ended.set()
        until(lambda: four.numbers()["governor_open_streams"] == 0)
        told, status = four.numbers()[ALLOWED], four.status()
        four.governor.stop()

    assert status["ready"] is True
    assert load.statuses.count(200) + load.statuses.count(None) == len(load.statuses)
    assert load.statuses.count(None) <= 8 * 16
    written = sum(decided(four.governor.home, f"w{number}") for number in range(4))
    # What was judged since the last look at a worker that was killed is in its log alone.
    assert counted <= told <= written
    assert four.governor.verify()["result"] == "verified"


@thorough
def test_without_the_root_key_only_lanes_begin_that_were_certified(tmp_path):
    environment = scratch_environment(tmp_path)
    governor("init", "--home", str(tmp_path / "home"), "--lanes", "2", environment=environment)
    (tmp_path / "home" / "keys" / "root.key").rename(tmp_path / "root.key")
    too_many = refused_start(tmp_path, "--workers", "3")
    with crew(tmp_path) as both:
        status = both.status()
        both.governor.stop()

    assert too_many.returncode == 1
    assert too_many.stderr.startswith("governor: refused to start: HOME_INCOMPLETE: a new lane needs the root key")
    assert too_many.stderr.count("\n") == 1
    assert status["ready"] is True
    assert both.governor.verify()["result"] == "verified"


@pytest.mark.parametrize(("options", "code", "said"), [
    pytest.param(["--set", "governor_policy=/nowhere.yaml"], 1, "POLICY_MISSING: /nowhere.yaml", id="no policy"),
    pytest.param(["--set", "governor_pool=memory:"], 1, "OPTION_REFUSED: governor_pool=memory:", id="a budget each"),
    pytest.param(["--set", "web_port=8099"], 2, "mitmweb shows the flows of one process", id="mitmweb"),
    pytest.param(["--web"], 2, "--web", id="mitmweb by its switch"),
    pytest.param(["--mode", "wireguard"], 1, "MODE_REFUSED: mode wireguard", id="a mode that is not governed"),
    pytest.param(["--accept-loss", "x"], 2, "governor audit accept-loss --lane w0", id="a loss of which lane"),
])
def test_a_refused_start_makes_nothing(tmp_path, options, code, said):
    refused = refused_start(tmp_path, "--workers", "2", *options)

    assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    assert not list((tmp_path / "home" / "audit" / "lanes").glob("*/*.jsonl"))


@thorough
def test_a_port_that_it_may_choose_is_told_and_shared(tmp_path):
    with crew(tmp_path, options=["--listen-port", "0"]) as both, serving() as origin:
        assert {both.ask(f"{origin.url}/{number}") for number in range(20)} == {200}
        assert min(decided(both.governor.home, lane) for lane in ("w0", "w1")) > 0
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", both.governor.port))


@thorough
def test_a_worker_whose_lane_is_damaged_ends_all_with_its_reason(tmp_path):
    with crew(tmp_path) as both:
        segment = both.governor.home / "audit" / "lanes" / "w1" / "000000.jsonl"
        content = segment.read_bytes()
        segment.write_bytes(content.replace(b'"lane_open"', b'"lane_opem"', 1))
        both.kill("w1")

        assert both.governor.process.wait(30) == 1
    refusals = [line for line in both.governor.output if "refused to start: TAMPERED" in line]
    assert len(refusals) == 1
    assert both.entries("w0")[-1]["type"] == "close"

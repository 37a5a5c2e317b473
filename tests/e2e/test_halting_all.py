"""All agents halted in a real process: what is open is cut, and neither a kill nor a lost file lets anything pass."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.crew import crew, until
from tests.e2e.origins import _Handler, serving
from tests.e2e.process import POLICY, Governor, started
from tests.e2e.test_accounts import asked, replayed
from tests.e2e.test_pool import Stream, streaming, whole

pytestmark = pytest.mark.e2e
BUDGET = POLICY + "budgets:\n  - {budget: all, together: {requests: 100}, every: week}\n"
WHY = ("--reason", "our keys are out")


class Streams(_Handler):
    """Answers /events with a stream that does not end by itself."""

    def reply(self) -> None:
        if self.path != "/events":
            super().reply()
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        # Until the other side goes, and longer than any test waits.
        self.connection.settimeout(60)
        self.rfile.read(1)


def status(governor: Governor) -> dict[str, Any]:
    return json.loads(governor.verb("status", "--json").stdout)


def test_the_halt_of_all_cuts_what_is_open_and_outlives_the_process_and_its_files(tmp_path: Path) -> None:
    with serving(Streams) as origin:
        with started(tmp_path, BUDGET) as governor:
            assert asked(governor, origin)[0] == 200
            stream = http.client.HTTPConnection("127.0.0.1", governor.port, timeout=20)
            stream.request("GET", f"{origin.url}/events")
            opened = stream.getresponse()
            assert opened.readline() == b"data: first\n"
            said = governor.verb("agents", "halt", "--all", *WHY)
            assert b"AGENT_HALTED" in opened.read()
            assert (said.returncode, "in force in 1 of 1 process" in said.stdout) == (0, True)
            assert asked(governor, origin) == (403, "AGENT_HALTED")
            me = json.loads(governor.curl("http://governor.internal/me")[1])
            told = status(governor)
            with urllib.request.urlopen(governor.metrics, timeout=10) as answer:
                metrics = answer.read().decode()
            governor.stop(signal.SIGKILL)
        shutil.rmtree(tmp_path / "home" / "audit" / "state", ignore_errors=True)
        with started(tmp_path, BUDGET) as governor:
            assert governor.verb("reload", "--wait").returncode == 0
            governor.verb("agents", "add", "coder-1")
            token = json.loads(governor.verb("agents", "rotate", "coder-1", "--json").stdout)["token"]
            login = ("-U", f"coder-1:{token}", f"{origin.url}/x")
            assert governor.curl(*login)[0] == 403
            assert governor.verb("agents", "release", "--all", "--reason", "new keys").returncode == 0
            assert governor.curl(*login)[0] == 200
            assert governor.verify()["result"] == "verified"
            assert replayed(governor)["result"] == "equal"
        seen = len(origin.seen.requests)

    assert seen == 3
    assert (me["halted"], me["reason"]) == (True, "OPERATOR")
    assert (told["system"]["halted"], told["system"]["reason"], told["system"]["by"] != "") == (
        True, "our keys are out", True)
    assert [(each["budget"], each["limit"]) for each in told["system"]["budgets"]] == [("all", 100)]
    assert [(each["lane"], each["alive"], each["ready"]) for each in told["fleet"]] == [("main", True, True)]
    assert "all agents are halted: governor agents release --all" in told["hints"]
    assert 'governor_halted{agent="*",reason="OPERATOR"} 1.0' in metrics
    assert 'governor_halts_total{reason="OPERATOR"} 1.0' in metrics


def test_halted_and_released_while_nothing_ran_it_is_so_from_the_next_start_on(tmp_path: Path) -> None:
    with serving() as origin:
        with started(tmp_path, POLICY) as governor:
            assert asked(governor, origin)[0] == 200
        said = governor.verb("agents", "halt", "--all", *WHY)
        with started(tmp_path, POLICY) as governor:
            assert asked(governor, origin) == (403, "AGENT_HALTED")
        governor.verb("agents", "release", "--all", *WHY)
        with started(tmp_path, POLICY) as governor:
            assert asked(governor, origin)[0] == 200
            acts = [(entry["act"], entry["by"].partition("/")[0]) for entry in governor.entries("operator")]
            assert (governor.verify()["result"], replayed(governor)["result"]) == ("verified", "equal")

    assert "from the next start on" in said.stdout
    assert acts == [("agents halt all", "cli"), ("agents release all", "cli")]


def test_a_trial_of_a_policy_does_not_let_anything_pass_meanwhile(tmp_path: Path) -> None:
    trial = POLICY.replace("version: 1\n", "version: 1\nmode: observe\nuntil: 2099-01-01\n", 1)
    with serving() as origin, started(tmp_path, trial) as governor:
        governor.verb("agents", "halt", "--all", *WHY)
        assert asked(governor, origin) == (403, "AGENT_HALTED")
        assert asked(governor, origin, "/denied/x") == (403, "AGENT_HALTED")
        assert governor.entries("decision")[-1]["mode"] == "enforce"
        assert replayed(governor)["result"] == "equal"


def test_it_is_in_force_in_every_worker_and_one_that_dies_comes_back_halted(tmp_path: Path) -> None:
    with streaming() as origin, crew(tmp_path, policy=BUDGET) as both:
        streams = [Stream(both, f"{origin.url}/stream") for _ in range(6)]
        until(lambda: all(stream.events for stream in streams))
        said = json.loads(both.governor.verb("agents", "halt", "--all", *WHY, "--json").stdout)
        until(lambda: all(stream.ended for stream in streams), 5.0)
        told, number = both.status(), both.numbers()['governor_halted{agent="*",reason="OPERATOR"}']
        both.kill("w1")
        both.until_ready()
        refused = {both.ask(f"{origin.url}/x") for _ in range(12)}
        released = both.governor.verb("agents", "release", "--all", *WHY)
        passed = {both.ask(f"{origin.url}/x") for _ in range(12)}
        both.governor.stop()
        whole(both.governor)

    assert (said["halted"], said["confirmed"], said["processes"]) == (True, 2, 2)
    assert [(each["lane"], each["alive"], each["ready"]) for each in told["fleet"]] == [
        ("w0", True, True), ("w1", True, True)]
    assert (told["system"]["reason"], number) == ("our keys are out", 1)
    assert (refused, passed) == ({403}, {200})
    assert "in force in 2 of 2 processes" in released.stdout

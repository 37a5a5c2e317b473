"""Budgets and halts outlive the process: killed at any moment, started again, with its kept state lost or changed."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCALE, scaled
from tests.e2e.origins import Origin, serving
from tests.e2e.process import POLICY, Governor, started

pytestmark = pytest.mark.e2e

KILLS, CLIENTS = 100 if SCALE >= 10 else scaled(4), 3


def policy(*more: str) -> str:
    return POLICY + "".join(f"{line}\n" for line in more)


def budget(said: str, every: str = "session", end: str = "deny") -> str:
    return policy("budgets:", f"  - {{budget: b, each: {said}, every: {every}, when-used: {{100%: {end}}}}}")


def asked(governor: Governor, origin: Origin, path: str = "/x") -> tuple[int, str]:
    """Status and code of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", governor.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", f"{origin.url}{path}")
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("x-governor-code", "")


@contextlib.contextmanager
def asking(governor: Governor, origin: Origin) -> Iterator[None]:
    """Clients that never stop."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                asked(governor, origin)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        over.set()
        for client in clients:
            client.join()


def balance(governor: Governor, unit: str = "requests") -> dict[str, Any]:
    """What `agents show` tells of the budget."""
    told = json.loads(governor.verb("agents", "show", "local", "--json").stdout)
    return next(each for each in told["budgets"] if each["unit"] == unit)


def spoil(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"{}")


def forget(*files: Path) -> None:
    for file in files:
        file.unlink()


def replayed(governor: Governor) -> dict[str, Any]:
    return json.loads(governor.verb("audit", "replay", str(governor.home), "--json").stdout)


def test_killed_at_any_moment_no_more_is_spent_than_there_is_and_nothing_is_given_back(tmp_path: Path) -> None:
    """Each request that an origin saw was drawn; after the start there is never more left than before the kill."""
    moments, most = random.Random(3), 150 * KILLS
    left = most
    with serving() as origin:
        for _ in range(KILLS):
            with started(tmp_path, budget(f"{{requests: {most}}}")) as governor:
                now = balance(governor)
                assert now["remaining"] <= left
                assert now["spent"] + now["held"] >= len(origin.seen.requests)
                with asking(governor, origin):
                    threading.Event().wait(moments.uniform(0.05, 0.6))
                    governor.stop(signal.SIGKILL)
                left = now["remaining"]
        with started(tmp_path, budget(f"{{requests: {most}}}")) as governor:
            while asked(governor, origin)[0] == 200:
                pass
            assert asked(governor, origin)[1] == "BUDGET_EXHAUSTED"
            assert balance(governor)["remaining"] == 0
            assert governor.verify()["result"] == "verified"
            assert replayed(governor)["result"] == "equal"
        assert len(origin.seen.requests) <= most


@pytest.mark.parametrize(("how", "lost"), [
    pytest.param(signal.SIGTERM, lambda home: shutil.rmtree(home / "audit" / "state"), id="the kept states deleted"),
    pytest.param(signal.SIGTERM, lambda home: spoil(home / "audit" / "state"), id="the kept states changed"),
    pytest.param(signal.SIGKILL, lambda home: forget(home / "vault.db", home / "keys" / "requests.secret"),
                 id="the vault and the secret of the names deleted"),
])
def test_a_halt_and_what_is_spent_outlive_the_process(tmp_path: Path, how: signal.Signals, lost: Any) -> None:
    said = budget("{requests: 3}")
    with serving() as origin:
        with started(tmp_path, said) as governor:
            assert asked(governor, origin)[0] == 200
            assert governor.verb("agents", "halt", "local", "--reason", "it ran away").returncode == 0
            assert asked(governor, origin) == (403, "AGENT_HALTED")
            governor.stop(how)
        lost(tmp_path / "home")
        with started(tmp_path, said) as governor:
            assert asked(governor, origin) == (403, "AGENT_HALTED")
            assert governor.verb("reload", "--wait").returncode == 0
            assert asked(governor, origin) == (403, "AGENT_HALTED")
            assert balance(governor)["spent"] == 1
            assert governor.verb("agents", "release", "local", "--reason", "it is well again").returncode == 0
            # A release begins a new session: what the last one has used is its.
            assert [asked(governor, origin)[1] for _ in range(4)] == ["", "", "", "BUDGET_EXHAUSTED"]
            assert replayed(governor)["result"] == "equal"


def test_a_day_does_not_begin_anew_with_the_process(tmp_path: Path) -> None:
    with serving() as origin:
        for expected in ([200, 200], [403, 403]):
            with started(tmp_path, budget("{requests: 2}", every="week")) as governor:
                assert [asked(governor, origin)[0] for _ in range(2)] == expected


def test_a_budget_of_which_no_more_is_left_halts_for_good_where_it_says_so(tmp_path: Path) -> None:
    said = budget("{requests: 1}", end="halt")
    with serving() as origin:
        with started(tmp_path, said) as governor:
            assert [asked(governor, origin)[1] for _ in range(3)] == ["", "EXHAUSTION", "AGENT_HALTED"]
            status = json.loads(governor.verb("status", "--json").stdout)
            listed = json.loads(governor.verb("agents", "list", "--json").stdout)
        with started(tmp_path, said) as governor:
            assert asked(governor, origin)[1] == "AGENT_HALTED"

    assert status["halted"] == ["local"]
    assert [(each["id"], each["state"], each["reason"]) for each in listed] == [("local", "halted", "EXHAUSTION")]


def test_what_is_drawn_for_an_answer_that_a_crash_cuts_off_counts_as_spent(tmp_path: Path) -> None:
    with serving() as origin:
        with started(tmp_path, budget("{bytes: 10MB}")) as governor:
            connection = http.client.HTTPConnection("127.0.0.1", governor.port, timeout=20)
            connection.request("GET", f"{origin.url}/events")
            connection.getresponse()
            governor.wait_for_entry("decision")
            governor.stop(signal.SIGKILL)
        with started(tmp_path, budget("{bytes: 10MB}")) as governor:
            now = balance(governor, "bytes")

    assert (now["spent"], now["held"]) == (2**20, 0)


def test_on_trial_a_budget_refuses_nothing_and_the_log_says_what_it_would_have(tmp_path: Path) -> None:
    trial = budget("{requests: 1}").replace("version: 1\n", "version: 1\nmode: observe\nuntil: 2099-01-01\n", 1)
    with serving() as origin, started(tmp_path, trial) as governor:
        assert [asked(governor, origin)[0] for _ in range(3)] == [200, 200, 200]
        assert governor.verb("agents", "halt", "local", "--reason", "enough").returncode == 0
        assert asked(governor, origin) == (403, "AGENT_HALTED")
        told = [(entry["code"], entry["mode"]) for entry in governor.entries("decision")]
        result = replayed(governor)["result"]

    assert told == [("ALLOW", "observe"), ("BUDGET_EXHAUSTED", "observe"), ("BUDGET_EXHAUSTED", "observe"),
                    ("AGENT_HALTED", "enforce")]
    assert result == "equal"


def an_hour_behind() -> list[str]:
    """What gives a process another clock. `faketime` itself would stay between it and its signals."""
    asked = ["faketime", "-f", "-3600s", "printenv", "LD_PRELOAD", "FAKETIME"]
    preload, clock = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    return ["env", f"LD_PRELOAD={preload}", f"FAKETIME={clock}"]


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_clock_that_is_behind_the_log_keeps_budgets_closed_until_it_is_accepted(tmp_path: Path) -> None:
    with serving() as origin:
        with started(tmp_path, budget("{requests: 9}", every="day")) as governor:
            assert asked(governor, origin)[0] == 200
        with started(tmp_path, budget("{requests: 9}", every="day"),
                     wrapper=an_hour_behind()) as governor:
            assert asked(governor, origin) == (403, "CLOCK_JUMP")
            assert governor.verb("clock", "accept", "--reason", "the other one was wrong").returncode == 0
            assert asked(governor, origin)[0] == 200
            assert balance(governor)["spent"] + balance(governor)["held"] == 2
            (jump,) = governor.entries("clock")

    assert jump["wall"] < jump["expected"]


def test_an_agent_that_does_the_same_again_and_again_is_stopped_by_its_profile(tmp_path: Path) -> None:
    with serving() as origin, started(tmp_path, policy("profile: conservative")) as governor:
        found = [""]
        while found[-1] in ("", "DEFAULT_DENY", "REFUSAL_RATE") and len(found) < 100:
            found.append(asked(governor, origin, "/denied/x")[1])
            time.sleep(0.06)
        assert found[-1] == "PERSISTENCE_LIMIT"
        assert asked(governor, origin) == (200, "")

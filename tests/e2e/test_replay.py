"""What real processes wrote, killed and started again, on trial and with budgets, comes out of a replay as it was."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.origins import serving
from tests.e2e.process import POLICY, Governor, started

pytestmark = pytest.mark.e2e

BUDGETS = POLICY + """\
budgets:
  - {budget: few, each: {requests: 12, bytes: 20MB}, every: day, when-used: {50%: tell}}
rates:
  - {each: 600/minute, burst: 100}
profile: balanced
"""
TRIAL = BUDGETS.replace("version: 1\n", "version: 1\nmode: observe\nuntil: 2099-01-01\n")
TIGHT = BUDGETS.replace("requests: 12", "requests: 5")


def ask(governor: Governor, url: str, times: int, *more: str) -> list[int]:
    return [governor.curl(*more, url)[0] for _ in range(times)]


def replay(governor: Governor, *arguments: str) -> tuple[int, dict]:
    done = governor.verb("audit", "replay", *arguments, "--json")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_a_log_of_several_processes_comes_out_as_it_was(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    with serving() as plain, serving(chain=certificate[0]) as tls:
        with started(tmp_path, BUDGETS, trust=certificate[1]) as governor:
            first = ask(governor, f"{plain.url}/a", 5) + ask(governor, f"{tls.url}/b", 5, "-d", "x=1")
            ask(governor, f"{plain.url}/denied/x", 4)
            ask(governor, "http://gist.example.org/", 2)
            ask(governor, "http://governor.internal/me", 1)
            ask(governor, f"{plain.url}/../..//%zz", 1, "--path-as-is")
            governor.stop(signal.SIGKILL)
        with started(tmp_path, BUDGETS, trust=certificate[1]) as governor:
            second = ask(governor, f"{plain.url}/a", 4)
            governor.stop()
        with started(tmp_path, TRIAL, trust=certificate[1]) as governor:
            third = ask(governor, f"{plain.url}/a", 3) + ask(governor, "http://169.254.169.254/", 1)
            governor.stop()

            code, said = replay(governor)
            (tmp_path / "tight.yaml").write_text(TIGHT)
            _, changed = replay(governor, "--policy", str(tmp_path / "tight.yaml"))

    assert first == [200] * 10
    assert second == [200, 200, 403, 403]
    assert third == [200, 200, 200, 403]
    assert (said["first_divergence"], said["not_replayable"]) == (None, {})
    assert (code, said["result"]) == (0, "equal")
    assert said["decisions"] == said["equal"] >= 25
    # The vault may lag behind a kill, and not behind an orderly end.
    assert said["matched"] >= 8
    assert {("few", "deny")} <= {(each["rule_new"], each["to"]) for each in changed["changed"]}

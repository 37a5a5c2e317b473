"""A policy is changed while Governor runs: the new one governs the next request, a bad one never does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.e2e.origins import Origin, serving
from tests.e2e.process import Governor, started

pytestmark = pytest.mark.e2e


def policy(path: str) -> str:
    """One that allows a single path, by a rule of its name."""
    return f"""\
version: 1
rules:
  - allow: rule-{path.strip("/*") or "all"}
    to: localhost
    address: 127.0.0.0/8
    schemes: [http]
    ports: 1-65535
    methods: reads
    paths: ["{path}"]
"""


BAD = "version: 1\nrules:\n  - alow: everything\n"


@dataclass(frozen=True)
class Reloaded:
    """A Governor whose policy file a test may write."""

    governor: Governor
    origin: Origin
    file: Path

    def status(self, path: str) -> int:
        answer = wire.ask(self.governor.port, wire.plain("GET", f"{self.origin.url}{path}"))
        assert answer is not None
        return answer.status

    def loads(self) -> list[str]:
        return [entry["policy"] for entry in self.governor.entries("policy_load")]

    def failures(self) -> float:
        with urllib.request.urlopen(self.governor.metrics) as answer:
            text = answer.read().decode()
        (count,) = re.findall(r"^governor_policy_reload_failures_total (\S+)$", text, re.MULTILINE)
        return float(count)

    def reload(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.governor.verb("reload", *options)

    def until(self, path: str, status: int) -> None:
        deadline = time.monotonic() + 10
        while self.status(path) != status:
            assert time.monotonic() < deadline, f"{path} is never answered {status}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloaded]:
    folder = tmp_path_factory.mktemp("reloaded")
    with serving() as origin, started(folder, policy("/first")) as governor:
        yield Reloaded(governor, origin, folder / "policy.yaml")


@pytest.fixture
def reloaded(running: Reloaded) -> Reloaded:
    """With the first policy in force."""
    running.file.write_text(policy("/first"))
    assert running.reload("--wait").returncode == 0
    assert (running.status("/first"), running.status("/second")) == (200, 403)
    return running


def test_sighup_puts_the_changed_policy_in_force(reloaded: Reloaded) -> None:
    reloaded.file.write_text(policy("/second"))
    before = reloaded.status("/second")
    reloaded.governor.process.send_signal(signal.SIGHUP)
    reloaded.until("/second", 200)

    assert (before, reloaded.status("/first")) == (403, 403)


def test_reload_waits_until_the_changed_policy_is_in_force(reloaded: Reloaded) -> None:
    reloaded.file.write_text(policy("/second"))
    result = reloaded.reload("--wait")

    assert result.returncode == 0, result.stderr
    assert (reloaded.status("/second"), reloaded.status("/first")) == (200, 403)


def test_a_reload_is_in_the_log_with_the_policy_before_anything_it_judges(reloaded: Reloaded) -> None:
    before = len(reloaded.loads())
    reloaded.file.write_text(policy("/second"))
    reloaded.reload("--wait")
    reloaded.status("/second")

    digest = reloaded.loads()[-1]
    assert len(reloaded.loads()) == before + 1
    assert reloaded.governor.entries("decision")[-1]["policy"] == digest
    kept = reloaded.governor.home / "audit" / "policies" / f"{digest}.yaml"
    assert kept.read_text() == policy("/second")
    assert digest in reloaded.governor.verb("status", "--json").stdout


def test_another_policy_begins_a_segment_with_a_key_of_its_own_and_the_same_one_does_not(reloaded: Reloaded) -> None:
    before = len(reloaded.governor.entries("key_rotate"))
    reloaded.reload("--wait")
    same = len(reloaded.governor.entries("key_rotate"))
    reloaded.file.write_text(policy("/first") if reloaded.file.read_text() == policy("/second") else policy("/second"))
    reloaded.reload("--wait")

    assert same == before
    assert [each["reason"] for each in reloaded.governor.entries("key_rotate")[before:]] == ["policy"]
    number = reloaded.governor.entries("key_rotate")[-1]["seq"]
    after = [each["type"] for each in reloaded.governor.entries() if each["seq"] > number]
    assert after[:2] == ["segment_open", "policy_load"]


@pytest.mark.parametrize("spoil", [
    pytest.param(lambda file: file.write_text(BAD), id="invalid"),
    pytest.param(lambda file: file.write_text(""), id="empty"),
    pytest.param(lambda file: file.write_bytes(b"\xff\xfe\x00"), id="not text"),
    pytest.param(lambda file: file.unlink(), id="gone"),
])
def test_a_bad_policy_leaves_the_old_one_in_force_and_is_reported(reloaded: Reloaded, spoil: object) -> None:
    before, printed = reloaded.loads(), len(reloaded.governor.output)
    assert callable(spoil)
    spoil(reloaded.file)
    result = reloaded.reload("--wait")
    reloaded.governor.process.send_signal(signal.SIGHUP)
    wait_for_output(reloaded.governor, printed, "(SIGHUP)")

    assert result.returncode == 1
    assert "policy.yaml" in result.stderr
    assert reloaded.loads() == before
    assert (reloaded.status("/first"), reloaded.status("/second")) == (200, 403)
    assert reloaded.governor.verb("status").returncode == 0


def wait_for_output(governor: Governor, printed: int, word: str) -> None:
    deadline = time.monotonic() + 10
    while not any("policy was not reloaded" in line and word in line for line in governor.output[printed:]):
        assert time.monotonic() < deadline, "\n".join(governor.output[printed:])
        time.sleep(0.02)


def test_a_finding_is_reported_with_its_place(reloaded: Reloaded) -> None:
    reloaded.file.write_text(BAD)
    result = reloaded.reload("--wait")

    assert f"{reloaded.file}:3:5" in result.stderr.replace("\n", "")
    assert 'did you mean "allow"?' in " ".join(result.stderr.split())


@pytest.mark.parametrize(("options", "status"), [
    pytest.param(["--wait", "--timeout", "0.2"], 4, id="waited for"),
    pytest.param([], 0, id="only asked for"),
])
def test_a_reload_that_gets_no_answer_in_time(reloaded: Reloaded, options: list[str], status: int) -> None:
    reloaded.governor.process.send_signal(signal.SIGSTOP)
    try:
        result = reloaded.reload(*options)
    finally:
        reloaded.governor.process.send_signal(signal.SIGCONT)

    assert result.returncode == status, result.stderr


def test_a_reload_without_running_governor_is_told_so(tmp_path: Path, running: Reloaded) -> None:
    result = running.governor.verb("reload", "--wait", "--home", str(tmp_path))

    assert result.returncode == 1
    assert "Traceback" not in result.stderr


@contextlib.contextmanager
def asking(reloaded: Reloaded) -> Iterator[set[tuple[int, int]]]:
    """Two clients who ask for both paths all the time, within the rate of refusals; what they are answered."""
    statuses: set[tuple[int, int]] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.15):
            statuses.add((reloaded.status("/first"), reloaded.status("/second")))

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for each in clients:
        each.start()
    try:
        yield statuses
    finally:
        over.set()
        for each in clients:
            each.join()


def test_each_request_is_judged_by_one_whole_policy_while_they_are_changed(reloaded: Reloaded) -> None:
    """Good ones, and bad ones between them: no request is lost, and each verdict is of the policy that it names."""
    before, failures = len(reloaded.governor.entries("decision")), reloaded.failures()
    names = {reloaded.loads()[-1]: "rule-first"}
    with asking(reloaded) as statuses:
        for path in ("/second", "/first") * 3:
            reloaded.file.write_text(policy(path))
            assert reloaded.reload("--wait").returncode == 0
            names[reloaded.loads()[-1]] = f"rule-{path[1:]}"
            reloaded.file.write_text(BAD)
            assert reloaded.reload("--wait").returncode == 1

    assert {status for pair in statuses for status in pair} <= {200, 403}
    decisions = reloaded.governor.entries("decision")[before:]
    granted = [(each["rule"], names[each["policy"]]) for each in decisions if each["code"] == "ALLOW"]
    assert {rule for rule, _ in granted} == {"rule-first", "rule-second"}
    assert all(rule == name for rule, name in granted)
    assert all(each["policy"] in names for each in decisions)
    assert reloaded.failures() == failures + 6
    assert not reloaded.governor.entries("fault")
    assert reloaded.governor.verify()["result"] == "verified"


def half_written(file: Path) -> None:
    file.write_text(policy("/second").partition("    methods")[0])


def test_where_one_tier_is_bad_all_of_the_old_ones_stay(tmp_path: Path) -> None:
    team = tmp_path / "team.yaml"
    team.write_text(policy("/first"))
    with serving() as origin, started(tmp_path, policy("/**"), ["--set", f"governor_policy={team}"]) as governor:
        tiered = Reloaded(governor, origin, tmp_path / "policy.yaml")
        # The other tier is changed and good: it is not taken without this one.
        tiered.file.write_text(policy("/none"))
        refused = []
        with asking(tiered) as statuses:
            for spoil in (lambda file: file.write_text(BAD), half_written, Path.unlink, os.mkfifo):
                spoil(team)
                refused.append(tiered.reload("--wait", "--json"))
        (first,), failures = tiered.loads(), tiered.failures()
        team.unlink()
        team.write_text(policy("/second"))
        tiered.file.write_text(policy("/**"))
        taken = tiered.reload("--wait")
        after = tiered.status("/second"), tiered.status("/first")

    assert [each.returncode for each in refused] == [1, 1, 1, 1]
    for each in refused:
        answer = json.loads(each.stdout)
        assert (answer["ok"], answer["policy"]) == (False, first)
        assert str(team) in answer["findings"][0]
    assert statuses == {(200, 403)}
    assert failures == 4
    assert (taken.returncode, after) == (0, (200, 403))


def test_a_trial_ends_by_itself(tmp_path: Path) -> None:
    """What the rules refuse passes until the trial ends, and not a moment later; never: is refused all the time."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=8)
    never = "never:\n  - {paths: [/never]}\n"
    denied = "  - {deny: other, paths: [/other]}\n"
    text = policy("/**").replace("version: 1\n", f"version: 1\nmode: observe\nuntil: {end:%Y-%m-%dT%H:%M:%SZ}\n{never}")
    with serving() as origin, started(tmp_path, text + denied) as governor:
        tried = Reloaded(governor, origin, tmp_path / "policy.yaml")
        during = tried.status("/other"), tried.status("/never")
        time.sleep(max(0.0, end.timestamp() - time.time()))
        after = tried.status("/other")
        observed, refused, enforced = governor.entries("decision")

    assert (during, after) == ((200, 403), 403)
    assert (observed["code"], observed["mode"]) == ("RULE_DENY", "observe")
    assert (refused["code"], refused["mode"]) == ("NEVER", "enforce")
    assert (enforced["code"], enforced["mode"]) == ("RULE_DENY", "enforce")

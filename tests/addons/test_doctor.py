"""`governor doctor` on the host: homes with something wrong, and what it says of each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from addons import authority, pins
from addons.attempts import every
from addons.cli import governor
from addons.doctor import listening, log, program, room, running, what_tiers
from addons.doctor.check import Check, State
from addons.doctor.examination import examined
from addons.home import Home
from addons.sandbox import tiers
from addons.sandbox.inside import TIER
from addons.sandbox.tiers import Missing, Tier
from addons.verbs import doctor as verb
from tests.addons.logs import open_lane, segment

NOW = datetime.now(UTC)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory that no home lies in."""
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True)
def every_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "possible", lambda tier: ())


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "listeners", dict)


@pytest.fixture
def used(home: Home) -> Home:
    """A home with a log and a CA."""
    open_lane(home).close("done")
    authority.ensure(home.paths.ca, NOW)
    return home


def looked(home: Home) -> dict[str, Check]:
    return {check.name: check for check in examined(home.paths.folder)}


def test_a_home_with_which_all_is_well_has_no_warning(used):
    assert {name: check.message for name, check in looked(used).items() if check.state is not State.OK} == {}


def test_nothing_is_changed_by_looking(used):
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in used.paths.folder.rglob("*") if path.is_file()}

    before = contents()
    looked(used)

    assert contents() == before


def test_a_home_that_is_not_there_is_made_by_nobody_who_looks(tmp_path):
    checks = {check.name: check for check in examined(tmp_path / "none")}

    assert checks["home"].state is State.WARN
    assert checks["home"].fix == f"governor init --home {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


def test_a_home_that_would_not_start_fails_with_the_reason_of_the_start(used):
    segment(used).unlink()

    check = looked(used)["home"]

    assert check.state is State.FAIL
    assert check.message.startswith("HOME_INCOMPLETE")


def test_a_log_that_nobody_pinned_is_a_warning(used):
    pins.path(used.log_id).unlink()

    assert looked(used)["home"].state is State.WARN


@pytest.mark.parametrize(("name", "mode"), [
    ("keys/root.key", 0o604), ("keys/root.key", 0o640), ("ca/mitmproxy-ca.pem", 0o644), ("agents.json", 0o644),
    ("keys/ahead/0.key", 0o644), ("", 0o755),
])
def test_a_secret_that_others_can_read_fails(used, name, mode):
    used.paths.ahead.mkdir(mode=0o700, exist_ok=True)
    (used.paths.ahead / "0.key").touch(0o600)
    (used.paths.folder / name).chmod(mode)

    check = looked(used)["keys"]

    assert check.state is State.FAIL
    assert name in check.message
    assert check.fix == f"chmod -R go= {used.paths.folder}"


def test_the_certificate_may_be_read_by_all(used):
    (used.paths.ca / authority.CERTIFICATE_FILE).chmod(0o644)

    assert looked(used)["keys"].state is State.OK


def test_what_cannot_be_read_is_a_finding_beside_the_others(used, monkeypatch):
    def unreadable(*_: object) -> Iterator[Check]:
        raise PermissionError(13, "Permission denied", "/var/lib/governor/audit")

    before = set(looked(used))
    monkeypatch.setattr(log, "checks", unreadable)
    after = looked(used)

    assert after["readable"].state is State.FAIL
    assert after["readable"].message == "/var/lib/governor/audit: Permission denied"
    assert before - set(after) == {"log", "clock"}


def test_a_home_below_the_working_directory_fails(used, monkeypatch):
    monkeypatch.chdir(used.paths.folder.parent)

    assert looked(used)["place"].state is State.FAIL


@pytest.mark.parametrize(("days", "state"), [(30, State.OK), (15, State.OK), (9, State.WARN), (-2, State.FAIL)])
def test_the_end_of_the_ca_is_told_two_weeks_before(used, monkeypatch, days, state):
    monkeypatch.setattr(authority, "expiry", lambda _: datetime.now(UTC) + timedelta(days=days, hours=1))

    check = looked(used)["ca"]

    assert check.state is state
    assert check.fix == ("" if state is State.OK else "governor ca rotate")


def test_a_policy_that_does_not_load_fails_and_says_where(used):
    used.paths.policy.write_text("version: 1\nrules:\n  - alow: x\n    to: a.example.org\n")

    check = looked(used)["policy"]

    assert check.state is State.FAIL
    assert "policy.yaml:3" in check.message
    assert check.fix == f"governor policy check {used.paths.policy}"


def test_a_policy_that_only_observes_is_a_warning(used):
    until = f"{datetime.now(UTC) + timedelta(days=5):%Y-%m-%d}"
    used.paths.policy.write_text(f"version: 1\nmode: observe\nuntil: {until}\nrules: []\n")

    assert looked(used)["policy"].state is State.WARN


def test_a_log_that_was_cut_back_fails(used):
    path = segment(used)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))

    check = looked(used)["log"]

    assert check.state is State.FAIL
    assert "main ends at 1" in check.message


def _end_with(home: Home, **fields: object) -> None:
    """Have the last entry of the log say this."""
    path = segment(home)
    *before, last = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(last)
    entry["e"] |= fields
    path.write_bytes(b"".join(before) + json.dumps(entry).encode() + b"\n")


@pytest.mark.parametrize("seq", ["many", None, [3]])
def test_a_log_that_ends_in_no_number_fails(used, seq):
    _end_with(used, seq=seq)

    check = looked(used)["log"]

    assert check.state is State.FAIL
    assert "main ends at 0" in check.message


def test_a_clock_behind_the_log_fails(used):
    _end_with(used, ts=f"{NOW + timedelta(hours=2):%Y-%m-%dT%H:%M:%S.%fZ}")

    check = looked(used)["clock"]

    assert check.state is State.FAIL
    assert check.fix.endswith("governor clock accept --reason ... --operator ...")


def _segment(lane: Path, name: str, begin: datetime, end: datetime, size_bytes: int) -> None:
    lane.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"e": {"ts": f"{begin:%Y-%m-%dT%H:%M:%S.%fZ}"}}).encode() + b"\n"
    (lane / name).write_bytes(line + b"x" * (size_bytes - len(line)))
    os.utime(lane / name, (end.timestamp(), end.timestamp()))


@pytest.mark.parametrize(
    ("begin_hours", "end_hours", "size_bytes", "daily"),
    [
        pytest.param(24, 0, 24_000, 24_000, id="a day's worth"),
        pytest.param(48, 0, 48_000, 24_000, id="two days in one segment"),
        pytest.param(6, 0, 6_000, 24_000, id="six hours, scaled to a day"),
        pytest.param(72, 48, 24_000, None, id="nothing in the last day"),
        pytest.param(0.1, 0, 6_000, None, id="six minutes tell nothing"),
    ],
)
def test_the_forecast_is_what_the_log_grew_by_in_a_day(tmp_path, begin_hours, end_hours, size_bytes, daily):
    _segment(
        tmp_path / "main", "000000.jsonl", NOW - timedelta(hours=begin_hours), NOW - timedelta(hours=end_hours),
        size_bytes)

    grown = room.daily_bytes(tmp_path, NOW)

    assert grown == daily if daily is None else grown == pytest.approx(daily, rel=0.01)


@pytest.mark.parametrize(
    ("free_bytes", "state", "said"),
    [
        (212 * 2**30, State.OK, "212 GB free: 43 days"),
        (30 * 2**30, State.WARN, "30 GB free: 6 days"),
        (2**30, State.FAIL, "0 days"),
    ],
)
def test_the_room_on_the_disk_is_told_in_days(used, monkeypatch, free_bytes, state, said):
    monkeypatch.setattr(room, "daily_bytes", lambda *_: int(4.9 * 2**30))
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free_bytes}))

    check = looked(used)["disk"]

    assert check.state is state
    assert said in check.message


def test_another_mitmproxy_is_a_warning_and_a_gate_that_does_not_hold_a_failure(monkeypatch):
    monkeypatch.setattr(program, "TESTED", "1.0")
    (other,) = program.checks()
    monkeypatch.setattr(program.gate_trial, "failures", lambda *_: ["a request"])
    (broken,) = program.checks()

    assert (other.state, broken.state) == (State.WARN, State.FAIL)
    assert "nothing holds back a request" in broken.message


@on_linux
def test_who_has_a_port_of_governors_is_named(used, monkeypatch):
    monkeypatch.undo()
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        link.listen()
        monkeypatch.setattr(listening, "PROXY", link.getsockname()[1])
        told = [check for check in listening.checks(used.paths) if "of the proxy" in check.message]

    assert [check.state for check in told] == [State.WARN]
    assert f"({os.getpid()})" in told[0].message


@on_linux
def test_a_stranger_at_the_port_of_a_running_governor_fails(used, monkeypatch):
    ours, stranger = os.getpid(), 1
    monkeypatch.setattr(listening, "_governor", lambda _: ours)
    monkeypatch.setattr(
        listening, "listeners", lambda: {8080: {listening.Listener(8080, ours), listening.Listener(8080, stranger)}})
    joined = list(listening.checks(used.paths))
    monkeypatch.setattr(
        listening, "listeners",
        lambda: {8080: {listening.Listener(8080, ours)}, 22: {listening.Listener(22, stranger)}})
    alone = list(listening.checks(used.paths))

    assert [check.state for check in joined] == [State.FAIL]
    assert [check.state for check in alone] == [State.OK]


@pytest.fixture
def answering(used: Home) -> Iterator[dict[str, Any]]:
    """A Governor that answers `status` with what the test puts here; silence where that is nothing."""
    told: dict[str, Any] = {}
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(used.paths.control_sock))
    used.paths.control_sock.chmod(0o600)
    listener.listen()

    def answer() -> None:
        kept = []
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            kept.append(link)
            # Who only looks whose socket it is asks nothing.
            if told and link.recv(4096):
                link.sendall(json.dumps(told).encode() + b"\n")

    threading.Thread(target=answer, daemon=True).start()
    yield told
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_clients_that_refuse_the_certificate_are_told_with_the_cure(used, answering):
    answering |= {
        "ready": True,
        "mode": "enforce",
        "hints": ["node (codex-1) at 127.0.0.1 rejected our certificate 3 times: see certs/README.md"],
    }

    checks = looked(used)

    assert checks["clients"] == Check(
        "clients", State.WARN, "node (codex-1) at 127.0.0.1 rejected our certificate 3 times",
        'eval "$(governor ca env --shell)"')
    assert checks["running"].state is State.OK


def test_a_governor_that_does_not_answer_fails_and_holds_nothing_up(used, answering, monkeypatch):
    monkeypatch.setattr(running, "_ASKED_SECONDS", 0.2)

    started = time.monotonic()
    check = looked(used)["running"]

    assert check.state is State.FAIL
    assert time.monotonic() - started < 3


def test_what_a_tier_lacks_is_told_with_its_command(monkeypatch):
    lacking = {Tier.NETNS: (Missing("nft is not installed", "apt install nftables"),), Tier.BWRAP: ()}
    monkeypatch.setattr(tiers, "possible", lambda tier: lacking[tier])

    netns, bwrap = what_tiers.checks()

    assert netns == Check(
        "tier netns", State.FAIL, "tier netns: nft is not installed (tier bwrap works: no transparent mode)",
        "apt install nftables")
    assert bwrap.state is State.OK


def asked(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(governor, ["doctor", *arguments])
    return result.exit_code, result.output


def test_the_exit_status_says_whether_something_fails(used):
    sound, document = asked("--home", str(used.paths.folder), "--json")
    (used.paths.ca / authority.KEY_FILE).chmod(0o644)
    unsound, text = asked("--home", str(used.paths.folder))

    assert (sound, unsound) == (0, 1)
    assert json.loads(document)["ok"] is True
    assert set(json.loads(document)["checks"][0]) == {"name", "state", "message", "fix"}
    assert "FAIL  others can read or change" in text
    assert "1 problem, 0 warnings" in text


@pytest.mark.parametrize("option", [["--here"], ["--tier", "netns"], ["--target", "203.0.113.7"], ["--all"]])
def test_options_of_the_inside_are_refused_without_it(option):
    assert asked(*option)[0] == 2


def test_a_target_that_is_no_address_is_refused():
    assert asked("--inside", "--target", "origin.example.org")[0] == 2


def test_where_no_sandbox_can_be_made_it_says_what_is_missing(monkeypatch):
    monkeypatch.delenv(TIER, raising=False)
    monkeypatch.setattr(tiers, "best", lambda: None)
    monkeypatch.setattr(tiers, "possible", lambda tier: (Missing("bwrap is not installed", "apt install bubblewrap"),))

    status, said = asked("--inside")
    _, document = asked("--inside", "--json")

    assert status == 2
    assert "bwrap is not installed: apt install bubblewrap" in said
    assert json.loads(document)["missing"] == [{"what": "bwrap is not installed", "fix": "apt install bubblewrap"}]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that would have been run, where tier bwrap is the best."""
    ran: list[list[str]] = []

    def start(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.delenv(TIER, raising=False)
    monkeypatch.setattr(tiers, "best", lambda: Tier.BWRAP)
    monkeypatch.setattr(verb.subprocess, "run", start)
    return ran


@pytest.mark.parametrize(("ended", "status"), [(0, 0), (1, 1), (125, 2)])
def test_the_exit_status_of_a_sandbox_is_told_but_that_none_was_started_is_2(started, monkeypatch, ended, status):
    monkeypatch.setattr(verb.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, ended))

    assert asked("--inside")[0] == status


def test_outside_a_sandbox_one_of_the_best_tier_is_started_with_the_same_home(started, tmp_path):
    home = str(tmp_path / "home")
    asked("--inside", "--home", home, "--target", "203.0.113.7", "--all")

    (command,) = started
    outside, inside = command[:command.index("--")], command[command.index("--") + 1:]
    assert outside[5:] == ["run", "--tier", "bwrap", "--home", home, "--quiet"]
    assert inside[5:] == ["doctor", "--inside", "--home", home, "--all", "--target", "203.0.113.7"]
    assert inside[:5] == outside[:5]


def test_what_lies_in_the_working_directory_is_not_run_outside_the_sandbox(tmp_path):
    work, command = tmp_path, verb._sandboxed(Tier.BWRAP, "home", [])[:5]
    for name in ("json.py", "click.py", "addons.py"):
        (work / name).write_text(f"open({str(work / 'mark')!r}, 'w')")

    said = subprocess.run([*command, "--version"], cwd=work, env={**os.environ, "PYTHONPATH": str(work)},
                          capture_output=True, text=True, check=True)

    assert said.stdout.startswith("governor")
    assert not (work / "mark").exists()


def test_the_home_that_is_named_is_tried_from_within(monkeypatch, tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/root.key").write_text("x")
    chosen = tuple(attempt for attempt in every.ATTEMPTS if attempt.name == "governor-root-key")
    monkeypatch.setattr(every, "ATTEMPTS", chosen)

    status, said = asked("--inside", "--here", "--home", str(tmp_path), "--json")

    assert (status, json.loads(said)["attempts"][0]["seen"]) == (1, f"{tmp_path}/keys/root.key opens for reading")

"""Logs made to harm who verifies them: both verifiers answer soon, in bounded memory, in clean words."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from addons.verbs.audit import audit
from kernel import canonical, chain, entry
from kernel.chain import GENESIS_PREV
from tests.conftest import scaled
from tests.logs import KERNEL, ROOT, Lane, two_lanes
from tests.verifiers import ONE_FILE, one_file_verifier

MEBIBYTE = 2**20
WATCH = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
LIMIT = 100 * MEBIBYTE
W0 = Path("audit/lanes/w0")
LANE_FILES = [W0 / "000001.jsonl", W0 / "000000.jsonl", W0 / "checkpoints.note"]
FILES = [*LANE_FILES, Path("audit/trust.json"), Path("minimum.json")]
NO_PART = ["LOCK", "notes.jsonl", "000000.jsonl.bak", "1000000.jsonl", "a\nb", "\x1b[2J", os.fsdecode(b"\xff")]
NAMES = [b"a\nb", b"\x1b[2Jx", b"\xff\xfe", "\u202ewd".encode(), b"W0", b"-", b"a" * 200, "\x9b2J".encode()]


@pytest.fixture(autouse=True)
def _no_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return two_lanes().write(tmp_path / "home")


type Answers = Callable[[], tuple[list[int], str]]


@pytest.fixture
def answers(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answers:
    """The exit status of the verb, of the verb with --json, of the one-file verifier; and all that they said."""

    def ask() -> tuple[list[int], str]:
        statuses, said = [], []
        for options in ([], ["--json"]):
            command = ["verify", str(home), "--trust", str(ROOT.verifier), *options]
            result = CliRunner().invoke(audit, command, standalone_mode=False)
            failed = getattr(result.exception, "exit_code", 70)
            statuses.append(int(failed if result.exception else result.return_value))
            said.append(result.output + str(result.exception or ""))
            if options and result.stdout:
                json.loads(result.stdout)
        monkeypatch.setattr(sys, "argv", ["verify_log.py", f"{home / 'audit'}", "--trust", str(ROOT.verifier)])
        try:
            statuses.append(int(one_file_verifier().main()))
        except SystemExit as usage:
            statuses.append(int(usage.code or 0))
        captured = capsys.readouterr()
        return statuses, "".join([*said, captured.out, captured.err])

    return ask


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [_pipe, _device, _folder, _loop])
@pytest.mark.parametrize("name", FILES, ids=str)
def test_what_is_no_file_is_not_read_and_is_a_wrong_question(
    name: Path, make: Callable[[Path], None], home: Path, answers: Answers
) -> None:
    (home / name).unlink(missing_ok=True)
    make(home / name)

    statuses, said = answers()

    assert statuses == [2, 2, 2]
    assert name.name in said


@pytest.mark.parametrize("make", [_pipe, _device, _folder, _loop])
def test_what_is_no_part_of_a_log_does_not_matter(
    make: Callable[[Path], None], home: Path, answers: Answers
) -> None:
    for name in NO_PART:
        make(home / W0 / name)
    deep = home / W0
    while len(str(deep)) < 3_000:
        deep = deep / ("d" * 200)
        deep.mkdir()
    make(home / "audit" / "receipts")

    statuses, _ = answers()

    assert statuses == [0, 0, 0]


@pytest.mark.parametrize("make", [_pipe, _device, _loop])
def test_what_is_no_lane_is_none(
    make: Callable[[Path], None], home: Path, answers: Answers
) -> None:
    make(home / "audit" / "lanes" / "w7")

    statuses, _ = answers()

    assert statuses == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("filled", [False, True])
def test_a_lane_of_any_name_is_told_in_clean_words(
    name: bytes, filled: bool, home: Path, answers: Answers
) -> None:
    folder = os.fsencode(home / "audit" / "lanes") + b"/" + name
    os.mkdir(folder)
    if filled:
        Path(os.fsdecode(folder), "000000.jsonl").write_bytes(two_lanes().lanes[1].lines[0])

    statuses, said = answers()

    assert statuses == [1, 1, 1]
    assert "\x1b" not in said
    assert said.partition("{")[0].replace("\n", "").isprintable()


@pytest.mark.parametrize("where", [*LANE_FILES, Path("minimum.json")], ids=str)
def test_a_file_without_end_is_answered_in_bounded_time_and_memory(where: Path, home: Path) -> None:
    with (home / where).open("ab") as file:
        file.truncate(64 * 1024 * MEBIBYTE)

    for command in _commands(home):
        status, peak = _measured(command)
        assert status == 1, command
        assert peak < LIMIT


def test_long_lines_take_bounded_memory(home: Path) -> None:
    lane = two_lanes().lanes[1]
    for number in range(130):
        lane.add({"type": "heartbeat", "text": "x" * (MEBIBYTE - 600), "number": number})
    (home / W0 / "000000.jsonl").write_bytes(b"".join(lane.lines))

    for command in _commands(home):
        status, peak = _measured(command)
        assert status == 0, command
        assert peak < LIMIT


def _commands(home: Path) -> list[list[str]]:
    verb = "from addons.cli import main; main()"
    return [[sys.executable, "-c", verb, "audit", "verify", str(home), "--trust", str(ROOT.verifier)],
            [sys.executable, str(ONE_FILE), str(home / "audit"), "--trust", str(ROOT.verifier)]]


def _measured(command: list[str]) -> tuple[int, int]:
    """The exit status and the largest resident size in bytes.

    A process counts what the one that started it had in memory, so a small one stands between.
    """
    watch = [sys.executable, "-c", WATCH, *command]
    said = subprocess.run(watch, capture_output=True, text=True, check=True, cwd=ONE_FILE.parents[1]).stdout
    status, peak = map(int, said.split())
    return status, peak * 1024


def test_many_lanes_that_recorded_many_take_no_longer_than_reading_them(
    home: Path, answers: Answers
) -> None:
    """Lanes whose lane_open, which nobody signed, recorded 7,000 others each."""
    recorded = [entry.sibling(f"x{number}", 1, "ab" * 32) for number in range(7_000)]
    lanes = scaled(4)
    for number in range(lanes):
        lane = Lane(f"x{number}")
        body = entry.common("lane_open", 0, GENESIS_PREV, "2026-01-02T03:04:05.000006Z", 1, lane.name)
        raw = canonical.encode(body | entry.lane_open(str(lane.key.verifier), "AAAA", KERNEL, recorded))
        folder = home / "audit" / "lanes" / lane.name
        folder.mkdir()
        (folder / "000000.jsonl").write_bytes(chain.line(raw, lane.key.verifier.kid, bytes(64)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime

    statuses, _ = answers()

    assert statuses == [1, 1, 1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < lanes * 1.5

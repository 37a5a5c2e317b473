"""`governor audit verify` and `governor audit show`, on the golden vectors and on logs that are being written."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from addons import codec
from addons import lane as lane_module
from addons.audit_log import AuditLog, verify_signature
from addons.home import Home
from kernel import canonical, entry
from kernel.verify import Anchors, verify
from tests.addons.audit_command import governor, status
from tests.conftest import scaled
from tests.forgery import THIEF
from tests.logs import KERNEL, LOG_ID, ROOT, Lane, Log, decision, two_lanes
from tests.vectors import make_vectors
from tests.verifiers import ONE_FILE, one_file_verifier

VECTORS = Path(make_vectors.FOLDER)
EXPECTED: dict[str, dict[str, Any]] = json.loads((VECTORS / "expected.json").read_text())


@pytest.fixture(autouse=True)
def _no_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("GOVERNOR_HOME", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return two_lanes().raise_minimum().write(tmp_path / "home")


def verified(*arguments: object) -> dict[str, Any]:
    return dict(json.loads(governor("verify", *arguments, "--json").stdout))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_product_gives_the_answer_of_each_vector(name: str) -> None:
    result = governor("verify", VECTORS / name, "--trust", VECTORS / "root.key", "--json")

    assert status(result) == EXPECTED[name]["exit"]
    assert (EXPECTED[name]["reason"] or "") in str(json.loads(result.stdout)["first_failure"])


@pytest.mark.parametrize("name", EXPECTED)
def test_every_signature_gives_the_same_answer(name: str) -> None:
    result = governor("verify", VECTORS / name, "--trust", VECTORS / "root.key", "--every-signature")

    assert status(result) == EXPECTED[name]["exit"]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_one_file_verifier_gives_the_answer_of_each_vector(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = one_file_verifier()
    monkeypatch.setattr(sys, "argv", ["verify_log.py", f"{VECTORS / name / 'audit'}", "--trust", str(ROOT.verifier)])

    assert module.main() == EXPECTED[name]["exit"]
    assert (EXPECTED[name]["reason"] or "") in capsys.readouterr().out.partition("\n")[0]


def test_the_one_file_verifier_runs_alone_and_imports_nothing_of_ours(tmp_path: Path) -> None:
    copy = shutil.copy(ONE_FILE, tmp_path)
    command = [sys.executable, "-I", copy, str(VECTORS / "valid" / "audit")]

    pinned = subprocess.run([*command, "--trust", str(VECTORS / "root.key")], cwd=tmp_path, capture_output=True)
    unpinned = subprocess.run(command, cwd=tmp_path, capture_output=True)
    absent = subprocess.run([*command[:-1], "absent"], cwd=tmp_path, capture_output=True)

    assert (pinned.returncode, pinned.stdout) == (0, b"verified: 22 entries\n")
    assert (unpinned.returncode, absent.returncode) == (3, 2)


def test_the_vectors_in_the_repository_are_those_the_script_makes(tmp_path: Path) -> None:
    make_vectors.make(tmp_path / "logs")

    assert _tree(tmp_path / "logs") == _tree(VECTORS)


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_home_and_its_audit_folder_are_one_log(home: Path) -> None:
    assert verified(home) == verified(home / "audit")


def test_the_home_comes_from_the_option_or_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verified("--home", home)["entries"] == 22
    monkeypatch.setenv("GOVERNOR_HOME", str(home))
    assert verified()["entries"] == 22


def test_without_trust_the_pin_of_this_log_decides(home: Path, tmp_path: Path) -> None:
    assert verified(home)["result"] == "not_pinned"
    pin = tmp_path / "config" / "governor" / "pins" / LOG_ID
    pin.parent.mkdir(parents=True)
    pin.write_text(f"{ROOT.verifier}\n{home}\n")
    assert verified(home)["result"] == "verified"
    pin.write_text(f"{THIEF.verifier}\n")
    assert verified(home)["result"] == "tampered"
    pin.write_text("what is this\n")
    assert status(governor("verify", home)) == 2


def test_trust_is_a_key_a_file_with_one_or_a_trust_json(home: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{ROOT.verifier}\n")
    for trust in (str(ROOT.verifier), tmp_path / "key", home / "audit" / "trust.json"):
        assert verified(home, "--trust", trust)["result"] == "verified"
    for wrong in ("nonsense", str(Lane("main").key.verifier), str(tmp_path)):
        assert status(governor("verify", home, "--trust", wrong)) == 2


def test_a_folder_without_a_log_is_a_wrong_question(tmp_path: Path) -> None:
    result = governor("verify", tmp_path / "absent")

    assert status(result) == 2
    assert "no audit log here" in str(result.exception)


def test_a_lost_trust_json_is_missed_by_nobody_and_a_damaged_one_is_told(home: Path) -> None:
    (home / "audit" / "trust.json").unlink()
    assert verified(home, "--trust", ROOT.verifier)["result"] == "verified"
    (home / "audit" / "trust.json").write_text("{}")
    assert verified(home, "--trust", ROOT.verifier)["result"] == "tampered"


def test_a_damaged_minimum_is_told(home: Path) -> None:
    (home / "minimum.json").write_bytes((home / "minimum.json").read_bytes()[:-10])

    assert "minimum.json" in verified(home, "--trust", ROOT.verifier)["first_failure"]["reason"]


def test_a_pipe_in_the_place_of_a_segment_does_not_hang(home: Path) -> None:
    os.mkfifo(home / "audit" / "lanes" / "w0" / "000001.jsonl")

    assert status(governor("verify", home)) == 2


def test_a_lane_whose_lock_is_held_is_live(home: Path) -> None:
    with (home / "audit" / "lanes" / "w0" / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert [lane["live"] for lane in verified(home)["lanes"]] == [False, True]
    assert [lane["live"] for lane in verified(home)["lanes"]] == [False, False]


def test_a_log_that_is_being_written_is_verified_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "CHECKPOINT_SECONDS", 0.001)
    lane = lane_module.Lane.open(Home.open(tmp_path / "home"), "main", kernel=KERNEL)
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            lane.write_now("fault", {"where": "request", "error": "X", "code": "FAULT", "flow": None})

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        reports = [verified(tmp_path / "home")]
        # The log grows while it is verified: more rounds would take ever longer.
        while len(reports) < min(scaled(25), 30) or reports[-1]["entries"] == reports[0]["entries"]:
            reports.append(verified(tmp_path / "home"))
    finally:
        ended.set()
        for writer in writers:
            writer.join()
        lane.close("done")

    assert {report["result"] for report in reports} == {"verified"}
    assert {report["lanes"][0]["live"] for report in reports} == {True}


def test_a_head_that_is_signed_while_the_log_is_read_is_left_for_the_next_time(home: Path) -> None:
    log, lane = AuditLog.at(home), two_lanes().lanes[0]
    stated, minimum, _ = log.known()
    sources = log.sources()
    lane.traffic(5).checkpoint()
    (home / "audit" / "lanes" / "main" / "checkpoints.note").write_text("".join(lane.notes))

    report = verify(sources, Anchors(ROOT.verifier, stated, minimum), verify_signature, codec.parse)

    assert report.result.value == "verified"


def test_what_people_read_names_the_entry_and_holds_no_control_character(home: Path) -> None:
    segment = home / "audit" / "lanes" / "main" / "000000.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"lane":"main"', b'"lane":"\x1b[2J"', 1))

    said = governor("verify", home, "--trust", ROOT.verifier).stdout

    assert said.startswith("tampered: entry main/0, 000000.jsonl, line 1, byte 0: ")
    assert "\x1b" not in said


def test_show_json_gives_the_lines_as_they_are_in_the_order_of_time(home: Path) -> None:
    shown = governor("show", home, "--json").stdout_bytes.splitlines(keepends=True)

    assert sorted(shown) == sorted(line for lane in two_lanes().lanes for line in lane.lines)
    assert [json.loads(line)["e"]["ts"] for line in shown] == sorted(json.loads(line)["e"]["ts"] for line in shown)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        pytest.param(["--agent", "claude-2"], 5, id="agent"),
        pytest.param(["--verdict", "deny"], 0, id="no such verdict"),
        pytest.param(["--verdict", "allow"], 8, id="verdict"),
        pytest.param(["--rule", "read-our-repos"], 8, id="rule"),
        pytest.param(["--host", "API.example.org."], 8, id="host in any spelling"),
        pytest.param(["--since", "2026-01-02T03:04:05.407006Z"], 4, id="since, included"),
        pytest.param(["--until", "2026-01-02T04:04:05.037006+01:00"], 2, id="until, excluded, with an offset"),
        pytest.param(["--since", "3d"], 0, id="relative"),
    ],
)
def test_show_gives_what_is_asked_for(home: Path, options: list[str], count: int) -> None:
    assert len(governor("show", home, "--json", *options).stdout.splitlines()) == count


@pytest.mark.parametrize("text", ["yesterday", "2026-01-02", "2026-01-02T03:04:05", "-3d", "3w", "9" * 30 + "d"])
def test_a_moment_that_is_none_is_a_wrong_question(home: Path, text: str) -> None:
    assert status(governor("show", home, "--since", text)) == 2


def test_show_joins_what_the_vault_holds(tmp_path: Path) -> None:
    lane, salts = Lane("main").open(first=True), [bytes([number]) * 32 for number in range(3)]
    for salt in salts:
        facts = decision("f")
        committed = entry.commitment(salt, "path", canonical.encode("/repos/\u202eacme"))
        lane.add(facts | {"in": facts["in"] | {"path$c": committed}})  # type: ignore[operator]
    home = Log([lane]).write(tmp_path / "home")
    assert "/[not in this copy]" in governor("show", home).stdout
    _keep(home / "vault.db", [(2, salts[0], '"/repos/\u202eacme"'), (3, salts[1], '"/other"')])

    shown = governor("show", home).stdout.splitlines()[2:]

    assert "GET https://api.example.org/repos/\\u202eacme  ALLOW, rule read-our-repos" in shown[0]
    assert "https://api.example.org/[the vault holds another value]" in shown[1]
    assert "https://api.example.org/[erased]" in shown[2]


def _keep(path: Path, rows: list[tuple[int, bytes, str]]) -> None:
    with sqlite3.connect(path) as database:
        database.execute('CREATE TABLE "values"(lane TEXT, seq INTEGER, name TEXT, salt BLOB, value TEXT)')
        database.executemany("INSERT INTO \"values\" VALUES ('main', ?, 'path', ?, ?)", rows)
    database.close()


def test_show_escapes_what_an_agent_chose(tmp_path: Path) -> None:
    lane = Lane("main").open(first=True)
    lane.add(decision("f") | {"reason": "\x1b]0;owned\x07\nmain/99 decision allow \u202e"})

    shown = governor("show", Log([lane]).write(tmp_path / "home")).stdout

    assert shown.count("\n") == 3
    assert shown.replace("\n", "").isprintable()


def test_show_tells_of_lines_that_are_none_and_goes_on(home: Path) -> None:
    segment = home / "audit" / "lanes" / "main" / "000000.jsonl"
    segment.write_bytes(segment.read_bytes() + b"rubbish\x1b\n")

    result = governor("show", home, "--json")

    assert (status(result), len(result.stdout.splitlines())) == (1, 22)
    assert "main/000000.jsonl" in result.stderr
    assert "\x1b" not in result.stderr


def test_follow_shows_new_lines_once_they_are_whole(home: Path) -> None:
    lane = two_lanes().lanes[1]
    code = "import sys; from addons.cli import main; main()"
    command = [sys.executable, "-c", code, "audit", "show", str(home), "--follow", "--json", "--verdict", "deny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ONE_FILE.parents[1]) as process:
        assert process.stdout is not None
        lane.add(decision("f", verdict="deny"))
        segment = home / "audit" / "lanes" / "w0" / "000000.jsonl"
        with segment.open("ab", buffering=0) as file:
            file.write(lane.lines[-1][:100])
            file.write(lane.lines[-1][100:])

        shown = process.stdout.readline()
        process.terminate()

    assert shown == lane.lines[-1]

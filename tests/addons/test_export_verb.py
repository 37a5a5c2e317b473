"""`governor audit export` and `governor audit verify --against`, as they are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from addons.export_output import _unread_bytes
from addons.home import Home
from addons.verbs.audit import audit
from tests.addons.audit_command import governor, status
from tests.addons.logs import decision, open_lane
from tests.logs import ROOT, Lane, Log, two_lanes

CHECKOUT = Path(__file__).parents[2]
PIPE_IS_FULL = 2**16 - 2**12
LAUNCH = "import sys; from addons.cli import main; main(sys.argv[1:])"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", LAUNCH, "audit", "export", *map(str, arguments)]


def names(lines: bytes) -> list[str]:
    return [f"{record['lane']}/{record['seq']}" for record in map(json.loads, lines.splitlines())]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return two_lanes().write(tmp_path / "home")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    assert status(governor("export", folder, "--output", tmp_path / "copy.jsonl")) == 0
    return tmp_path / "copy.jsonl"


def against(folder: Path, copy: Path) -> tuple[int, dict[str, Any]]:
    result = governor("verify", folder, "--trust", ROOT.verifier, "--against", copy, "--json")
    return status(result), json.loads(result.stdout) if result.stdout else {}


def test_help_says_how_to_use_it():
    shown = CliRunner().invoke(audit, ["export", "--help"]).output

    assert all(word in shown for word in ("--follow", "--cursor", "--format [jsonl|ocsf]", "Exit status"))
    assert "export" in CliRunner().invoke(audit, ["--help"]).output


def test_standard_output_gets_one_entry_a_line(folder):
    done = subprocess.run(command(folder), cwd=CHECKOUT, capture_output=True, check=True)

    assert sorted(names(done.stdout)) == sorted([f"main/{n}" for n in range(15)] + [f"w0/{n}" for n in range(7)])
    assert done.stderr == b""


def test_an_output_file_is_added_to_from_where_the_cursor_stands(folder, tmp_path):
    out, cursor = tmp_path / "out", tmp_path / "cursor"

    for _ in range(2):
        assert status(governor("export", folder, "--output", out, "--cursor", cursor)) == 0
    assert len(names(out.read_bytes())) == len(set(names(out.read_bytes()))) == 22
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"no line at all", b'{"entry":1}\nand words of somebody else'])
def test_a_file_that_is_no_export_is_not_cut(folder, tmp_path, content):
    out = tmp_path / "notes.txt"
    out.write_bytes(content)

    assert status(governor("export", folder, "--output", out)) == 2
    assert out.read_bytes() == content


def test_a_closed_pipe_ends_the_export_quietly_and_without_a_loss(folder, tmp_path):
    cursor, home = tmp_path / "cursor", Home.open(tmp_path / "large")
    lane = open_lane(home, vault=False)
    for number in range(400):
        lane.record("decision", decision(f"f{number}"))
    lane.close("done")
    process = subprocess.Popen(command(home.paths.folder, "--cursor", cursor), cwd=CHECKOUT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.read1(1000)
    process.stdout.close()

    assert (process.wait(20), process.stderr.read()) == (0, b"")
    process.stderr.close()
    rest = subprocess.run(command(home.paths.folder, "--cursor", cursor), cwd=CHECKOUT, capture_output=True, check=True)
    assert names(rest.stdout)[0] == "main/0"
    assert len(names(rest.stdout)) >= 402
    assert rest.stdout.startswith(first)


@contextmanager
def following(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command(*arguments, "--follow"), cwd=CHECKOUT, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_follow_goes_on_beside_a_writer_with_a_cursor_in_the_home(tmp_path):
    home, out = Home.open(tmp_path / "home"), tmp_path / "out"
    lane = open_lane(home, vault=False)

    with following(home.paths.folder, "--output", out, "--format", "ocsf"):
        until(lambda: out.exists() and out.read_bytes().count(b"\n") == 2)
        numbers = [lane.write_now("decision", decision(f"f{number}")) for number in range(5)]
        lane.rotate("operator")
        last = lane.write_now("decision", decision("after"))
        other = open_lane(home, "w0", vault=False)
        until(lambda: out.read_bytes().count(b'"log_name":"w0"') == 1)
        cursor = home.paths.folder / "export-ocsf.cursor"
        until(lambda: set(json.loads(cursor.read_bytes())["lanes"]) == {"main", "w0"})
    other.close("done")
    lane.close("done")

    told = [json.loads(line)["metadata"] for line in out.read_bytes().splitlines()]
    assert [each["sequence"] for each in told if each["log_name"] == "main"] == list(range(last + 1))
    assert numbers == list(range(2, 7))


def test_who_does_not_read_delays_no_writer_and_loses_nothing(tmp_path):
    home = Home.open(tmp_path / "home")
    lane = open_lane(home, vault=False)
    for number in range(300):
        lane.record("decision", decision(f"f{number}"))
    lane.write_now("decision", decision("last"))

    with following(home.paths.folder, stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout is not None
        pipe = stuck.stdout.fileno()
        until(lambda: _unread_bytes(pipe) >= PIPE_IS_FULL)
        started = time.monotonic()
        lane.write_now("decision", decision("more"))
        took = time.monotonic() - started
        lane.close("done")
        seen = b""
        while b'"reason":"done"' not in seen:
            seen += stuck.stdout.read1(65536)

    assert took < 3
    assert names(seen) == [f"main/{number}" for number in range(305)]


def test_an_export_that_must_stop_says_where_and_has_the_exit_status_of_the_finding(folder, tmp_path):
    cursor = tmp_path / "cursor"
    governor("export", folder, "--output", tmp_path / "out", "--cursor", cursor)
    path = folder / "audit" / "lanes" / "main" / "000000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)

    path.write_bytes(b"".join(lines[:-1]))
    rolled_back = governor("export", folder, "--output", tmp_path / "out", "--cursor", cursor)
    path.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    tampered = governor("export", folder, "--output", tmp_path / "new")

    assert (status(rolled_back), status(tampered)) == (5, 1)
    assert "rolled_back: entry main/14, 000000.jsonl, byte" in rolled_back.stderr
    assert "tampered: entry main/3, 000000.jsonl, byte" in tampered.stderr


@pytest.mark.parametrize("arguments", [
    ["--cursor", "/dev/null/x"], ["--output", "/nonexistent/x"], ["--format", "xml"], ["--since", "yesterday"],
])
def test_a_wrong_question_is_exit_2(folder, arguments):
    assert status(governor("export", folder, *arguments)) == 2


def test_no_log_is_exit_2(tmp_path):
    assert status(governor("export", tmp_path)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_cannot_be_written_is_exit_1_and_the_cursor_does_not_move(folder, tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command(folder, "--cursor", tmp_path / "cursor"), cwd=CHECKOUT, stdout=full,
                              stderr=subprocess.PIPE)

    assert done.returncode == 1
    assert b"the export stopped: standard output: No space left on device" in done.stderr
    assert not (tmp_path / "cursor").exists()


@pytest.mark.parametrize("form", ["jsonl", "ocsf"])
@pytest.mark.parametrize("wanted", [[], ["--agent", "coder-1"]])
def test_a_log_agrees_with_its_own_export(folder, tmp_path, form, wanted):
    governor("export", folder, "--format", form, "--output", tmp_path / "copy", *wanted)

    code, told = against(folder, tmp_path / "copy")
    count = (tmp_path / "copy").read_bytes().count(b"\n")
    assert (code, told["result"]) == (0, "verified")
    assert told["against"] == {"file": str(tmp_path / "copy"), "entries": count}
    assert f"held to the {count} entries of" in governor("verify", folder, "--against", tmp_path / "copy").stdout


def test_a_log_written_again_with_its_own_keys_disagrees_with_its_export(folder, copy, tmp_path):
    main = Lane("main").open(first=True)
    main.traffic(9).checkpoint()
    again = Log([main, two_lanes().lanes[1]], minimum=None).write(tmp_path / "again")
    assert status(governor("verify", again, "--trust", ROOT.verifier)) != 0

    alone = Log([main]).write(tmp_path / "alone")
    assert status(governor("verify", alone, "--trust", ROOT.verifier)) == 0
    mains = tmp_path / "main.jsonl"
    lines = copy.read_bytes().splitlines(keepends=True)
    mains.write_bytes(b"".join(line for line in lines if b'"lane":"main","seq"' in line))
    code, told = against(alone, mains)
    assert (code, told["first_failure"]["lane"], told["first_failure"]["seq"]) == (1, "main", 2)
    assert f"{mains} holds another entry of this number" in told["first_failure"]["reason"]


def test_a_log_cut_back_together_with_all_its_heads_disagrees_with_its_export(tmp_path):
    lane = Lane("main").open(first=True).traffic(3).checkpoint().traffic(2)
    log = Log([lane]).write(tmp_path / "home")
    governor("export", log, "--output", tmp_path / "copy")
    path = log / "audit" / "lanes" / "main" / "000000.jsonl"
    path.write_bytes(b"".join(lane.lines[:-2]))
    assert status(governor("verify", log, "--trust", ROOT.verifier)) == 0

    code, told = against(log, tmp_path / "copy")
    assert (code, told["result"]) == (5, "rolled_back")


def test_a_lane_that_was_removed_with_every_trace_is_missed_by_the_export(tmp_path):
    lane, other = Lane("main").open(first=True).traffic(1), Lane("w0").open().traffic(1)
    governor("export", Log([lane, other]).write(tmp_path / "home"), "--output", tmp_path / "copy")
    without = Log([lane]).write(tmp_path / "without")

    code, told = against(without, tmp_path / "copy")
    assert (code, told["result"], told["first_failure"]["lane"]) == (4, "incomplete", "w0")


def test_what_is_no_export_is_a_wrong_question(folder, tmp_path):
    (tmp_path / "copy").write_bytes(b'{"a":1}\n' * 3)

    assert against(folder, tmp_path / "copy") == (2, {})
    assert status(governor("verify", folder, "--against", tmp_path / "absent")) == 2


def test_a_copy_that_was_mixed_up_repeated_and_spelled_anew_on_its_way_still_agrees(folder, copy):
    records = [json.loads(line) for line in copy.read_bytes().splitlines()]
    copy.write_text("".join(json.dumps(record, indent=None) + "\n" for record in [*records[::-1], *records[::2]]))

    assert against(folder, copy)[0] == 0


def test_an_export_while_the_log_is_written_agrees_with_it_later(tmp_path):
    home, out = Home.open(tmp_path / "home"), tmp_path / "out"
    lane = open_lane(home, vault=False)
    for number in range(20):
        lane.write_now("decision", decision(f"f{number}"))
    assert status(governor("export", home.paths.folder, "--output", out)) == 0
    for number in range(20):
        lane.write_now("decision", decision(f"g{number}"))

    result = governor("verify", home.paths.folder, "--trust", home.root, "--against", out)
    lane.close("done")
    assert status(result) == 0


def test_the_home_may_come_from_the_environment(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GOVERNOR_HOME", os.fspath(folder))

    assert status(governor("export", "--output", tmp_path / "out")) == 0
    assert len(names((tmp_path / "out").read_bytes())) == 22

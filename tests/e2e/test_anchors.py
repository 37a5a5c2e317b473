"""A running Governor and its anchors: heads go out while it runs and when it ends, and what is required is enforced."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from addons.anchors.note_file import NoteFile
from addons.anchors.submission import submission_key
from addons.home import Home
from kernel.note import opened, parse_checkpoint
from tests.addons.reference_witness import Witness, serving
from tests.e2e.origins import serving as origin_serving
from tests.e2e.process import command_line, free_port, scratch_environment, started

pytestmark = pytest.mark.e2e


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch, anchors: str) -> Home:
    """A new home with this anchors.yaml."""
    environment = scratch_environment(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", environment["XDG_CONFIG_HOME"])
    home = Home.open(folder / "home")
    home.paths.anchors.write_text(anchors)
    return home


def until(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def ready(place) -> bool:
    return readiness(place)["ready"]


def readiness(place) -> dict[str, Any]:
    """What /readyz says."""
    try:
        with urllib.request.urlopen(place.metrics.replace("/metrics", "/readyz"), timeout=5) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return json.loads(refused.read())


def scraped(place) -> dict[str, float]:
    with urllib.request.urlopen(place.metrics, timeout=5) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_heads_go_out_while_it_runs_and_the_last_one_when_it_ends(tmp_path, monkeypatch):
    notes = tmp_path / "governor.notes"
    prepared(tmp_path, monkeypatch, f"anchors: [file: {notes}]\nevery: 1s\n")
    with origin_serving() as origin, started(tmp_path) as place:
        first = place.wait_for_entry("anchor")
        place.curl(f"{origin.url}/a")
        place.wait_for_entry("anchor", 2)
        metrics = scraped(place)
        place.stop()
        report = place.verify()

    sizes = [parse_checkpoint(opened(text)[0]).size for text in NoteFile(notes).notes()]
    assert first[0]["kind"] == "file"
    assert report["result"] == "verified"
    assert sizes[-1] == report["entries"]
    assert metrics["governor_audit_anchor_overdue"] == 0
    assert metrics['governor_audit_anchor_age_seconds{kind="file"}'] < 5
    assert metrics["governor_audit_unanchored_entries"] < 20


def test_nothing_passes_while_what_is_required_is_not_met(tmp_path, monkeypatch):
    port = free_port()
    witness = Witness("w.example.org", tmp_path / "witness.json")
    home = prepared(tmp_path, monkeypatch, f"""\
anchors:
  - witness: http://127.0.0.1:{port}
    key: {witness.key}
every: 1s
require: 1 of [witness] within 4s
otherwise: stop
""")
    witness.know(submission_key(home, "main").verifier_key)
    with origin_serving() as origin, started(tmp_path) as place:
        until(lambda: not ready(place))
        hints = json.loads(place.verb("status", "--json").stdout)["hints"]
        code, body, _ = place.curl(f"{origin.url}/a")
        seen = len(origin.seen.requests)
        overdue = scraped(place)["governor_audit_anchor_overdue"]
        with serving(witness, port):
            until(lambda: ready(place))
            passed, _, _ = place.curl(f"{origin.url}/b")
        place.stop()
        report = place.verify()

    assert (code, seen, passed, overdue) == (403, 0, 200, 1)
    assert "AUDIT_UNAVAILABLE" in body
    assert "not anchored in time" in body
    assert any("1 of [witness] within 4 s is required" in hint for hint in hints)
    assert any("nothing passes until it is met" in line for line in place.output)
    assert report["result"] == "verified"
    assert [entry["counts"] for entry in place.entries("refusals")] == [{"AUDIT_UNAVAILABLE": 1}]


def test_from_the_moment_it_is_asked_to_stop_it_is_not_ready_and_says_why(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        key = Witness("w.example.org", tmp_path / "witness.json").key
        prepared(tmp_path, monkeypatch,
                 f"anchors:\n  - witness: http://127.0.0.1:{port}\n    key: {key}\nevery: 1s\n")
        with started(tmp_path, serve=True) as place:
            before = readiness(place)
            place.process.send_signal(signal.SIGTERM)
            # The last head is on its way to a witness that does not answer.
            place.wait_for_entry("close")
            stopping = readiness(place)

            assert place.process.wait(20) == 0
    assert (before["ready"], before["checks"]["not_stopping"]) == (True, True)
    assert (stopping["ready"], stopping["checks"]["not_stopping"]) == (False, False)


def test_a_bad_file_of_anchors_refuses_to_start(tmp_path, monkeypatch):
    home = prepared(tmp_path, monkeypatch, "anchors:\n  - file: /x\n  - fil: /y\n")
    ended = subprocess.run(command_line(home.paths.folder, None, (), serve=True), capture_output=True, text=True,
                           env=scratch_environment(tmp_path), timeout=60)

    assert ended.returncode == 1
    assert f"governor: refused to start: OPTION_REFUSED: {home.paths.anchors}:3:5: unknown key" in ended.stderr

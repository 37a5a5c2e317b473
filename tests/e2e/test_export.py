"""An export beside a lane that is written, both killed again and again: no entry is missing at its other end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import scaled
from tests.e2e.process import ROOT, governor, scratch_environment

pytestmark = pytest.mark.e2e

# Small segments, and no pause: a kill finds a rotation or the midst of a write more often.
_WRITER = """
import sys, itertools
from pathlib import Path
from addons import ballast, lane as lane_module
from addons.home import Home
from tests.addons.logs import decision, open_lane
ballast.BALLAST_BYTES, lane_module.SEGMENT_BYTES = 65536, 30_000
lane = open_lane(Home.open(Path(sys.argv[1])), sys.argv[2], vault=False)
for number in itertools.count():
    for _ in range(4):
        lane.record("decision", decision(f"f{number}"))
    print(lane.write_now("decision", decision(f"f{number}")), flush=True)
"""
# One entry a batch: nearly all the time it is between a write and the move of the cursor, or in one of the two.
_EXPORT = """
import sys
from addons import exporting
from addons.cli import main
from addons.verbs import export
exporting._BATCH_ENTRIES, export.FOLLOW_SECONDS = int(sys.argv[1]), 0.001
main(["audit", "export", *sys.argv[2:]])
"""


@contextmanager
def killed(code: str, *arguments: object, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def _rounds(home: Path, options: list[object], environment: dict[str, str], seed: int, rest: list[bytes]) -> None:
    """Follow and kill, so many times; the writer is killed every second time. `rest` gets what came over the pipe."""
    chance = random.Random(seed)
    for _ in range(scaled(2)):
        with killed(_WRITER, home, "main", environment=environment) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            for _ in range(2):
                batch = chance.choice([1, 1, 7])
                with killed(_EXPORT, batch, home, "--follow", *options, environment=environment) as export:
                    assert export.stdout is not None
                    reader = threading.Thread(target=lambda out=export.stdout: rest.append(out.read()))
                    reader.start()
                    time.sleep(0.4 + chance.random() * 0.4)
                    assert export.poll() is None, export.stderr.read() if export.stderr else b""
                    export.kill()
                    reader.join()


def _whole_lines(pieces: list[bytes]) -> bytes:
    return b"".join(piece[:piece.rfind(b"\n") + 1] for piece in pieces)


@pytest.mark.parametrize("to", ["file", "pipe"])
def test_whatever_is_killed_and_when_every_entry_is_exported_with_the_hash_it_has_in_the_log(tmp_path, to):
    home, out, environment = tmp_path / "home", tmp_path / "out", scratch_environment(tmp_path)
    environment |= {"PYTHONPATH": os.fspath(ROOT)}
    options: list[object] = ["--cursor", tmp_path / "cursor", *(["--output", out] if to == "file" else [])]
    pieces: list[bytes] = []

    _rounds(home, options, environment, seed=len(to), rest=pieces)
    last = governor("audit", "export", str(home), *map(str, options), environment=environment)
    if to == "pipe":
        out.write_bytes(_whole_lines(pieces) + last.stdout.encode())

    assert (last.returncode, last.stderr) == (0, "")
    hashes: dict[str, set[str]] = defaultdict(set)
    for line in out.read_bytes().splitlines():
        record = json.loads(line)
        hashes[f"{record['lane']}/{record['seq']}"].add(record["hash"])
    assert all(len(each) == 1 for each in hashes.values())
    written = [json.loads(line)["e"] for path in sorted((home / "audit" / "lanes").glob("*/*.jsonl"))
               for line in path.read_bytes().splitlines()]
    assert set(hashes) == {f"{entry['lane']}/{entry['seq']}" for entry in written}
    assert len(written) > 100
    verified = governor("audit", "verify", str(home), "--against", str(out), "--json", environment=environment)
    assert json.loads(verified.stdout)["result"] == "verified", verified.stdout

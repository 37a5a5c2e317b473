"""An export read back as a witness, whatever became of it on its way."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons import witness_file
from addons.audit_log import AuditLogError
from addons.witness_file import witnessed
from kernel.witnessed import RECORD
from tests.conftest import scaled


def line(seq: int, lane: str = "main", hashed: str = "") -> bytes:
    return json.dumps({"lane": lane, "seq": seq, "hash": hashed or f"{seq:064x}"}).encode() + b"\n"


def held(path: Path) -> dict[str, list[tuple[int, bytes]]]:
    with witnessed(path) as lanes:
        return {name: list(RECORD.iter_unpack(lane._records(0, lane.count))) for name, lane in lanes.items()}


@given(st.lists(st.tuples(st.sampled_from(["main", "w0"]), st.integers(0, 400)), max_size=400))
def test_records_in_any_order_and_any_number_of_times_are_held_in_order_and_once(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("export") / "export.jsonl"
    path.write_bytes(b"".join(line(seq, lane) for lane, seq in names))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(witness_file, "_SORTED_AT_ONCE", 7)
        patched.setattr(witness_file, "_BLOCK", 3)
        found = held(path)

    assert found == {lane: [(seq, seq.to_bytes(32, "big")) for seq in sorted({s for name, s in names if name == lane})]
                     for lane in {lane for lane, _ in names}}


def test_two_hashes_of_one_entry_are_both_held(tmp_path):
    path = tmp_path / "export.jsonl"
    path.write_bytes(line(4) + line(4, hashed="ff" * 32) + line(4))

    assert held(path) == {"main": [(4, (4).to_bytes(32, "big")), (4, b"\xff" * 32)]}


def test_an_unfinished_last_line_counts_for_nothing_and_a_whole_one_without_its_end_counts(tmp_path):
    path = tmp_path / "export.jsonl"
    whole = line(0) + line(1)

    for cut, count in ((len(whole) - 1, 2), (len(whole) - 2, 1), (len(line(0)) + 1, 1), (0, 0)):
        path.write_bytes(whole[:cut])
        assert len(held(path).get("main", [])) == count


@pytest.mark.parametrize(("content", "number"), [
    (line(0) + b"not JSON\n" + line(1), 2), (b"\n", 1), (b'{"lane":"main"}\n', 1), (line(0) + b"\xff\xfe\n", 2),
])
def test_a_line_that_is_none_of_an_export_is_named(tmp_path, content, number):
    path = tmp_path / "export.jsonl"
    path.write_bytes(content)

    with pytest.raises(AuditLogError, match=rf"export.jsonl:{number}: not a line of an export"):
        held(path)


def test_a_line_without_an_end_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(witness_file, "_MOST_LINE_BYTES", 1000)
    path = tmp_path / "export.jsonl"
    path.write_bytes(line(0) + b"x" * 5000)

    with pytest.raises(AuditLogError, match=r"export.jsonl:2: longer than"):
        held(path)


_MEASURE = """
import resource, sys
from pathlib import Path
from addons.witness_file import witnessed
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with witnessed(Path(sys.argv[1])) as lanes:
    lanes["main"].differing(0, [bytes(32)])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("order", ["as written", "shuffled"])
def test_memory_does_not_grow_with_the_export(tmp_path, order):
    numbers = list(range(scaled(100_000)))
    if order == "shuffled":
        random.Random(7).shuffle(numbers)
    path = tmp_path / "export.jsonl"
    with path.open("wb") as file:
        file.writelines(line(number) for number in numbers)

    result = subprocess.run([sys.executable, "-c", _MEASURE, path], capture_output=True, check=True, text=True)

    assert int(result.stdout) < 24 * 1024

"""Exports: what goes out, in which order, and that a cursor never stands ahead of what is out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from addons import durable, exporting
from addons.audit_log import AuditLog, AuditLogError
from addons.audit_view import Filter
from addons.chained_lines import LaneBroken
from addons.export_cursor import Cursor
from addons.export_output import AppendedFile, Stream
from addons.exporting import FORMATS, Export
from kernel import canonical, entry
from kernel.report import Result
from tests.kernel.ocsf_rules import faults
from tests.logs import Lane, Log, decision, three_segments, two_lanes


@dataclass
class Kept:
    """An output that keeps what it gets, and what of it counted when."""

    lines: bytes = b""
    settled: bytes = b""
    watch: Callable[[], object] = field(default=lambda: None)

    def write(self, lines: bytes) -> None:
        self.lines += lines

    def settle(self) -> None:
        self.watch()
        self.settled = self.lines

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.splitlines()]

    def names(self) -> list[str]:
        return [f"{record['lane']}/{record['seq']}" for record in self.records()]


def exported(home: Path, form: str = "jsonl", cursor: Path | None = None, **wanted: Any) -> Kept:
    out = Kept()
    if cursor is None:
        Export(AuditLog.at(home), form, Filter(**wanted), out).run()
    else:
        with Cursor.held(cursor, form) as held:
            Export(AuditLog.at(home), form, Filter(**wanted), out, held).run()
    return out


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return two_lanes().write(tmp_path / "home")


@pytest.fixture
def cursor(tmp_path: Path) -> Path:
    return tmp_path / "cursor"


@pytest.mark.parametrize("log", [two_lanes, three_segments])
def test_every_entry_goes_out_once_with_lane_number_and_hash_in_canonical_json(tmp_path, log):
    out = exported(log().write(tmp_path / "home"))

    for line, record in zip(out.lines.splitlines(), out.records(), strict=True):
        assert canonical.parse(line) == record
        assert set(record) == {"entry", "hash", "lane", "seq"}
        assert (record["lane"], record["seq"]) == (record["entry"]["lane"], record["entry"]["seq"])
    for lane in log().lanes:
        of_lane = [record for record in out.records() if record["lane"] == lane.name]
        assert [record["entry"] for record in of_lane] == [json.loads(line)["e"] for line in lane.lines]
        assert [record["hash"] for record in of_lane] == [
            *(record["entry"]["prev"] for record in of_lane[1:]), lane.head]


@pytest.mark.parametrize("log", [two_lanes, three_segments])
def test_as_ocsf_every_entry_is_a_valid_event_of_the_same_name_and_hash(tmp_path, log):
    home = log().write(tmp_path / "home")

    plain, events = exported(home).records(), exported(home, "ocsf").records()

    assert [fault for event in events for fault in faults(event)] == []
    assert [(event["metadata"]["log_name"], event["metadata"]["sequence"], event["metadata"]["uid"])
            for event in events] == [(record["lane"], record["seq"], record["hash"]) for record in plain]


def test_lanes_are_merged_by_time_and_each_keeps_its_order_also_where_its_clock_went_back(tmp_path):
    main = Lane("main").open(first=True)
    other = Lane("w0").open(siblings=[main]).traffic(3)
    for stamp in ("2026-01-02T09:00:00.000000Z", "2026-01-02T03:00:00.000000Z", "2026-01-02T03:04:05.050000Z"):
        main.add({"type": "heartbeat", "ts": stamp})
    out = exported(Log([main, other]).write(tmp_path / "home"))

    assert [name for name in out.names() if name.startswith("main")] == [f"main/{seq}" for seq in range(5)]
    assert [name for name in out.names() if name.startswith("w0")] == [f"w0/{seq}" for seq in range(7)]
    assert out.names().index("main/2") > out.names().index("w0/6")


HOSTILE = 'a\nb\r\x00\x1b[2J\u202egnp.exe\u2028"},"seq":0,"x":{"' + "\\" * 3 + "\U0001f600"


@pytest.mark.parametrize("form", FORMATS)
def test_what_an_agent_chose_cannot_begin_a_line_or_end_a_string(tmp_path, form):
    lane = Lane("main").open(first=True)
    lane.add(decision("f") | {"reason": HOSTILE, "flow": HOSTILE, "agent": {"id": HOSTILE, "by": "none"}})
    lane.add(entry.operator("agents halt", HOSTILE, HOSTILE, HOSTILE, HOSTILE))
    home = Log([lane]).write(tmp_path / "home")

    out = exported(home, form)

    lines = out.lines.split(b"\n")
    assert len(lines) == 5
    assert lines.pop() == b""
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(lines[2]))


def test_an_entry_of_the_greatest_size_and_depth_goes_out_in_both_formats(tmp_path):
    lane = Lane("main").open(first=True)
    deep: Any = "x"
    for _ in range(canonical.MAX_DEPTH - 1):
        deep = [deep]
    lane.add({"type": "later", "deep": deep, "long": "y" * (2**20 - 1000)})
    home = Log([lane]).write(tmp_path / "home")

    for form in FORMATS:
        assert len(exported(home, form).records()) == 3


@pytest.mark.parametrize(("wanted", "names"), [
    ({"agent": "coder-1", "verdict": "allow"}, ["main/5", "w0/3", "main/10"]),
    ({"verdict": "deny"}, ["main/10"]),
    ({"until": "2026-01-02T03:04:05.000006Z"}, []),
])
def test_only_what_is_asked_for_goes_out_and_all_of_it_counts_as_seen(home, cursor, wanted, names):
    everything = [record["entry"] for record in exported(home).records()]
    expected = [f"{each['lane']}/{each['seq']}" for each in everything if Filter(**wanted).wants(each)]

    assert exported(home, "jsonl", cursor, **wanted).names() == expected
    assert exported(home, "jsonl", cursor).names() == []


def test_with_a_cursor_only_what_is_new_goes_out_new_lanes_and_segments_too(tmp_path, cursor):
    home, log = tmp_path / "home", three_segments()
    everything = exported(log.write(tmp_path / "whole")).names()
    shutil.copytree(tmp_path / "whole", home)
    for name in ("000001.jsonl", "000002.jsonl"):
        (home / "audit" / "lanes" / "main" / name).unlink()
    first = exported(home, "jsonl", cursor).names()
    shutil.copytree(tmp_path / "whole", home, dirs_exist_ok=True)
    other = two_lanes().write(tmp_path / "two") / "audit" / "lanes" / "w0"
    shutil.copytree(other, home / "audit" / "lanes" / "w0")
    second = exported(home, "jsonl", cursor).names()

    assert first == everything[:len(first)]
    assert [name for name in second if name.startswith("main")] == everything[len(first):]
    assert [name for name in second if name.startswith("w0")] == [f"w0/{seq}" for seq in range(7)]
    assert exported(home, "jsonl", cursor).names() == []


def test_the_cursor_moves_only_over_what_has_settled(home, cursor, monkeypatch):
    monkeypatch.setattr(exporting, "_BATCH_ENTRIES", 3)
    stood: list[int] = []

    def watch() -> None:
        places = json.loads(cursor.read_bytes())["lanes"] if cursor.exists() else {}
        stood.append(sum(place["seq"] + 1 for place in places.values()))

    out = Kept(watch=watch)
    with Cursor.held(cursor, "jsonl") as held:
        Export(AuditLog.at(home), "jsonl", Filter(), out, held).run()

    assert stood == [0, 3, 6, 9, 12, 15, 18, 21]
    assert len(out.records()) == 22


def test_what_did_not_settle_goes_out_again(home, cursor, monkeypatch):
    monkeypatch.setattr(exporting, "_BATCH_ENTRIES", 5)
    everything = exported(home).names()

    def fail() -> None:
        if len(broken.records()) > 10:
            raise BrokenPipeError

    broken = Kept(watch=fail)
    with Cursor.held(cursor, "jsonl") as held, pytest.raises(BrokenPipeError):
        Export(AuditLog.at(home), "jsonl", Filter(), broken, held).run()

    assert broken.names() == everything[:15]
    assert exported(home, "jsonl", cursor).names() == everything[10:]


def _cut(home: Path) -> None:
    path = home / "audit" / "lanes" / "main" / "000000.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:9]))


def _rewritten(home: Path) -> None:
    shutil.rmtree(home)
    log = two_lanes()
    log.lanes[0].lines.clear()
    log.lanes[0] = Lane("main").open(first=True).traffic(9)
    log.write(home)


@pytest.mark.parametrize(("change", "result"), [
    pytest.param(_cut, Result.ROLLED_BACK, id="cut"),
    pytest.param(_rewritten, Result.TAMPERED, id="rewritten"),
    pytest.param(lambda home: shutil.rmtree(home / "audit" / "lanes" / "w0"), Result.INCOMPLETE, id="a lane is gone"),
])
def test_over_a_log_that_is_not_what_the_cursor_saw_nothing_is_exported(home, cursor, change, result):
    exported(home, "jsonl", cursor)
    before = cursor.read_bytes()
    change(home)
    out = Kept()

    with Cursor.held(cursor, "jsonl") as held, pytest.raises(LaneBroken) as caught:
        Export(AuditLog.at(home), "jsonl", Filter(), out, held).run()
    assert caught.value.result is result
    assert (out.lines, cursor.read_bytes()) == (b"", before)


def test_where_the_chain_breaks_what_came_before_is_out_and_the_cursor_stands_there(home, cursor):
    path = home / "audit" / "lanes" / "main" / "000000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:6], *lines[7:]]))
    out = Kept()

    with Cursor.held(cursor, "jsonl") as held, pytest.raises(LaneBroken, match="entry main/6"):
        Export(AuditLog.at(home), "jsonl", Filter(), out, held).run()
    assert "main/5" in out.names()
    assert json.loads(cursor.read_bytes())["lanes"]["main"]["seq"] == 5
    path.write_bytes(b"".join(lines))
    assert not set(out.names()) & set(exported(home, "jsonl", cursor).names())


def test_a_folder_that_is_no_lane_is_told(home):
    (home / "audit" / "lanes" / "Not a lane").mkdir()

    with pytest.raises(LaneBroken, match="not the name of a lane"):
        exported(home)


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b'{"v":2}', b'{"v":1,"format":"jsonl","lanes":[]}', b'{"v":1,"format":"ocsf","lanes":{}}',
    *(json.dumps({"v": 1, "format": "jsonl", "lanes": lanes}).encode() for lanes in (
        {"main": 7}, {"main": {"seq": 0, "hash": "ab" * 32, "segment": "../../x", "offset": 0}},
        {"../x": {"seq": 0, "hash": "ab" * 32, "segment": "000000.jsonl", "offset": 0}},
        {"main": {"seq": -1, "hash": "ab" * 32, "segment": "000000.jsonl", "offset": 0}},
        {"main": {"seq": 0, "hash": "ab" * 32, "segment": "000000.jsonl", "offset": True}})),
])
def test_a_file_that_is_no_cursor_of_this_export_is_refused_and_left_alone(cursor, content):
    cursor.write_bytes(content)

    with pytest.raises(AuditLogError, match="cursor"), Cursor.held(cursor, "jsonl"):
        pass
    assert cursor.read_bytes() == content


def test_two_exports_do_not_share_a_cursor(cursor):
    with Cursor.held(cursor, "jsonl"), pytest.raises(AuditLogError, match="another export"), \
            Cursor.held(cursor, "jsonl"):
        pass


def test_two_exports_do_not_write_one_file(tmp_path):
    with AppendedFile.opened(tmp_path / "out"), pytest.raises(AuditLogError, match="another export"), \
            AppendedFile.opened(tmp_path / "out"):
        pass


@pytest.mark.parametrize(("content", "kept"), [
    (b"", b""), (b"a\n", b"a\n"), (b"a\n{b", b"a\n"), (b"{b", b""), (b"a\n{" + b"x" * 200_000, b"a\n"),
    (b"x" * 70_000 + b"\n{" + b"y" * 70_000, b"x" * 70_000 + b"\n"),
])
def test_a_file_is_added_to_behind_its_last_whole_line(tmp_path, content, kept):
    path = tmp_path / "out"
    path.write_bytes(content)

    with AppendedFile.opened(path) as out:
        out.write(b"next\n")
        out.settle()

    assert path.read_bytes() == kept + b"next\n"


def test_a_fifo_in_the_place_of_the_output_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "out")

    with pytest.raises(AuditLogError, match="not a regular file"), AppendedFile.opened(tmp_path / "out"):
        pass


def test_what_lies_unread_in_a_pipe_has_not_settled():
    reading, writing = os.pipe()
    out = Stream(writing)
    out.write(b"a line\n")

    os.read(reading, 100)
    out.settle()
    out.write(b"another\n")
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        out.settle()
    os.close(writing)


def test_a_file_behind_standard_output_is_synced(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)

    Stream(descriptor).settle()

    assert synced == [descriptor]
    os.close(descriptor)


def test_a_move_of_the_cursor_that_fails_leaves_it_where_it_was(home, cursor, monkeypatch):
    exported(home, "jsonl", cursor, verdict="none")
    before = cursor.read_bytes()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(durable, "replace", full)
    with Cursor.held(cursor, "jsonl") as held, pytest.raises(OSError, match="No space left"):
        held.move({})
    assert cursor.read_bytes() == before

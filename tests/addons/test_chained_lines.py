"""Reading a lane by its chain: beside a writer, from any entry on, and stopping where it does not go on."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from addons.chained_lines import ChainedLines, LaneBroken, Record
from kernel.report import Result
from tests.logs import Lane, Log, three_segments, two_lanes


def written(folder: Path, log: Log) -> Path:
    return log.write(folder) / "audit" / "lanes" / "main"


@pytest.fixture
def lane(tmp_path: Path) -> Path:
    """A lane of three segments."""
    return written(tmp_path / "home", three_segments())


def read(folder: Path) -> list[Record]:
    return list(ChainedLines(folder).fresh())


def broken(read: Callable[[], object]) -> LaneBroken:
    with pytest.raises(LaneBroken) as caught:
        read()
    return caught.value


def test_every_entry_of_every_segment_comes_in_order_with_the_hash_that_the_next_one_names(lane):
    records = read(lane)

    assert [record.place.seq for record in records] == list(range(three_segments().lanes[0].tree.size))
    assert [record.place.hash for record in records] == [
        *(record.entry["prev"] for record in records[1:]), three_segments().lanes[0].head]
    for record in records:
        line = (lane / record.place.segment).read_bytes()[record.place.offset:].splitlines()[0]
        assert line.startswith(b'{"e":' + record.raw + b",")


def test_a_lane_without_a_segment_yet_has_no_entries(tmp_path):
    assert read(tmp_path) == []


def test_a_reader_goes_on_from_any_entry(lane):
    records = read(lane)

    for number, record in enumerate(records):
        assert list(ChainedLines(lane, record.place).fresh()) == records[number + 1:]


def test_whole_lines_only_are_read_wherever_the_end_is_and_the_rest_when_it_comes(lane, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    path = lane / "000002.jsonl"
    content = path.read_bytes()
    *_, before, second_last, _ = read(lane)

    for end in range(second_last.place.offset, len(content) + 1):
        path.write_bytes(content[:end])
        reader = ChainedLines(lane, before.place)
        seen = len(list(reader.fresh()))
        assert seen == content[second_last.place.offset:end].count(b"\n")
        path.write_bytes(content)
        assert seen + len(list(reader.fresh())) == 2


def test_new_lines_and_new_segments_come_while_a_reader_waits(lane):
    last = {name: (lane / name).read_bytes() for name in ("000001.jsonl", "000002.jsonl")}
    everything = read(lane)
    (lane / "000002.jsonl").unlink()
    (lane / "000001.jsonl").write_bytes(last["000001.jsonl"].splitlines(keepends=True)[0])
    reader = ChainedLines(lane)
    seen = list(reader.fresh())

    (lane / "000001.jsonl").write_bytes(last["000001.jsonl"])
    (lane / "000002.jsonl").touch()
    seen += reader.fresh()
    (lane / "000002.jsonl").write_bytes(last["000002.jsonl"])
    seen += reader.fresh()

    assert seen == everything
    assert list(reader.fresh()) == []


def _changed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3].replace(b'"status":200', b'"status":403'), *lines[4:]]


DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "an entry was changed": (_changed, 4),
    "an entry was deleted": (lambda lines: [*lines[:3], *lines[4:]], 3),
    "two entries were swapped": (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], 3),
    "an entry stands twice": (lambda lines: [*lines[:4], lines[3], *lines[4:]], 4),
    "white space was added": (lambda lines: [*lines[:3], lines[3].replace(b'"e":{', b'"e":{ '), *lines[4:]], 3),
    "a line is something else": (lambda lines: [*lines[:3], b"{}\n", *lines[4:]], 3),
    "a line has no end": (lambda lines: [*lines[:3], b"x" * (2**20 + 7), *lines[4:]], 3),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_first_entry_that_does_not_go_on_is_named_and_nothing_after_it_is_read(lane, name):
    damage, seq = DAMAGE[name]
    path = lane / "000000.jsonl"
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    seen: list[Record] = []

    fault = broken(lambda: seen.extend(ChainedLines(lane).fresh()))
    assert fault.result is Result.TAMPERED
    assert f"entry main/{seq}, 000000.jsonl, byte " in str(fault)
    assert [record.place.seq for record in seen] == list(range(seq))


@pytest.mark.parametrize("name", ["000000.jsonl", "000001.jsonl"])
def test_a_missing_segment_with_later_ones_is_tampering(lane, name):
    (lane / name).unlink()

    assert broken(lambda: read(lane)).result is Result.TAMPERED


def test_a_line_cut_off_within_an_earlier_segment_is_tampering(lane):
    os.truncate(lane / "000000.jsonl", (lane / "000000.jsonl").stat().st_size - 1)

    assert broken(lambda: read(lane)).result is Result.TAMPERED


def test_the_lines_of_another_lane_are_not_those_of_this_one(tmp_path):
    folder = written(tmp_path / "home", two_lanes())
    shutil.copy(folder.parent / "w0" / "000000.jsonl", folder)

    assert "expected entry 0 of this lane" in str(broken(lambda: read(folder)))


def test_a_version_that_this_one_cannot_read_is_said(tmp_path):
    lane = Lane("main")
    lane.add({"type": "genesis", "v": 2})

    assert "version" in str(broken(lambda: read(written(tmp_path / "home", Log([lane])))))


@pytest.mark.parametrize(("loss", "result"), [
    pytest.param(shutil.rmtree, Result.INCOMPLETE, id="the lane is gone"),
    pytest.param(lambda lane: (lane / "000002.jsonl").unlink(), Result.ROLLED_BACK, id="the last segment is gone"),
    pytest.param(lambda lane: [path.unlink() for path in lane.glob("*.jsonl")], Result.ROLLED_BACK, id="all are gone"),
    pytest.param(lambda lane: os.truncate(lane / "000002.jsonl", 0), Result.ROLLED_BACK, id="it was emptied"),
    pytest.param(lambda lane: os.truncate(lane / "000002.jsonl", (lane / "000002.jsonl").stat().st_size - 1),
                 Result.ROLLED_BACK, id="its last line was cut"),
])
def test_what_was_read_and_is_gone_is_told_by_who_waits_and_by_who_comes_back(lane, loss, result):
    waiting = ChainedLines(lane)
    last = list(waiting.fresh())[-1].place
    loss(lane)

    assert broken(lambda: list(waiting.fresh())).result is result
    assert broken(lambda: ChainedLines(lane, last)).result is result


def test_another_history_behind_the_same_place_is_told(tmp_path, lane):
    place = read(lane)[-1].place
    other = Lane("main", seed="other").open(first=True).traffic(3).rotate().traffic(2).checkpoint().traffic(1)
    other.rotate().traffic(2).add({"type": "state_snapshot", "at": 1, "digest": "d5" * 32, "bytes": 4096, "agents": 2,
                                   "accounts": 3})
    another = written(tmp_path / "other", Log([other]))

    fault = broken(lambda: ChainedLines(another, place))
    assert fault.result in (Result.TAMPERED, Result.ROLLED_BACK)


def test_a_log_that_grew_again_after_it_was_rolled_back_is_told_by_who_waits(tmp_path):
    log = two_lanes()
    folder = written(tmp_path / "home", log)
    waiting = ChainedLines(folder)
    list(waiting.fresh())
    grown = two_lanes().lanes[0]
    del grown.lines[-1:]
    path = folder / "000000.jsonl"
    path.write_bytes(b"".join(grown.lines) + b"x" * len(log.lanes[0].lines[-1]) + b'{"e":{}}\n')

    assert broken(lambda: list(waiting.fresh())).result is Result.TAMPERED


@pytest.mark.parametrize(("number", "readable"), [(errno.EROFS, True), (errno.EINVAL, True), (errno.EIO, False)])
def test_nothing_is_read_that_a_crash_could_take_back(lane, monkeypatch, number, readable):
    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", failing)

    if readable:
        assert read(lane)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            read(lane)

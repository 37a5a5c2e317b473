"""A copy elsewhere as a witness: what it may lack, and what it finds."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons import codec
from kernel.errors import WitnessError
from kernel.report import Report, Result
from kernel.verify import verify
from kernel.witnessed import RECORD, Seen, Witnessed, seen
from tests.logs import PINNED, Lane, source, two_lanes, verify_signature

HASHES = [bytes([number]) * 32 for number in range(60)]


def copy_of(records: list[tuple[int, bytes]]) -> Witnessed:
    packed = [RECORD.pack(*record) for record in sorted(records)]
    return Witnessed("the copy", len(packed), lambda first, count: b"".join(packed[first:first + count]))


def entries_of(lane: Lane) -> list[tuple[int, bytes]]:
    hashes = [bytes.fromhex(json.loads(line)["e"]["prev"]) for line in lane.lines[1:]]
    return list(enumerate([*hashes, bytes.fromhex(lane.head)]))


def against(lanes: list[Lane], copies: dict[str, Witnessed]) -> Report:
    anchors = replace(PINNED, witnessed=copies)
    return verify([source(lane) for lane in lanes], anchors, verify_signature, codec.parse)


@given(st.sets(st.integers(0, 59)), st.lists(st.integers(0, 60), max_size=6))
def test_a_copy_with_gaps_agrees_with_the_entries_it_was_made_of_in_pieces_of_any_size(kept, cuts):
    copy = copy_of([(seq, HASHES[seq]) for seq in kept])

    for first, end in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        assert copy.differing(first, HASHES[first:end]) is None


@given(st.sets(st.integers(0, 59), min_size=1), st.data())
def test_the_first_other_entry_is_found_from_wherever_the_comparison_begins(kept, data):
    wrong = data.draw(st.sampled_from(sorted(kept)))
    first = data.draw(st.integers(0, wrong))
    copy = copy_of([(seq, b"\xff" * 32 if seq >= wrong else HASHES[seq]) for seq in kept])

    assert copy.differing(first, HASHES[first:]) == wrong
    after = sorted(kept)[bisect_left(sorted(kept), wrong) + 1:]
    assert copy.differing(wrong + 1, HASHES[wrong + 1:]) == (after[0] if after else None)


def test_two_records_of_one_entry_are_both_compared():
    copy = copy_of([(3, HASHES[3]), (3, b"\xff" * 32)])

    assert copy.differing(0, HASHES) == 3


def test_a_log_agrees_with_a_whole_copy_a_filtered_one_and_an_older_one():
    log = two_lanes()
    main, other = map(entries_of, log.lanes)

    for copies in ({"main": copy_of(main), "w0": copy_of(other)}, {"main": copy_of(main[1::3])},
                   {"main": copy_of(main[:4])}, {"main": copy_of([])}, {}):
        assert against(log.lanes, copies).result is Result.VERIFIED


@pytest.mark.parametrize("seq", [0, 1, 5, 14])
def test_a_log_that_was_written_again_differs_from_the_copy_at_the_first_entry_it_changed(seq):
    log = two_lanes()
    records = entries_of(log.lanes[0])
    records[seq:] = [(number, b"\xff" * 32) for number, _ in records[seq:]]

    report = against(log.lanes, {"main": copy_of(records)})

    assert report.result is Result.TAMPERED
    assert report.first_failure is not None
    assert (report.first_failure.lane, report.first_failure.seq, report.first_failure.line) == ("main", seq, seq + 1)
    assert "the copy holds another entry" in report.first_failure.reason


def test_many_lines_are_compared_as_one_is():
    lane = Lane("main").open(first=True).traffic(300)
    records = entries_of(lane)
    records[401] = (401, b"\xff" * 32)

    assert against([lane], {"main": copy_of(entries_of(lane))}).result is Result.VERIFIED
    assert against([lane], {"main": copy_of(records)}).first_failure.seq == 401  # type: ignore[union-attr]


def test_a_log_shorter_than_the_copy_was_rolled_back():
    lane = Lane("main").open(first=True).traffic(3)
    copy = copy_of([(lane.tree.size, HASHES[1])])

    report = against([lane], {"main": copy})

    assert report.result is Result.ROLLED_BACK
    assert f"the copy holds entry {lane.tree.size}" in report.first_failure.reason  # type: ignore[union-attr]


def test_a_lane_that_only_the_copy_has_makes_the_log_incomplete():
    log = two_lanes()

    report = against(log.lanes, {"w7": copy_of([(0, HASHES[0])])})

    assert report.result is Result.INCOMPLETE
    assert report.first_failure.reason == "the copy knows of this lane, and it is absent"  # type: ignore[union-attr]


@pytest.mark.parametrize("line", [
    b'{"entry":{},"hash":"' + b"ab" * 32 + b'","lane":"main","seq":7}',
    b'{ "seq": 7, "lane": "main", "index": "a", "hash": "' + b"ab" * 32 + b'" }\n',
    b'{"metadata":{"log_name":"main","sequence":7,"uid":"' + b"ab" * 32 + b'"},"class_uid":4002}',
])
def test_a_line_of_either_format_and_in_any_spelling_tells_of_its_entry(line):
    assert seen(line, codec.read) == Seen("main", 7, b"\xab" * 32)


@pytest.mark.parametrize("line", [
    b"", b"[]", b"7", b"{", b"[" * 5000, b'{"lane":"main"}', b'{"metadata":7}',
    *(json.dumps({"lane": lane, "seq": seq, "hash": hashed}).encode() for lane, seq, hashed in (
        ("main", True, "ab" * 32), ("main", -1, "ab" * 32), ("main", 2**53, "ab" * 32), ("main", "0", "ab" * 32),
        ("main", 0, "AB" * 32), ("main", 0, "ab" * 31), ("../x", 0, "ab" * 32), (7, 0, "ab" * 32))),
])
def test_a_line_that_tells_of_no_entry_is_refused(line):
    with pytest.raises(WitnessError):
        seen(line, codec.read)

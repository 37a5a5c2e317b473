"""The leases of all lanes: one that stands in two lanes, or twice in one, or in none, is found with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from addons import codec
from kernel import canonical, walk
from kernel.canonical import Value
from kernel.report import Failure, Report, Result
from kernel.verify import verify
from tests.kernel.test_verify import at, check
from tests.logs import PINNED, POOL, Lane, Log, leased, source, verify_signature

FAR = 300


def busy(lane: Lane, *numbers: int) -> Lane:
    """With so much between leases that most lines are judged by the hundred."""
    for number in numbers:
        lane.traffic(100).lease(number)
    return lane.traffic(20).checkpoint()


def both_ways(log: Log) -> Report:
    quick = check(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk.Walk, "_take_at_once", lambda self, lines: False)
        assert check(log) == quick
    return quick


def failure(report: Report) -> Failure:
    assert report.first_failure is not None
    return report.first_failure


def test_a_log_of_processes_that_lease_by_turns_is_verified() -> None:
    assert both_ways(leased()).result is Result.VERIFIED


def test_a_number_in_two_lanes_is_told_with_its_place() -> None:
    main = Lane("main").open(first=True)
    other = busy(Lane("w0").open(siblings=[main]), 3, 2)
    seq = len(other.lines)
    busy(other.lease(1), 5)
    report = both_ways(Log([busy(main, 1, 4), other]))

    assert report.result is Result.TAMPERED
    assert failure(report) == at(other, seq, "lease 1 stands in lane main, too: two processes have drawn on it")


def test_each_lane_that_has_the_number_of_another_is_told() -> None:
    main = Lane("main").open(first=True).lease(1)
    lanes = [Lane(f"w{number}").open(siblings=[main]).lease(1) for number in range(3)]

    assert failure(check(Log([main, *lanes]))).lane == "w0"
    assert failure(check(Log([main.traffic(1), *lanes[1:]]))).lane == "w1"


@pytest.mark.parametrize("flows", [0, FAR])
def test_a_number_twice_in_one_lane_is_told_with_its_place(flows: int) -> None:
    main = Lane("main").open(first=True).lease(1, 2).traffic(flows)
    seq = len(main.lines)
    report = both_ways(Log([main.lease(2).traffic(flows)]))

    assert (report.result, failure(report)) == (Result.TAMPERED, at(main, seq, "lease 2 was granted before"))


def test_a_number_twice_within_a_hundred_lines_is_told_with_its_place() -> None:
    main = Lane("main").open(first=True).traffic(100).lease(1).traffic(20).lease(2)
    seq = len(main.lines)
    main.lease(1).traffic(60)

    assert failure(both_ways(Log([main]))) == at(main, seq, "lease 1 was granted before")


def test_an_entry_that_was_changed_before_a_wrong_lease_is_the_one_told() -> None:
    main = Lane("main").open(first=True).traffic(100).lease(1).traffic(2)
    seq = len(main.lines)
    main.add({"type": "heartbeat"}, Lane("main", seed="a thief's ").key)
    main.lines[seq] = main.lines[seq].replace(Lane("main", seed="a thief's ").key.verifier.kid.encode(),
                                              main.key.verifier.kid.encode())
    main.lease(1).traffic(60)

    assert failure(both_ways(Log([main]))).seq == seq


@pytest.mark.parametrize("number", [0, -1, True, "1", []])
def test_a_lease_without_a_number_is_told_with_its_place(number: Value) -> None:
    main = Lane("main").open(first=True).traffic(FAR)
    seq = len(main.lines)
    main.add({"type": "lease", "act": "granted", "pool": POOL, "lease": number})
    report = both_ways(Log([main.traffic(FAR)]))

    assert failure(report) == at(main, seq, "a lease has the id of its ledger and a number from 1 on")


@pytest.mark.parametrize("numbers", [[2, 3], [1, 3], [1, 2, 4], [2**53 - 1]])
def test_a_number_in_no_lane_leaves_the_log_incomplete(numbers: list[int]) -> None:
    log = Log([busy(Lane("main").open(first=True), *numbers)])
    lost = next(number for number in range(1, 9) if number not in numbers)
    report = both_ways(log)

    assert report.result is Result.INCOMPLETE
    assert failure(report) == Failure(None, None, None, None, None,
                                      f"lease {lost} of the shared budgets stands in no lane")


def test_a_ledger_that_began_anew_may_give_a_number_again_and_goes_on_or_not() -> None:
    main = Lane("main").open(first=True).lease(1, 2).lease(2, 3, pool="another")
    other = Lane("w0").open(siblings=[main]).lease(1, pool="a third")
    assert check(Log([main, other])).result is Result.VERIFIED

    main.lease(5, pool="another")
    assert check(Log([main, other])).result is Result.INCOMPLETE

    other.lease(4, 2, pool="another")
    assert check(Log([main, other])).result is Result.TAMPERED


def test_a_deleted_lane_that_had_leases_is_missed() -> None:
    log = leased()
    log.minimum = None
    del log.lanes[1]

    assert (check(log).result, failure(check(log)).reason) == (
        Result.INCOMPLETE, "lease 2 of the shared budgets stands in no lane")


def test_the_newest_leases_of_a_deleted_lane_are_not_missed() -> None:
    """Nothing tells of them but the ledger."""
    main = Lane("main").open(first=True).lease(1, 2)
    Lane("w0").open(siblings=[main]).lease(3)

    assert check(Log([main])).result is Result.VERIFIED


def test_what_no_lease_needs_a_number_for_is_none() -> None:
    main = Lane("main").open(first=True).lease(1)
    for body in ({"act": "granted", "lease": None}, {"act": "settled", "lease": 7}, {"act": "lost", "lease": 8},
                 {"act": "refused", "lease": None}, {"act": "granted"}, {}):
        main.add({"type": "lease", "pool": POOL, **body})

    assert check(Log([main])).result is Result.VERIFIED


def _of_a_part(log: Log) -> Report:
    return check(log, replace(PINNED, part=True))


def _from_a_later_segment(log: Log) -> Report:
    main, *others = map(source, log.lanes)
    later = replace(main, segments=lambda: list(main.segments())[1:], first=1,
                    key_lines=lambda: log.lanes[0].lines[:2])
    return verify([later, *others], PINNED, verify_signature, codec.parse)


def _up_to_a_segment(log: Log) -> Report:
    main, *others = map(source, log.lanes)
    end = replace(main, segments=lambda: list(main.segments())[:1], end=log.lanes[0].starts[1])
    return verify([end, *others], PINNED, verify_signature, codec.parse)


@pytest.mark.parametrize("ask", [_of_a_part, _from_a_later_segment, _up_to_a_segment])
def test_of_a_part_of_a_log_no_number_is_missed_and_two_of_one_are_found(ask: Callable[[Log], Report]) -> None:
    main = Lane("main").open(first=True).lease(1).rotate().lease(3).checkpoint()
    other = Lane("w0").open(siblings=[main]).lease(5)
    assert check(Log([main, other])).result is Result.INCOMPLETE
    assert ask(Log([main, other])).result is Result.VERIFIED

    for number in (1, 3):
        other.lease(number)

    assert ask(Log([main, other])).result is Result.TAMPERED


def test_the_place_in_a_lane_that_begins_later_is_that_of_the_whole() -> None:
    main = Lane("main").open(first=True).lease(1).rotate().lease(3).checkpoint()
    ahead = Lane("cli").open(siblings=[main]).lease(3)
    whole = failure(check(Log([ahead, main])))

    assert (whole.lane, whole.segment, whole.line, whole.seq) == ("main", "000001.jsonl", 2, 4)
    assert failure(_from_a_later_segment(Log([main, ahead]))) == whole


@pytest.mark.parametrize(("numbers", "result"), [
    pytest.param(([1, 2], [4]), Result.VERIFIED, id="the other may have it next"),
    pytest.param(([1, 5], [4, 6]), Result.INCOMPLETE, id="both have later ones"),
    pytest.param(([], [2]), Result.VERIFIED, id="one has had none yet"),
])
def test_a_lane_that_is_being_written_may_have_a_number_that_no_other_has(
        numbers: tuple[list[int], list[int]], result: Result) -> None:
    main = Lane("main").open(first=True).lease(*numbers[0])
    other = Lane("w0").open(siblings=[main]).lease(*numbers[1])
    sources = [source(main), source(other)]
    live = [replace(each, live=True) for each in sources]

    assert verify(live, PINNED, verify_signature, codec.parse).result is result
    assert verify(sources, PINNED, verify_signature, codec.parse).result is Result.INCOMPLETE


def test_where_a_lane_does_not_hold_that_is_told_and_not_what_it_lacks_then() -> None:
    main = Lane("main").open(first=True).lease(1)
    other = Lane("w0").open(siblings=[main]).lease(3).checkpoint()
    del other.lines[-1]

    assert failure(check(Log([main, other]))).lane == "w0"


def test_leases_that_leap_over_lanes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.lease_numbers._MOST_BLOCKS", 3)
    main = Lane("main").open(first=True).lease(1, 2**20, 2**30)
    other = Lane("w0").open(siblings=[main]).lease(2**40)

    report = check(Log([main, other]))
    assert (report.result, failure(report).lane) == (Result.TAMPERED, "w0")
    assert failure(check(Log([main.lease(2**40), other]))) == at(main, 5, failure(report).reason)


def test_leases_of_many_windows_leave_the_reader_room_to_learn_other_lines() -> None:
    lane = Lane("main").open(first=True)
    for number in range(1, 150 * 17):
        lane.add({"type": "lease", "act": "granted", "pool": POOL, "lease": number, "window": 80_000 + number // 17})
    lane.traffic(200).checkpoint()
    parsed = []

    def counting(raw: bytes) -> canonical.Value:
        parsed.append(raw)
        return codec.parse(raw)

    assert verify([source(lane)], PINNED, verify_signature, counting).result is Result.VERIFIED
    assert sum(b'"type":"lease"' not in raw for raw in parsed) < 60

"""What lane_open says of a lane that was lost, and what a verifier makes of it."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import partial

import pytest

from addons import codec
from kernel import entry
from kernel.errors import ChainError
from kernel.loss import Loss, loss_in, succeeds
from kernel.report import Report, Result
from kernel.trust import parse_trust_file
from kernel.verify import Anchors, verify
from kernel.walk import Source
from tests.logs import KERNEL, ROOT, Lane, Log, verify_signature

LOSS = Loss("main", 3, "ab" * 32, "tampered", "why", "ann", "cli", "a line was edited", "cd" * 32)


@pytest.mark.parametrize(("successor", "lane", "holds"), [
    ("main-1", "main", True), ("main-2", "main-1", True), ("main-10", "main-9", True), ("run-7-1", "run-7", True),
    ("run-8", "run-7", True), ("main", "main", False), ("main-1", "main-1", False), ("main-3", "main-1", False),
    ("main-01", "main", False), ("main-0", "main", False), ("other-1", "main", False), ("main-", "main", False),
])
def test_a_successor_has_the_name_of_the_lane_and_the_next_number(successor, lane, holds):
    assert succeeds(successor, lane) is holds


def test_a_loss_is_read_as_it_was_written():
    assert loss_in({"loss": LOSS.fields()}, "main-1") == LOSS
    assert loss_in({}, "main-1") is None
    assert loss_in({"loss": replace(LOSS, state=None).fields()}, "main-1").state is None


@pytest.mark.parametrize("change", [
    {"lane": "other"}, {"lane": 1}, {"entries": -1}, {"entries": True}, {"entries": 0}, {"head": "ab"},
    {"result": "verified"}, {"state": "ab"}, {"state": 3}, {"reason": None}, {"more": 1}, {"found": []},
])
def test_what_is_no_loss_is_refused(change):
    with pytest.raises(ChainError):
        loss_in({"loss": LOSS.fields() | change}, "main-1")


def test_a_field_is_missing_from_no_loss():
    for name in LOSS.fields():
        with pytest.raises(ChainError):
            loss_in({"loss": {key: value for key, value in LOSS.fields().items() if key != name}}, "main-1")


def successor_of(lane: Lane, **change) -> Lane:
    made = Lane(f"{lane.name}-1")
    key = str(made.key.verifier)
    certificate = base64.b64encode(ROOT.sign(entry.certificate_bytes(made.log_id, made.name, key))).decode()
    loss = replace(LOSS, entries=lane.tree.size, head=lane.head)
    made.add(entry.lane_open(key, certificate, KERNEL, [], replace(loss, **change).fields()))
    return made.checkpoint()


def check(log: Log) -> Report:
    assert log.trust is not None
    anchors = Anchors(ROOT.verifier, parse_trust_file(log.trust))
    sources = [Source(lane.name, lane.segments, partial(_notes, lane)) for lane in log.lanes]
    return verify(sources, anchors, verify_signature, codec.parse)


def _notes(lane: Lane) -> list[bytes]:
    return "".join(lane.notes).encode().splitlines(keepends=True)


def test_a_report_tells_of_each_loss():
    main = Lane("main").open(first=True).traffic(2).checkpoint()
    report = check(Log([main, successor_of(main)]))

    assert report.result is Result.VERIFIED
    assert report.as_json()["losses"] == [{
        "lane": "main", "successor": "main-1", "entries": main.tree.size, "head": main.head, "result": "tampered",
        "reason": "why", "operator": "ann"}]


@pytest.mark.parametrize(("change", "result"), [
    pytest.param({"entries": 3}, Result.TAMPERED, id="another place"),
    pytest.param({"head": "ab" * 32}, Result.TAMPERED, id="another head"),
    pytest.param({"entries": 99}, Result.ROLLED_BACK, id="more entries than there are"),
    pytest.param({"entries": 0, "head": "00" * 32}, Result.VERIFIED, id="nothing"),
])
def test_the_lost_lane_is_held_to_what_its_successor_says(change, result):
    main = Lane("main").open(first=True).traffic(2).checkpoint()

    assert check(Log([main, successor_of(main, **change)])).result is result


def test_a_loss_does_not_make_the_lost_lane_whole():
    main = Lane("main").open(first=True).traffic(2).checkpoint()
    successor = successor_of(main, entries=2, head=codec.parse(b'"' + _prev(main, 2) + b'"'))
    main.lines[2] = main.lines[2].replace(b'"api.example.org"', b'"apI.example.org"')
    absent = check(Log([successor]))

    assert check(Log([main, successor])).result is Result.TAMPERED
    assert absent.result is Result.INCOMPLETE
    assert [each.loss.lane for each in absent.losses] == ["main"]


def _prev(lane: Lane, seq: int) -> bytes:
    return lane.lines[seq].partition(b'"prev":"')[2][:64]

"""What lane_open says of a lane that was lost, and what a verifier makes of it."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from addons import codec
from kernel import entry
from kernel.canonical import Value
from kernel.errors import ChainError
from kernel.loss import Loss, loss_in, succeeds
from kernel.report import Report, Result
from kernel.verify import Anchors, verify
from tests.forgery import certified
from tests.logs import KERNEL, ROOT, Lane, Log, source, stated, verify_signature
from tests.verifiers import one_file

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
    loss = replace(LOSS, entries=lane.tree.size, head=lane.head)
    said = replace(loss, **change).fields()
    made.add(entry.lane_open(str(made.key.verifier), certified(made, made.key), KERNEL, [], said))
    return made.checkpoint()


def check(log: Log) -> Report:
    anchors = Anchors(ROOT.verifier, stated(log.trust))
    return verify([source(lane) for lane in log.lanes], anchors, verify_signature, codec.parse)


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


@pytest.mark.parametrize(("before", "result"), [
    pytest.param([], Result.VERIFIED, id="where it belongs"),
    pytest.param(["heartbeat"], Result.TAMPERED, id="later"),
    pytest.param(["key_compromised"], Result.TAMPERED, id="twice"),
])
def test_a_compromised_key_is_told_of_by_the_second_entry_and_no_other(before, result, tmp_path):
    main = Lane("main").open(first=True).traffic(2).checkpoint()
    successor = successor_of(main, result="key_compromised")
    for kind in [*before, "key_compromised"]:
        successor.add(entry.heartbeat() if kind == "heartbeat" else compromised(main))
    log = Log([main, successor])

    assert check(log).result is result
    assert one_file(log.write(tmp_path / "home")) == result.exit_code


def compromised(lane: Lane) -> dict[str, Value]:
    """What the root says of the key of a lane of which all is trusted."""
    kid, size = lane.key.verifier.kid, lane.tree.size
    statement = ROOT.sign(entry.compromise_bytes(lane.log_id, lane.name, kid, size, lane.head))
    signed = base64.b64encode(statement).decode()
    return entry.key_compromised(lane.name, kid, size, lane.head, "stolen", "ann", "cli", signed)

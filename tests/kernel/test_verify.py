"""The verifier: what it accepts, what it finds, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons import codec
from kernel import canonical, chain, walk
from kernel.errors import TrustError
from kernel.merkle import Tree, leaf_hash
from kernel.note import checkpoint_body, lane_name, sign
from kernel.report import Failure, KeyRange, LaneReport, Report, Result
from kernel.trust import TrustFile, parse_minimum_file
from kernel.verify import Anchors, verify
from kernel.walk import Rules, Source, Walk
from tests.conftest import scaled
from tests.logs import PINNED, ROOT, Key, Lane, Log, decision, source, three_segments, two_lanes, verify_signature


def check(log: Log, anchors: Anchors = PINNED, **options: Any) -> Report:
    minimum = parse_minimum_file(log.minimum) if log.minimum else None
    sources = [source(lane) for lane in log.lanes]
    return verify(sources, replace(anchors, minimum=minimum), verify_signature, codec.parse, **options)


def busy_lane(flows: int = 60) -> Lane:
    """A lane with enough traffic for its lines to be read by shape, and a checkpoint in the middle."""
    return Lane("main").open(first=True).traffic(flows // 2).checkpoint().traffic(flows // 2)


def failure(report: Report) -> tuple[str | None, int | None, str]:
    assert report.first_failure is not None
    return report.first_failure.lane, report.first_failure.seq, report.first_failure.reason


def at(lane: Lane, seq: int, reason: str) -> Failure:
    """What is wrong with one line of a lane of one segment."""
    return Failure(lane.name, "000000.jsonl", seq + 1, sum(map(len, lane.lines[:seq])), seq, reason)


def test_a_whole_log_is_verified_and_described() -> None:
    log = two_lanes()
    main, other = log.lanes

    report = check(log)

    assert report.result is Result.VERIFIED
    assert report.as_json() == {
        "result": "verified",
        "entries": 22,
        "segments": 2,
        "lanes": [
            {"lane": "main", "entries": 15, "head": main.head, "root": main.tree.root().hex(), "live": False,
                 "first": 0, "closed": True},
            {"lane": "w0", "entries": 7, "head": other.head, "root": other.tree.root().hex(),
                 "live": False, "first": 0, "closed": False},
        ],
        "keys": [
            {"kid": ROOT.verifier.kid, "from": "main/0", "to": "main/0"},
            {"kid": main.key.verifier.kid, "from": "main/1", "to": "main/14"},
            {"kid": other.key.verifier.kid, "from": "w0/0", "to": "w0/6"},
        ],
        "signatures": "checkpoints",
        "unanchored": {"entries": 22, "seconds": 0},
        "first_failure": None,
        "torn_bytes": 0,
        "anchored": [],
        "covered": {"from": "2026-01-02T03:04:05.000006Z", "to": "2026-01-02T03:04:05.518006Z"},
        "checkpoints": 3,
        "reservations": ["lane w0 ended without close", "not anchored: 22"],
        "losses": [],
        "unattested": [],
    }


def test_without_a_trusted_key_everything_is_checked_and_the_result_is_not_pinned() -> None:
    assert check(two_lanes(), Anchors()).result is Result.NOT_PINNED


def test_the_gravest_finding_is_the_result() -> None:
    log = two_lanes()
    del log.lanes[0].lines[-1]
    assert check(log).result is Result.ROLLED_BACK

    log.lanes[1].lines[3] = log.lanes[1].lines[3].replace(b'"GET"', b'"PUT"')

    assert check(log).result is Result.TAMPERED
    assert failure(check(log))[:2] == ("w0", 3)


def test_the_seconds_reach_from_the_first_entry_to_the_last() -> None:
    assert check(Log([busy_lane(200)])).unanchored.seconds == (len(busy_lane(200).lines) - 1) * 37 // 1000


def test_only_signatures_that_no_checkpoint_covers_are_verified_unless_all_are_wanted() -> None:
    asked: list[bytes] = []

    def counting(public: bytes, signature: bytes, message: bytes) -> bool:
        asked.append(message)
        return verify_signature(public, signature, message)

    lane = busy_lane()
    covered, sizes = chain.entry_hash(chain.split(lane.lines[5])[0]), []
    for every in (False, True):
        asked.clear()
        verify([source(lane)], PINNED, counting, codec.parse, every_signature=every)
        sizes.append(len(asked))
        assert (chain.signed_bytes(covered) in asked) is every

    # genesis, lane_open, the certificate and the checkpoint are checked always.
    tail = len(lane.lines) - int(lane.notes[-1].split("\n")[1])
    assert sizes == [tail + 4, len(lane.lines) + 2]


@pytest.mark.parametrize("number", [7, 47, 90])
@pytest.mark.parametrize("every", [False, True])
def test_a_bad_signature_is_named_with_its_place(number: int, every: bool) -> None:
    lane = busy_lane()
    raw, kid, _ = chain.split(lane.lines[number])
    lane.lines[number] = chain.line(raw, kid, bytes(64))

    found = check(Log([lane]), every_signature=every).first_failure

    reason = "the signature does not verify: the entry was changed or not signed by its key"
    assert found == at(lane, number, reason)


@pytest.mark.parametrize("every", [False, True])
def test_signatures_wait_for_a_checkpoint_or_for_enough_of_them(monkeypatch: pytest.MonkeyPatch, every: bool) -> None:
    monkeypatch.setattr(walk, "_PENDING", 16)
    monkeypatch.setattr(walk, "_BATCH", 1)
    lane = Lane("main").open(first=True)
    for size in range(3, 61):
        lane.add(decision(f"flow-{size}"))
        if size == 24:
            lane.checkpoint()
    read: list[bytes] = []
    verified: Counter[int] = Counter()

    def counting(public: bytes, signature: bytes, message: bytes) -> bool:
        verified[len(read)] += public == lane.key.verifier.public
        return verify_signature(public, signature, message)

    def lines() -> Iterator[bytes]:
        for line in lane.lines:
            read.append(line)
            yield line

    notes = [line.encode() for line in lane.notes[0].splitlines(keepends=True)]
    asked = Source("main", lambda: [("000000.jsonl", lines())], lambda: notes)
    report = Walk(asked, Rules(ROOT.verifier, counting, codec.parse, every), [], []).run()

    # lane_open, sixteen, the checkpoint with what waits when all are wanted, twice sixteen, and the rest at the end.
    assert report.broken is None
    assert +verified == {2: 1, 18: 16, 24: 7 if every else 1, 40: 16, 56: 16, 60: 4}


def test_a_stolen_lane_key_cannot_sign_genesis_or_open_a_lane_for_another() -> None:
    thief = Lane("w0")
    lane = Lane("main").open(first=True)
    log = Log([lane, Lane("w1").open(siblings=[lane])])
    opening = canonical.parse(chain.split(log.lanes[1].lines[0])[0])
    log.lanes[1].lines.clear()
    log.lanes[1].tree, log.lanes[1].head = thief.tree, chain.GENESIS_PREV
    assert isinstance(opening, dict)
    log.lanes[1].add_raw(canonical.encode(opening | {"key": str(thief.key.verifier)}), thief.key)

    assert "named" in failure(check(log))[2]


NO_TIMESTAMP = "ts is not a timestamp"
ONCE = "genesis and lane_open stand at the beginning of a lane, once"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        pytest.param("ts", "2026-13-02T03:04:05.000006Z", NO_TIMESTAMP, id="month 13"),
        pytest.param("ts", "2026-01-02T03:04:05.00006Z", NO_TIMESTAMP, id="five digits"),
        pytest.param("ts", "2026-W01-1T03:04:05.000006Z", NO_TIMESTAMP, id="week date"),
        pytest.param("ts", "2026-01-02T03:04:05.000006+00:00", NO_TIMESTAMP, id="offset for Z"),
        pytest.param("lane", "w0", "an entry of lane w0", id="lane"),
        pytest.param("lane", "a" + "é" * 40, f"an entry of lane a{'é' * 19}\ufffd", id="lane of 81 bytes"),
        pytest.param("seq", 999, "seq is 999, expected {seq}", id="seq"),
        pytest.param("seq", True, "seq is missing or not an integer", id="seq is no number"),
        pytest.param("prev", "0" * 64, "prev is not the hash of the entry before", id="prev"),
        pytest.param("v", 2, "v is 2: written by a version that this one cannot read", id="version"),
        pytest.param("v", True, "v is missing or not an integer", id="version is no number"),
        pytest.param("type", None, "type is missing or not a string", id="no type"),
        pytest.param("mono_us", "1", "mono_us is missing or not an integer", id="mono_us is text"),
        pytest.param("type", "genesis", ONCE, id="second genesis"),
        pytest.param("type", "lane_open", ONCE, id="second lane_open"),
    ],
)
@pytest.mark.parametrize("flows", [4, 60])
def test_a_signed_entry_with_a_wrong_common_field_is_found(field: str, value: Any, said: str, flows: int) -> None:
    lane = busy_lane(flows)
    before = len(lane.lines)
    lane.add(decision("f") | {field: value})
    lane.traffic(5)

    assert check(Log([lane])).first_failure == at(lane, before, said.format(seq=before))


@pytest.mark.parametrize("flows", [4, 60])
def test_an_entry_signed_by_another_key_than_the_lanes_is_found(flows: int) -> None:
    lane = busy_lane(flows)
    before = len(lane.lines)
    lane.add(decision("f"), ROOT)
    lane.traffic(5)

    reason = "signed by a key that was not certified for this entry"
    assert check(Log([lane])).first_failure == at(lane, before, reason)


@pytest.mark.parametrize("number", [0, 1])
def test_genesis_and_lane_open_are_signed_too(number: int) -> None:
    lane = Lane("main").open(first=True)
    raw, kid, signature = chain.split(lane.lines[number])
    signer = (ROOT, lane.key)[number].verifier.name
    for bad in (chain.line(raw, kid, bytes(64)), chain.line(raw, "00000000", signature)):
        lane.lines[number] = bad
        report = check(Log([lane]))

        assert report.first_failure == at(lane, number, f"the signature of {signer} does not verify")
        # A lane's key that did not sign what brings it signed nothing.
        assert [key.kid for key in report.keys] == [ROOT.verifier.kid]


def test_a_genesis_of_another_root_key_than_the_trusted_one_is_found() -> None:
    other = Key(ROOT.verifier.name, seed="another ")
    lane = Lane("main", root=other).open(first=True)

    reason = f"genesis names another root key ({other.verifier.name}, {other.verifier.kid}) than the trusted one"
    assert check(Log([lane])).first_failure == at(lane, 0, reason)


def test_a_checkpoint_beyond_the_end_tells_how_much_is_missing_where_it_is_signed() -> None:
    lane = busy_lane(8).checkpoint()
    signed = len(lane.lines)
    del lane.lines[-2:]

    report = check(Log([lane]))
    reason = f"the lane ends after {signed - 2} entries, but a checkpoint was signed at {signed} entries"
    assert report.result is Result.ROLLED_BACK
    assert report.first_failure == Failure("main", None, None, None, signed - 3, reason)

    lane.notes[-1] = sign(lane.notes[-1].partition("\n\n")[0] + "\n", lane.key.verifier.name, lane.key.verifier.public,
                          ROOT.sign)
    assert check(Log([lane])).result is Result.TAMPERED


@pytest.mark.parametrize("opened", [False, True])
def test_a_lane_begins_with_its_key(opened: bool) -> None:
    lane = Lane("main")
    if opened:
        lane.open(first=True)
        del lane.lines[1:]
        lane.tree, lane.head = Lane("main").tree, chain.entry_hash(chain.split(lane.lines[0])[0]).hex()
        lane.tree.append(leaf_hash(lane.lines[0][:-1]))
    lane.add(decision("f"))

    report = check(Log([lane]))

    assert report.first_failure == at(lane, int(opened), ONCE)
    assert report.keys == ((KeyRange(ROOT.verifier.kid, "main/0", "main/0"),) if opened else ())


def test_a_lane_without_entries_is_incomplete_and_has_the_head_that_the_first_would_name() -> None:
    report = check(Log([Lane("main")]))

    assert report.result is Result.INCOMPLETE
    assert report.first_failure == Failure("main", None, None, None, None, "the lane holds no entries")
    assert report.lanes == (LaneReport("main", 0, "0" * 64, Tree().root().hex(), live=False),)


def test_a_lane_that_is_being_written_is_said_to_be_live() -> None:
    lane = busy_lane(4)

    report = verify([replace(source(lane), live=True)], PINNED, verify_signature, codec.parse)

    assert (report.result, report.lanes[0].live) == (Result.VERIFIED, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b'"coder-1"', b'"coder\t1"', id="control character"),
        pytest.param(b'"coder-1"', b'"coder\\u002d1"', id="needless escape"),
        pytest.param(b'"coder-1"', b'"coder\xff1"', id="not UTF-8"),
        pytest.param(b":443,", b":0443,", id="leading zero"),
        pytest.param(b":443,", b":-0,", id="minus zero"),
        pytest.param(b":443,", b":443.0,", id="fraction"),
        pytest.param(b":443,", b":9007199254740993,", id="integer too great"),
        pytest.param(b":443,", b": 443,", id="white space"),
        pytest.param(b'"draws":[]', b'"draws":[,]', id="empty item"),
        pytest.param(b'"draws":[]', b'"draws":[01]', id="leading zero in a list"),
        pytest.param(b'{"agent":{"by":"proxy-auth","id":"coder-1"}', b'{"agent":{"id":"coder-1","by":"x"}', id="order"),
        pytest.param(b'"v":1,"verdict"', b'"v":1,"v":1,"verdict"', id="a key twice"),
    ],
)
@pytest.mark.parametrize("flows", [4, 80])
def test_a_signed_entry_with_another_spelling_is_found(old: bytes, new: bytes, flows: int) -> None:
    lane = busy_lane(flows)
    entry = canonical.parse(chain.split(lane.lines[2])[0])
    assert isinstance(entry, dict)
    changed = canonical.encode(
        entry | {"seq": len(lane.lines), "prev": lane.head, "agent": {"by": "proxy-auth", "id": "coder-1"}}
    )
    assert old in changed
    before = len(lane.lines)
    lane.add_raw(changed.replace(old, new, 1))
    lane.traffic(5)

    assert failure(check(Log([lane])))[:2] == ("main", before)


@pytest.mark.parametrize("flows", [4, 80])
def test_another_spelling_of_a_good_signature_is_found(flows: int) -> None:
    lane = busy_lane(flows)
    at = lane.lines[-1].rindex(b'=="}')
    other = {b"A": b"B", b"Q": b"R", b"g": b"h", b"w": b"x"}[lane.lines[-1][at - 1 : at]]
    lane.lines[-1] = lane.lines[-1][: at - 1] + other + lane.lines[-1][at:]

    assert failure(check(Log([lane])))[:2] == ("main", len(lane.lines) - 1)


def test_a_wrong_prev_is_found_where_many_lines_are_judged_at_once() -> None:
    first = busy_lane(80).checkpoint()
    before = len(first.lines)
    first.head = "ab" * 32
    first.traffic(20)
    # The hashes are right when joined, and each is wrong.
    second = busy_lane(80)
    head = second.head
    second.head = head[:-1]
    second.add(decision("f"))
    second.head = head[-1] + second.head
    second.traffic(20)

    assert failure(check(Log([first])))[:2] == ("main", before)
    assert failure(check(Log([second])))[:2] == ("main", before)


def test_checkpoints_stand_in_order_and_speak_of_their_own_lane() -> None:
    backwards = busy_lane(8).checkpoint()
    backwards.notes.reverse()
    assert failure(check(Log([backwards]))) == (
        "main", None, "checkpoints.note: the sizes of the checkpoints decrease")

    main = busy_lane(8)
    body = checkpoint_body(lane_name(main.log_id, "w0"), main.tree.size, main.tree.root())
    main.notes.append(sign(body, main.key.verifier.name, main.key.verifier.public, main.key.sign))
    assert "a checkpoint of" in failure(check(Log([main])))[2]

    empty = busy_lane(8)
    empty.notes.insert(0, Lane("main").checkpoint().notes[0])
    assert "no entries" in failure(check(Log([empty])))[2]


def test_a_name_that_no_lane_can_have_is_found() -> None:
    log = two_lanes()

    assert failure(check(Log([log.lanes[0], Lane("W0").open()])))[0] == "W0"


def test_a_trust_file_that_names_another_root_is_found() -> None:
    other = Key(ROOT.verifier.name, seed="another ").verifier

    assert check(two_lanes(), Anchors(ROOT.verifier, TrustFile("00112233445566ff", other))).result is Result.TAMPERED


def test_later_types_of_this_version_are_accepted_and_counted() -> None:
    lane = busy_lane(4)
    lane.add({"type": "heartbeat", "new": ["ü", {"deep": None}]})

    report = check(Log([lane.checkpoint()]))

    assert (report.result, report.entries) == (Result.VERIFIED, len(lane.lines))


def test_an_unfinished_last_line_is_told_and_no_fault() -> None:
    lane = busy_lane(4).checkpoint()
    lane.tail = b'{"e":{"agent"'

    report = check(Log([lane]))

    assert (report.result, report.torn_bytes) == (Result.VERIFIED, 13)
    assert report.lanes[0].entries == len(lane.lines)


@settings(max_examples=scaled(60))
@given(st.data())
def test_cut_at_any_byte_it_is_verified_or_rolled_back_or_incomplete(data: st.DataObject) -> None:
    lane = busy_lane(6)
    whole = b"".join(lane.lines)
    cut = data.draw(st.integers(0, len(whole) - 1))
    *lines, lane.tail = whole[:cut].splitlines(keepends=True) or [b""]
    if lane.tail.endswith(b"\n"):
        lines, lane.tail = [*lines, lane.tail], b""
    lane.lines = lines
    signed = int(lane.notes[0].split("\n")[1])

    expected = Result.VERIFIED if len(lines) >= signed else Result.ROLLED_BACK
    assert check(Log([lane])).result is expected
    lane.notes.clear()
    assert check(Log([lane])).result is (Result.VERIFIED if lines else Result.INCOMPLETE)


def segmented(segments: list[tuple[str, list[bytes]]], lane: Lane) -> Report:
    notes = [line.encode() for line in "".join(lane.notes).splitlines(keepends=True)]
    return verify([Source("main", lambda: segments, lambda: notes)], PINNED, verify_signature, codec.parse)


def test_segments_continue_each_other_and_none_may_be_missing() -> None:
    lane = three_segments().lanes[0]
    named = lane.segments()
    parts = [lines for _, lines in named]

    def result(segments: list[tuple[str, list[bytes]]]) -> Result:
        return segmented(segments, lane).result

    assert result(named) is Result.VERIFIED
    assert result([named[0], named[2]]) is Result.TAMPERED
    assert result(named[1:]) is Result.TAMPERED
    assert result([named[0], ("000001.jsonl", parts[2])]) is Result.TAMPERED
    assert result([named[0], ("000002.jsonl", parts[1]), ("000003.jsonl", parts[2])]) is Result.TAMPERED
    assert result([("000000.jsonl", [*parts[0], b"rubbish"]), *named[1:]]) is Result.TAMPERED
    assert result([named[0], ("000001.jsonl", [*parts[1][:-1], parts[1][-1][:-1]]), named[2]]) is Result.TAMPERED
    assert result([named[0], ("000001.jsonl", [*parts[1], *parts[2]])]) is Result.TAMPERED
    empty = ("000001.jsonl", [])
    assert result([named[0], empty, ("000002.jsonl", parts[1]), ("000003.jsonl", parts[2])]) is Result.TAMPERED


def test_the_last_segment_may_be_empty_or_begin_with_an_unfinished_line() -> None:
    lane = three_segments().lanes[0]

    for lines in ([], [b'{"e":{"agent"']):
        report = segmented([*lane.segments(), ("000003.jsonl", lines)], lane)
        assert (report.result, report.segments) == (Result.VERIFIED, 4)

    torn = [*lane.segments()[:2], ("000002.jsonl", [lane.lines[-1][:-1]]), ("000003.jsonl", [])]
    assert segmented(torn, lane).result is Result.TAMPERED


def test_where_a_segment_begins_wrongly_is_told() -> None:
    lane = busy_lane(20).rotate().traffic(40)
    for at in (5, 30):
        moved = busy_lane(20).rotate().traffic(40)
        moved.starts[1] = at
        _, seq, reason = failure(check(Log([moved])))
        assert seq == min(at, lane.starts[1])
        assert "segment_open stands at the beginning" in reason


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_is_wrong_is_told_with_its_segment(lost: int) -> None:
    lane = busy_lane(40).rotate().traffic(40).rotate().traffic(40)
    named = lane.segments()
    parts, start = [lines for _, lines in named], lane.starts[lost]

    def found(segments: list[tuple[str, list[bytes]]]) -> Failure | None:
        read = Source("main", lambda: segments, list)
        return verify([read], PINNED, verify_signature, codec.parse).first_failure

    reason = f"expected segment {lost:06d}.jsonl here: one is missing"
    name = f"{lost + 1:06d}.jsonl"
    assert found([*named[:lost], (name, parts[2])]) == Failure("main", name, None, None, start, reason)

    lines = [*parts[lost], b"rubbish"]
    broken = [*named[:lost], (named[lost][0], lines), (name, parts[0]), ("more.jsonl", parts[0])]
    place = (named[lost][0], len(lines), sum(map(len, lines[:-1])), start + len(lines) - 1)
    assert found(broken) == Failure("main", *place, "a line without its line feed, and more after it")


def test_every_flipped_byte_of_a_small_log_is_found() -> None:
    log = Log([Lane("main").open(first=True)])
    lane = log.lanes[0]
    lane.checkpoint().add({"type": "close", "reason": "stopped"})
    log.raise_minimum()
    segment, notes, minimum = b"".join(lane.lines), "".join(lane.notes).encode(), log.minimum or b""

    def missed(data: bytes, change: Callable[[bytes], Report], *, upto: int) -> list[int]:
        flipped = (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(upto))
        return [at for at, changed in enumerate(flipped) if change(changed).result is Result.VERIFIED]

    # A final line feed that is gone is what a crash leaves: the last entry is then not counted, and was never acted on.
    assert missed(segment, lambda data: check_bytes(data, notes, minimum), upto=len(segment) - 1) == []
    assert missed(notes, lambda data: check_bytes(segment, data, minimum), upto=len(notes) - 1) == []
    assert missed(minimum, lambda data: check_bytes(segment, notes, data), upto=len(minimum) - 1) == []


def check_bytes(segment: bytes, notes: bytes, minimum: bytes) -> Report:
    def lines(data: bytes) -> list[bytes]:
        *whole, rest = data.split(b"\n")
        return [line + b"\n" for line in whole] + ([rest] if rest else [])

    try:
        anchors = Anchors(ROOT.verifier, minimum=parse_minimum_file(minimum))
    except TrustError as error:
        anchors = Anchors(ROOT.verifier, damage=(str(error),))
    found = Source("main", lambda: [("000000.jsonl", lines(segment))], lambda: lines(notes))
    return verify([found], anchors, verify_signature, codec.parse)


@settings(max_examples=scaled(30))
@given(st.data())
def test_many_lines_at_once_are_judged_as_one_by_one(data: st.DataObject) -> None:
    lane = LONG
    lines = list(lane.lines)
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(st.sampled_from(CHANGES))(lines, at, data)
    notes = "".join(lane.notes).encode().splitlines(keepends=True)

    def report() -> Report:
        sources = [Source("main", lambda: [("000000.jsonl", lines)], lambda: notes)]
        return verify(sources, PINNED, verify_signature, codec.parse)

    with pytest.MonkeyPatch.context() as patch:
        quick = report()
        patch.setattr(walk.Walk, "_take_at_once", lambda self, lines: False)
        slow = report()

    assert quick == slow


def test_the_quick_way_is_the_one_taken() -> None:
    parsed = []

    def counting(raw: bytes) -> canonical.Value:
        parsed.append(raw)
        return codec.parse(raw)

    assert verify([source(LONG)], PINNED, verify_signature, counting).result is Result.VERIFIED
    assert len(parsed) < 60


LONG = Lane("main").open(first=True).traffic(150).checkpoint().traffic(100).checkpoint().traffic(20)
CHANGES: list[Callable[[list[bytes], int, st.DataObject], bytes]] = [
    lambda lines, at, data: lines[at],
    lambda lines, at, data: _flip(lines[at], data.draw(st.integers(0, 2000)), data.draw(st.integers(1, 255))),
    lambda lines, at, data: lines[data.draw(st.integers(0, len(lines) - 1))],
    lambda lines, at, data: lines[at][:-1],
    lambda lines, at, data: lines[at].replace(b'"v":1', b'"v":01'),
    lambda lines, at, data: lines[at].replace(b":", b": ", 1),
    lambda lines, at, data: lines[at].replace(b'"in":', b'"i\\u006e":'),
    lambda lines, at, data: lines[at].replace(b"request", b"r\xc3\xa9quest"),
]


def _flip(line: bytes, at: int, mask: int) -> bytes:
    at %= len(line)
    return line[:at] + bytes([line[at] ^ mask]) + line[at + 1 :]


def test_a_lane_that_two_others_saw_is_held_to_both() -> None:
    main = Lane("main").open(first=True).traffic(2)
    first = Lane("w0").open(siblings=[main])
    main.traffic(2)
    second = Lane("w1").open(siblings=[main, first])
    log = Log([main, first, second])
    assert check(log).result is Result.VERIFIED

    del main.lines[-1]

    assert check(log).result is Result.ROLLED_BACK
    assert check(Log([first, second])).result is Result.INCOMPLETE


def test_a_trusted_key_of_another_name_is_refused() -> None:
    assert check(two_lanes(), Anchors(Key("governor/00112233445566ff/main").verifier)).result is Result.TAMPERED

"""`governor audit receipt`, `prove` and `sample`, on logs of several lanes, segments and keys, and on what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from addons import audit_log
from kernel import entry
from kernel.evidence import head_of
from kernel.sampling import LaneHead
from tests.addons.audit_command import governor, status
from tests.addons.logs import decision, minimum, open_lane, segments
from tests.kernel.test_receipt import read_by_somebody_else
from tests.kernel.test_sampling import described
from tests.logs import LOG_ID, ROOT, Key, Lane, Log, three_segments, two_lanes
from tests.proofs import cosigned, renewed
from tests.vectors import make_vectors

PROOFS = make_vectors.PROOFS
TRUST = ("--trust", str(ROOT.verifier))
THIEF = Key(ROOT.verifier.name, "a thief's ")


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOVERNOR_HOME", raising=False)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A log of two lanes; lane w0 has an entry that no checkpoint covers."""
    return two_lanes().write(tmp_path / "kept")


def told(*arguments: object) -> dict[str, Any]:
    return dict(json.loads(governor(*arguments, "--json").stdout))


@pytest.mark.parametrize("make", [two_lanes, three_segments, renewed])
def test_every_covered_entry_has_a_receipt_that_holds_without_the_log(make, tmp_path) -> None:
    log = make()
    home, file = log.write(tmp_path / "log"), tmp_path / "one.tlog-proof"
    for lane in log.lanes:
        for seq in range(head_of(lane.notes[-1]).size):
            assert status(governor("receipt", f"{lane.name}/{seq}", home, *TRUST, "--output", file)) == 0
            assert status(governor("receipt", "--check", file, *TRUST)) == 0
            assert read_by_somebody_else(file.read_text(), str(ROOT.verifier)) == f"{lane.name}/{seq}"


def test_a_receipt_is_under_the_smallest_checkpoint_that_covers_the_entry(kept) -> None:
    sizes = [head_of(note).size for note in two_lanes().lanes[0].notes]

    assert sizes == [3, 15]
    assert [told("receipt", f"main/{seq}", kept)["size"] for seq in (0, 2, 3, 14)] == [3, 3, 15, 15]


def test_an_entry_that_no_checkpoint_covers_must_wait_and_one_that_is_not_there_is_a_wrong_question(kept) -> None:
    waits = governor("receipt", "w0/5", kept)

    assert status(waits) == 4
    assert "no checkpoint covers w0/5 yet" in waits.stderr
    for absent in ("w0/7", "main/15", "w1/0", "main", "main/-1", "main/01", "Main/1", "../main/1"):
        assert status(governor("receipt", absent, kept)) == 2
    assert status(governor("receipt", "main/1", kept / "absent")) == 2


def test_words_json_and_file_say_the_same(kept, tmp_path) -> None:
    file = tmp_path / "one.tlog-proof"

    printed = governor("receipt", "main/4", kept, *TRUST)
    as_json = told("receipt", "main/4", kept, *TRUST, "--output", file)

    assert printed.stdout == as_json["receipt"] == file.read_text()
    assert (as_json["result"], as_json["entry"], as_json["type"], as_json["file"]) == (
        "verified", "main/4", "outcome", str(file))


def test_without_a_pin_it_is_made_and_qualified_and_a_pin_of_this_user_is_enough(kept, own_pins, tmp_path) -> None:
    file = tmp_path / "one.tlog-proof"

    assert status(governor("receipt", "main/4", kept, "--output", file)) == 3
    assert status(governor("receipt", "--check", file)) == 3
    pin = own_pins / "governor" / "pins" / LOG_ID
    pin.parent.mkdir(parents=True)
    pin.write_text(f"{ROOT.verifier}\n{kept}\n")
    assert status(governor("receipt", "main/4", kept, "--output", file)) == 0
    assert status(governor("receipt", "--check", file)) == 0
    assert told("receipt", "--check", file)["line"].startswith('{"bytes_down":')
    pin.write_text(f"{THIEF.verifier}\n{kept}\n")
    assert status(governor("receipt", "--check", file)) == 1
    assert status(governor("receipt", "main/4", kept)) == 1


@pytest.mark.parametrize("change", [
    lambda data: data.replace(b"index 4", b"index 5"), lambda data: data[:-40], lambda data: b"", lambda data: b"\xff",
    lambda data: data.replace(b"tlog-proof@v1", b"tlog-proof@v9"), lambda data: b"{}", lambda data: data * 2,
])
def test_a_receipt_that_does_not_hold_is_told_as_tampered(change, kept, tmp_path) -> None:
    file = tmp_path / "one.tlog-proof"
    governor("receipt", "main/4", kept, "--output", file)
    file.write_bytes(change(file.read_bytes()))

    result = governor("receipt", "--check", file, *TRUST)

    assert status(result) == 1
    assert result.stdout.startswith("tampered: ")
    assert told("receipt", "--check", file, *TRUST)["result"] == "tampered"


def test_nothing_in_a_receipt_moves_a_cursor(tmp_path) -> None:
    lane = Lane("w0", root=THIEF, seed="a thief's ").open()
    lane.add({"type": "\x1b[2J", "what": "\u202e"})
    home, file = Log([lane.checkpoint()], trust=None).write(tmp_path / "log"), tmp_path / "one"

    made = governor("receipt", "w0/1", home, "--output", file)
    checked = governor("receipt", "--check", file)

    assert (status(made), status(checked)) == (3, 3)
    assert not {"\x1b", "\u202e"} & set(checked.stdout + made.stdout)


@pytest.mark.parametrize("arguments", [
    ("receipt",), ("receipt", "main/1", "--check", "FILE"), ("receipt", "--check", "FILE", "--output", "OTHER"),
    ("receipt", "--check", "ABSENT"), ("receipt", "--check", "FILE", "--trust", "nonsense"), ("prove",),
    ("prove", "--from", "3", "--check", "FILE"), ("prove", "--check", "ABSENT"), ("prove", "--from", "4"),
    ("prove", "--from", "15", "--to", "3"), ("prove", "--from", "3", "--to", "99"), ("prove", "--from", "ABSENT"),
    ("prove", "--from", "FILE"), ("prove", "--from", "3", "--lane", "w9"), ("sample",),
    ("sample", "--seed", "x", "--n", "0"), ("sample", "--seed", "\udcff"),
])
def test_a_wrong_question_is_told_so(arguments, kept, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GOVERNOR_HOME", str(kept))
    (tmp_path / "FILE").write_text("no proof\n")
    monkeypatch.chdir(tmp_path)

    assert status(governor(*arguments)) == 2


def test_a_home_that_is_being_written_with_several_keys_proves_its_entries(home, tmp_path) -> None:
    anchored = tmp_path / "anchored"
    lane = open_lane(home, vault=False)
    for _ in range(3):
        for _ in range(5):
            lane.write_now("decision", decision("f"))
        lane.rotate("operator")
    seq = lane.write_now("decision", decision("f"))
    anchored.write_text(minimum(home).notes["main"])
    lane.close("done")
    where = (home.paths.folder, "--trust", home.paths.trust)

    answers = [told("receipt", f"main/{each}", *where) for each in (0, 1, 4, 12, seq)]
    grown = told("prove", "--from", anchored, *where)

    assert len(segments(home)) == 4
    assert {answer["result"] for answer in (*answers, grown)} == {"verified"}
    assert len({answer["kid"] for answer in answers}) == 4
    assert grown["from"]["size"] < grown["to"]["size"]


def test_any_two_checkpoints_are_proved_and_the_proof_holds_without_the_log(tmp_path) -> None:
    log, file = renewed(), tmp_path / "growth"
    home, sizes = log.write(tmp_path / "log"), [head_of(note).size for note in log.lanes[0].notes]
    for old in sizes:
        for new in (size for size in sizes if size >= old):
            made = told("prove", "--from", old, "--to", new, home, *TRUST, "--output", file)
            checked = told("prove", "--check", file, *TRUST)

            assert made["result"] == checked["result"] == "verified"
            assert (checked["from"]["size"], checked["to"]["size"]) == (old, new)
            assert made["proof"] == file.read_text()


def test_without_an_end_the_newest_checkpoint_is_it_and_every_lane_has_its_own(kept) -> None:
    assert told("prove", "--from", 3, kept)["to"]["size"] == 15
    assert told("prove", "--from", 5, kept, "--lane", "w0")["to"]["size"] == 5


def test_a_kept_checkpoint_is_proved_to_be_the_beginning_of_todays_log(tmp_path) -> None:
    log, anchored = renewed(), tmp_path / "anchored"
    other = two_lanes().lanes[1]
    first, second, _ = log.lanes[0].notes
    home = log.write(tmp_path / "log")
    anchored.write_text(other.notes[0] + first + cosigned(second, Key("w.example.org")) + first[:30])

    proved = told("prove", "--from", anchored, home, *TRUST)

    assert (proved["result"], proved["from"]["size"]) == ("verified", head_of(second).size)
    assert "w.example.org" in proved["proof"]
    assert status(governor("prove", "--from", anchored, home, "--lane", "w0")) == 2


def test_a_log_written_anew_does_not_grow_from_what_was_kept_of_it(tmp_path) -> None:
    log = two_lanes()
    anchored = tmp_path / "anchored"
    anchored.write_text(log.lanes[0].notes[0])
    fork = Lane("main").open(first=True)
    fork.add(entry.fault("request", "ValueError", "FAULT", None))
    home = Log([fork.traffic(3).checkpoint()]).write(tmp_path / "log")

    result = governor("prove", "--from", anchored, home, *TRUST)

    assert status(result) == 1
    assert f"the checkpoint of {anchored} at 3 entries was signed over other entries" in result.stderr


def test_a_log_that_was_cut_back_is_told_so(tmp_path) -> None:
    log = two_lanes()
    anchored = tmp_path / "anchored"
    anchored.write_text(log.lanes[0].notes[-1])
    del log.lanes[0].lines[8:]
    short = log.write(tmp_path / "short")
    log.lanes[0].notes = log.lanes[0].notes[:1]
    shorter = log.write(tmp_path / "shorter")

    assert status(governor("receipt", "main/4", short)) == 5
    assert status(governor("prove", "--from", 3, short)) == 5
    assert status(governor("prove", "--from", anchored, shorter)) == 5
    assert status(governor("prove", "--from", 3, "--to", anchored, shorter)) == 5
    assert status(governor("sample", "--seed", "x", short)) == 5
    assert status(governor("receipt", "main/2", shorter, *TRUST)) == 0


def test_an_unfinished_line_proves_nothing_and_spoils_nothing(tmp_path) -> None:
    log = two_lanes()
    log.lanes[0].tail = log.lanes[0].lines.pop()[:-1]
    torn = log.write(tmp_path / "torn")

    assert status(governor("receipt", "main/14", torn)) == 5
    assert status(governor("receipt", "main/1", torn, *TRUST)) == 0
    log.lanes[0].notes.pop()
    again = log.write(tmp_path / "again")
    assert status(governor("receipt", "main/13", again)) == 4
    assert status(governor("receipt", "main/14", again)) == 2


@pytest.mark.parametrize("name", sorted(
    name for name, answer in json.loads((make_vectors.FOLDER / "expected.json").read_text()).items()
    if answer["exit"] != 0))
def test_no_damaged_log_crashes_a_verb_or_gives_a_proof_of_what_is_not_so(name, tmp_path) -> None:
    home = make_vectors.FOLDER / name
    for seq in (0, 5, 10):
        made = governor("receipt", f"main/{seq}", home, *TRUST)

        assert status(made) in (0, 1, 2, 4, 5)
        if status(made) == 0:
            assert read_by_somebody_else(made.stdout, str(ROOT.verifier)) == f"main/{seq}"
    assert status(governor("prove", "--from", 3, home, *TRUST)) in (0, 1, 2, 4, 5)
    assert status(governor("sample", "--seed", "x", home, *TRUST)) in (0, 1, 4, 5)


@pytest.mark.parametrize("notes", [
    "\0\n\n\n— y AAAA\n", "x\n\n— y AAAA\n", "governor/a/b\n0\n\n— y AAAA\n", "\xe9\n" * 90, "\udcff\n\n— y AAAA\n",
])
def test_what_stands_in_checkpoints_cannot_crash_a_verb(notes, kept) -> None:
    path = kept / "audit" / "lanes" / "main" / "checkpoints.note"
    path.write_text(notes, errors="surrogateescape")

    assert status(governor("receipt", "main/1", kept)) == 1
    assert status(governor("prove", "--from", "1", kept)) == 1
    assert status(governor("sample", "--seed", "x", kept)) == 1


def test_a_changed_line_spoils_every_proof_of_its_lane_and_no_other(tmp_path) -> None:
    log = two_lanes()
    make_vectors.edited(log)
    home = log.write(tmp_path / "log")

    refused = governor("receipt", "main/4", home, *TRUST)
    assert status(refused) == 1
    assert "was signed over other entries than the log holds now" in refused.stderr
    assert status(governor("receipt", "w0/1", home, *TRUST)) == 0


def test_the_same_seed_and_heads_draw_the_same_entries_as_the_description_does(kept) -> None:
    log = two_lanes()
    heads = [head_in_draw(lane) for lane in log.lanes]

    one = told("sample", "--seed", "2026-11", "--n", 7, kept, *TRUST)
    again = told("sample", "--seed", "2026-11", "--n", 7, kept, *TRUST)
    other = told("sample", "--seed", "2026-12", "--n", 7, kept, *TRUST)

    assert one == again != other
    assert [each["entry"] for each in one["entries"]] == [
        f"{lane}/{seq}" for lane, seq in described("2026-11", heads, 7)]
    assert one["heads"] == [{"lane": head.lane, "size": head.size, "root": head.root.hex()} for head in heads]


def head_in_draw(lane: Lane) -> LaneHead:
    head = head_of(lane.notes[-1])
    return LaneHead(lane.name, head.size, head.root)


def test_each_entry_that_is_drawn_comes_with_a_receipt_that_holds_without_the_log(kept, tmp_path) -> None:
    folder = tmp_path / "draw" / "receipts"

    drawn = told("sample", "--seed", "s", "--n", 1000, kept, *TRUST, "--output", folder)

    assert {each["entry"] for each in drawn["entries"]} == {
        *(f"main/{seq}" for seq in range(15)), *(f"w0/{seq}" for seq in range(5))}
    for each in drawn["entries"]:
        assert Path(each["file"]).read_text() == each["receipt"]
        assert read_by_somebody_else(each["receipt"], str(ROOT.verifier)) == each["entry"]
    assert len(list(folder.iterdir())) == 20


def test_lanes_without_a_checkpoint_are_named_and_a_log_without_any_is_incomplete(tmp_path) -> None:
    log = two_lanes()
    log.lanes[1].notes = []
    some = log.write(tmp_path / "some")
    log.lanes[0].notes = []
    none = log.write(tmp_path / "none")

    assert told("sample", "--seed", "s", some)["without_checkpoint"] == ["w0"]
    assert "lane w0: no checkpoint yet" in governor("sample", "--seed", "s", some).stdout
    assert status(governor("sample", "--seed", "s", none)) == 4
    assert status(governor("prove", "--from", 3, none)) == 2


def test_a_draw_reads_each_lane_once(kept, monkeypatch) -> None:
    read: list[str] = []
    opened = audit_log.open_regular
    monkeypatch.setattr(audit_log, "open_regular",
                        lambda path, *rest: read.append(f"{path.parent.name}/{path.name}") or opened(path, *rest))

    governor("sample", "--seed", "s", "--n", 20, kept, "--trust", kept / "audit" / "trust.json")

    assert [read.count(f"{lane}/checkpoints.note") for lane in ("main", "w0")] == [1, 1]
    # Once to see which root the log names, which is two lines, and once to prove.
    assert [read.count(f"{lane}/000000.jsonl") for lane in ("main", "w0")] == [1, 1]


def test_the_proofs_in_the_repository_are_those_the_script_makes_and_hold(tmp_path) -> None:
    make_vectors.make_proofs(tmp_path / "proofs")
    made = {path.name: path.read_bytes() for path in (tmp_path / "proofs").iterdir()}

    assert made == {path.name: path.read_bytes() for path in PROOFS.iterdir()}
    for file in PROOFS.glob("*.tlog-proof"):
        assert status(governor("receipt", "--check", file, "--trust", PROOFS / "root.key")) == 0
        assert read_by_somebody_else(file.read_text(), (PROOFS / "root.key").read_text())
    for file in PROOFS.glob("*.consistency"):
        assert status(governor("prove", "--check", file, "--trust", PROOFS / "root.key")) == 0

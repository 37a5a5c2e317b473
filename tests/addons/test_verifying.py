"""A log verified in parts, on several cores, or for a period: the same answer as in one piece."""

from __future__ import annotations

import base64
import json
import random
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from addons import lane as lane_module
from addons import verifying
from addons.anchors import kept_heads
from addons.anchors.kept_heads import Keeper, keeper
from addons.audit_log import AuditLog
from addons.home import Home
from addons.snapshots import Snapshots
from addons.verifying import Elsewhere, verify_log
from kernel.entry import timestamp
from kernel.manifest import Period
from kernel.note import VerifierKey, split_notes
from kernel.report import Report, Result
from tests.addons.logs import decision, entries, open_lane, outcome, segments
from tests.conftest import scaled
from tests.logs import ROOT, Lane, Log
from tests.vectors import make_vectors


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "SEGMENT_BYTES", 4096)
    monkeypatch.setattr(verifying, "_BYTES_A_JOB", 1)


@pytest.fixture
def written(home: Home) -> Home:
    """A log of two lanes, each of several segments."""
    for name in ("main", "w0"):
        lane = open_lane(home, name, vault=False)
        while len(segments(home, name)) < 6:
            number = lane.write_now("decision", decision("f"))
            lane.write_now("outcome", outcome("f", number, name))
        Snapshots(home.paths, lane, lane.states).finish()
        lane.close("done")
    return home


def verified(folder: Path, trusted: VerifierKey, jobs: int, **asked: object) -> Report:
    return verify_log(AuditLog.at(folder), trusted, jobs=jobs, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("every", [False, True])
def test_parts_say_of_a_whole_log_what_one_piece_says(written, every):
    in_parts = verified(written.paths.folder, written.root, 2, every_signature=every)

    assert in_parts == verified(written.paths.folder, written.root, 1, every_signature=every)
    assert in_parts.result is Result.VERIFIED
    assert (in_parts.segments, in_parts.entries) == (12, len(entries(written)) + len(entries(written, "w0")))


def test_parts_are_really_walked_by_themselves(written, monkeypatch):
    cut = []
    real = verifying._run
    monkeypatch.setattr(verifying, "_run", lambda *asked: cut.append(len(asked[2])) or real(*asked))
    report = verified(written.paths.folder, written.root, 2)

    assert cut[0] > 6
    assert report.result is Result.VERIFIED


@pytest.mark.parametrize("vector", sorted(path.name for path in make_vectors.FOLDER.iterdir() if path.is_dir()))
def test_parts_say_of_every_vector_what_one_piece_says(vector):
    folder = make_vectors.FOLDER / vector

    assert verified(folder, ROOT.verifier, 2) == verified(folder, ROOT.verifier, 1)


@pytest.mark.parametrize("seed", range(scaled(12)))
def test_parts_say_of_a_damaged_log_what_one_piece_says(written, tmp_path, seed):
    damage = random.Random(seed)
    folder = tmp_path / "damaged"
    shutil.copytree(written.paths.folder, folder)
    path = damage.choice(sorted((folder / "audit" / "lanes").glob("*/*.*")))
    content = path.read_bytes()
    at = damage.randrange(len(content))
    change = damage.randrange(4)
    if change == 0:
        path.write_bytes(content[:at] + bytes([content[at] ^ damage.randrange(1, 256)]) + content[at + 1 :])
    elif change == 1:
        path.write_bytes(content[:at])
    elif change == 2:
        path.unlink()
    else:
        path.write_bytes(content + content[content.rfind(b"\n", 0, -1) + 1 :])

    assert verified(folder, written.root, 2) == verified(folder, written.root, 1)


@pytest.mark.parametrize("number", range(1, 5))
def test_what_stands_behind_the_last_line_of_a_segment_in_the_middle_is_found_in_parts_too(written, number):
    with segments(written)[number].open("ab") as file:
        file.write(b'{"e":')
    in_parts = verified(written.paths.folder, written.root, 2)

    assert in_parts.result is Result.TAMPERED
    assert in_parts == verified(written.paths.folder, written.root, 1)


def test_a_period_takes_the_segments_that_hold_it_and_says_what_they_cover(written):
    begins = [json.loads(path.read_text().split("\n")[0])["e"] for path in segments(written)]
    since = timestamp(datetime.fromisoformat(begins[2]["ts"]) + timedelta(microseconds=1))

    for jobs in (1, 2):
        report = verified(written.paths.folder, written.root, jobs, period=Period(since, begins[4]["ts"]))
        main = report.lanes[0]
        assert report.result is Result.VERIFIED
        assert (main.first, main.entries) == (begins[2]["seq"], begins[4]["seq"] - begins[2]["seq"])
        assert report.covered is not None
        assert report.covered[0] == begins[2]["ts"]


def test_damage_outside_of_a_period_is_not_its_matter_and_inside_it_is(written):
    begins = [json.loads(path.read_text().split("\n")[0])["e"]["ts"] for path in segments(written)]
    period = Period(begins[3], begins[4])
    for number, result in ((1, Result.VERIFIED), (3, Result.TAMPERED)):
        path = segments(written)[number]
        path.write_bytes(path.read_bytes().replace(b'"completed"', b'"cOmpleted"', 1))

        assert verified(written.paths.folder, written.root, 2, period=period).result is result


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("change", ["ts", "seq"])
def test_nobody_shortens_a_period_by_what_a_segment_says_of_itself(written, jobs, change):
    begins = [json.loads(path.read_text().split("\n")[0])["e"] for path in segments(written)]
    path, begin = segments(written)[3], begins[3]
    said = {"ts": (f'"ts":"{begin["ts"]}"', '"ts":"2999-01-01T00:00:00.000000Z"'),
            "seq": (f'"seq":{begin["seq"]},', f'"seq":{begin["seq"]},"x":1,')}[change]
    path.write_bytes(path.read_bytes().replace(*(each.encode() for each in said), 1))
    until = "2998-01-01T00:00:00.000000Z" if change == "ts" else begin["ts"]

    report = verified(written.paths.folder, written.root, jobs, period=Period(begins[1]["ts"], until))
    assert report.result is Result.TAMPERED
    assert report.first_failure is not None
    assert report.first_failure.segment == path.name


def test_a_period_that_begins_with_another_key_needs_the_keys_before(written):
    path = segments(written)[1]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(b'"proof":"', b'"proof":"AA', 1)
    path.write_bytes(b"".join(lines))
    begins = [json.loads(each.read_text().split("\n")[0])["e"]["ts"] for each in segments(written)]

    assert verified(written.paths.folder, written.root, 2, period=Period(begins[3])).result is Result.TAMPERED


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_head_that_was_kept_elsewhere_holds_the_log_to_it(written, jobs):
    notes = (written.paths.lane("main") / "checkpoints.note").read_text().split("\n\n")
    first, signature = notes[0], notes[1].split("\n")[0]
    held = Elsewhere([heads_of([f"{first}\n\n{signature}\n"])])
    size = int(first.split("\n")[1])
    report = verified(written.paths.folder, written.root, jobs, elsewhere=held)

    assert report.result is Result.VERIFIED
    assert [(each.lane, each.entries, each.by) for each in report.anchored] == [("main", size, ("a file",))]
    assert report.unanchored.entries == report.entries - size


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_log_cut_back_below_a_head_that_was_kept_elsewhere_is_rolled_back(written, jobs):
    note = (written.paths.lane("main") / "checkpoints.note").read_text()
    newest = note[note.rindex(f"governor/{written.log_id}/main\n", 0, note.rindex("\u2014")):]
    held = Elsewhere([heads_of([newest])])
    for path in segments(written)[3:]:
        path.unlink()
    (written.paths.lane("main") / "checkpoints.note").write_text("")
    written.paths.minimum.unlink()
    report = verified(written.paths.folder, written.root, jobs, elsewhere=held)

    assert report.result is Result.ROLLED_BACK
    assert report.first_failure is not None
    assert "a file knows of" in report.first_failure.reason


def test_of_a_file_with_heads_of_many_logs_those_of_this_one_count(written, tmp_path):
    own = (written.paths.lane("main") / "checkpoints.note").read_text()
    others = (make_vectors.FOLDER / "valid" / "audit" / "lanes" / "main" / "checkpoints.note").read_text()
    (tmp_path / "heads").write_text(others + own)
    report = verified(written.paths.folder, written.root, 1, elsewhere=Elsewhere([keeper(str(tmp_path / "heads"))]))

    assert report.result is Result.VERIFIED
    assert [(each.lane, each.entries) for each in report.anchored] == [("main", len(entries(written)))]


def test_who_is_asked_for_heads_and_has_none_of_this_log_leaves_it_incomplete(written, tmp_path):
    others = make_vectors.FOLDER / "valid" / "audit" / "lanes" / "main" / "checkpoints.note"
    report = verified(written.paths.folder, written.root, 1, elsewhere=Elsewhere([keeper(str(others))]))

    assert report.result is Result.INCOMPLETE
    assert report.first_failure is not None
    assert "holds no head of this log" in report.first_failure.reason


def test_a_lane_that_is_gone_is_missed_by_who_keeps_its_heads(written, tmp_path):
    heads = tmp_path / "heads"
    heads.write_text((written.paths.lane("w0") / "checkpoints.note").read_text())
    shutil.rmtree(written.paths.lane("w0"))
    written.paths.minimum.unlink()
    report = verified(written.paths.folder, written.root, 1, elsewhere=Elsewhere([keeper(str(heads))]))

    assert report.result is Result.INCOMPLETE
    assert report.first_failure is not None
    assert report.first_failure.lane == "w0"


def test_no_number_of_newer_heads_hides_one_that_the_log_does_not_have(written, monkeypatch):
    monkeypatch.setattr(kept_heads, "MOST_NOTES", 2)
    content = (written.paths.lane("main") / "checkpoints.note").read_bytes().splitlines(keepends=True)
    notes = [each.text for each in split_notes(content)]
    size, root = notes[0].split("\n")[1:3]
    forked = notes[0].replace(root, base64.b64encode(bytes(32)).decode())

    for jobs in (1, 2):
        whole, flooded = (verified(written.paths.folder, written.root, jobs, elsewhere=Elsewhere([heads_of(heads)]))
                          for heads in (notes * 9, [forked, *notes * 9]))
        assert whole.result is Result.VERIFIED
        assert flooded.first_failure is not None
        assert (flooded.result, flooded.first_failure.seq) == (Result.TAMPERED, int(size) - 1)


def heads_of(notes: list[str]) -> Keeper:
    return Keeper("a file", lambda origin: kept_heads._of_log("a file", notes, origin))


def _leased(*numbers: tuple[int, ...]) -> Log:
    """A log of two lanes, each of as many segments as it has leases."""
    lanes: list[Lane] = []
    for name, mine in zip(("main", "w0"), numbers, strict=True):
        lane = Lane(name).open(first=not lanes, siblings=lanes)
        for number in mine:
            lane.traffic(5).lease(number).traffic(5).renew()
        lanes.append(lane.checkpoint())
    return Log(lanes).raise_minimum()


@pytest.mark.parametrize(("numbers", "result", "lane"), [
    pytest.param(((1, 4, 2, 7), (3, 5, 6)), Result.VERIFIED, None, id="each once"),
    pytest.param(((1, 4, 2), (3, 5, 4)), Result.TAMPERED, "w0", id="one in both lanes"),
    pytest.param(((1, 4, 2, 4), (3, 5)), Result.TAMPERED, "main", id="one twice in a lane, in two of its segments"),
    pytest.param(((1, 4, 7), (3, 5, 2)), Result.INCOMPLETE, None, id="one in none"),
])
def test_leases_are_counted_over_all_parts_of_all_lanes(tmp_path, numbers, result, lane):
    home = _leased(*numbers).write(tmp_path / "home")
    in_parts = verified(home, ROOT.verifier, 2)

    assert in_parts.result is result
    assert in_parts == verified(home, ROOT.verifier, 1)
    assert (in_parts.first_failure.lane if in_parts.first_failure else None) == lane


@pytest.mark.parametrize("asked", [{"start": "2026-01-02T03:04:06.000000Z"}, {"end": "2026-01-02T03:04:06.000000Z"}])
@pytest.mark.parametrize("jobs", [1, 2])
def test_of_a_period_no_lease_is_missed(tmp_path, asked, jobs):
    home = _leased((1, 4, 7, 9), (3, 5, 2)).write(tmp_path / "home")

    assert verified(home, ROOT.verifier, jobs, period=Period(**asked)).result is Result.VERIFIED


@pytest.mark.parametrize("jobs", [1, 2])
def test_numbers_that_leap_over_the_parts_of_a_lane_are_told_as_by_one_walk(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr("kernel.lease_numbers._MOST_BLOCKS", 3)
    home = _leased((1, 2**20, 2**30, 2**40), ()).write(tmp_path / "home")
    failure = verified(home, ROOT.verifier, jobs).first_failure

    assert failure is not None
    assert (failure.segment, "leap" in failure.reason) == ("000003.jsonl", True)

"""`governor audit anchor`: list, now and keys, with and without a running writer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from addons import cli
from addons.home import Home
from tests.addons.anchored_logs import GrowingLog, introduce, size_of
from tests.addons.reference_witness import Witness, serving


@pytest.fixture
def log(home: Home) -> Iterator[GrowingLog]:
    log = GrowingLog(home)
    yield log
    log.close()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with serving(Witness("w.example.org", tmp_path / "witness.json")) as witness:
        yield witness


@pytest.fixture
def notes(home: Home, tmp_path: Path, witness: Witness) -> Path:
    """The file that the home anchors in, beside the witness."""
    file = tmp_path / "governor.notes"
    home.paths.anchors.write_text(f"""\
anchors:
  - file: {file}
  - witness: {witness.url}
    key: {witness.key}
require: 1 of [witness] within 10m
""")
    return file


def governor(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `governor audit anchor`."""
    status = cli.run(["audit", "anchor", *map(str, arguments)])
    said = capfd.readouterr()
    return status, said.out, said.err


def told(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    status, out, _ = governor(capfd, *arguments, "--json")
    return status, json.loads(out)


def test_what_keys_prints_is_what_a_witness_needs(capfd, home, log, witness, notes):
    note = log.kept(3)
    refused, before = told(capfd, "now", "--home", home.paths.folder)
    witness.know(governor(capfd, "keys", "--home", home.paths.folder)[1].strip())
    status, after = told(capfd, "now", "--home", home.paths.folder)

    assert (refused, status) == (1, 0)
    assert [answer["error"] is None for answer in before["anchored"]] == [True, False]
    assert "answers 404" in before["anchored"][1]["error"]
    assert [(answer["kind"], answer["lane"], answer["size"]) for answer in after["anchored"]] == [
        ("file", "main", size_of(note)), ("witness", "main", size_of(note))]


def test_keys_of_lanes_that_have_not_begun_can_be_asked_for(capfd, home, log):
    status, keys = told(capfd, "keys", "--lane", "w0", "--home", home.paths.folder)
    wrong = governor(capfd, "keys", "--lane", "../x", "--home", home.paths.folder)

    assert (status, wrong[0]) == (0, 2)
    assert [row["lane"] for row in keys["keys"]] == ["main", "w0"]
    assert all(row["key"].startswith(f"{row['origin']}+") for row in keys["keys"])


def test_list_says_how_far_each_anchor_is(capfd, home, log, witness, notes):
    first = log.kept(3)
    introduce(witness, home)
    governor(capfd, "now", "--home", home.paths.folder)
    second = log.kept(5)
    log.close()
    status, listed = told(capfd, "list", "--home", home.paths.folder)
    text = governor(capfd, "list", "--home", home.paths.folder)[1]

    behind = size_of(second) + 1 - size_of(first)
    assert status == 0
    assert (listed["require"], listed["otherwise"]) == ("1 of [witness] within 600 s", "alert")
    assert [row["target"] for row in listed["anchors"]] == [str(notes), witness.url]
    assert [(lane["size"], lane["behind"]) for row in listed["anchors"] for lane in row["lanes"]] == [
        (size_of(first), behind)] * 2
    assert f"{behind} entries behind" in text


def test_now_works_on_a_log_that_ended(capfd, home, log, witness, notes):
    log.kept(3)
    log.close()
    introduce(witness, home)
    status, after = told(capfd, "now", "--home", home.paths.folder)

    assert status == 0
    assert [size for size, _ in witness.heads().values()] == [after["anchored"][1]["size"]]


def test_without_anchors_or_lanes_nothing_is_anchored(capfd, home, tmp_path):
    nothing = governor(capfd, "now", "--home", home.paths.folder)
    listed = governor(capfd, "list", "--home", home.paths.folder)
    home.paths.anchors.write_text(f"anchors: [file: {tmp_path}/notes]\n")
    no_lane = governor(capfd, "now", "--home", home.paths.folder)

    assert (nothing[0], listed[0], no_lane[0]) == (1, 0, 4)
    assert "anchor list" in nothing[2]
    assert "rests on this host's word" in listed[1]


def test_a_home_that_is_not_there_is_not_made(capfd, tmp_path):
    for verb in ("list", "now", "keys"):
        assert governor(capfd, verb, "--home", tmp_path / "nowhere")[0] == 2
    assert not (tmp_path / "nowhere").exists()


def test_a_bad_file_of_anchors_ends_the_verb_with_its_place(capfd, home, log):
    home.paths.anchors.write_text("anchors:\n  - tsa: https://t.example.org\n")
    status, _, said = governor(capfd, "list", "--home", home.paths.folder)

    assert status == 1
    assert f'{home.paths.anchors}:2:5: unknown key "tsa"' in said


@pytest.mark.parametrize("damage", ["checkpoints", "receipts", "cosigned"])
def test_damage_of_what_the_verbs_read_is_told(capfd, home, log, witness, notes, damage):
    log.kept(2)
    log.close()
    introduce(witness, home)
    governor(capfd, "now", "--home", home.paths.folder)
    path = {"checkpoints": home.paths.lane("main") / "checkpoints.note",
            "receipts": home.paths.receipts / "anchors.jsonl",
            "cosigned": next(home.paths.receipts.glob("*-main.note"))}[damage]
    path.write_bytes(b"\x1b[2J\xff nothing of the kind\n" * 100)
    codes = {governor(capfd, verb, "--home", home.paths.folder, *json_flag)[0]
             for verb in ("list", "now") for json_flag in ((), ("--json",))}

    assert codes <= {0, 1, 4}


def test_help_teaches(capfd):
    status, out, _ = governor(capfd, "--help")

    assert status == 0
    assert "anchors.yaml" in out
    assert "otherwise: alert" in out

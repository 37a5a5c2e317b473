"""The attack matrix: every attack on a log is found as the table says, or lies in the tail that the verifier names."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from addons import codec
from kernel.report import Report, Result
from kernel.trust import parse_minimum_file
from kernel.verify import Anchors, verify
from tests import logs
from tests.attack_matrix import INCOMPLETE, NO_LOG, ROLLED_BACK, ROWS, VERIFIED, Row, Scene, scene, size_of, table
from tests.conftest import SCALE, scaled
from tests.logs import ROOT, Lane, source, stated

README = Path(__file__).parents[2] / "README.md"
COLUMNS = ("alone", "minimum", "anchor")

verify_signature = lru_cache(maxsize=2**16)(logs.verify_signature)


def check(at: Scene, column: str, **options: Any) -> Report:
    log = at.log(minimum=column == "minimum")
    minimum = parse_minimum_file(log.minimum) if log.minimum else None
    held = at.held() if column == "anchor" else {}
    anchors = Anchors(ROOT.verifier, stated(log.trust), minimum, held=held)
    return verify([source(lane) for lane in log.lanes], anchors, verify_signature, codec.parse, **options)


def attacked(row: Row) -> Scene:
    at = scene()
    row.attack(at)
    return at


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_attack_is_found_as_the_table_says(row: Row, column: str) -> None:
    # Without a home there is nothing to hand to the kernel: what the verb says is tested with the verb.
    expected = {NO_LOG: INCOMPLETE}.get(getattr(row, column), getattr(row, column))

    for every in (False, True):
        assert check(attacked(row), column, every_signature=every).result.exit_code == expected


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", [row for row in ROWS if row.unseen], ids=lambda row: row.name)
def test_what_is_not_found_lies_in_the_tail_that_is_called_unanchored(row: Row, column: str) -> None:
    if getattr(row, column) != VERIFIED:
        return
    report = check(attacked(row), column)
    anchored = {each.lane: each.entries for each in report.anchored}

    assert report.result is Result.VERIFIED
    assert report.unanchored.entries == report.entries - sum(anchored.values())
    for before in scene().lanes:
        after = next((lane.lines for lane in attacked(row).lanes if lane.name == before.name), [])
        same = next((at for at, line in enumerate(before.lines) if after[at : at + 1] != [line]), len(before.lines))
        assert same >= anchored.get(before.name, 0)


def test_each_status_that_is_no_answer_has_a_reason_and_no_other_has_one() -> None:
    for row in ROWS:
        assert bool(row.unseen) == (VERIFIED in (row.alone, row.minimum, row.anchor)), row.name


@pytest.mark.checkout
def test_the_table_that_people_read_is_the_one_that_is_tested() -> None:
    assert table() in README.read_text()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("heads", ["kept", "cut"])
def test_a_lane_that_was_cut_anywhere_is_found_where_a_head_is_known(column: str, heads: str) -> None:
    whole = scene().main
    data, boundaries = b"".join(whole.lines), [sum(map(len, whole.lines[:start])) for start in whole.starts[1:]]
    last_two = range(len(data) - sum(map(len, whole.lines[-2:])), len(data))
    drawn = last_two if SCALE >= 10 else random.Random(column).sample(last_two, scaled(25))
    for size in [*boundaries, *drawn]:
        at = scene()
        _cut(at.main, data[:size])
        left = len(at.main.lines)
        if heads == "cut":
            at.main.notes = [note for note in at.main.notes if size_of(note) <= left]

        known = {"alone": [], "minimum": [at.minimum["main"]], "anchor": at.anchored["main"]}[column]
        rolled_back = any(size_of(note) > left for note in [*known, *at.main.notes])
        assert check(at, column).result.exit_code == (ROLLED_BACK if rolled_back else VERIFIED), (size, left)


def _cut(lane: Lane, data: bytes) -> None:
    lines = data.splitlines(keepends=True)
    lane.tail = lines.pop() if not data.endswith(b"\n") else b""
    lane.lines = lines
    lane.starts = [start for start in lane.starts if start <= len(lines)]

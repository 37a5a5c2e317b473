"""Both verifiers on logs that lie on disk and were attacked: they find the same, and neither can be led astray."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import NoneType

import pytest
from click import ClickException
from click.testing import CliRunner

from addons.verbs.audit import audit
from tests.attack_matrix import NO_LOG, ROLLED_BACK, ROWS, VERIFIED, Row, scene
from tests.conftest import SCALE, scaled
from tests.logs import ROOT, Lane, Log, leased
from tests.mutated_logs import BASES, mutated
from tests.verifiers import (
    Folder,
    one_file,
    one_file_verifier,
    product,
    product_in_parts,
    remember_signatures,
    report_of,
)

FEW = 30
FULL = SCALE >= 10


@pytest.fixture(scope="module", autouse=True)
def _signatures_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_signatures(patch)
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "home")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_both_verifiers_find_what_the_table_says(row: Row, folder: Folder) -> None:
    for minimum in (False, True):
        at = scene()
        row.attack(at)
        home = folder.put(at.log(minimum=minimum).files())
        expected = row.minimum if minimum else row.alone
        if expected == NO_LOG:
            shutil.rmtree(home, ignore_errors=True)

        assert product(home) == product_in_parts(home) == expected
        # Whether there is a folder at all is asked before the log is read.
        assert expected == NO_LOG or one_file(home) == expected


def small() -> Log:
    main = Lane("main").open(first=True).traffic(1).checkpoint().renew()
    other = Lane("w0").open(siblings=[main]).checkpoint()
    main.add({"type": "close", "reason": "stopped"})
    return Log([main.checkpoint(), other]).raise_minimum()


def changes(data: bytes) -> Iterator[tuple[int, int]]:
    """Places, and what stands there instead."""
    rng = random.Random(data)
    every = [(at, data[at] ^ 1) for at in range(len(data))]
    yield from every if FULL else rng.sample(every, min(len(every), scaled(25)))
    for at in rng.choices(range(len(data)), k=scaled(25)):
        others = {data[at] ^ 0x20, data[at] ^ 0x80, 0x0A, 0x22, 0} - {data[at]}
        yield at, rng.choice(sorted(others))


@pytest.mark.parametrize("name", small().files())
def test_each_byte_counts(name: str, folder: Folder) -> None:
    files = small().files()
    data = files[name]
    # The line feed at the end of a lane or of its checkpoints: what a crash leaves. The last entry does not count then,
    # and a head that was not wholly written is none.
    last = len(data) - 1 if name.endswith((".note", "main/000001.jsonl", "w0/000000.jsonl")) else None
    found = {}
    for at, value in changes(data):
        home = folder.put(files | {name: data[:at] + bytes([value]) + data[at + 1 :]})
        found[at, value] = (product(home), one_file(home))

    assert {at for (at, _), statuses in found.items() if VERIFIED in statuses} <= {last}
    assert [statuses for statuses in found.values() if statuses[0] != statuses[1]] == []


def test_a_line_feed_that_is_gone_from_the_end_is_what_a_crash_leaves(folder: Folder) -> None:
    whole = report_of(folder.put(small().files()))
    for lane in small().lanes:
        folder_name = f"audit/lanes/{lane.name}"
        segment = lane.segments()[-1][0]
        files = small().files()
        files[f"{folder_name}/checkpoints.note"] = files[f"{folder_name}/checkpoints.note"][:-1]
        files[f"{folder_name}/{segment}"] += lane.lines[-1][:-1]
        report = report_of(folder.put(files))

        assert whole is not None
        assert report is not None
        assert (report.result, report.lanes) == (whole.result, whole.lanes)
        assert report.torn_bytes == len(lane.lines[-1]) - 1


@pytest.mark.parametrize("base", BASES)
def test_on_damaged_logs_both_verifiers_agree_quick_or_thorough_whole_or_in_parts(base: str, folder: Folder) -> None:
    # 10,000 at full scale.
    count, differing, found = 2_500 if FULL else scaled(45), [], set()
    for number in range(count):
        home = folder.put(mutated(base, number))
        statuses = (product(home), product(home, every_signature=True), product_in_parts(home), one_file(home))
        found.add(statuses[0])
        if len(set(statuses)) > 1:
            differing.append((number, statuses))

    assert differing == []
    # A handful of damaged logs may happen to be damaged in one way.
    assert {0, 1} <= found or count < FEW


def test_of_a_lane_that_does_not_hold_the_independent_verifier_misses_no_leases(folder: Folder) -> None:
    log = leased()
    del log.lanes[1].lines[3:]
    module = one_file_verifier()
    problems, _ = module.verify(folder.put(log.files()) / "audit", module.Key(str(ROOT.verifier)))

    assert [code for code, _ in problems] == [ROLLED_BACK]


VERBS = [["verify", "--json"], ["verify", "--since", "2026-01-02T03:04:05.2Z"], ["show"], ["show", "--json"],
         ["replay", "--jobs", "1"], ["receipt", "main/5"], ["prove", "--lane", "main", "--from", "8", "--to", "26"],
         ["sample", "--n", "3", "--seed", "x"]]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_damaged_log_crashes_a_verb(verb: list[str], folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.home))
    for base in BASES:
        for number in range(scaled(5)):
            home = folder.put(mutated(base, number))
            result = CliRunner().invoke(audit, [*verb, str(home)], standalone_mode=False)

            assert isinstance(result.exception, (NoneType, ClickException, SystemExit)), (base, number)
            assert "\x1b" not in result.stdout

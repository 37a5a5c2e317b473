"""A walk that begins with a later segment: it finds there what a walk over the whole lane finds."""

from __future__ import annotations

import copy
import re
from functools import lru_cache
from random import Random

import pytest

from addons import codec
from kernel import canonical, chain, entry
from kernel.reading import LineReader
from kernel.report import Result
from kernel.walk import Found, Rules, Source, Walk
from tests import logs
from tests.attack_matrix import scene, size_of
from tests.conftest import scaled
from tests.forgery import rewrite, sign_heads
from tests.logs import ROOT, Lane, three_keys, three_segments
from tests.mutated_logs import damage

verify_signature = lru_cache(maxsize=2**16)(logs.verify_signature)
LANES = {"three segments": lambda: three_segments().lanes[0], "three keys": lambda: three_keys().lanes[0],
         "a scene": lambda: scene().main}


def walked(lane: Lane, first: int, *, every: bool = False, keys: Lane | None = None) -> Found:
    """The walk over a lane from a segment on. `keys` is the lane whose lines bring the keys; else the lane itself."""
    source = logs.source(lane)
    kinds = b'"type":"lane_open"', b'"type":"key_rotate"'
    bringing = [line for line in (keys or lane).lines if any(kind in line for kind in kinds)]
    part = Source(lane.name, lambda: list(source.segments())[first:], source.checkpoints, first=first,
                  key_lines=lambda: bringing)
    return Walk(part, Rules(ROOT.verifier, verify_signature, codec.parse, every), [], []).run()


@pytest.mark.parametrize("name", LANES)
def test_a_walk_from_a_later_segment_ends_where_the_whole_ends(name: str) -> None:
    lane = LANES[name]()
    whole = walked(lane, 0)

    for first in range(1, len(lane.starts)):
        part = walked(lane, first)
        assert (part.broken, part.begin.size, part.end) == (None, lane.starts[first], whole.end)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("name", LANES)
def test_damage_behind_the_beginning_of_a_walk_is_found_as_by_the_whole(name: str, every: bool) -> None:
    for number in range(scaled(25)):
        rng = Random(f"{name} {number}")
        lane = LANES[name]()
        first = rng.randrange(1, len(lane.starts))
        before = copy.deepcopy(lane)
        damage(rng, lane, lane.starts[first] + 1)
        whole, part = walked(lane, 0, every=every), walked(lane, first, every=every, keys=before)

        assert _told(whole) == _told(part), (number, first)


@pytest.mark.parametrize("name", LANES)
def test_a_walk_does_not_begin_with_a_segment_open_that_was_damaged(name: str) -> None:
    lane = LANES[name]()
    first = len(lane.starts) - 1
    line = lane.lines[lane.starts[first]]
    for at in Random(name).sample(range(len(line) - 1), scaled(20)):
        lane.lines[lane.starts[first]] = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        found = walked(lane, 0).broken, walked(lane, first).broken

        assert [broken and broken.result for broken in found] == [Result.TAMPERED] * 2


def test_what_was_found_of_a_broken_lane_keeps_nothing_of_the_walk() -> None:
    lane = scene().main
    lane.lines[4] = lane.lines[4][:-20] + lane.lines[5][-20:]

    broken = walked(lane, 0).broken
    assert broken is not None
    assert (broken.__traceback__, broken.__context__) == (None, None)


def test_what_a_log_can_make_a_reader_learn_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of many shapes, each with much in it: all would be regular expressions that take long to make."""
    compiled: list[int] = []
    compile_one = re.compile
    monkeypatch.setattr("kernel.reading.re.compile", lambda text: compiled.append(len(text)) or compile_one(text))
    reader = LineReader(codec.parse, b"main")
    prev = "0" * 64
    for shape in range(200):
        body = entry.common("heartbeat", 1, prev, entry.timestamp(logs.START), 1, "main")
        told = canonical.encode(body | {f"z{shape}": 0, "many": [[]] * 800})
        line = chain.line(told, "00000000", bytes(64))
        for _ in range(40):
            reader.read_usual([line])

    assert 0 < sum(compiled) < 2**19


def test_a_reader_does_not_remember_every_kind_of_line_that_it_saw_once() -> None:
    reader = LineReader(codec.parse, b"main")
    for number in range(5000):
        body = entry.common("heartbeat", 1, "0" * 64, entry.timestamp(logs.START), 1, "main") | {"z": f"{number:040d}"}
        reader.read_usual([chain.line(canonical.encode(body), "00000000", bytes(64))])

    assert len(reader._seen) <= 4096


def _told(found: Found) -> tuple[Result | None, object]:
    return (None, found.end) if found.broken is None else (found.broken.result, found.broken.failure.seq)


def test_a_walk_stands_on_the_tree_that_a_head_behind_it_confirms() -> None:
    """What came before was changed by whoever holds its key: the part holds, and does not fit to the part before it."""
    lane, other = scene().main, scene().main
    first = len(lane.starts) - 1
    rewrite(other, lane.starts[first] - 3)
    sign_heads(other, [size_of(note) for note in lane.notes if size_of(note) > lane.starts[first]])
    before = walked(lane, 0)

    part = walked(other, first)
    assert part.broken is None
    assert part.begin.root != _standing_before(lane, first)
    lane.lines[lane.starts[first] :] = other.lines[lane.starts[first] :]
    lane.notes = [*[note for note in lane.notes if size_of(note) <= lane.starts[first]], *other.notes[-1:]]
    assert walked(lane, 0).broken is not None
    assert before.broken is None


def _standing_before(lane: Lane, first: int) -> bytes:
    cut = copy.deepcopy(lane)
    cut.lines = cut.lines[: lane.starts[first]]
    cut.starts, cut.notes = cut.starts[:first], []
    return walked(cut, 0).end.root

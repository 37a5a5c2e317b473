"""The draw is a public function: anybody draws the same, and nobody else's seed or head does."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import CanonicalError
from kernel.sampling import LaneHead, drawn
from tests.conftest import scaled

HEADS = (LaneHead("main", 1000, bytes(32)), LaneHead("w0", 24, b"\1" * 32))


def test_the_draw_is_pinned() -> None:
    assert drawn("2026-11", HEADS, 6) == [
        ("main", 215), ("main", 205), ("main", 20), ("main", 236), ("main", 563), ("main", 421)]


@given(st.text(max_size=8).filter(lambda text: text.isprintable()),
       st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(1, 40))
def test_whoever_reads_the_description_draws_the_same(seed: str, sizes: list[int], count: int) -> None:
    heads = [LaneHead(f"w{number}", size, hashlib.sha256(b"%d" % size).digest()) for number, size in enumerate(sizes)]

    assert drawn(seed, heads, count) == described(seed, heads, count)


def described(seed: str, heads: list[LaneHead], count: int) -> list[tuple[str, int]]:
    """The draw as kernel/README.md tells it."""
    asked = {"heads": [{"lane": h.lane, "root": h.root.hex(), "size": h.size} for h in heads], "n": count, "seed": seed}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    question = hashlib.sha256(b"governor/audit/sample/v1\0" + text).digest()
    entries = [(head.lane, seq) for head in heads for seq in range(head.size)]
    found: list[tuple[str, int]] = []
    turn = 0
    while len(found) < min(count, len(entries)):
        number = int(hashlib.sha256(question + turn.to_bytes(8, "big")).hexdigest(), 16) % len(entries)
        turn += 1
        if entries[number] not in found:
            found.append(entries[number])
    return found


def test_another_seed_head_or_count_is_another_draw() -> None:
    same = drawn("seed", HEADS, 10)

    assert drawn("seed", HEADS[::-1], 10) == same
    assert drawn("other", HEADS, 10) != same
    assert drawn("seed", (LaneHead("main", 1000, b"\2" * 32), HEADS[1]), 10) != same
    assert drawn("seed", HEADS, 11)[:10] != same


def test_all_entries_are_drawn_where_so_many_are_asked_for() -> None:
    everything = drawn("seed", (HEADS[1],), 24)

    assert sorted(everything) == [("w0", seq) for seq in range(24)]
    assert len(drawn("seed", (HEADS[1],), 1000)) == 24
    assert drawn("seed", (), 3) == []


def test_every_entry_is_drawn_about_as_often() -> None:
    turns = scaled(400)
    counts = dict.fromkeys((("a", 0), ("a", 1), ("a", 2), ("b", 0)), 0)
    for turn in range(turns):
        for found in drawn(f"{turn}", (LaneHead("a", 3, bytes(32)), LaneHead("b", 1, bytes(32))), 1):
            counts[found] += 1

    # Six standard deviations; the seeds are always the same.
    assert all(abs(count - turns / 4) < 6 * (turns * 3 / 16) ** 0.5 for count in counts.values())


def test_a_seed_that_is_no_text_is_refused() -> None:
    with pytest.raises(CanonicalError):
        drawn("\ud800", HEADS, 1)

"""The auditor's draw: which entries of a log are looked at, as a public function of a seed and the signed heads.

Nobody who wrote the log before the seed was told could know which entries would be drawn.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate

from kernel.canonical import encode

_DOMAIN = b"governor/audit/sample/v1\0"


@dataclass(frozen=True, slots=True)
class LaneHead:
    """A lane as far as a signed checkpoint covers it."""

    lane: str
    size: int
    root: bytes


def drawn(seed: str, heads: Sequence[LaneHead], count: int) -> list[tuple[str, int]]:
    """Lane and seq of `count` entries, or of all where there are fewer, in the order in which they are drawn.

    `CanonicalError` where the seed is no text.
    """
    lanes = sorted(heads, key=lambda head: head.lane)
    starts = [0, *accumulate(head.size for head in lanes)]
    total = starts[-1]
    question = sha256(_DOMAIN + encode({
        "heads": [{"lane": head.lane, "root": head.root.hex(), "size": head.size} for head in lanes],
        "n": count,
        "seed": seed,
    })).digest()
    numbers: dict[int, None] = {}
    turn = 0
    while len(numbers) < min(count, total):
        numbers[int.from_bytes(sha256(question + turn.to_bytes(8)).digest()) % total] = None
        turn += 1
    return [_entry(number, lanes, starts) for number in numbers]


def _entry(number: int, lanes: Sequence[LaneHead], starts: Sequence[int]) -> tuple[str, int]:
    at = bisect_right(starts, number) - 1
    return lanes[at].lane, number - starts[at]

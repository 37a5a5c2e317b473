"""Receipts and consistency proofs of lanes in memory."""

from __future__ import annotations

import json

from kernel import note
from kernel.consistency import Consistency
from kernel.evidence import head_of
from kernel.merkle import leaf_hashes
from kernel.proofs import Growth, Inclusions
from kernel.receipt import Receipt
from tests.logs import Key, Lane, Log, three_keys

BRINGING_KEYS = ("lane_open", "key_rotate")


def key_lines(lane: Lane, size: int) -> tuple[bytes, ...]:
    """The lines of the first `size` that bring keys."""
    return tuple(line for line in lane.lines[:size] if json.loads(line)["e"]["type"] in BRINGING_KEYS)


def receipt(lane: Lane, index: int, head: str) -> Receipt:
    size = head_of(head).size
    made = Inclusions(size, [index])
    made.extend(leaf_hashes(lane.lines))
    return Receipt(index, lane.lines[index], key_lines(lane, size), made.proof(index), head)


def consistency(lane: Lane, old: str, new: str) -> Consistency:
    size = head_of(new).size
    made = Growth(head_of(old).size, size)
    made.extend(leaf_hashes(lane.lines))
    return Consistency(old, new, key_lines(lane, size), made.proof())


def cosigned(text: str, witness: Key) -> str:
    """The note with one more signature line, of somebody whom the log's readers need not know."""
    body = text.partition("\n\n")[0] + "\n"
    return text + note.sign(body, witness.verifier.name, witness.verifier.public, witness.sign).rpartition("\n\n")[2]


def renewed() -> Log:
    """A valid log whose lane has three segments, each with a key of its own and a head signed by it."""
    log = three_keys()
    log.lanes[0].checkpoint()
    return log.raise_minimum()

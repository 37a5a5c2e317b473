"""What somebody who holds keys can do to a lane: cut it back, and write it anew from one entry on."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from kernel import canonical, chain, entry, merkle
from kernel.canonical import Value
from kernel.chain import GENESIS_PREV
from kernel.note import root_name
from tests.logs import LOG_ID, Key, Lane

THIEF = Key(root_name(LOG_ID), seed="a thief's ")

type Change = Callable[[dict[str, Value]], dict[str, Value]]


def entry_of(line: bytes) -> dict[str, Value]:
    """The entry in a line."""
    value = canonical.parse(chain.split(line)[0])
    assert isinstance(value, dict)
    return value


def signer_of(lane: Lane, seq: int) -> Key:
    """The key that signed entry `seq` of a lane."""
    kid = chain.split(lane.lines[seq])[1]
    return next(key for key in [*lane.keys, lane.root] if key.verifier.kid == kid)


def cut_back(lane: Lane, lines: int) -> None:
    """The lane as it was after so many lines, checkpoints too, ready to go on with the key that it has now."""
    kept, lane.lines, lane.tree, lane.head = lane.lines[:lines], [], merkle.Tree(), GENESIS_PREV
    lane.starts = [start for start in lane.starts if start < lines] or [0]
    lane.notes = [note for note in lane.notes if int(note.split("\n")[1]) <= lines]
    for line in kept:
        lane.lines.append(line)
        lane.tree.append(merkle.leaf_hash(line[:-1]))
        lane.head = chain.entry_hash(chain.split(line)[0]).hex()


def reworded(body: dict[str, Value]) -> dict[str, Value]:
    """The entry with another reason."""
    return body | {"reason": "rewritten"}


def rewrite(lane: Lane, seq: int, key: Key | None = None, change: Change = reworded) -> None:
    """Change entry `seq`, and write everything behind it anew, so that it follows from it.

    All is signed with `key`; where none is given, each entry with the key that signed it before, key_rotate with a new
    proof. The checkpoints behind `seq` are gone: `sign_heads` makes others.
    """
    later, starts = lane.lines[seq:], lane.starts
    signers = [key or signer_of(lane, at) for at in range(seq, len(lane.lines))]
    cut_back(lane, seq)
    for number, (line, signer) in enumerate(zip(later, signers, strict=True)):
        body = entry_of(line) | {"prev": lane.head}
        if number == 0:
            body = change(body)
        if body.get("type") == "segment_open":
            body |= entry.segment_open(str(body["segment"]), lane.tree)
        if key is None and body.get("type") == "key_rotate" and number:
            body |= _proved(lane, str(body["key"]))
        lane.add_raw(canonical.encode(body), signer)
    lane.starts = starts


def _proved(lane: Lane, text: str) -> dict[str, Value]:
    """The fields of key_rotate with which the holder of that key proves it for the place where the lane stands."""
    following = next(key for key in lane.keys if str(key.verifier) == text)
    return lane.rotation(following) | {"key": text}


def sign_heads(lane: Lane, sizes: Iterable[int]) -> None:
    """Add checkpoints at these sizes, each by the key that signed the entry before it."""
    for size in sizes:
        part = Lane(lane.name, lane.root, lane.seed)
        part.tree.extend([merkle.leaf_hash(line[:-1]) for line in lane.lines[:size]])
        part.key = signer_of(lane, size - 1)
        lane.notes += part.checkpoint().notes


def certified(lane: Lane, key: Key) -> str:
    """The root's certificate for a key of this lane, as lane_open has it."""
    return base64.b64encode(lane.root.sign(
        entry.certificate_bytes(lane.log_id, lane.name, str(key.verifier)))).decode()

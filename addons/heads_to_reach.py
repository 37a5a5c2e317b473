"""The signed heads that a lane must reach at a start: its own checkpoints, minimum.json, and what anchors hold."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from addons import keys
from addons.errors import StartCode, StartRefused
from addons.lane_refusals import tampered
from kernel import note
from kernel.errors import NoteError, UnknownSigner
from kernel.marks import CHECKPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from addons.home import Home
    from kernel.key_chain import KeyChain

# Room for several notes, cosigned ones too: of the old ones only the last is needed at a start.
_TAIL_BYTES = 64 * 1024

type _Authentic = Callable[[str], tuple[note.Checkpoint, bool]]


@dataclass(frozen=True, slots=True)
class Heads:
    """Size to root, of the newest heads: those that a key of the lane signed, and those of keys it does not tell of."""

    signed: dict[int, bytes]
    foreign: tuple[note.Checkpoint, ...]


def heads_to_reach(home: Home, lane: str, keys_of_lane: KeyChain, published: Sequence[str], *, changes: bool) -> Heads:
    """The last local checkpoint, minimum.json and what anchors hold."""
    authentic = partial(_checkpoint, note.lane_name(home.log_id, lane), keys_of_lane)
    path = home.paths.lane(lane) / CHECKPOINTS
    local = newest_checkpoint(path, note.lane_name(home.log_id, lane), authentic, cut=changes)
    kept = home.minimum().get(lane)
    if kept is None and local is not None:
        text = f"{home.paths.minimum} does not name lane {lane}, which has checkpoints; restore it from a backup"
        raise StartRefused(StartCode.HOME_INCOMPLETE, text)
    heads = [] if local is None else [local]
    if kept is not None:
        try:
            heads.append(authentic(kept))
        except NoteError as fault:
            raise tampered(home.paths.minimum, f"lane {lane}: {fault}") from fault
    for text in published:
        # What is no head of this lane proves nothing: whoever can write to an anchor could have put it there.
        with suppress(NoteError):
            heads.append(authentic(text))
    roots: dict[int, bytes] = {}
    for head, known in heads:
        if known and roots.setdefault(head.size, head.root) != head.root:
            raise tampered(path, f"two signed heads of size {head.size} differ")
    return Heads(roots, tuple(head for head, known in heads if not known))


def newest_checkpoint(
    path: Path, origin: str, authentic: _Authentic, *, cut: bool = True
) -> tuple[note.Checkpoint, bool] | None:
    """The last whole checkpoint in the file, as `authentic` reads it; an unfinished one behind it is cut off."""
    try:
        with path.open("r+b" if cut else "rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, end - _TAIL_BYTES))
            # The line feed put in front makes the first note of the file begin like any other.
            tail = (b"\n" if start == 0 else b"") + file.read()
            last, at = _last_note(path, tail, origin, authentic)
            if cut and at < len(tail):
                file.truncate(end - (len(tail) - at))
                os.fsync(file.fileno())
            return last
    except FileNotFoundError:
        return None


def _last_note(
    path: Path, tail: bytes, origin: str, authentic: _Authentic
) -> tuple[tuple[note.Checkpoint, bool] | None, int]:
    """The last whole note in `tail`, and where it ends. One unfinished note may follow it, not two."""
    mark = b"\n" + origin.encode() + b"\n"
    begin = len(tail)
    for _ in range(2):
        begin = tail.rfind(mark, 0, begin + 1)
        if begin < 0:
            break
        end = _note_end(tail, begin + 1)
        try:
            return authentic(tail[begin + 1 : end].decode()), end
        except (NoteError, UnicodeDecodeError):
            continue
    if tail.count(mark) > 1:
        raise tampered(path, "the last checkpoints do not verify")
    return None, min(1, len(tail))


def _note_end(tail: bytes, begin: int) -> int:
    """Where the note that begins there ends: three lines, an empty one, and its signature lines."""
    lines = tail[begin:].splitlines(keepends=True)
    end = begin + sum(map(len, lines[:4]))
    for line in lines[4:]:
        if not line.startswith("— ".encode()) or not line.endswith(b"\n"):
            break
        end += len(line)
    return end


def _checkpoint(origin: str, keys_of_lane: KeyChain, text: str) -> tuple[note.Checkpoint, bool]:
    """A checkpoint of the lane, and whether the key that its size calls for signed it; NoteError where it is none.

    A lane that was cut back does not tell of the keys that signed its later heads.
    """
    checkpoint = note.stated_checkpoint(text)
    if checkpoint.origin != origin:
        raise NoteError(f"a checkpoint of {checkpoint.origin} stands in for {origin}")
    key = keys_of_lane.signer_of(checkpoint.size - 1)
    try:
        note.open_note(text, [] if key is None else [key], keys.verifies)
    except UnknownSigner:
        return checkpoint, False
    return checkpoint, True

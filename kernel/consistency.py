"""Consistency: the proof that of two signed checkpoints of a lane one grew from the other, nothing changed or removed.

Like a receipt it is verified without the log, with the verifier key of the root and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernel.errors import NoteError, ProofError
from kernel.evidence import (
    certified_keys,
    check_head,
    head_of,
    key_lines,
    origin_of,
    parse_extra,
    parse_parts,
    text_of,
    write_extra,
    write_parts,
)
from kernel.note import Checkpoint, VerifierKey, Verify, split_notes
from kernel.proofs import Proof, check_growth
from kernel.reading import Parse

TITLE = "governor/audit/consistency/v1"


@dataclass(frozen=True, slots=True)
class Consistency:
    """Two checkpoints as signed, `old` the smaller, the lines that certify the keys (LFs included), and the proof."""

    old: str
    new: str
    keys: tuple[bytes, ...]
    proof: Proof


@dataclass(frozen=True, slots=True)
class Grown:
    """What is proved: the first `old.size` entries of the lane are the same under both heads."""

    lane: str
    old: Checkpoint
    new: Checkpoint


def write_consistency(consistency: Consistency) -> str:
    """The proof as text."""
    extra = write_extra({"keys": [text_of(line) for line in consistency.keys]})
    return write_parts(TITLE, {"extra": extra}, consistency.proof, (consistency.old, consistency.new))


def parse_consistency(data: bytes) -> Consistency:
    """The proof that these bytes are, or ProofError."""
    parts = parse_parts(data, TITLE, ("extra",))
    try:
        notes = [note.text for note in split_notes(_lines(parts.notes))]
    except NoteError as error:
        raise ProofError(str(error)) from None
    if len(notes) != 2 or "".join(notes) != parts.notes:
        raise ProofError("expected two signed checkpoints")
    keys = key_lines(parse_extra(parts.fields["extra"], {"keys"})["keys"])
    return Consistency(notes[0], notes[1], keys, parts.hashes)


def check_consistency(proof: Consistency, root: VerifierKey | None, verify: Verify, parse: Parse) -> Grown:
    """What is proved under the root key, or ProofError. Without a root the lane's first key is believed."""
    origin = origin_of(head_of(proof.new))
    keys = certified_keys(proof.keys, origin.lane, root, verify, parse)
    old, new = check_head(proof.old, keys, verify), check_head(proof.new, keys, verify)
    if old.origin != new.origin:
        raise ProofError(f"checkpoints of two lanes: {old.origin} and {new.origin}")
    check_growth(old.size, new.size, old.root, new.root, proof.proof)
    return Grown(origin.lane, old, new)


def _lines(text: str) -> list[bytes]:
    # By LF alone: other ends of lines are no part of a note.
    *lines, rest = text.encode().split(b"\n")
    return [*(line + b"\n" for line in lines), *([rest] if rest else [])]

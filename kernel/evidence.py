"""What every proof about a lane carries beside its hashes: signed heads, and the lines that certify the keys.

As text a proof is a title, named fields, hashes in base64, an empty line and signed notes, as in C2SP's tlog-proof.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kernel.canonical import Value, encode, parse
from kernel.errors import CanonicalError, KernelError, NoteError, ProofError
from kernel.key_chain import KeyChain, certified
from kernel.note import Checkpoint, VerifierKey, Verify, base64_bytes, open_note, stated_checkpoint
from kernel.proofs import Proof
from kernel.reading import Parse
from kernel.trust import is_lane, is_log_id

# Room for the key of every hour of three years, and for the longest line.
MAX_TEXT_BYTES = 2**25
_MAX_HASHES = 128
_HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose tree a head is."""

    log_id: str
    lane: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A proof as text, taken apart; nothing of it is checked but its form."""

    fields: Mapping[str, str]
    hashes: Proof
    notes: str


def write_parts(title: str, fields: Mapping[str, str], hashes: Proof, notes: Iterable[str]) -> str:
    """A proof as text, or ProofError where it would be longer than anybody reads."""
    named = (f"{name} {value}" for name, value in fields.items())
    lines = [title, *named, *(base64.b64encode(hashed).decode() for hashed in hashes)]
    text = "\n".join([*lines, "", "".join(notes)])
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ProofError(f"the proof would be longer than {MAX_TEXT_BYTES} bytes: the lane had too many keys")
    return text


def parse_parts(data: bytes, title: str, names: Sequence[str]) -> Parts:
    """The parts of a proof with exactly the fields `names`, or ProofError."""
    if len(data) > MAX_TEXT_BYTES:
        raise ProofError(f"longer than {MAX_TEXT_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ProofError("not UTF-8") from None
    head, empty, notes = text.partition("\n\n")
    first, *lines = head.split("\n")
    if first != title or not empty:
        raise ProofError(f"expected the line {title}, fields, hashes, an empty line and a signed checkpoint")
    stated, hashes = lines[: len(names)], lines[len(names) :]
    if [line.partition(" ")[0] for line in stated] != list(names):
        raise ProofError(f"expected the fields {' and '.join(names)}")
    if len(hashes) > _MAX_HASHES:
        raise ProofError(f"more than {_MAX_HASHES} hashes")
    return Parts({line.partition(" ")[0]: line.partition(" ")[2] for line in stated}, tuple(map(_hash, hashes)), notes)


def write_extra(stated: Mapping[str, Value]) -> str:
    """The field `extra`, canonical JSON in base64, or ProofError where it has none."""
    try:
        return base64.b64encode(encode(dict(stated), MAX_TEXT_BYTES)).decode()
    except CanonicalError as error:
        raise ProofError(f"extra: {error}") from None


def parse_extra(text: str, names: set[str]) -> dict[str, Value]:
    """What the field `extra` says: an object with exactly the fields `names`, or ProofError."""
    try:
        stated = parse(base64_bytes(text), MAX_TEXT_BYTES)
    except (NoteError, CanonicalError) as error:
        raise ProofError(f"extra: {error}") from None
    if not isinstance(stated, dict) or set(stated) != names:
        raise ProofError(f"extra: expected an object with {' and '.join(sorted(names))}")
    return stated


def key_lines(stated: Value) -> tuple[bytes, ...]:
    """The lines that certify the keys of a lane, LFs included, or ProofError."""
    if not isinstance(stated, list):
        raise ProofError("extra: keys is no list of lines")
    return tuple(line_of(line) for line in stated)


def line_of(stated: Value) -> bytes:
    """A line of the log from its text, LF included, or ProofError."""
    if not isinstance(stated, str) or "\n" in stated:
        raise ProofError("extra: not a line of the log")
    return stated.encode() + b"\n"


def text_of(line: bytes) -> str:
    """A line of the log as it stands in `extra`, or ProofError where it is no text."""
    try:
        return line.removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        raise ProofError("a line of the log is not UTF-8") from None


def head_of(note: str) -> Checkpoint:
    """The checkpoint that a note states, its signatures not yet checked, or ProofError."""
    try:
        head = stated_checkpoint(note)
    except NoteError as error:
        raise ProofError(str(error)) from None
    if head.size == 0:
        raise ProofError("a checkpoint of no entries")
    return head


def origin_of(head: Checkpoint) -> Origin:
    """The log and lane of a checkpoint, or ProofError where its origin is no lane's."""
    match head.origin.split("/"):
        case ["governor", log_id, lane] if is_log_id(log_id) and is_lane(lane):
            return Origin(log_id, lane)
    raise ProofError(f"{head.origin} is not the origin of a lane's checkpoints (expected governor/LOG_ID/LANE)")


def certified_keys(
    lines: Sequence[bytes], lane: str, root: VerifierKey | None, verify: Verify, parse_raw: Parse
) -> KeyChain:
    """The keys of a lane, each certified by the one before and the first by `root`, or ProofError."""
    try:
        return certified(lines, lane, root, verify, parse_raw)
    except KernelError as error:
        raise ProofError(f"keys: {error}") from None


def check_head(note: str, keys: KeyChain, verify: Verify) -> Checkpoint:
    """The checkpoint of a note that the key in force at its last entry signed, or ProofError."""
    head = head_of(note)
    signer = keys.signer_of(head.size - 1)
    if signer is None:
        raise ProofError("no line certifies the key that signed the checkpoint")
    if signer.name != head.origin:
        raise ProofError(f"a checkpoint of {head.origin}, not of {signer.name}")
    try:
        open_note(note, [signer], verify)
    except NoteError as error:
        raise ProofError(f"the checkpoint of {head.size} entries: {error}") from None
    return head


def _hash(text: str) -> bytes:
    try:
        hashed = base64_bytes(text)
    except NoteError:
        hashed = b""
    if len(hashed) != _HASH_BYTES:
        raise ProofError(f"not the base64 of {_HASH_BYTES} bytes: {text[:60]}")
    return hashed

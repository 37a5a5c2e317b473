"""C2SP signed notes, tlog checkpoints and verifier keys (Ed25519)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from kernel.errors import NoteError, UnknownSigner

type Signer = Callable[[bytes], bytes]
type Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, signature, message) -> whether the signature holds."""

ED25519 = b"\1"
DASH = "— "
_NAME = re.compile(r"[!-*,-~]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
MAX_NOTE_CHARACTERS = 2**20
_MAX_NOTE_LINES = 64
# Origin, size and root. These and the empty line are what a write that was cut off before its signature can have left.
_BODY_LINES = 3


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 public key (32 bytes)."""

    name: str
    public: bytes

    @property
    def kid(self) -> str:
        """The C2SP key id in hex, as it stands in log lines."""
        return key_id(self.name, self.public).hex()

    def __str__(self) -> str:
        return verifier_key(self.name, self.public)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a tree: `size` leaves with this `root`."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class PlacedNote:
    """A note of a file, with the line (from 1) and the byte at which it begins."""

    text: str
    line: int | None
    offset: int | None


def root_name(log_id: str) -> str:
    """The name of a log's root key, and the origin of the log."""
    return f"governor/{log_id}"


def lane_name(log_id: str, lane: str) -> str:
    """The name of a lane's key, and the origin of its checkpoints."""
    return f"governor/{log_id}/{lane}"


def key_id(name: str, public: bytes, kind: bytes = ED25519) -> bytes:
    """The four bytes by which a signature names its key. `kind` is C2SP's byte for what the key signs."""
    return sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def verifier_key(name: str, public: bytes, kind: bytes = ED25519) -> str:
    """The key as text: name, key id and base64, joined by plus signs."""
    return f"{name}+{key_id(name, public, kind).hex()}+{base64.b64encode(kind + public).decode()}"


def parse_verifier_key(text: str) -> VerifierKey:
    """The key that `text` (surrounding white space aside) names, or NoteError."""
    name, public = named_key(text, ED25519, "only Ed25519 is known")
    return VerifierKey(name, public)


def named_key(text: str, kind: bytes, otherwise: str) -> tuple[str, bytes]:
    """Name and public key of a verifier key of this kind, or NoteError, which says `otherwise` of any other kind."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not _NAME.fullmatch(parts[0]):
        raise NoteError("not a verifier key: expected NAME+KEYID+BASE64")
    name, named_id, encoded = parts
    data = base64_bytes(encoded)
    if len(data) != 33 or data[:1] != kind:
        raise NoteError(f"not a verifier key: {otherwise}")
    if key_id(name, data[1:], kind).hex() != named_id:
        raise NoteError("not a verifier key: the key id does not belong to this name and key")
    return name, data[1:]


def checkpoint_body(origin: str, size: int, root: bytes) -> str:
    """The text of a checkpoint, ready to be signed."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def parse_checkpoint(body: str) -> Checkpoint:
    """The checkpoint in the body of a note, or NoteError. Extension lines are refused: nothing here writes any."""
    lines = body.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise NoteError("not a checkpoint: expected three lines: origin, size, root")
    if not _SIZE.fullmatch(lines[1]):
        raise NoteError("not a checkpoint: the size is not a decimal number")
    root = base64_bytes(lines[2])
    if len(root) != 32:
        raise NoteError("not a checkpoint: the root is not 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def stated_checkpoint(note: str) -> Checkpoint:
    """The checkpoint that a signed note states, its signatures not checked, or NoteError."""
    return parse_checkpoint(note.rpartition("\n\n")[0] + "\n")


def sign(body: str, name: str, public: bytes, signer: Signer) -> str:
    """The signed note: body, empty line, one signature line. `body` ends in a line feed."""
    signature = key_id(name, public) + signer(body.encode())
    return f"{body}\n{DASH}{name} {base64.b64encode(signature).decode()}\n"


def open_note(text: str, verifiers: Iterable[VerifierKey], verify: Verify) -> str:
    """The body of a note that at least one of `verifiers` signed, or NoteError (`UnknownSigner` where none did).

    Signatures of unknown keys are ignored; one of a known key that does not verify rejects the note.
    """
    body, signatures = opened(text)
    known = {(key.name, key_id(key.name, key.public)): key for key in verifiers}
    signed = False
    for name, signature in signatures:
        key = known.get((name, signature[:4]))
        if key is None:
            continue
        if not verify(key.public, signature[4:], body.encode()):
            raise NoteError(f"the signature of {name} does not verify")
        signed = True
    if not signed:
        raise UnknownSigner("no signature of a known key")
    return body


def opened(text: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The body of a signed note, and of each of its lines the key name and key id || signature. Verifies nothing."""
    body, lines = _parts(text)
    return body, [_signature(line) for line in lines]


def split_notes(lines: Iterable[bytes]) -> Iterator[PlacedNote]:
    """The checkpoints that stand one after the other in `lines` (LFs included). An unfinished last one is left out.

    A note ends with its signature lines, so that what follows the last of them begins the next note.
    """
    note: list[str] = []
    place, offset, whole = (1, 0), 0, True
    for number, line in enumerate(lines, 1):
        if not whole:
            raise NoteError(f"line {number - 1}: longer than a line of a note can be")
        # What is not UTF-8 cannot verify; replaced, it is told as a bad note at its place.
        text = line.decode(errors="replace")
        if _ended(note) and not text.startswith(DASH):
            yield PlacedNote("".join(note), *place)
            note = []
        if not text.endswith("\n"):
            # Part of a signature line belongs to the note before it, which is then not finished either.
            note = [] if _ended(note) else note
            whole = False
            continue
        if len(note) == _MAX_NOTE_LINES:
            raise NoteError(f"line {place[0]}: no note ends within {_MAX_NOTE_LINES} lines")
        if not note:
            place = (number, offset)
        note.append(text)
        offset += len(line)
    if _ended(note):
        yield PlacedNote("".join(note), *place)
    elif note[_BODY_LINES:] not in ([], ["\n"]):
        raise NoteError(f"line {place[0]}: not the beginning of a checkpoint, and no signature follows")


def _ended(note: list[str]) -> bool:
    return bool(note) and note[-1].startswith(DASH)


def _parts(text: str) -> tuple[str, list[str]]:
    if len(text) > MAX_NOTE_CHARACTERS:
        raise NoteError("not a signed note: too long")
    if any(ord(character) < 0x20 and character != "\n" for character in text):
        raise NoteError("not a signed note: it holds a control character")
    body, empty, signatures = text.rpartition("\n\n")
    if not empty or not body or not signatures.endswith("\n"):
        raise NoteError("not a signed note: expected a text, an empty line and signature lines")
    return body + "\n", signatures[:-1].split("\n")


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not _NAME.fullmatch(name):
        raise NoteError("not a signed note: a signature line is malformed")
    signature = base64_bytes(encoded)
    if len(signature) <= 4:
        raise NoteError("not a signed note: a signature is too short")
    return name, signature


def base64_bytes(text: str) -> bytes:
    """The bytes of the one base64 spelling that they have, or NoteError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise NoteError("not canonical base64")
    return data

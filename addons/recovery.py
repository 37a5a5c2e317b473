"""Reading a lane back at a start: what is whole goes on, a torn tail is put aside, and damage refuses to start."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from blake3 import blake3

from addons import codec, durable, keys
from addons.errors import StartCode, StartRefused
from addons.home import FIRST_SEGMENT
from addons.journal import Draft, Journal
from addons.rebuilding import Beginning, beginning, parsed, signed_by
from addons.segment import Segment, segment_name, segment_names
from kernel import chain, entry, note
from kernel.errors import CanonicalError, ChainError, NoteError
from kernel.folding import States
from kernel.merkle import Tree, leaf_hash
from kernel.opening import resumed_tree

if TYPE_CHECKING:
    from pathlib import Path

    from addons.home import Home
    from addons.keys import SigningKey

CHECKPOINTS = "checkpoints.note"
# Room for several notes, cosigned ones too: of the old ones only the last is needed at a start.
_TAIL_BYTES = 64 * 1024
_LINES_AT_ONCE = 1024
_OPENING_LINES = 2


@dataclass(slots=True)
class Reading:
    """What the lines of a lane said, as far as they are whole. `size_bytes` and `torn` are of its last segment."""

    tree: Tree
    prev: str
    states: States
    size_bytes: int = 0
    torn: bytes = b""
    opened: bool = False
    last_ts: str = ""
    unfolded: int | None = None
    """The first entry of which this version does not know what it does to the states."""


@dataclass(frozen=True, slots=True)
class Reopened:
    """A lane ready to be written: its journal, and what must be recorded of the time before."""

    journal: Journal
    reading: Reading
    repairs: tuple[entry.Body, ...]

    def repair(self) -> None:
        """Record what is to be said of the time before, and count it in the states."""
        journal = self.journal
        said = drafts(self.repairs, journal.size)
        if said:
            journal.append(said)
        for draft in said:
            body = {**draft.fields, "ts": journal.timestamp(draft)}
            self.reading.states.fold(body, f"{journal.lane}/{draft.seq}")


def reopen(home: Home, lane: str, key: SigningKey) -> Reopened:
    """Read the lane back, put a torn tail aside, and be ready to go on. `StartRefused` when it is not whole."""
    folder = home.paths.lane(lane)
    segments = _segments(folder)
    segment = Segment.open(segments[-1])
    try:
        heads = _heads(home, lane, key)
        start = beginning(home.paths, lane, segments, key, max(heads, default=0))
        reading = _Reader(home, lane, key, heads, start).read(segments)
        _not_rolled_back(segment.path, reading, heads)
        _all_folded(lane, reading)
        put_aside = _put_aside(folder, lane, segment, reading)
    except BaseException:
        segment.close()
        raise
    journal = Journal(lane, key, segment, reading.tree, reading.prev, reading.last_ts)
    begun = [] if journal.beginning is None else [journal.beginning]
    return Reopened(journal, reading, (*begun, *put_aside, *_unknown_outcomes(lane, reading.states)))


def drafts(bodies: tuple[entry.Body, ...] | list[entry.Body], first: int) -> list[Draft]:
    """The bodies as drafts with the numbers from `first` on."""
    return [Draft(first + at, str(body["type"]), body, None, None) for at, body in enumerate(bodies)]


def tampered(path: Path, problem: str) -> StartRefused:
    """Damage: nothing may be added to this log."""
    return StartRefused(StartCode.TAMPERED, f"{path}: {problem}; governor audit verify says more, a backup helps")


def rolled_back(path: Path, entries: int, least: int) -> StartRefused:
    """An older or shorter log than the one that was written."""
    text = f"{path} holds {entries} entries, and {least} were signed as written; restore the newest log"
    return StartRefused(StartCode.ROLLED_BACK, text)


def _segments(folder: Path) -> list[Path]:
    """The lane's segments, every one there and private."""
    paths = [folder / name for name in segment_names(folder)] or [folder / FIRST_SEGMENT]
    for number, path in enumerate(paths):
        if path.name != segment_name(number):
            text = f"{folder / segment_name(number)} is missing, and later segments are there; restore it from a backup"
            raise StartRefused(StartCode.HOME_INCOMPLETE, text)
        status = os.lstat(path)
        problem = durable.exposure(status) if stat.S_ISREG(status.st_mode) else "is not a regular file"
        if problem or status.st_nlink != 1:
            text = f"{path} {problem or 'has a second name'}; it must be one file, yours, with mode 0600"
            raise StartRefused(StartCode.HOME_UNWRITABLE, text)
    return paths


def _heads(home: Home, lane: str, key: SigningKey) -> dict[int, bytes]:
    """Size to root, of the newest heads that were signed: the last local checkpoint and minimum.json."""
    verifier = note.VerifierKey(key.name, key.public)
    path = home.paths.lane(lane) / CHECKPOINTS
    local = newest_checkpoint(path, verifier)
    kept = home.minimum().get(lane)
    if kept is None and local is not None:
        text = f"{home.paths.minimum} does not name lane {lane}, which has checkpoints; restore it from a backup"
        raise StartRefused(StartCode.HOME_INCOMPLETE, text)
    heads = [] if local is None else [local]
    if kept is not None:
        try:
            heads.append(_checkpoint(kept, verifier))
        except NoteError as fault:
            raise tampered(home.paths.minimum, f"lane {lane}: {fault}") from fault
    roots: dict[int, bytes] = {}
    for head in heads:
        if roots.setdefault(head.size, head.root) != head.root:
            raise tampered(path, f"two signed heads of size {head.size} differ")
    return roots


def newest_checkpoint(path: Path, verifier: note.VerifierKey) -> note.Checkpoint | None:
    """The last whole checkpoint in the file; an unfinished one behind it is cut off."""
    try:
        with path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, end - _TAIL_BYTES))
            # The line feed put in front makes the first note of the file begin like any other.
            tail = (b"\n" if start == 0 else b"") + file.read()
            last, at = _last_note(path, tail, verifier)
            if at < len(tail):
                file.truncate(end - (len(tail) - at))
                os.fsync(file.fileno())
            return last
    except FileNotFoundError:
        return None


def _last_note(path: Path, tail: bytes, verifier: note.VerifierKey) -> tuple[note.Checkpoint | None, int]:
    """The last whole note in `tail`, and where it ends. One unfinished note may follow it, not two."""
    mark = b"\n" + verifier.name.encode() + b"\n"
    begin = len(tail)
    for _ in range(2):
        begin = tail.rfind(mark, 0, begin + 1)
        if begin < 0:
            break
        end = _note_end(tail, begin + 1)
        try:
            return _checkpoint(tail[begin + 1 : end].decode(), verifier), end
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


def _checkpoint(text: str, verifier: note.VerifierKey) -> note.Checkpoint:
    checkpoint = note.parse_checkpoint(note.open_note(text, [verifier], keys.verifies))
    if checkpoint.origin != verifier.name:
        raise NoteError(f"a checkpoint of {checkpoint.origin} stands in for {verifier.name}")
    return checkpoint


class _Reader:
    """Follows a lane line by line, as the verifier does, and keeps what a writer needs to go on."""

    def __init__(self, home: Home, lane: str, key: SigningKey, heads: dict[int, bytes], start: Beginning) -> None:
        self._home, self._lane, self._key, self._heads = home, lane, key, heads
        # A signed head speaks for every line below it, signatures included; above it each one is checked.
        self._covered = max(heads, default=0)
        self._start = start
        self._found = Reading(start.tree, start.prev, start.states)

    def read(self, segments: list[Path]) -> Reading:
        """Everything from the segment on with which to start."""
        found = self._found
        if self._start.number:
            self._read_opening(segments[0])
            self._check_head()
        first, *later = segments[self._start.number:]
        self._read(first)
        for path in later:
            if found.torn or not found.size_bytes:
                # The next segment is made only when the last line of the one before is durable.
                raise tampered(path, "the segment before it does not end in a whole line")
            found.size_bytes = 0
            self._read(path)
        return found

    def _read_opening(self, path: Path) -> None:
        """Nothing where the lane begins as it must; the key that its lane_open brings is then the one that signs it."""
        nothing = Beginning(0, Tree(), chain.GENESIS_PREV, States(), _OPENING_LINES)
        first = _Reader(self._home, self._lane, self._key, {}, nothing)
        with path.open("rb") as file:
            try:
                for line in islice(file, _OPENING_LINES):
                    if not first._found.opened:
                        first._take(path, line)
            except (ChainError, CanonicalError) as fault:
                raise tampered(path, str(fault)) from fault
        if not first._found.opened:
            raise tampered(path, "the lane does not begin with lane_open")
        self._found.opened = True

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            for line in file:
                if not self._taken(path, file, line):
                    break
                if self._found.opened and self._found.tree.size < self._covered:
                    self._skim(path, file)

    def _taken(self, path: Path, file: BinaryIO, line: bytes) -> bool:
        """Whether the line follows; False for a torn one, which must be the last."""
        found = self._found
        try:
            self._take(path, line)
        except (ChainError, CanonicalError) as fault:
            if file.read(1) or signed_by(self._key, line) is not None:
                where = f"entry {found.tree.size} at byte {found.size_bytes}"
                raise tampered(path, f"{where}: {fault}") from fault
            found.torn = line
            return False
        found.size_bytes += len(line)
        return True

    def _skim(self, path: Path, file: BinaryIO) -> None:
        """Take the lines below the signed heads. A head's root proves their every byte: only what they say is read."""
        found, last = self._found, b""
        for head in sorted(size for size in self._heads if size > found.tree.size):
            while lines := list(islice(file, min(_LINES_AT_ONCE, head - found.tree.size))):
                if not lines[-1].endswith(b"\n"):
                    found.torn = lines.pop()
                try:
                    self._fold_all(lines)
                except (ChainError, CanonicalError) as fault:
                    raise tampered(path, f"after entry {found.tree.size - 1}: {fault}") from fault
                found.tree.extend([leaf_hash(line[:-1]) for line in lines])
                found.size_bytes += sum(map(len, lines))
                last = lines[-1] if lines else last
            self._check_head()
        if last:
            found.prev = chain.entry_hash(chain.split(last)[0]).hex()

    def _fold_all(self, lines: list[bytes]) -> None:
        begin = max(self._start.at - self._found.tree.size, 0)
        for seq, line in enumerate(lines[begin:], self._found.tree.size + begin):
            body = codec.read(chain.split(line)[0])
            if isinstance(body, dict):
                self._fold(seq, body)

    def _fold(self, seq: int, body: dict[str, Any]) -> None:
        self._found.last_ts = str(body.get("ts"))
        if seq < self._start.at or self._found.unfolded is not None:
            return
        try:
            self._found.states.fold(body, f"{self._lane}/{seq}")
        except (LookupError, TypeError, ValueError, AttributeError):
            # Below a signed head that is not reached yet, damage may be why.
            self._found.unfolded = seq

    def _check_head(self) -> None:
        tree = self._found.tree
        if self._heads.get(tree.size, tree.root()) != tree.root():
            # A head is signed only after its entries are durable: no crash explains this, not even at the last line.
            problem = f"the first {tree.size} entries are not those whose head was signed"
            raise tampered(self._home.paths.lane(self._lane), problem)

    def _take(self, path: Path, line: bytes) -> None:
        raw, kid, signature = chain.split(line)
        body = parsed(raw)
        found = self._found
        self._check_place(body)
        hashed = chain.entry_hash(raw)
        key = self._signer(body)
        if kid != key.kid:
            raise ChainError(f"signed by key {kid}, which is not the key of this lane")
        if found.tree.size >= self._covered and not keys.verifies(key.public, signature, chain.signed_bytes(hashed)):
            raise ChainError("the signature does not verify")
        self._check_opening(body)
        self._check_segment(path, body)
        self._fold(found.tree.size, body)
        found.tree.append(leaf_hash(line[:-1]))
        found.prev = hashed.hex()
        self._check_head()

    def _check_place(self, body: dict[str, Any]) -> None:
        version, found = body.get("v"), self._found
        if isinstance(version, int) and version > entry.VERSION:
            text = f"lane {self._lane} was written by a later version (entry format {version}); use that version"
            raise StartRefused(StartCode.VERSION, text)
        place = (entry.VERSION, found.tree.size, found.prev, self._lane)
        if (version, body.get("seq"), body.get("prev"), body.get("lane")) != place:
            raise ChainError("it does not follow from the entry before it")

    def _signer(self, body: dict[str, Any]) -> note.VerifierKey | SigningKey:
        return self._home.root if body.get("type") == "genesis" else self._key

    def _check_opening(self, body: dict[str, Any]) -> None:
        """A lane begins with `lane_open`, in the first lane after `genesis`; neither stands anywhere else."""
        kind, found = body.get("type"), self._found
        if kind == "genesis":
            if found.tree.size or body.get("log_id") != self._home.log_id or body.get("root") != str(self._home.root):
                raise ChainError("genesis is out of place or of another log")
        elif (kind == "lane_open") == found.opened:
            raise ChainError("lane_open is missing or out of place")
        elif kind == "lane_open":
            self._check_certificate(body)
            found.opened = True

    def _check_segment(self, path: Path, body: dict[str, Any]) -> None:
        """Every segment but the first begins with segment_open, with the tree before it; no other line is one."""
        first = not self._found.size_bytes and path.name != FIRST_SEGMENT
        if (body.get("type") == "segment_open") != first:
            raise ChainError("segment_open is missing or out of place")
        if first and resumed_tree(body, path.name).complete != self._found.tree.complete:
            raise ChainError("segment_open tells another tree than the entries before it make")

    def _check_certificate(self, body: dict[str, Any]) -> None:
        home, key = self._home, self._key.verifier_key
        if body.get("key") != key:
            raise ChainError(f"the lane's key is not the one in {home.paths.lane_key(self._lane)}")
        try:
            certificate = base64.b64decode(str(body.get("certificate")), validate=True)
        except (binascii.Error, ValueError):
            certificate = b""
        if not keys.verifies(home.root.public, certificate, entry.certificate_bytes(home.log_id, self._lane, key)):
            raise ChainError("the root key did not certify the lane's key")


def _not_rolled_back(path: Path, reading: Reading, heads: dict[int, bytes]) -> None:
    least = max(heads, default=0)
    if reading.tree.size >= least:
        return
    if reading.torn.endswith(b"\n"):
        raise tampered(path, f"entry {reading.tree.size} at byte {reading.size_bytes} was written whole and is damaged")
    raise rolled_back(path, reading.tree.size, least)


def _all_folded(lane: str, reading: Reading) -> None:
    if reading.unfolded is not None:
        text = f"entry {lane}/{reading.unfolded} was written by a later version; use that version"
        raise StartRefused(StartCode.VERSION, text)


def _put_aside(folder: Path, lane: str, segment: Segment, reading: Reading) -> list[entry.Body]:
    """Move a torn tail out of the segment; the entry that says so. Done again, or finished, after a crash in it."""
    offset = reading.size_bytes
    aside = folder / f"torn-{lane}-{segment.path.stem}-{offset}.bin"
    if reading.torn and not aside.exists():
        durable.replace(aside, reading.torn)
    if segment.size > offset:
        segment.cut(offset)
    if not aside.exists():
        return []
    content = aside.read_bytes()
    return [entry.recovery(segment.path.name, offset, len(content), blake3(content).hexdigest())]


def _unknown_outcomes(lane: str, states: States) -> list[entry.Body]:
    """An outcome for each flow that was let through and has none, in their order."""
    flows = {int(name.removeprefix(f"{lane}/")): (name, flow.flow)
             for state in (states.real, states.shadow) for name, flow in state.open.items()}
    return [entry.outcome(flow, name, "unknown") for _, (name, flow) in sorted(flows.items())]

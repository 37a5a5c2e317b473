"""Reading a lane back at a start: what is whole goes on, a torn tail is put aside, and damage refuses to start."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from blake3 import blake3

from addons import ahead_keys, codec, durable, keys, lane_keys
from addons.errors import StartCode, StartRefused
from addons.heads_to_reach import Heads, heads_to_reach
from addons.home import FIRST_SEGMENT
from addons.journal import Journal, Past, drafts
from addons.key_lines import key_lines
from addons.keys import SigningKey
from addons.lane_keys import LaneKeys
from addons.lane_refusals import lost, rolled_back, tampered
from addons.rebuilding import Beginning, beginning, parsed, signed_by
from addons.segment import Segment, segment_name, segment_names
from kernel import chain, entry, note
from kernel.errors import CanonicalError, ChainError, KernelError
from kernel.folding import States
from kernel.key_chain import KeyChain, certified
from kernel.merkle import Tree, leaf_hash
from kernel.opening import resumed_tree
from kernel.transition import micros

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from addons.home import Home

_LINES_AT_ONCE = 1024
_OPENING_LINES = 2
_OPENING = frozenset({"genesis", "lane_open", "key_compromised"})


@dataclass(slots=True)
class Reading:
    """What the lines of a lane said, as far as they are whole. `size_bytes` and `torn` are of its last segment."""

    tree: Tree
    prev: str
    states: States
    size_bytes: int = 0
    torn: bytes = b""
    opened: bool = False
    followed: bool = False
    """Whether anything stands behind the opening."""
    has_head: bool = False
    last_ts: str = ""
    policy: str | None = None
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
        # The segment of the key that signs now has begun: the one before it must sign no more.
        journal.keys.settle()


def reopen(home: Home, lane: str, published: Sequence[str] = ()) -> Reopened:
    """Read the lane back, put a torn tail aside, and be ready to go on. `StartRefused` when it is not whole.

    `published` are heads of the lane that its anchors hold.
    """
    folder = home.paths.lane(lane)
    first = _first_key(home, lane)
    segments = _segments(folder)
    segment = Segment.open(segments[-1])
    try:
        certified_keys = _certified(home, lane, segments)
        reading = _read(home, lane, segments, certified_keys, published)
        signer = certified_keys.current
        key = first if signer is None else lane_keys.find(home, lane, signer)
        put_aside = _put_aside(folder, lane, segment, reading)
        # A key_rotate that ends the log has certified a key whose segment is not there yet.
        ended = bool(reading.size_bytes) and certified_keys.first_seq == reading.tree.size
        own = LaneKeys(home, lane, key, key if ended else None)
        past = Past(reading.last_ts, reading.policy, _began_us(segment))
        journal = Journal(lane, own, segment, reading.tree, reading.prev, past)
        if ended:
            journal.rotate()
    except BaseException:
        segment.close()
        raise
    begun = [] if journal.beginning is None else [journal.beginning]
    return Reopened(journal, reading, (*begun, *put_aside, *_unknown_outcomes(lane, reading.states)))


def examine(home: Home, lane: str, published: Sequence[str] = ()) -> None:
    """Read a lane as a start does, and change nothing. `StartRefused` where a start would be refused."""
    _not_lost(home, lane)
    segments = _segments(home.paths.lane(lane))
    certified_keys = _certified(home, lane, segments)
    _read(home, lane, segments, certified_keys, published, changes=False)
    signer = certified_keys.current
    if signer is not None and not lane_keys.is_held(home, lane, signer):
        raise lost(home, f"has lost the key {signer.kid} that signs lane {lane}")


def _read(home: Home, lane: str, segments: list[Path], certified: KeyChain, published: Sequence[str],
          *, changes: bool = True) -> Reading:
    """What the lane says, which nothing contradicts."""
    heads = heads_to_reach(home, lane, certified, published, changes=changes)
    start = beginning(home, lane, segments, certified, max(heads.signed, default=0))
    reading = _Reader(home, lane, certified, heads.signed, start).read(segments)
    _not_rolled_back(segments[-1], reading, heads)
    reading.has_head = bool(heads.signed)
    if not reading.has_head and max(reading.tree.size, certified.first_seq + 1) > _OPENING_LINES:
        # The first head is signed before anything follows the opening; a key_rotate follows it, too.
        raise lost(home, f"has lost every signed head of lane {lane}")
    _all_folded(lane, reading)
    return reading


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


def _first_key(home: Home, lane: str) -> SigningKey:
    """The lane's key as it lies there, made where the lane is new. Whether it signs next is said by the log."""
    path, segment = home.paths.lane_key(lane), home.paths.lane(lane) / FIRST_SEGMENT
    name = note.lane_name(home.log_id, lane)
    _not_lost(home, lane)
    if os.path.lexists(path):
        return SigningKey.load(path, name)
    # `init` certifies keys ahead under the same lock: it finds this one, or this start finds what it made.
    with durable.locked(home.paths.lock):
        ready = ahead_keys.lying_ready(home, lane)
        if ready is None:
            home.demand_root()
        # The file comes before the key: a key without a file then always means that the log was lost.
        Segment.open(segment).close()
        return SigningKey.create(path, name) if ready is None else ahead_keys.take(home, ready)


def _not_lost(home: Home, lane: str) -> None:
    """Nothing where the lane has its key and its log, or neither; else `StartRefused`."""
    segment = home.paths.lane(lane) / FIRST_SEGMENT
    if os.path.lexists(home.paths.lane_key(lane)):
        if not segment.exists():
            raise lost(home, f"has a key for lane {lane} and has lost its log")
    elif segment.exists() and segment.stat().st_size:
        raise lost(home, f"has a log of lane {lane} and has lost its key")


def _certified(home: Home, lane: str, segments: list[Path]) -> KeyChain:
    """The keys of the lane, by the lines that brought them."""
    lines = list(key_lines(segments))
    try:
        return certified(lines, lane, home.root, keys.verifies, codec.parse)
    except KernelError as fault:
        # The last line of all may be torn; then it certifies nothing, and the reading tells what it is.
        if lines and segments[-1].read_bytes().endswith(lines[-1]):
            with suppress(KernelError):
                return certified(lines[:-1], lane, home.root, keys.verifies, codec.parse)
        raise tampered(home.paths.lane(lane), f"the keys of the lane: {fault}") from fault


def _began_us(segment: Segment) -> int | None:
    """The time of the first entry of a segment whose lines were proved; None where it has none."""
    line = segment.read(0, chain.MAX_LINE_BYTES).partition(b"\n")[0]
    if not line:
        return None
    body = codec.read(chain.split(line + b"\n")[0])
    return micros(str(body.get("ts"))) if isinstance(body, dict) else None


class _Reader:
    """Follows a lane line by line, as the verifier does, and keeps what a writer needs to go on."""

    def __init__(self, home: Home, lane: str, certified: KeyChain, heads: dict[int, bytes], start: Beginning) -> None:
        self._home, self._lane, self._keys, self._heads = home, lane, certified, heads
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
        first = _Reader(self._home, self._lane, self._keys, {}, nothing)
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
            if file.read(1) or signed_by(self._keys, line) is not None:
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
        self._found.followed |= body.get("type") not in _OPENING
        if body.get("type") == "policy_load":
            self._found.policy = str(body.get("policy"))
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
        if key is None or kid != key.kid:
            raise ChainError(f"signed by key {kid}, which is not the key of this place in the lane")
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

    def _signer(self, body: dict[str, Any]) -> note.VerifierKey | None:
        """The key that signs the next entry. What brings keys, and does not, is not known as such."""
        seq = self._found.tree.size
        if body.get("type") == "key_rotate" and self._keys.signer_of(seq) == self._keys.signer_of(seq + 1):
            raise ChainError("key_rotate certifies no key here")
        return self._home.root if body.get("type") == "genesis" else self._keys.signer_of(seq)

    def _check_opening(self, body: dict[str, Any]) -> None:
        """A lane begins with `lane_open`, in the first lane after `genesis`; neither stands anywhere else."""
        kind, found = body.get("type"), self._found
        if kind == "genesis":
            if found.tree.size or body.get("log_id") != self._home.log_id or body.get("root") != str(self._home.root):
                raise ChainError("genesis is out of place or of another log")
        elif (kind == "lane_open") == found.opened:
            raise ChainError("lane_open is missing or out of place")
        elif kind == "lane_open":
            found.opened = True

    def _check_segment(self, path: Path, body: dict[str, Any]) -> None:
        """Every segment but the first begins with segment_open, with the tree before it; no other line is one."""
        first = not self._found.size_bytes and path.name != FIRST_SEGMENT
        if (body.get("type") == "segment_open") != first:
            raise ChainError("segment_open is missing or out of place")
        if first and resumed_tree(body, path.name).complete != self._found.tree.complete:
            raise ChainError("segment_open tells another tree than the entries before it make")


def _not_rolled_back(path: Path, reading: Reading, heads: Heads) -> None:
    least = max((*heads.signed, *(head.size for head in heads.foreign)), default=0)
    if reading.tree.size >= least:
        if heads.foreign:
            raise tampered(path, f"no key of the lane signed the head at {heads.foreign[0].size} entries")
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
    end = reading.size_bytes
    aside = partial(_aside, folder, lane, segment)
    if reading.torn and not aside(end).exists():
        durable.replace(aside(end), reading.torn)
    if segment.size > end:
        segment.cut(end)
    # What was torn off in an opening can only be recorded behind it, and was not while nothing stands there.
    places = [end] if reading.followed else [0, *(line.end() for line in re.finditer(b"\n", segment.read(0, end)))]
    return [_recovery(segment, offset, aside(offset).read_bytes()) for offset in places if aside(offset).exists()]


def _aside(folder: Path, lane: str, segment: Segment, offset: int) -> Path:
    return folder / f"torn-{lane}-{segment.path.stem}-{offset}.bin"


def _recovery(segment: Segment, offset: int, content: bytes) -> entry.Body:
    return entry.recovery(segment.path.name, offset, len(content), blake3(content).hexdigest())


def _unknown_outcomes(lane: str, states: States) -> list[entry.Body]:
    """An outcome for each flow that was let through and has none, in their order; those of a lost lane come first."""
    flows = {name: flow.flow for state in (states.real, states.shadow) for name, flow in state.open.items()}
    placed = sorted((of == lane, int(seq), f"{of}/{seq}") for of, _, seq in (name.partition("/") for name in flows))
    return [entry.outcome(flows[name], name, "unknown") for _, _, name in placed]

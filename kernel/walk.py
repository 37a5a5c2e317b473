"""The verification of one lane: every line in turn, against the one before it and against the lane's marks.

A walk may begin with a later segment: then the tree over what came before is that of its segment_open, and the key that
signs it is proved by the lines that brought the keys of the lane.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched, chain, islice

from kernel.batch import Unsigned, read_columns
from kernel.canonical import Value
from kernel.chain import GENESIS_PREV, MAX_LINE_BYTES, entry_hash, signed_bytes
from kernel.errors import CanonicalError, ChainError, KernelError
from kernel.key_chain import KeyChain, certified
from kernel.lease_numbers import LEASE, LeaseNumbers, granted
from kernel.loss import Loss, compromise_in, loss_in
from kernel.marks import Broken, Held, Marks, Sighted
from kernel.merkle import Tree, leaf_hash, leaf_hashes
from kernel.note import VerifierKey, Verify
from kernel.opening import Claim, claims, genesis_root, resumed_tree
from kernel.reading import (
    BEGINNINGS,
    CLOSED,
    GENESIS,
    KEY_COMPROMISED,
    KEY_ROTATE,
    KNOWN_V,
    LANE_OPEN,
    SEGMENT_OPEN,
    Fields,
    LineReader,
    Parse,
)
from kernel.report import Anchored, Failure, KeyRange, LaneReport, Result
from kernel.stamps import Stamps
from kernel.witnessed import Witnessed

type Segment = tuple[str, Iterable[bytes]]

# Signatures wait until a checkpoint covers their entries; more of them than lie between two checkpoints are checked.
_PENDING = 4096
_BATCH = 128
_BATCH_BYTES = 2**21
_FEW = 8


@dataclass(frozen=True, slots=True)
class Source:
    """A lane where it lies. `segments` and `checkpoints` (lines, LFs included) give fresh streams at each call.

    Where the lane is not there from its beginning, `first` is the number of the first segment that is, and `key_lines`
    are the lines that brought the keys of the lane, as `kernel.key_chain.certified` takes them. `end` is set where it
    is not there up to its end: how many entries there are before that. `parts` are such pieces of it, one after the
    other, that make up the whole; none where it is one piece.
    """

    lane: str
    segments: Callable[[], Iterable[Segment]]
    checkpoints: Callable[[], Iterable[bytes]]
    live: bool = False
    first: int = 0
    key_lines: Callable[[], Iterable[bytes]] = tuple
    end: int | None = None
    parts: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What every lane of a log is held to. `root` is None only where nothing names one."""

    root: VerifierKey | None
    verify: Verify
    parse: Parse
    every_signature: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a lane stands after `size` entries: the hash of the last, the root, and the key that signs the next."""

    size: int
    head: str
    root: bytes
    key: VerifierKey | None


@dataclass(slots=True)
class Found:
    """What the walk over a lane found; `broken` is None where the lane holds. `begin` and `end` are where it stood."""

    lane: LaneReport
    segments: int
    torn_bytes: int
    has_genesis: bool
    first_ts: str | None
    last_ts: str | None
    begin: Standing
    end: Standing
    anchored: Anchored | None = None
    checkpoints: int = 0
    keys: list[KeyRange] = field(default_factory=list)
    leases: LeaseNumbers = field(default_factory=LeaseNumbers)
    broken: Broken | None = None


class Walk:
    """One verification of one lane."""

    def __init__(
        self,
        source: Source,
        rules: Rules,
        held: Sequence[Held | Sighted],
        claims: Sequence[Claim],
        witnessed: Witnessed | None = None,
    ) -> None:
        self._source, self._rules, self._held, self._claims = source, rules, held, claims
        self._witnessed = witnessed
        # The folder may have a name that is no text; no entry says it.
        self._lane = source.lane.encode(errors="surrogateescape")
        self._reader = LineReader(rules.parse, self._lane)
        self._tree = Tree()
        self._stamps = Stamps()
        self._leases = LeaseNumbers()
        self._prev = GENESIS_PREV.encode()
        self._keys = KeyChain(source.lane, rules.root, rules.verify)
        self._kid = b""
        self._genesis: VerifierKey | None = None
        self._loss: Loss | None = None
        self._pending: list[Unsigned] = []
        self._waiting = 0
        self._segments = 0
        self._resumes = self._rotated = False
        self._line = self._start = 0
        self._segment = ""
        self._torn: Failure | None = None
        self._torn_bytes = 0
        self._last = b""
        self._marks = Marks(source.lane, (), (), ())
        self._anchored_at: str | None = None
        self._begin_at = self._standing()

    def run(self) -> Found:
        """Everything about the lane, up to the first thing that does not hold."""
        broken = None
        try:
            self._marks = Marks(self._source.lane, self._source.checkpoints(), self._held, self._claims)
            self._next_mark = self._marks.next_size
            for name, lines in self._source.segments():
                stream = iter(lines)
                self._begin(name)
                if self._segments == 1 and self._source.first:
                    first = list(islice(stream, 1))
                    self._adopt(first)
                    stream = chain(first, stream)
                for batch in _batches(stream):
                    self._take_batch(batch)
            self._end()
        except Broken as found:
            blamed = self._blame(found)
            # As it was raised it would keep the walk in memory, one for each broken lane.
            broken = Broken(blamed.result, blamed.failure)
        return self._found(broken)

    @property
    def _head(self) -> str:
        return self._prev.decode()

    def _begin(self, name: str) -> None:
        if self._torn is not None:
            raise Broken(Result.TAMPERED, self._torn)
        if self._segments and not self._line:
            raise self._fails("the segment holds no entries, and a later one is there")
        expected = f"{self._source.first + self._segments:06d}.jsonl"
        self._segment, self._line, self._offset = name, 0, 0
        if name != expected:
            raise self._fails(f"expected segment {expected} here: one is missing")
        self._resumes = self._segments > 0 or self._source.first > 0
        self._rotated = False
        self._segments += 1

    def _adopt(self, lines: Sequence[bytes]) -> None:
        """Stand where the segment_open with which this walk begins says that the lane stood."""
        try:
            raw, prev = self._first_line(lines)
            entry = self._rules.parse(raw)
            self._tree = resumed_tree(entry, self._segment)
            self._keys = certified(self._source.key_lines(), self._source.lane, self._rules.root, self._rules.verify,
                                   self._rules.parse, before=self._tree.size)
        except KernelError as error:
            raise self._fails(str(error)) from None
        if self._keys.current is None:
            raise self._fails("nothing proves the key of this segment")
        self._kid = self._keys.current.kid.encode()
        self._prev = prev
        self._begin_at = self._standing()
        self._marks.begin(self._tree.size)
        self._next_mark = self._marks.next_size
        if self._tree.size == self._next_mark:
            self._confirm()
            # It counts where the entries before it are.
            self._marks.checkpoints = 0

    def _first_line(self, lines: Sequence[bytes]) -> tuple[bytes, bytes]:
        if not lines:
            raise ChainError("the segment holds no entries")
        raw, _, prev, *_ = self._reader.read(lines[0])
        return raw, prev

    def _take_batch(self, batch: tuple[bytes, ...]) -> None:
        while batch:
            # A mark is confirmed at its size, so no part goes past one; how a lane or segment opens is read by lines.
            count = 1 if not self._kid or self._resumes else self._next_mark - self._tree.size
            part, batch = batch[:count], batch[count:]
            if not self._take_at_once(part):
                for line in part:
                    self._take(line)

    def _take_at_once(self, lines: tuple[bytes, ...]) -> bool:
        """Whether all lines are good and were taken; none was where False comes back."""
        if not self._kid or self._resumes or self._rotated or self._torn is not None:
            return False
        fields = self._reader.read_usual(lines)
        if fields is None:
            return False
        first, sizes = (self._segment, self._line + 1, self._offset, self._tree.size), list(map(len, lines))
        unsigned = read_columns(fields, sizes, self._prev, self._kid, first, self._stamps)
        if unsigned is None:
            return False
        try:
            self._take_leases([each[0] for each in fields if LEASE in each[0]])
        except KernelError:
            return False
        self._last = fields[-1][0]
        self._line += len(lines)
        self._offset += sum(sizes)
        self._tree.extend(leaf_hashes(lines))
        self._advance(unsigned)
        return True

    def _take(self, line: bytes) -> None:
        self._line += 1
        self._start = self._offset
        self._offset += len(line)
        if self._torn is not None:
            raise Broken(Result.TAMPERED, self._torn)
        try:
            fields = self._reader.read(line)
        except (ChainError, CanonicalError) as error:
            # What a write left unfinished is a part of a line.
            if line.endswith(b"\n") or len(line) > MAX_LINE_BYTES:
                raise self._fails(str(error)) from None
            self._tear(line)
            return
        self._accept(line, fields)

    def _accept(self, line: bytes, fields: Fields) -> None:
        raw, lane, prev, seq, ts, kind, v, kid, signature = fields
        if v != KNOWN_V or lane != self._lane or prev != self._prev or seq != b"%d" % self._tree.size:
            raise self._fails(self._mismatch(fields))
        if not self._stamps.take(ts):
            raise self._fails("ts is not a timestamp")
        hashed = entry_hash(raw)
        if self._rotated:
            raise self._fails("key_rotate is the last entry of its segment, and more follows it here")
        if kind == SEGMENT_OPEN or self._resumes:
            self._resume(kind, raw)
        if kind in BEGINNINGS or not self._kid:
            self._open(kind, raw, kid, hashed, signature)
        elif kid != self._kid:
            raise self._fails("signed by a key that was not certified for this entry")
        elif kind == KEY_ROTATE:
            self._rotate(raw, hashed, signature)
        elif kind == KEY_COMPROMISED:
            self._distrust(raw)
        elif LEASE in raw:
            self._lease(raw)
        self._last = raw
        place = (self._segment, self._line, self._start, self._tree.size)
        self._tree.append(leaf_hash(line[:-1]))
        self._advance(Unsigned([hashed], [signature], [len(line)], place), waits=kind not in BEGINNINGS | {KEY_ROTATE})

    def _advance(self, unsigned: Unsigned, *, waits: bool = True) -> None:
        if waits:
            self._pending.append(unsigned)
            self._waiting += len(unsigned.hashes)
        if self._witnessed is not None:
            self._compare(self._witnessed, unsigned)
        self._prev = unsigned.hashes[-1].hex().encode()
        if self._tree.size == self._next_mark:
            self._confirm()
        if self._waiting >= _PENDING:
            self._check_pending()

    def _compare(self, witnessed: Witnessed, unsigned: Unsigned) -> None:
        first = unsigned.first[3]
        seq = witnessed.differing(first, unsigned.hashes)
        if seq is not None:
            place, _, _ = next(islice(unsigned.places(), seq - first, None))
            reason = f"{witnessed.by} holds another entry of this number: the lane was forked or rewritten"
            raise Broken(Result.TAMPERED, Failure(self._source.lane, *place, reason))

    def _mismatch(self, fields: Fields) -> str:
        _, lane, _, seq, _, _, v, _, _ = fields
        if v != KNOWN_V:
            return f"v is {_shown(v)}: written by a version that this one cannot read"
        if lane != self._lane:
            return f"an entry of lane {_shown(lane)}"
        if seq != b"%d" % self._tree.size:
            return f"seq is {_shown(seq)}, expected {self._tree.size}"
        return "prev is not the hash of the entry before"

    def _open(self, kind: bytes, raw: bytes, kid: bytes, hashed: bytes, signature: bytes) -> None:
        entry = self._rules.parse(raw)
        try:
            if kind == GENESIS and self._tree.size == 0:
                signer = self._genesis = genesis_root(entry, self._rules.root)
            elif kind == LANE_OPEN and not self._kid:
                claims(entry, self._source.lane)
                self._loss = loss_in(entry, self._source.lane)
                signer = self._keys.begin(entry)
                self._kid = signer.kid.encode()
            else:
                raise ChainError("genesis and lane_open stand at the beginning of a lane, once")
        except KernelError as error:
            raise self._fails(str(error)) from None
        signed = self._rules.verify(signer.public, base64.b64decode(signature), signed_bytes(hashed))
        if kid != signer.kid.encode() or not signed:
            raise self._fails(f"the signature of {signer.name} does not verify")

    def _rotate(self, raw: bytes, hashed: bytes, signature: bytes) -> None:
        """Go on with the key that a key_rotate certifies, which the key before it has signed."""
        if self._rules.every_signature:
            self._check_pending()
        signer = self._keys.current
        if signer is None or not self._rules.verify(signer.public, base64.b64decode(signature), signed_bytes(hashed)):
            raise self._fails("the signature of key_rotate does not verify")
        # It covers every entry before it: whoever changed one could not have had this one signed.
        self._pending, self._waiting = [], 0
        try:
            self._kid = self._keys.rotate(self._rules.parse(raw)).kid.encode()
        except KernelError as error:
            raise self._fails(str(error)) from None
        self._rotated = True

    def _distrust(self, raw: bytes) -> None:
        try:
            said = compromise_in(self._rules.parse(raw), self._rules.root, self._rules.verify)
        except KernelError as error:
            raise self._fails(str(error)) from None
        if self._tree.size != 1 or not said.is_of(self._loss):
            raise self._fails("key_compromised stands behind a lane_open that tells of the same loss, nowhere else")

    def _lease(self, raw: bytes) -> None:
        try:
            self._take_leases([raw])
        except KernelError as error:
            raise self._fails(str(error)) from None

    def _take_leases(self, raws: Sequence[bytes]) -> None:
        if leases := list(filter(None, map(granted, map(self._rules.parse, raws)))):
            self._leases.take(leases)

    def _resume(self, kind: bytes, raw: bytes) -> None:
        if kind != SEGMENT_OPEN or not self._resumes:
            raise self._fails("segment_open stands at the beginning of every segment but the first, and nowhere else")
        try:
            tree = resumed_tree(self._rules.parse(raw), self._segment)
        except KernelError as error:
            raise self._fails(str(error)) from None
        if tree.complete != self._tree.complete:
            raise self._fails("segment_open tells another tree than the entries before it make")
        self._resumes = False

    def _tear(self, line: bytes) -> None:
        self._torn_bytes = len(line)
        self._torn = self._fails("a line without its line feed, and more after it").failure

    def _confirm(self) -> None:
        anchored = self._marks.anchored
        if self._marks.confirm(self._tree.size, self._tree.root(), self._head, self._keys, self._rules.verify):
            # Covered by a signed head: whoever changed one of these entries could not have reached this root.
            if self._rules.every_signature:
                self._check_pending()
            self._pending, self._waiting = [], 0
        if self._marks.anchored > anchored:
            self._anchored_at = self._stamps.last
        self._next_mark = self._marks.next_size

    def _end(self) -> None:
        self._check_pending()
        end = self._source.end
        if end is None:
            # Marks beyond the end of a part are for the part that comes next.
            self._marks.leftover(self._tree.size, self._keys, self._rules.verify)
            self._check_length()
        elif self._tree.size != end or self._torn is not None or not self._line:
            raise self._fails(f"the segment ends elsewhere than the next one says: at {end} entries")
        if self._tree.size == 0:
            reason = "the lane holds no entries"
            raise Broken(Result.INCOMPLETE, Failure(self._source.lane, None, None, None, None, reason))

    def _check_length(self) -> None:
        size, witnessed = self._tree.size, self._witnessed
        if witnessed is not None and witnessed.entries > size:
            reason = f"the lane ends after {size} entries, but {witnessed.by} holds entry {witnessed.entries - 1}"
            failure = Failure(self._source.lane, None, None, None, size - 1 if size else None, reason)
            raise Broken(Result.ROLLED_BACK, failure)

    def _blame(self, found: Broken) -> Broken:
        """The first entry whose signature fails, where there is one before what was found: that is the one changed."""
        try:
            self._check_pending()
        except Broken as earlier:
            return earlier
        return found

    def _check_pending(self) -> None:
        pending, self._pending, self._waiting = self._pending, [], 0
        for place, hashed, signature in chain.from_iterable(unsigned.places() for unsigned in pending):
            key = self._keys.signer_of(place[3])
            if key is None or not self._rules.verify(key.public, signature, signed_bytes(hashed)):
                reason = "the signature does not verify: the entry was changed or not signed by its key"
                raise Broken(Result.TAMPERED, Failure(self._source.lane, *place, reason))

    def _fails(self, reason: str) -> Broken:
        line, start = (self._line, self._start) if self._line else (None, None)
        failure = Failure(self._source.lane, self._segment or None, line, start, self._tree.size, reason)
        return Broken(Result.TAMPERED, failure)

    def _found(self, broken: Broken | None) -> Found:
        size, lane = self._tree.size, self._source.lane
        found = Found(
            self._lane_report(),
            self._segments,
            self._torn_bytes,
            self._genesis is not None,
            self._stamps.first,
            self._stamps.last,
            self._begin_at,
            self._standing(),
            checkpoints=self._marks.checkpoints,
            leases=self._leases,
            broken=broken,
        )
        if self._marks.anchored:
            found.anchored = Anchored(lane, self._marks.anchored, self._marks.anchored_by, self._anchored_at)
        if self._genesis is not None:
            found.keys.append(KeyRange(self._genesis.kid, f"{lane}/0", f"{lane}/0"))
        for key, first, last in self._keys.ranges(size):
            if last >= self._begin_at.size:
                found.keys.append(KeyRange(key.kid, f"{lane}/{max(first, self._begin_at.size)}", f"{lane}/{last}"))
        return found

    def _lane_report(self) -> LaneReport:
        first, size = self._begin_at.size, self._tree.size
        closed = CLOSED in self._last and self._read_type() == "close"
        root = self._tree.root().hex()
        return LaneReport(self._source.lane, size - first, self._head, root, self._source.live, first, closed)

    def _read_type(self) -> Value:
        entry = self._rules.parse(self._last)
        return entry.get("type") if isinstance(entry, dict) else None

    def _standing(self) -> Standing:
        return Standing(self._tree.size, self._head, self._tree.root(), self._keys.current)


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Lines by the hundred; of long ones fewer, so that a log of nothing else takes no more memory."""
    batch, size = tuple[bytes, ...](), 0
    for few in batched(lines, min(_FEW, _BATCH)):
        batch += few
        size += sum(map(len, few))
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = (), 0
    if batch:
        yield batch


def _shown(value: bytes) -> str:
    return value[:40].decode(errors="replace")

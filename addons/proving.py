"""Proofs made from a log: receipts of entries, consistency of two heads, the auditor's draw. One pass over each lane.

Whatever is handed out was checked before as its reader will check it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched, islice
from pathlib import Path
from typing import Self

from addons import audit_log, codec
from addons.audit_log import AuditLog, AuditLogError, pin_of, verify_signature
from addons.bundle_check import root_of
from addons.errors import GovernorError
from addons.forked import Progress
from kernel import consistency, receipt
from kernel.chain import split
from kernel.consistency import Consistency, Grown
from kernel.errors import KernelError, NoteError, ProofError
from kernel.evidence import certified_keys, head_of, origin_of
from kernel.marks import CHECKPOINTS
from kernel.merkle import leaf_hashes
from kernel.note import Checkpoint, VerifierKey, lane_name, split_notes
from kernel.proofs import Growth, Inclusions
from kernel.receipt import Proved, Receipt
from kernel.report import Result
from kernel.sampling import LaneHead, drawn
from kernel.trust import log_id_of
from kernel.walk import Source

_BATCH = 512
# genesis and lane_open.
_OPENING_LINES = 2
_BRING_KEYS = frozenset(("lane_open", "key_rotate"))


class Unprovable(GovernorError):
    """The log does not bear out what was asked for; `result` says in which way."""

    def __init__(self, result: Result, text: str) -> None:
        self.result = result
        super().__init__(f"{result}: {text}")


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A checkpoint as it was signed, and what it states. `file` is where it was found outside the log."""

    note: str
    stated: Checkpoint
    file: str | None = None

    @property
    def name(self) -> str:
        where = f" of {self.file}" if self.file else ""
        return f"the checkpoint{where} at {self.stated.size} entries"


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn: the heads, the lanes that no checkpoint covers yet, and a receipt for each entry, in order."""

    heads: tuple[LaneHead, ...]
    uncovered: tuple[str, ...]
    receipts: tuple[tuple[Receipt, Proved], ...]


@dataclass(frozen=True, slots=True)
class _Passage:
    """What one pass over a lane brought: the lines that were asked for, and those that bring keys."""

    wanted: Mapping[int, bytes]
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Prover:
    """A log that is asked for proofs. `root` is the key they are checked under, `pinned` where it is from outside."""

    sources: Mapping[str, Source]
    root: VerifierKey | None
    pinned: bool

    @classmethod
    def at(cls, log: AuditLog, trusted: VerifierKey | None, progress: Progress = lambda _: None) -> Self:
        """The prover of a log, under the trusted key, else under this user's pin, else under what the log names."""
        root, pinned = root_of(log, trusted)
        return cls({source.lane: source for source in log.sources(progress)}, root, pinned)

    @property
    def result(self) -> Result:
        """What can be said of a proof that holds."""
        return Result.VERIFIED if self.pinned else Result.NOT_PINNED

    def receipt(self, lane: str, seq: int) -> tuple[Receipt, Proved]:
        """The receipt of an entry under the smallest checkpoint that covers it."""
        source = self._source(lane)
        head = next((head for head in _heads(source) if head.stated.size > seq), None)
        if head is not None:
            return self._receipts(source, head, [seq])[0]
        if not _holds(source, seq):
            raise AuditLogError(f"{lane}/{seq}: the log holds no such entry")
        raise Unprovable(Result.INCOMPLETE, f"no checkpoint covers {lane}/{seq} yet; ask again when one is signed")

    def receipts(self, lane: str, wanted: Sequence[int]) -> tuple[list[tuple[Receipt, Proved]], int]:
        """The receipts of these entries under the newest checkpoint, in order; how many of them it does not cover."""
        head = _newest(self._source(lane))
        covered = [seq for seq in sorted(wanted) if head is not None and seq < head.stated.size]
        made = self._receipts(self._source(lane), head, covered) if head is not None and covered else []
        return made, len(wanted) - len(covered)

    def growth(self, lane: str, old: int | Path, new: int | Path | None) -> tuple[Consistency, Grown]:
        """The proof between two heads of a lane: sizes of checkpoints, files that hold one, or None for the newest."""
        source = self._source(lane)
        first, last = self._head(source, old), self._head(source, new)
        if first.stated.size > last.stated.size:
            if new is None:
                raise Unprovable(Result.ROLLED_BACK, f"lane {lane}: {first.name} is beyond {last.name}, the newest")
            raise AuditLogError(f"{first.name} is no earlier one than {last.name}")
        made = Growth(first.stated.size, last.stated.size)
        passage = _passed(source, made, last)
        if made.old_root() != first.stated.root:
            raise _tampered(lane, f"{first.name} was signed over other entries than the log holds now")
        proof = Consistency(first.note, last.note, passage.keys, made.proof())
        try:
            return proof, consistency.check_consistency(proof, self.root, verify_signature, codec.parse)
        except ProofError as error:
            raise _tampered(lane, str(error)) from None

    def draw(self, seed: str, count: int) -> Draw:
        """The entries that `seed` draws from all lanes, as far as their newest heads go, each with its receipt."""
        newest = {lane: _newest(source) for lane, source in self.sources.items()}
        heads = {lane: head for lane, head in newest.items() if head is not None}
        if not heads:
            raise Unprovable(Result.INCOMPLETE, "no lane has a signed checkpoint yet")
        stated = [LaneHead(lane, head.stated.size, head.stated.root) for lane, head in heads.items()]
        entries = drawn(seed, stated, count)
        found: dict[tuple[str, int], tuple[Receipt, Proved]] = {}
        for lane, head in heads.items():
            wanted = sorted(seq for name, seq in entries if name == lane)
            made = self._receipts(self.sources[lane], head, wanted)
            found.update(zip(((lane, seq) for seq in wanted), made, strict=True))
        uncovered = tuple(lane for lane, head in newest.items() if head is None)
        return Draw(tuple(stated), uncovered, tuple(found[entry] for entry in entries))

    def _receipts(self, source: Source, head: SignedHead, wanted: Sequence[int]) -> list[tuple[Receipt, Proved]]:
        made = Inclusions(head.stated.size, wanted)
        passage = _passed(source, made, head)
        receipts = [Receipt(seq, passage.wanted[seq], passage.keys, made.proof(seq), head.note) for seq in wanted]
        try:
            keys = certified_keys(passage.keys, source.lane, self.root, verify_signature, codec.parse)
            return [(each, receipt.check_under(keys, each, self.root, verify_signature, codec.parse))
                    for each in receipts]
        except ProofError as error:
            raise _tampered(source.lane, str(error)) from None

    def _source(self, lane: str) -> Source:
        if lane not in self.sources:
            known = f" (there are: {', '.join(self.sources)})" if self.sources else ""
            raise AuditLogError(f"the log holds no lane {lane}{known}")
        return self.sources[lane]

    def _head(self, source: Source, asked: int | Path | None) -> SignedHead:
        if isinstance(asked, Path):
            return self._head_in(asked, source.lane)
        head = _newest(source) if asked is None else next((h for h in _heads(source) if h.stated.size >= asked), None)
        if head is not None and asked in (None, head.stated.size):
            return head
        if asked is None:
            raise Unprovable(Result.INCOMPLETE, f"lane {source.lane} has no signed checkpoint yet")
        nearest = f"; the next one was at {head.stated.size}" if head else ""
        raise AuditLogError(f"no checkpoint of lane {source.lane} was signed at {asked} entries{nearest}")

    def _head_in(self, file: Path, lane: str) -> SignedHead:
        """The largest checkpoint of this lane that a file outside the log holds."""
        try:
            with audit_log.open_regular(file) as opened:
                heads = [_signed(note.text, str(file)) for note in split_notes(audit_log.lines(opened))]
            lanes = {head.stated.origin: origin_of(head.stated).lane for head in heads}
        except (NoteError, ProofError) as error:
            raise AuditLogError(f"{file}: {error}") from None
        own = lane_name(log_id_of(self.root), lane) if self.root else None
        of_lane = [head for head in heads if lanes[head.stated.origin] == lane and own in (None, head.stated.origin)]
        if not of_lane:
            there = f" (there are some of {', '.join(sorted(lanes))})" if lanes else ""
            raise AuditLogError(f"{file}: holds no checkpoint of {own or f'lane {lane}'}{there}")
        return max(of_lane, key=lambda head: head.stated.size)


def check_receipt(data: bytes, trusted: VerifierKey | None) -> tuple[Proved, Result]:
    """What a receipt proves under the trusted key or this user's pin, or ProofError."""
    read = receipt.parse_receipt(data)
    root = trusted or pin_of(origin_of(head_of(read.note)).log_id)
    proved = receipt.check_receipt(read, root, verify_signature, codec.parse)
    return proved, Result.VERIFIED if root else Result.NOT_PINNED


def check_consistency(data: bytes, trusted: VerifierKey | None) -> tuple[Grown, Result]:
    """What a consistency proof proves under the trusted key or this user's pin, or ProofError."""
    read = consistency.parse_consistency(data)
    root = trusted or pin_of(origin_of(head_of(read.new)).log_id)
    grown = consistency.check_consistency(read, root, verify_signature, codec.parse)
    return grown, Result.VERIFIED if root else Result.NOT_PINNED


def _signed(note: str, file: str | None = None) -> SignedHead:
    return SignedHead(note, head_of(note), file)


def _heads(source: Source) -> Iterator[SignedHead]:
    """The checkpoints of a lane, the oldest first; their signatures are checked with what is proved by them."""
    notes = split_notes(source.checkpoints())
    try:
        yield from (_signed(note.text) for note in notes)
    except (NoteError, ProofError) as error:
        raise _tampered(source.lane, f"{CHECKPOINTS}: {error}") from None


def _newest(source: Source) -> SignedHead | None:
    return max(_heads(source), key=lambda head: head.stated.size, default=None)


def _passed(source: Source, made: Growth | Inclusions, head: SignedHead) -> _Passage:
    """Hand the lines of a lane to `made`, and keep what a proof carries; `Unprovable` where they are not the head's."""
    wanted = set(made.wanted) if isinstance(made, Inclusions) else set[int]()
    kept: dict[int, bytes] = {}
    keys: list[bytes] = []
    for _, segment in source.segments():
        last: tuple[bytes, ...] = ()
        for batch in batched(_whole(islice(segment, made.size - made.read)), _BATCH):
            first = made.read
            if first == 0:
                keys += filter(_brings_key, batch[:_OPENING_LINES])
            made.extend(leaf_hashes(batch))
            here = wanted.intersection(range(first, first + len(batch)))
            kept |= {seq: batch[seq - first] for seq in here}
            last = batch[-1:] if first + len(batch) > _OPENING_LINES else ()
        keys += filter(_brings_key, last)
        if made.read == made.size:
            break
    if made.read < made.size:
        raise Unprovable(
            Result.ROLLED_BACK, f"lane {source.lane} holds {made.read} entries, and {head.name} covers more")
    if made.root() != head.stated.root:
        raise _tampered(source.lane, f"{head.name} was signed over other entries than the log holds now")
    return _Passage(kept, tuple(keys))


def _whole(segment: Iterable[bytes]) -> Iterator[bytes]:
    """The lines but for an unfinished last one."""
    return (line for line in segment if line.endswith(b"\n"))


def _brings_key(line: bytes) -> bool:
    try:
        entry = codec.parse(split(line)[0])
    except KernelError:
        return False
    return isinstance(entry, dict) and entry.get("type") in _BRING_KEYS


def _holds(source: Source, seq: int) -> bool:
    count = 0
    for _, segment in source.segments():
        count += sum(1 for _ in islice(_whole(segment), seq + 1 - count))
    return count > seq


def _tampered(lane: str, reason: str) -> Unprovable:
    return Unprovable(Result.TAMPERED, f"lane {lane}: {reason} (`governor audit verify` says where)")

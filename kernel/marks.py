"""Marks: what a lane must have been at certain sizes, by its checkpoints, minimum.json and what siblings recorded."""

from __future__ import annotations

import heapq
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kernel.errors import KernelError, NoteError, UnknownSigner
from kernel.key_chain import KeyChain
from kernel.note import Checkpoint, PlacedNote, Verify, open_note, split_notes, stated_checkpoint
from kernel.opening import Claim
from kernel.report import Failure, Result

CHECKPOINTS = "checkpoints.note"
MINIMUM = "minimum.json"
NEVER = 2**63
SIGHTING = struct.Struct(">Q8s")
"""The size of a head and the first bytes of its root."""


class Broken(KernelError):
    """Something about a lane does not hold."""

    def __init__(self, result: Result, failure: Failure) -> None:
        self.result, self.failure = result, failure
        super().__init__(failure.reason)

    def __reduce__(self) -> tuple[type[Broken], tuple[Result, Failure]]:
        return Broken, (self.result, self.failure)


@dataclass(frozen=True, slots=True)
class Held:
    """A signed checkpoint that is kept apart from the lane, and where. `anchor` where the host could not change it."""

    note: str
    by: str
    anchor: bool = False


@dataclass(frozen=True, slots=True)
class Sighted:
    """Any number of heads that somebody has seen, unsigned: packed `SIGHTING`s in order of size."""

    records: bytes
    by: str

    def __iter__(self) -> Iterator[tuple[int, bytes, str]]:
        return ((size, root, self.by) for size, root in SIGHTING.iter_unpack(self.records))


class Marks:
    """The marks of one lane, in order of size. `next_size` is the size at which `confirm` wants to be called."""

    def __init__(
        self, lane: str, lines: Iterable[bytes], held: Sequence[Held | Sighted], claims: Sequence[Claim]
    ) -> None:
        self._lane = lane
        self._sighted = heapq.merge(*(each for each in held if isinstance(each, Sighted)))
        self._sight = next(self._sighted, None)
        self._claims = deque(sorted((claim for claim in claims if claim.entries > 0), key=lambda claim: claim.entries))
        self._held = deque(sorted((self._read(PlacedNote(each.note, None, None), each.by, anchor=each.anchor)
                                   for each in held if isinstance(each, Held)), key=lambda marked: marked.head.size))
        self._notes = self._in_order(split_notes(lines))
        self._note = next(self._notes, None)
        self.checkpoints = 0
        """How many checkpoints of the lane itself were confirmed."""
        self.anchored = 0
        """The largest size that an anchor has confirmed."""
        self.anchored_by: tuple[str, ...] = ()

    def begin(self, size: int) -> None:
        """Leave out the marks below `size`, which a walk that begins there does not come by."""
        while self._claims and self._claims[0].entries < size:
            self._claims.popleft()
        while self._held and self._held[0].head.size < size:
            self._held.popleft()
        while self._note is not None and self._note.head.size < size:
            self._note = next(self._notes, None)
        while self._sight is not None and self._sight[0] < size:
            self._sight = next(self._sighted, None)

    @property
    def next_size(self) -> int:
        """The smallest size that still has a mark, or NEVER."""
        size = NEVER if self._note is None else self._note.head.size
        if self._claims:
            size = min(size, self._claims[0].entries)
        if self._sight is not None:
            size = min(size, self._sight[0])
        return min(size, self._held[0].head.size) if self._held else size

    def confirm(self, size: int, root: bytes, head: str, keys: KeyChain, verify: Verify) -> bool:
        """Check every mark at `size`; True where a signed checkpoint of the lane was among them, else Broken."""
        signed = False
        while self._claims and self._claims[0].entries == size:
            claim = self._claims.popleft()
            if claim.head != head:
                reason = f"{claim.by} recorded another head after {size} entries: the lane was forked or rewritten"
                raise Broken(Result.TAMPERED, Failure(self._lane, None, None, None, size - 1, reason))
        while self._sight is not None and self._sight[0] == size:
            if not root.startswith(self._sight[1]):
                reason = f"{self._sight[2]} holds another head of {size} entries: the lane was forked or rewritten"
                raise Broken(Result.TAMPERED, Failure(self._lane, None, None, None, size - 1, reason))
            self._sight = next(self._sighted, None)
        while self._held and self._held[0].head.size == size:
            held = self._held.popleft()
            self._confirm(held, root, keys, verify)
            if held.anchor:
                self.anchored_by = (*(self.anchored_by if self.anchored == size else ()), held.file)
                self.anchored = size
        while self._note is not None and self._note.head.size == size:
            self._confirm(self._note, root, keys, verify)
            self._note = next(self._notes, None)
            self.checkpoints += 1
            signed = True
        return signed

    def leftover(self, size: int, keys: KeyChain, verify: Verify) -> None:
        """Nothing where no mark is beyond `size`, the end of the lane; else Broken."""
        missing = ""
        while self._note is not None:
            self._authentic(self._note, keys, verify, beyond=True)
            missing = f"a checkpoint was signed at {self._note.head.size} entries"
            self._note = next(self._notes, None)
        for held in self._held:
            self._authentic(held, keys, verify, beyond=True)
            missing = f"{held.file} knows of {held.head.size} entries"
        if self._sight is not None:
            missing = missing or f"{self._sight[2]} knows of {self._sight[0]} entries"
        if self._claims:
            missing = missing or f"{self._claims[-1].by} recorded {self._claims[-1].entries} entries"
        if missing:
            reason = f"the lane ends after {size} entries, but {missing}"
            raise Broken(Result.ROLLED_BACK, Failure(self._lane, None, None, None, size - 1 if size else None, reason))

    def _in_order(self, notes: Iterator[PlacedNote]) -> Iterator[_Marked]:
        size = 0
        while True:
            try:
                note = next(notes, None)
            except NoteError as error:
                raise self._broken(CHECKPOINTS, PlacedNote("", None, None), str(error)) from None
            if note is None:
                return
            marked = self._read(note, CHECKPOINTS)
            if marked.head.size < size:
                raise self._broken(CHECKPOINTS, note, "the sizes of the checkpoints decrease")
            size = marked.head.size
            yield marked

    def _read(self, note: PlacedNote, file: str, *, anchor: bool = False) -> _Marked:
        try:
            head = stated_checkpoint(note.text)
        except NoteError as error:
            raise self._broken(file, note, str(error)) from None
        if head.size == 0:
            raise self._broken(file, note, "a checkpoint of no entries")
        return _Marked(note, file, head, anchor)

    def _confirm(self, marked: _Marked, root: bytes, keys: KeyChain, verify: Verify) -> None:
        self._authentic(marked, keys, verify)
        if marked.head.root != root:
            size = marked.head.size
            reason = f"the tree of the first {size} lines has another root"
            raise self._broken(marked.file, marked.note, reason, size - 1)

    def _authentic(self, marked: _Marked, keys: KeyChain, verify: Verify, *, beyond: bool = False) -> None:
        """Nothing where the key of the entry before the head signed it; else Broken."""
        key = keys.signer_of(marked.head.size - 1)
        if key is None:
            # A lane cut back to nothing has no key any more; that it is too short is all that can be said.
            return
        if marked.head.origin != key.name:
            raise self._broken(marked.file, marked.note, f"a checkpoint of {marked.head.origin}, not of {key.name}")
        try:
            open_note(marked.note.text, [key], verify)
        except UnknownSigner as error:
            # Beyond the end of a lane that was cut back there may have been later keys.
            if not beyond:
                raise self._broken(marked.file, marked.note, f"{error}: not signed by {key.kid}") from None
        except NoteError as error:
            raise self._broken(marked.file, marked.note, str(error)) from None

    def _broken(self, file: str, note: PlacedNote, reason: str, seq: int | None = None) -> Broken:
        return Broken(Result.TAMPERED, Failure(self._lane, file, note.line, note.offset, seq, f"{file}: {reason}"))


@dataclass(frozen=True, slots=True)
class _Marked:
    note: PlacedNote
    file: str
    head: Checkpoint
    anchor: bool

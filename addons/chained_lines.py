"""The entries of one lane as they come, each held to the one before it. A reader can go on from any entry it knows.

Reading only, beside a writer or without one. Signatures, checkpoints and pins are left to `governor audit verify`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from addons import codec
from addons.audit_log import open_regular
from addons.errors import GovernorError
from addons.forked import Progress
from addons.segment import segment_name, segment_names
from kernel import chain
from kernel.errors import CanonicalError, ChainError
from kernel.reading import KNOWN_V
from kernel.report import Result
from kernel.stamps import Stamps

# What a file system answers that has nothing to sync: it cannot be written.
_NOTHING_TO_SYNC = (errno.EROFS, errno.EINVAL, errno.ENOTSUP)


@dataclass(frozen=True, slots=True)
class Place:
    """An entry by its number and hash (hex), and where its line begins: a segment's file, and a byte in it."""

    seq: int
    hash: str
    segment: str
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """An entry that follows from the one before it. `raw` is its canonical form."""

    lane: str
    place: Place
    raw: bytes
    entry: dict[str, Any]


class LaneBroken(GovernorError):
    """A lane that does not go on as it began; `result` says in which way."""

    def __init__(self, result: Result, where: str, problem: str) -> None:
        self.result = result
        super().__init__(f"{result}: {where}: {problem}; governor audit verify says more")


class ChainedLines:
    """The entries of the lane in `folder`, from its first on, or from the one after `last`."""

    def __init__(self, folder: Path, last: Place | None = None, progress: Progress = lambda _: None) -> None:
        self._folder, self._lane, self._progress = folder, folder.name, progress
        self._segment, self._offset, self._seq, self._prev = segment_name(0), 0, 0, chain.GENESIS_PREV
        self._stamps = Stamps()
        if last is not None:
            self._resume(last)

    def fresh(self) -> Iterator[Record]:
        """The entries since the last call, as far as they are durable, or `LaneBroken`.

        An unfinished last line waits until it is whole.
        """
        # Listed before anything is read: when the next segment is there, nothing is added to the one before it.
        names = self._segments()
        for name in names[names.index(self._segment):] if names else []:
            if name != self._segment:
                self._begin(name)
            yield from self._read(name, is_last=name == names[-1])

    def _resume(self, last: Place) -> None:
        self._segment, self._offset, self._seq = last.segment, last.offset, last.seq
        if last.segment not in self._segments():
            raise self._broken(Result.ROLLED_BACK, f"the segment is gone that held entry {last.seq}")
        with open_regular(self._folder / last.segment) as file:
            file.seek(last.offset)
            line = file.readline(chain.MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise self._broken(Result.ROLLED_BACK, f"the lane ends before entry {last.seq}, which was read here")
        try:
            hashed = chain.entry_hash(chain.split(line)[0]).hex()
        except ChainError:
            hashed = ""
        if hashed != last.hash:
            raise self._broken(Result.TAMPERED, f"another line stands where entry {last.seq} was read")
        self._offset, self._seq, self._prev = last.offset + len(line), last.seq + 1, hashed

    def _segments(self) -> list[str]:
        try:
            names = segment_names(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            raise self._broken(Result.INCOMPLETE, "the lane is gone") from None
        began = self._seq > 0 or self._offset > 0
        if self._segment not in names and (names or began):
            result = Result.TAMPERED if names and names[-1] > self._segment else Result.ROLLED_BACK
            raise self._broken(result, "the segment is gone")
        return names

    def _begin(self, name: str) -> None:
        expected = segment_name(int(self._segment.partition(".")[0]) + 1)
        if name != expected:
            raise self._broken(Result.TAMPERED, f"expected {expected} after this segment, and {name} comes")
        self._segment, self._offset = name, 0

    def _read(self, name: str, *, is_last: bool) -> Iterator[Record]:
        with open_regular(self._folder / name, self._progress) as file:
            size = self._durable_bytes(file)
            file.seek(self._offset)
            while self._offset < size:
                line = file.readline(min(size - self._offset, chain.MAX_LINE_BYTES))
                if not line.endswith(b"\n"):
                    if is_last and len(line) < chain.MAX_LINE_BYTES:
                        return
                    raise self._broken(Result.TAMPERED, "a line without its line feed")
                yield self._checked(line)

    def _durable_bytes(self, file: BinaryIO) -> int:
        """How much of a segment no crash takes back: what was read and then lost would pass for a rolled back log."""
        size = os.fstat(file.fileno()).st_size
        if size < self._offset:
            raise self._broken(Result.ROLLED_BACK, "the segment is shorter than what was read of it")
        if size > self._offset:
            try:
                os.fdatasync(file.fileno())
            except OSError as error:
                if error.errno not in _NOTHING_TO_SYNC:
                    raise
        return size

    def _checked(self, line: bytes) -> Record:
        try:
            raw = chain.split(line)[0]
            entry = codec.parse(raw)
        except (ChainError, CanonicalError) as error:
            raise self._broken(Result.TAMPERED, str(error)) from None
        problem = "not an object" if not isinstance(entry, dict) else self._problem(entry)
        if problem or not isinstance(entry, dict):
            raise self._broken(Result.TAMPERED, problem)
        place = Place(self._seq, chain.entry_hash(raw).hex(), self._segment, self._offset)
        self._offset, self._seq, self._prev = self._offset + len(line), self._seq + 1, place.hash
        return Record(self._lane, place, raw, entry)

    def _problem(self, entry: dict[str, Any]) -> str:
        """Why an entry does not come next; empty where it does."""
        if entry.get("v") != int(KNOWN_V):
            return "an entry of a version that this one cannot read"
        if entry.get("lane") != self._lane or type(entry.get("seq")) is not int or entry["seq"] != self._seq:
            return f"expected entry {self._seq} of this lane"
        if entry.get("prev") != self._prev:
            return "prev is not the hash of the entry before"
        ts = entry.get("ts")
        return "" if isinstance(ts, str) and self._stamps.take(ts.encode()) else "ts is not a timestamp"

    def _broken(self, result: Result, problem: str) -> LaneBroken:
        where = f"entry {self._lane}/{self._seq}, {self._segment}, byte {self._offset}"
        return LaneBroken(result, where, problem)

"""An exported copy of a log, read back as a witness: what it holds of each lane, packed and in order, on disk."""

from __future__ import annotations

import heapq
import os
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path

from addons import codec, durable
from addons.audit_log import AuditLogError, open_regular
from addons.forked import Progress
from kernel.chain import MAX_LINE_BYTES
from kernel.errors import WitnessError
from kernel.witnessed import RECORD, Seen, Witnessed, seen

# An OCSF event says what its entry says, and more; escapes may be spelled out.
_MOST_LINE_BYTES = 8 * MAX_LINE_BYTES
_BLOCK = 128
_SORTED_AT_ONCE = 2**16


@contextmanager
def witnessed(path: Path, progress: Progress = lambda _: None) -> Iterator[dict[str, Witnessed]]:
    """What the export at `path` holds of each lane, in either format; `AuditLogError` where it is no export.

    Memory is constant, also where the records are in no order. What is packed is gone when the context ends.
    """
    with tempfile.TemporaryFile(prefix="governor-", buffering=0) as scratch:
        lanes = defaultdict[str, _Lane](partial(_Lane, scratch.fileno()))
        for record in _seen(path, progress):
            lanes[record.lane].add(record)
        yield {name: lane.whole(str(path)) for name, lane in lanes.items()}


def _seen(path: Path, progress: Progress) -> Iterator[Seen]:
    with open_regular(path, progress) as file:
        for number, line in enumerate(iter(partial(file.readline, _MOST_LINE_BYTES + 1), b""), 1):
            if len(line) > _MOST_LINE_BYTES:
                raise AuditLogError(f"{path}:{number}: longer than {_MOST_LINE_BYTES} bytes, no export has such a line")
            try:
                yield seen(line, codec.read)
            except WitnessError as error:
                if line.endswith(b"\n"):
                    raise AuditLogError(f"{path}:{number}: not a line of an export: {error}") from None
                # The export was cut off while it was written or copied.
                return


class _Records:
    """Packed records in blocks of a scratch file that many of these share, so that no lane needs memory or a file."""

    def __init__(self, scratch: int) -> None:
        self._scratch, self._blocks, self._begun = scratch, array("Q"), bytearray()
        self.count = 0

    def add(self, record: bytes) -> None:
        self._begun += record
        self.count += 1
        if len(self._begun) == _BLOCK * RECORD.size:
            self._blocks.append(os.lseek(self._scratch, 0, os.SEEK_END))
            durable.write_all(self._scratch, bytes(self._begun))
            self._begun.clear()

    def read(self, first: int, count: int) -> bytes:
        """So many records from number `first` on."""
        found, end = bytearray(), first + count
        while first < end:
            block, within = divmod(first, _BLOCK)
            size = min(end - first, _BLOCK - within)
            found += self._part(block, within * RECORD.size, size * RECORD.size)
            first += size
        return bytes(found)

    def _part(self, block: int, start: int, size: int) -> bytes:
        if block < len(self._blocks):
            return os.pread(self._scratch, size, self._blocks[block] + start)
        return bytes(self._begun[start:start + size])

    def __iter__(self) -> Iterator[bytes]:
        for first in range(0, self.count, _BLOCK):
            yield from _cut(self.read(first, min(_BLOCK, self.count - first)))

    def in_order(self) -> _Records:
        """The same, sorted and each one once: pieces that are sorted in memory, merged."""
        pieces = []
        for first in range(0, self.count, _SORTED_AT_ONCE):
            piece = _Records(self._scratch)
            for record in sorted(_cut(self.read(first, min(_SORTED_AT_ONCE, self.count - first)))):
                piece.add(record)
            pieces.append(piece)
        merged = _Records(self._scratch)
        for record, _ in groupby(heapq.merge(*pieces)):
            merged.add(record)
        return merged


class _Lane:
    """The records of one lane as they come."""

    def __init__(self, scratch: int) -> None:
        self._records, self._last, self._in_order = _Records(scratch), -1, True

    def add(self, record: Seen) -> None:
        self._in_order = self._in_order and record.seq > self._last
        self._last = record.seq
        self._records.add(record.record)

    def whole(self, by: str) -> Witnessed:
        """All that was added."""
        records = self._records if self._in_order else self._records.in_order()
        return Witnessed(by, records.count, records.read)


def _cut(packed: bytes) -> Iterator[bytes]:
    return (packed[at:at + RECORD.size] for at in range(0, len(packed), RECORD.size))

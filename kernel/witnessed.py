"""A copy of the log that lies elsewhere, as a witness: which entries it has seen, compared while a lane is walked."""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kernel.canonical import MAX_INTEGER, Value
from kernel.errors import KernelError, WitnessError
from kernel.trust import is_lane

type Read = Callable[[bytes], Value]
"""JSON of any spelling, as a SIEM may write it again; KernelError where it is none."""
type Records = Callable[[int, int], bytes]
"""The packed records from one place on, so many of them."""

RECORD = struct.Struct(">Q32s")
"""The number of an entry and its hash. Packed records sort as their numbers do."""

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry that the copy holds."""

    lane: str
    seq: int
    hash: bytes

    @property
    def record(self) -> bytes:
        return RECORD.pack(self.seq, self.hash)


def seen(line: bytes, read: Read) -> Seen:
    """The entry of which one line of an export tells, in either format; else WitnessError."""
    try:
        record = read(line)
    except KernelError as error:
        raise WitnessError(str(error)) from None
    match record:
        case {"lane": str(lane), "seq": int(seq), "hash": str(hashed)}:
            pass
        case {"metadata": {"log_name": str(lane), "sequence": int(seq), "uid": str(hashed)}}:
            pass
        case _:
            raise WitnessError("neither lane, seq and hash, nor an OCSF event whose metadata tells them")
    if not is_lane(lane) or type(seq) is not int or not 0 <= seq <= MAX_INTEGER or not _HASH.fullmatch(hashed):
        raise WitnessError("lane, seq and hash are not those of an entry")
    return Seen(lane, seq, bytes.fromhex(hashed))


class Witnessed:
    """What a copy holds of one lane: `count` records in order, of which `records` reads some. It may have gaps.

    A lane is compared from its first entry on, or from any other: only where the numbers go on is nothing searched.
    """

    def __init__(self, by: str, count: int, records: Records) -> None:
        self.by, self.count, self._records = by, count, records
        self._at = self._due = 0

    @property
    def entries(self) -> int:
        """How many entries the lane must have for the last one that the copy holds to be there."""
        return self._seq(self.count - 1) + 1 if self.count else 0

    def differing(self, first: int, hashes: Sequence[bytes]) -> int | None:
        """The first of the entries from number `first` on of which the copy holds another; None where there is none."""
        if first != self._due:
            self._at = bisect_left(range(self.count), first, key=self._seq)
        end, self._due = first + len(hashes), -1
        for seq, hashed in self._from(self._at, len(hashes) + 1):
            if seq >= end:
                break
            if hashes[seq - first] != hashed:
                return seq
            self._at += 1
        self._due = end
        return None

    def _from(self, at: int, piece: int) -> Iterator[tuple[int, bytes]]:
        while at < self.count:
            yield from RECORD.iter_unpack(self._records(at, min(piece, self.count - at)))
            at += piece

    def _seq(self, at: int) -> int:
        return int(RECORD.unpack(self._records(at, 1))[0])

"""Many lines judged at once: the questions that kernel/walk.py asks of each line, asked of whole columns.

Only the good case is decided here. Whatever is not as expected is left to the walk, which tells what and where.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from kernel.chain import entry_hashes
from kernel.reading import Varying
from kernel.stamps import Stamps

type Place = tuple[str | None, int, int, int]
"""Segment, line from 1, byte offset, seq."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Entries one after the other whose signatures are not checked yet, beginning at `first`."""

    hashes: Sequence[bytes]
    signatures: Sequence[bytes]
    sizes: Sequence[int]
    first: Place

    def places(self) -> Iterator[tuple[Place, bytes, bytes]]:
        """Each entry's place, hash and signature."""
        segment, line, offset, seq = self.first
        offsets = accumulate(self.sizes, initial=offset)
        for at, (hashed, text, start) in enumerate(zip(self.hashes, self.signatures, offsets, strict=False)):
            yield (segment, line + at, start, seq + at), hashed, base64.b64decode(text)


def read_columns(
    fields: Sequence[Varying], sizes: Sequence[int], prev: bytes, kid: bytes, first: Place, stamps: Stamps
) -> Unsigned | None:
    """The entries where `prev` and the seq of `first` go on in every line, `kid` signs and ts is one; else None."""
    raws, prevs, seqs, times, kids, signatures = zip(*fields, strict=True)
    if set(kids) != {kid}:
        return None
    if list(map(int, seqs)) != list(range(first[3], first[3] + len(seqs))):
        return None
    hashes = entry_hashes(raws)
    # All are of one length, so that joined they are equal only where each is.
    if prevs[0] != prev or b"".join(prevs[1:]) != b"".join(hashes[:-1]).hex().encode():
        return None
    return Unsigned(hashes, signatures, sizes, first) if stamps.take_all(times) else None

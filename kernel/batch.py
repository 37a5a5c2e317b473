"""Many lines judged at once: the questions that kernel/walk.py asks of each line, asked of whole columns.

Only the good case is decided here. Whatever is not as expected is left to the walk, which tells what and where.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernel.chain import entry_hash
from kernel.reading import Varying
from kernel.stamps import Stamps


def entry_hashes(fields: Sequence[Varying], prev: bytes, seq: int, stamps: Stamps) -> list[bytes] | None:
    """The hashes of the entries where `prev` and `seq` go on in every line and every ts is one; else None."""
    raws, prevs, seqs, times, _ = zip(*fields, strict=True)
    if list(seqs) != [b"%d" % number for number in range(seq, seq + len(seqs))]:
        return None
    hashes = [entry_hash(raw) for raw in raws]
    if prevs[0] != prev or list(prevs[1:]) != [digest.hex().encode() for digest in hashes[:-1]]:
        return None
    return hashes if stamps.take_all(times) else None

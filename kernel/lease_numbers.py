"""Which leases stand in a log. Their numbers are given out one after the other over all lanes, each to one of them.

So a number in two lanes was drawn on twice, and one that is in none was taken out of the log, or is not written yet.
A ledger that began anew, or came back from an older state, has another id: under that a number may come again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from kernel.canonical import Value
from kernel.errors import ChainError

LEASE = b'"type":"lease"'
"""Stands in an entry of a lease. Within a string the quotes would be escaped."""

_BITS = 4096
_MOST_BLOCKS = 2**15
_LEASES_A_BLOCK = 8
"""A lane beside up to 500 others has more in each block, so that for every so many leases there may be one more."""
_POOL_LENGTH = 64


class Number(NamedTuple):
    """A lease of a log: the id of its ledger, and its number there."""

    pool: str
    number: int


def granted(entry: Value) -> Number | None:
    """The lease that was granted by this entry, None where none was; `ChainError` where it has no number."""
    if not isinstance(entry, dict) or entry.get("type") != "lease" or entry.get("act") != "granted":
        return None
    pool, number = entry.get("pool"), entry.get("lease")
    if number is None:
        return None
    if not isinstance(pool, str) or len(pool) > _POOL_LENGTH or type(number) is not int or number < 1:
        raise ChainError("a lease has the id of its ledger and a number from 1 on")
    return Number(pool, number)


class LeaseNumbers:
    """The numbers of the leases that were granted, by ledger: a bit each, in blocks of which there are not too many."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], int] = {}
        self._count = 0
        self.newest = 0
        """The greatest number, 0 where there is none."""

    def __contains__(self, lease: Number) -> bool:
        block, bit = divmod(lease.number, _BITS)
        return bool(self._blocks.get((lease.pool, block), 0) >> bit & 1)

    def take(self, leases: Sequence[Number]) -> None:
        """Take note of leases, of all or of none: `ChainError` where one was there before, or numbers leap."""
        taken = LeaseNumbers()
        for lease in leases:
            if lease in self or lease in taken:
                raise ChainError(f"lease {lease.number} was granted before")
            block, bit = divmod(lease.number, _BITS)
            taken._put((lease.pool, block), 1 << bit)
        taken._count = len(leases)
        self.add(taken)

    def add(self, other: LeaseNumbers) -> Number | None:
        """Have those of another lane, too. The first that was here before; `ChainError` where numbers leap."""
        blocks = len(self._blocks) + sum(key not in self._blocks for key in other._blocks)
        if blocks > _MOST_BLOCKS + (self._count + other._count) // _LEASES_A_BLOCK:
            raise ChainError("the numbers of leases leap: they are given out one after the other")
        self._count += other._count
        twice = None
        for key, bits in sorted(other._blocks.items()):
            both = self._blocks.get(key, 0) & bits
            if both and twice is None:
                twice = Number(key[0], key[1] * _BITS + _lowest(both))
            self._put(key, bits)
        return twice

    def _put(self, key: tuple[str, int], bits: int) -> None:
        self._blocks[key] = self._blocks.get(key, 0) | bits
        self.newest = max(self.newest, key[1] * _BITS + bits.bit_length() - 1)

    def missing(self) -> int | None:
        """The first number from 1 on that no ledger has given though a greater one was given; None without one."""
        # Number 0 is not missed.
        blocks = defaultdict(int, {0: 1})
        for (_, block), bits in self._blocks.items():
            blocks[block] |= bits
        number = next(block * _BITS + _lowest(~blocks[block]) for block in count() if blocks[block] != _FULL)
        return number if number < self.newest else None


_FULL = 2**_BITS - 1


def _lowest(bits: int) -> int:
    """The number of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1

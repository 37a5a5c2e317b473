"""Which leases of a ledger stand in a log. Their numbers are given out one after the other, each to one lane.

So a number in two lanes was drawn on twice, and one that is in none was taken out of the log, or is not written yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kernel.canonical import Value
from kernel.errors import ChainError

LEASE = b'"type":"lease"'
"""Stands in an entry of a lease. Within a string the quotes would be escaped."""

_BITS = 4096
_MOST_BLOCKS = 2**15
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
        self._newest: dict[str, int] = {}

    def __contains__(self, lease: Number) -> bool:
        block, bit = divmod(lease.number, _BITS)
        return bool(self._blocks.get((lease.pool, block), 0) >> bit & 1)

    def newest(self, pool: str) -> int:
        """The greatest number of a ledger, 0 where there is none."""
        return self._newest.get(pool, 0)

    def take(self, leases: Sequence[Number]) -> None:
        """Take note of leases, of all or of none: `ChainError` where one was there before, or numbers leap."""
        taken = LeaseNumbers()
        for lease in leases:
            if lease in self or lease in taken:
                raise ChainError(f"lease {lease.number} was granted before")
            block, bit = divmod(lease.number, _BITS)
            taken._put((lease.pool, block), 1 << bit)
        self.add(taken)

    def add(self, other: LeaseNumbers) -> Number | None:
        """Have those of another lane, too. The first that was here before; `ChainError` where numbers leap."""
        if len(self._blocks) + sum(key not in self._blocks for key in other._blocks) > _MOST_BLOCKS:
            raise ChainError("the numbers of leases leap: they are given out one after the other")
        twice = None
        for key, bits in sorted(other._blocks.items()):
            both = self._blocks.get(key, 0) & bits
            if both and twice is None:
                twice = Number(key[0], key[1] * _BITS + _lowest(both))
            self._put(key, bits)
        return twice

    def _put(self, key: tuple[str, int], bits: int) -> None:
        pool, block = key
        self._blocks[key] = self._blocks.get(key, 0) | bits
        self._newest[pool] = max(self.newest(pool), block * _BITS + bits.bit_length() - 1)

    def missing(self) -> Iterator[Number]:
        """The first number of each ledger that is not there though a greater one is, from 1 on."""
        for pool, newest in sorted(self._newest.items()):
            number = self._first_missing(pool)
            if number < newest:
                yield Number(pool, number)

    def _first_missing(self, pool: str) -> int:
        block = 0
        while (bits := self._blocks.get((pool, block), 0) | (block == 0)) == _FULL:
            block += 1
        return block * _BITS + _lowest(~bits)


_FULL = 2**_BITS - 1


def _lowest(bits: int) -> int:
    """The number of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1

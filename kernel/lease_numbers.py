"""Which leases of a ledger stand in a log. Their numbers are given out one after the other, each to one lane.

So a number in two lanes was drawn on twice, and one that is in none was taken out of the log, or is not written yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kernel.errors import ChainError

LEASE = b'"type":"lease"'
"""Stands in an entry of a lease. Within a string the quotes would be escaped."""

_BITS = 4096
_MOST_BLOCKS = 2**15
_POOL_LENGTH = 64


class LeaseNumbers:
    """The numbers of the leases that were granted, by ledger, a bit each."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], bytearray] = {}

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take note of an entry of a lease; `ChainError` where it is none, or its number was there before."""
        pool, number = entry.get("pool"), entry.get("lease")
        if entry.get("type") != "lease" or entry.get("act") != "granted" or number is None:
            return
        if not isinstance(pool, str) or type(number) is not int or number < 1 or len(pool) > _POOL_LENGTH:
            raise ChainError("a lease has the id of its ledger and a number from 1 on")
        block, bit = divmod(number, _BITS)
        bits = self._blocks.get((pool, block))
        if bits is None:
            if len(self._blocks) == _MOST_BLOCKS:
                raise ChainError("the numbers of leases leap: they are given out one after the other")
            bits = self._blocks[pool, block] = bytearray(_BITS // 8)
        if bits[bit >> 3] & 1 << (bit & 7):
            raise ChainError(f"lease {number} was granted before")
        bits[bit >> 3] |= 1 << (bit & 7)

    def common(self, other: LeaseNumbers) -> int | None:
        """The first number that both have."""
        for key in sorted(self._blocks.keys() & other._blocks.keys()):
            both = _number(self._blocks[key]) & _number(other._blocks[key])
            if both:
                return key[1] * _BITS + _lowest(both)
        return None

    def add(self, other: LeaseNumbers) -> None:
        """Have those of another lane, too."""
        for key, bits in other._blocks.items():
            mine = self._blocks.setdefault(key, bytearray(_BITS // 8))
            mine[:] = (_number(mine) | _number(bits)).to_bytes(_BITS // 8, "little")

    def missing(self) -> Iterator[tuple[str, int]]:
        """The first number of each ledger that is not there though a greater one is, from 1 on."""
        for pool in sorted({pool for pool, _ in self._blocks}):
            found = self._missing(pool)
            if found is not None:
                yield pool, found

    def _missing(self, pool: str) -> int | None:
        last = max(block for name, block in self._blocks if name == pool)
        for block in range(last + 1):
            bits = _number(self._blocks.get((pool, block), b"")) | (1 if block == 0 else 0)
            lacking = ~bits & (bits + 1)
            first = _lowest(lacking)
            if first < (_BITS if block < last else bits.bit_length()):
                return block * _BITS + first
        return None


def together(each: Iterable[LeaseNumbers]) -> LeaseNumbers:
    """Those of all lanes."""
    found = LeaseNumbers()
    for numbers in each:
        found.add(numbers)
    return found


def _number(bits: bytes | bytearray) -> int:
    return int.from_bytes(bits, "little")


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1

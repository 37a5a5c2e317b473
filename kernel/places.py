"""What is filed under ranges of addresses, found for one address."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from kernel.address import cidrs, embedded, is_global
from kernel.bucket import Bucket, Filed, bucket

if TYPE_CHECKING:
    from kernel.facts import Address
    from kernel.policy import AddressRange
    from kernel.verdict import Judgement

_REMEMBERED = 8192


class Place[E: Filed](NamedTuple):
    """One address as the index sees it: global or not, what it embeds, what is filed under it, and what was judged."""

    is_global: bool
    inner: tuple[Address, ...]
    buckets: tuple[Bucket[E], ...]
    judged: dict[tuple[int, ...], Judgement]


class Places[E: Filed]:
    """Entries under ranges. `inner` entries are found too for an address that embeds one of the range."""

    def __init__(self) -> None:
        self._direct: defaultdict[int, list[E]] = defaultdict(list)
        self._inner: defaultdict[int, list[E]] = defaultdict(list)
        self._ranges: dict[int, AddressRange] = {}
        self._blocks: dict[tuple[int, int], dict[int, list[int]]] = {}
        self._direct_buckets: dict[int, Bucket[E]] = {}
        self._inner_buckets: dict[int, Bucket[E]] = {}
        self._known: dict[int, Place[E]] = {}

    def add(self, spread: AddressRange, entry: E, *, inner: bool) -> None:
        """File an entry. The range is told from others by identity: named ranges come as one object."""
        number = id(spread)
        if number not in self._ranges:
            self._ranges[number] = spread
            self._split(number, spread)
        self._direct[number].append(entry)
        if inner:
            self._inner[number].append(entry)

    def _split(self, number: int, spread: AddressRange) -> None:
        for block in (block for network in spread.networks for block in cidrs(network)):
            shift = block.max_prefixlen - block.prefixlen
            table = self._blocks.setdefault((block.version, shift), {})
            table.setdefault(int(block.network_address) >> shift, []).append(number)

    def close(self) -> None:
        """Make ready for asking, after the last `add`."""
        self._direct_buckets = {number: bucket(entries) for number, entries in self._direct.items()}
        self._inner_buckets = {number: bucket(entries) for number, entries in self._inner.items()}

    def at(self, address: Address) -> Place[E]:
        number = int(address)
        key = number if type(address) is IPv4Address else ~number
        place = self._known.get(key)
        if place is None:
            place = self._place(address)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = place
        return place

    def _place(self, address: Address) -> Place[E]:
        inner = embedded(address)
        found = [self._direct_buckets[number] for number in self._around(address)]
        around = dict.fromkeys(number for hidden in inner for number in self._around(hidden))
        found += [self._inner_buckets[number] for number in around if number in self._inner_buckets]
        return Place(is_global(address), inner, tuple(found), {})

    def _around(self, address: Address) -> list[int]:
        version, value = address.version, int(address)
        found: dict[int, None] = {}
        for (family, shift), table in self._blocks.items():
            if family == version:
                found.update(dict.fromkeys(table.get(value >> shift, ())))
        return list(found)

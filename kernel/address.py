"""What an address is: global or not, in which named range, and which IPv4 addresses hide inside an IPv6 one.

"Global" is stricter here than in `ipaddress`: an address that can lead anywhere but to the public internet is not.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network, summarize_address_range
from typing import TYPE_CHECKING

from kernel.facts import Address
from kernel.policy import AddressRange, Network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Spans = tuple[tuple[int, ...], tuple[int, ...]]

_LOOPBACK = ("127.0.0.0/8", "0.0.0.0/8", "::1", "::")  # 0.0.0.0 and :: reach the own machine on Linux
_LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")

# The IANA special-purpose registries without their globally reachable exceptions (protocol anycast, ORCHID: nothing an
# agent needs), multicast, and the address at which Azure hosts answer their guests.
_NOT_GLOBAL_4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
# IANA has allocated nothing global outside 2000::/3. That alone rules out mapped and compatible IPv4, NAT64, unique
# local, link-local, site-local and multicast addresses.
_NOT_GLOBAL_6 = (
    "::/3",
    "2001::/23",  # protocol assignments, Teredo among them
    "2001:db8::/32",
    "2002::/16",  # 6to4
    "3fff::/20",
    "4000::/2",
    "8000::/1",
)


class RangeSet:
    """Addresses from many networks, merged; `in` costs one bisection."""

    __slots__ = ("_four", "_six")

    def __init__(self, networks: Iterable[Network]) -> None:
        known = tuple(networks)
        self._four = _merged(n for n in known if isinstance(n.first, IPv4Address))
        self._six = _merged(n for n in known if isinstance(n.first, IPv6Address))

    def __contains__(self, address: Address) -> bool:
        firsts, lasts = self._four if isinstance(address, IPv4Address) else self._six
        number = int(address)
        place = bisect_right(firsts, number)
        return place > 0 and number <= lasts[place - 1]

    def covers(self, network: Network) -> bool:
        """True when every address of the network is in this set."""
        firsts, lasts = self._four if isinstance(network.first, IPv4Address) else self._six
        place = bisect_right(firsts, int(network.first))
        return place > 0 and int(network.last) <= lasts[place - 1]

    def complement(self) -> tuple[Network, ...]:
        """The networks of all addresses that are not in this set."""
        four = [Network(IPv4Address(a), IPv4Address(b)) for a, b in _gaps(self._four, 2**32 - 1)]
        six = [Network(IPv6Address(a), IPv6Address(b)) for a, b in _gaps(self._six, 2**128 - 1)]
        return (*four, *six)


def _merged(networks: Iterable[Network]) -> _Spans:
    spans: list[list[int]] = []
    for first, last in sorted((int(n.first), int(n.last)) for n in networks):
        if spans and first <= spans[-1][1] + 1:
            spans[-1][1] = max(spans[-1][1], last)
        else:
            spans.append([first, last])
    return tuple(a for a, _ in spans), tuple(b for _, b in spans)


def _gaps(spans: _Spans, top: int) -> Iterator[tuple[int, int]]:
    start = 0
    for first, last in zip(*spans, strict=True):
        if first > start:
            yield start, first - 1
        start = last + 1
    if start <= top:
        yield start, top


def network(text: str) -> Network:
    """The network that CIDR text or a single address stands for. Raises ValueError for anything else."""
    parsed: IPv4Network | IPv6Network = ip_network(text)
    return Network(parsed.network_address, parsed.broadcast_address)


def cidrs(spread: Network) -> tuple[IPv4Network | IPv6Network, ...]:
    """The fewest CIDR blocks that make up the network."""
    return tuple(summarize_address_range(spread.first, spread.last))


_NOT_GLOBAL = RangeSet(map(network, (*_NOT_GLOBAL_4, *_NOT_GLOBAL_6)))


def is_global(address: Address) -> bool:
    """True only for an address of the public internet. An address that embeds another one never is."""
    return address not in _NOT_GLOBAL


def wholly_private(spread: AddressRange) -> bool:
    """True when not one address of the range is global."""
    return all(_NOT_GLOBAL.covers(part) for part in spread.networks)


def range_contains(spread: AddressRange, address: Address) -> bool:
    """True when the address itself is in the range; addresses embedded in it are not looked at."""
    family = type(address)
    return any(type(n.first) is family and n.first <= address <= n.last for n in spread.networks)  # type: ignore[operator]


def named_ranges(metadata: Iterable[str]) -> dict[str, AddressRange]:
    """The ranges a policy can call by name. `metadata` lists the cloud metadata addresses. Raises ValueError."""
    written = {
        "metadata": tuple(metadata),
        "loopback": _LOOPBACK,
        "link-local": _LINK_LOCAL,
        "private-networks": _PRIVATE,
    }
    ranges = {name: AddressRange(name, tuple(map(network, texts))) for name, texts in written.items()}
    return ranges | {"public-internet": AddressRange("public-internet", _NOT_GLOBAL.complement())}


# Prefix, its length in bits, and where the IPv4 address starts, counted in bits from the right.
_EMBEDDINGS = (
    (0x0, 96, 0),  # IPv4-compatible, RFC 4291
    (0xFFFF, 96, 0),  # IPv4-mapped, RFC 4291
    (0xFFFF0000, 96, 0),  # IPv4-translated, RFC 2765
    (0x0064FF9B << 64, 96, 0),  # NAT64, RFC 6052
    (0x2002, 16, 80),  # 6to4, RFC 3056
    (0x20010000, 32, 64),  # the server of Teredo, RFC 4380
)
_LOCAL_NAT64 = 0x0064FF9B0001
_TEREDO = 0x20010000


@lru_cache(maxsize=4096)
def embedded(address: Address) -> tuple[Address, ...]:
    """The IPv4 addresses to which a translator or tunnel may carry traffic for this IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    number = int(address)
    found = [number >> shift for prefix, bits, shift in _EMBEDDINGS if number >> (128 - bits) == prefix]
    if number >> 96 == _TEREDO:
        found.append(number ^ 0xFFFFFFFF)
    if number >> 80 == _LOCAL_NAT64:
        found += _local_nat64(number)
    return tuple(dict.fromkeys(IPv4Address(value & 0xFFFFFFFF) for value in found))


def _local_nat64(number: int) -> list[int]:
    """The readings of 64:ff9b:1::/48 (RFC 8215), whose users choose a prefix length; RFC 6052 skips bits 64 to 71."""
    squeezed = (number >> 64 << 56) | (number & (1 << 56) - 1)
    return [squeezed >> (120 - end) for end in (80, 88, 96)] + [number]

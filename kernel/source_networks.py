"""Which agent comes from which network. Of networks that lie in each other the narrowest counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from kernel.facts import Address

Block = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class SourceNetworks:
    """Networks, each with the agent that comes from it, in the order in which they were written; no network twice."""

    of: tuple[tuple[Block, str], ...] = ()
    _by_size: tuple[tuple[int, int, dict[int, str]], ...] = field(init=False, compare=False, repr=False)
    """Family, bits behind the prefix, agents by prefix: the narrowest networks first."""

    def __post_init__(self) -> None:
        sizes: dict[tuple[int, int], dict[int, str]] = {}
        for block, agent in self.of:
            behind = block.max_prefixlen - block.prefixlen
            sizes.setdefault((block.version, behind), {})[int(block.network_address) >> behind] = agent
        ordered = sorted(sizes.items(), key=lambda item: item[0][1])
        object.__setattr__(self, "_by_size", tuple((version, behind, agents)
                                                   for (version, behind), agents in ordered))

    @property
    def agents(self) -> Iterable[str]:
        """Every agent that is named."""
        return (agent for _, agent in self.of)

    def agent_at(self, address: Address) -> str | None:
        """The agent that comes from this address; None where no network has it."""
        number = int(address)
        for version, behind, agents in self._by_size:
            if version == address.version and (found := agents.get(number >> behind)) is not None:
                return found
        return None


def source_address(text: str) -> Address | None:
    """The address of a client as a socket tells it: without a zone, and IPv4 as IPv4. None where it is none."""
    try:
        if ":" not in text:
            return IPv4Address(text)
        address = IPv6Address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families tells of an IPv4 client in this form, and the policy names it in its own.
    return address.ipv4_mapped or address

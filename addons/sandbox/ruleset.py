"""The nftables table of the namespace between the command and the world, and what its counters tell.

It is loaded before the link goes up, and lies where the command cannot reach it. Whatever comes over the link is
decided before it is routed: a flow that is redirected to a listener of Governor's is marked and goes on, everything
else is counted by its kind and refused; so is what comes from another address than the command's. Nothing is ever
forwarded; no other link is there to forward it to.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Uncommon numbers: at an address of its own, Governor refuses what is asked for at its own ports.
PROXY_PORT, NAMES_PORT = 15001, 15053
# The IPv4 of whoever translates within a host (RFC 7335), and a unique local prefix (RFC 4193): no destination of
# anybody's. Every network is its own, so all have the same.
GATEWAY, COMMAND = "192.0.0.1", "192.0.0.2"
GATEWAY_6, COMMAND_6 = "fd6f:7665:726e::1", "fd6f:7665:726e::2"
LINK = "governed"
TABLE = "governor"
KINDS = ("quic", "udp", "tcp", "icmp", "other")
"""What a refused packet is counted as; `quic` is UDP to port 443."""

_TEMPLATE = """
table inet {table} {{
{counters}
  chain leads {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{link}" meta l4proto {{ tcp, udp }} th dport 53 ct mark set 0x61 redirect to :{names}
    iifname "{link}" tcp dport {{ {ports} }} ct mark set 0x60 redirect to :{proxy}
  }}
  chain judged {{
    type filter hook prerouting priority dstnat + 10; policy drop;
    iifname "lo" accept
    iifname "{link}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept
    iifname "{link}" icmpv6 type {{ nd-router-solicit, mld2-listener-report, mld-listener-report }} drop
    iifname "{link}" ip saddr != {command} counter name refused_other drop
    iifname "{link}" ip6 saddr != {command_6} counter name refused_other drop
    iifname "{link}" meta l4proto tcp ct mark 0x60 accept
    iifname "{link}" meta l4proto {{ tcp, udp }} ct mark 0x61 accept
    iifname "{link}" udp dport 443 counter name refused_quic reject with icmpx admin-prohibited
    iifname "{link}" meta l4proto tcp counter name refused_tcp reject with tcp reset
    iifname "{link}" meta l4proto udp counter name refused_udp reject with icmpx admin-prohibited
    iifname "{link}" meta l4proto {{ icmp, ipv6-icmp }} counter name refused_icmp reject with icmpx admin-prohibited
    iifname "{link}" counter name refused_other reject with icmpx admin-prohibited
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    iifname "{link}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname "{link}" tcp dport {proxy} ct mark 0x60 accept
    iifname "{link}" meta l4proto {{ tcp, udp }} th dport {names} ct mark 0x61 accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    oifname "lo" accept
    ct mark {{ 0x60, 0x61 }} accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, destination-unreachable }} accept
    icmp type destination-unreachable accept
    tcp flags & rst == rst accept
  }}
}}
"""


def ruleset(ports: Collection[tuple[int, int]]) -> str:
    """The table, in nft's language. `ports`: those of TCP, from and to, that lead to the proxy."""
    counters = "\n".join(f"  counter refused_{kind} {{}}" for kind in KINDS)
    spans = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in ports)
    return _TEMPLATE.format(table=TABLE, link=LINK, counters=counters, ports=spans, proxy=PROXY_PORT, names=NAMES_PORT,
                            command=COMMAND, command_6=COMMAND_6)


def refused(listing: str) -> Mapping[str, int]:
    """How many packets of each kind were refused, by the answer of `nft -j list counters`; no kinds without one."""
    listed = [each["counter"] for each in json.loads(listing)["nftables"] if "counter" in each]
    counted = {each["name"].removeprefix("refused_"): each["packets"] for each in listed}
    return {kind: counted[kind] for kind in KINDS if counted.get(kind)}

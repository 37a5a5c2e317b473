"""ICMP: echoes, which carry data both ways."""

from __future__ import annotations

import socket
from functools import partial

from addons.attempts import packets
from addons.attempts.attempt import Family, Seen, not_here, worst
from addons.attempts.reaching import Reached, datagrams
from addons.attempts.surroundings import Surroundings

FAMILY = Family("icmp")
_NOTHING = "EPERM, refused, no route, or no echo"


def _echo(here: Surroundings, kind: int, ipv6: bool = False) -> Seen:
    protocol = packets.ICMP6 if ipv6 else packets.ICMP
    addresses = here.targets_6 if ipv6 else here.targets
    payload = packets.echo(ipv6)
    reached = datagrams(addresses, 0, payload, kind=kind, protocol=protocol)
    return worst((each.seen() for each in reached), "there is no address of this family to try")


for name, way, kind, ipv6 in (
    ("ping", "send an ICMP echo by a ping socket", socket.SOCK_DGRAM, False),
    ("ping-ipv6", "send an ICMPv6 echo by a ping socket", socket.SOCK_DGRAM, True),
    ("raw-echo", "send an ICMP echo by a raw socket", socket.SOCK_RAW, False),
    ("raw-echo-ipv6", "send an ICMPv6 echo by a raw socket", socket.SOCK_RAW, True),
):
    FAMILY.add(name, way, _NOTHING, partial(_echo, kind=kind, ipv6=ipv6))


@FAMILY.attempt("echo-with-data", "put 1,000 bytes of data into an echo", _NOTHING)
def with_data(here: Surroundings) -> Seen:
    payload = packets.echo(ipv6=False, data=bytes(1000))
    tried = [*datagrams(here.targets, 0, payload, kind=socket.SOCK_DGRAM, protocol=packets.ICMP)]
    return worst((each.seen() for each in tried), "there is no IPv4 address to try")


@FAMILY.attempt("icmp-timestamp", "ask for the time by ICMP", _NOTHING)
def timestamp(here: Surroundings) -> Seen:
    asked = datagrams(here.targets, 0, packets.timestamp(), kind=socket.SOCK_RAW, protocol=packets.ICMP)
    return worst((each.seen() for each in asked), "there is no IPv4 address to try")


@FAMILY.attempt("gateway-echo", "send an echo to the gateway of this place", _NOTHING)
def gateway(here: Surroundings) -> Seen:
    tried: list[Reached] = []
    for address in here.gateways:
        ipv6 = ":" in address
        tried += datagrams(
            (address,), 0, packets.echo(ipv6), kind=socket.SOCK_DGRAM, protocol=packets.ICMP6 if ipv6 else packets.ICMP)
    if not tried:
        return not_here("there is no gateway")
    return worst((each.seen() for each in tried), "there is no gateway")

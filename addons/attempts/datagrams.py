"""UDP and its kin: everything that is neither TCP nor a question to a resolver."""

from __future__ import annotations

import secrets
import socket
import struct
from functools import partial

from addons.attempts.attempt import Family, Seen, opened, refused, silent, worst
from addons.attempts.reaching import datagrams, streams
from addons.attempts.surroundings import Surroundings

FAMILY = Family("datagrams")
_NOTHING = "refused, no route, or nothing comes back"
_UDP_LITE, _SCTP, _DCCP, _SOCK_DCCP = 136, 132, 33, 6


def _quic() -> bytes:
    """A long header of a version that nobody has: every server of QUIC answers with the versions that it has."""
    head = bytes((0xC0,)) + b"\x1a\x2a\x3a\x4a" + b"\x08" + secrets.token_bytes(8) + b"\x00"
    return head + bytes(1200 - len(head))


_STUN = struct.pack("!HHI", 1, 0, 0x2112A442) + secrets.token_bytes(12)
_PORTS = (
    ("quic", "send a QUIC hello to UDP port 443", 443, _quic()),
    ("udp-80", "send a datagram to UDP port 80", 80, b"governor attempt"),
    ("ntp", "ask for the time (UDP 123)", 123, b"\x1b" + bytes(47)),
    ("stun", "ask a STUN server, as WebRTC does (UDP 3478)", 3478, _STUN),
    ("wireguard", "begin a WireGuard tunnel (UDP 51820)", 51820, b"\x01" + bytes(147)),
    ("ipsec", "begin an IPsec tunnel (UDP 500)", 500, secrets.token_bytes(8) + bytes(20)),
    ("udp-853", "ask by DNS over QUIC or DTLS (UDP 853)", 853, _quic()),
    ("tftp", "ask for a file by TFTP (UDP 69)", 69, b"\0\1attempt\0octet\0"),
    ("snmp", "ask by SNMP (UDP 161)", 161, b"0\x00"),
    ("syslog", "send a line to syslog (UDP 514)", 514, b"<13>governor attempt"),
    ("udp-high", "send a datagram to a high port (UDP 40000)", 40000, b"governor attempt"),
)


def _send(here: Surroundings, port: int, payload: bytes, ipv6: bool = False) -> Seen:
    addresses = here.targets_6 if ipv6 else here.targets
    return worst((each.seen(port) for each in datagrams(addresses, port, payload)), "there is no address to try")


for name, way, port, payload in _PORTS:
    FAMILY.add(name, way, _NOTHING, partial(_send, port=port, payload=payload))
FAMILY.add(
    "quic-ipv6", "send a QUIC hello to UDP port 443 over IPv6", _NOTHING,
    partial(_send, port=443, payload=_quic(), ipv6=True))
FAMILY.add(
    "udp-high-ipv6", "send a datagram to a high port over IPv6", _NOTHING,
    partial(_send, port=40000, payload=b"governor attempt", ipv6=True))
FAMILY.add(
    "udp-in-pieces", "send a datagram of 4,000 bytes, which travels in fragments", _NOTHING,
    partial(_send, port=40001, payload=bytes(4000)))


@FAMILY.attempt("broadcast", "send a datagram to everyone on this network", "no route, or refused")
def broadcast(_: Surroundings) -> Seen:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(0.8)
        try:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            link.sendto(b"governor attempt", ("255.255.255.255", 40002))
            reply, (who, *_) = link.recvfrom(512)
        except TimeoutError:
            return silent("sent, and nobody answered")
        except OSError as fault:
            return refused(fault)
        return opened(f"{who} answered with {len(reply)} bytes")


@FAMILY.attempt("udp-lite", "send a datagram of UDP-Lite", _NOTHING)
def udp_lite(here: Surroundings) -> Seen:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, _UDP_LITE).close()
    except OSError as fault:
        return refused(fault)
    return worst(
        (each.seen(40003) for each in datagrams(here.targets, 40003, b"attempt", protocol=_UDP_LITE)),
        "there is no IPv4 address to try")


@FAMILY.attempt("sctp", "open an SCTP association", _NOTHING)
def sctp(here: Surroundings) -> Seen:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP).close()
    except OSError as fault:
        return refused(fault)
    reached = streams(here.targets, 9, protocol=_SCTP)
    for each in reached:
        if each.link is not None:
            each.link.close()
    return worst((each.seen(9) for each in reached), "there is no IPv4 address to try")


@FAMILY.attempt("dccp", "open a DCCP connection", "no such protocol, or refused")
def dccp(_: Surroundings) -> Seen:
    try:
        socket.socket(socket.AF_INET, _SOCK_DCCP, _DCCP).close()
    except OSError as fault:
        return refused(fault)
    return opened("the kernel gives a socket of DCCP, which no table here looks into")

"""Packets made by hand."""

from __future__ import annotations

import os
import socket
import struct

ICMP, ICMP6 = 1, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
_ECHO, _ECHO_6, _TIMESTAMP = 8, 128, 13
_MORE_FRAGMENTS = 0x2000


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(ipv6: bool, data: bytes = b"governor attempt") -> bytes:
    """An echo request. The kernel computes the checksum of ICMPv6."""
    kind = _ECHO_6 if ipv6 else _ECHO
    head = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, 1)
    total = 0 if ipv6 else checksum(head + data)
    return struct.pack("!BBHHH", kind, 0, total, os.getpid() & 0xFFFF, 1) + data


def timestamp() -> bytes:
    """An ICMP timestamp request."""
    body = struct.pack("!HHIII", os.getpid() & 0xFFFF, 1, 0, 0, 0)
    return struct.pack("!BBH", _TIMESTAMP, 0, checksum(struct.pack("!BBH", _TIMESTAMP, 0, 0) + body)) + body


def igmp_report(group: str) -> bytes:
    """An IGMPv2 membership report."""
    head = struct.pack("!BBH4s", 0x16, 0, 0, socket.inet_aton(group))
    return struct.pack("!BBH4s", 0x16, 0, checksum(head), socket.inet_aton(group))


def ipv4(
    source: str, destination: str, protocol: int, payload: bytes, *, options: bytes = b"", more: bool = False,
    offset: int = 0, identity: int = 0
) -> bytes:
    """An IPv4 packet; the kernel fills in length and checksum. `offset` is in units of eight bytes."""
    words = 5 + len(options) // 4
    fragment = (_MORE_FRAGMENTS if more else 0) | offset
    return (
        struct.pack(
            "!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), identity, fragment, 64, protocol, 0,
            socket.inet_aton(source), socket.inet_aton(destination))
        + options
        + payload
    )


def ipv6(source: str, destination: str, next_header: int, payload: bytes) -> bytes:
    """An IPv6 packet."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 0x60000000, len(payload), next_header, 64) + ends + payload


def echo_6(source: str, destination: str) -> bytes:
    """An ICMPv6 echo request with its checksum, for a packet made by hand."""
    body = echo(ipv6=True)
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    total = checksum(ends + struct.pack("!IBBBB", len(body), 0, 0, 0, ICMP6) + body)
    return body[:2] + struct.pack("!H", total) + body[4:]


def extension(kind: int, next_header: int, destination: str) -> bytes:
    """An IPv6 extension header of that kind."""
    if kind == ROUTING:
        # Type 0 with no segments left, which a destination has to take.
        return struct.pack("!BBBBI", next_header, 2, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, destination)
    if kind == FRAGMENT:
        return struct.pack("!BBHI", next_header, 0, 0, 7)
    # One option of padding.
    return struct.pack("!BBBB4s", next_header, 0, 1, 4, bytes(4))

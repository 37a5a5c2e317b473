"""Packets below TCP and UDP: every IP protocol, forged sources, options, fragments, extension headers, whole frames.

What goes one way brings no answer. Where an honest echo from the same kind of socket is answered, nothing on the way
holds such packets back, and the attempt is told as open.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from functools import partial
from pathlib import Path

from addons.attempts import packets
from addons.attempts.attempt import Family, Result, Seen, closed, not_here, opened, refused, silent, words, worst
from addons.attempts.reaching import Contact, complaint, datagrams, family_of, place, tell_errors
from addons.attempts.surroundings import Surroundings, interfaces, lines

FAMILY = Family("ip")
_NO_SOCKET = "EPERM: no such socket; else refused, or nothing comes back"
_ETH_ALL, _ETH_IP = 0x0003, 0x0800
_IPPROTO_RAW = 255
_LISTEN_SECONDS = 0.8


def _one_way(here: Surroundings, sent: str) -> Seen:
    """What to think of a packet that was sent and never brings an answer."""
    asked = datagrams(here.targets, 0, packets.echo(ipv6=False), kind=socket.SOCK_RAW, protocol=packets.ICMP)
    honest = worst((each.seen() for each in asked), "there is no address of this family to try")
    if honest.result is Result.OPEN:
        return opened(f"{sent}; an honest echo sent so is answered: {honest.what}")
    return Seen(honest.result, f"{sent}; of an honest echo sent so: {honest.what}", silent=True)


def _source(address: str) -> str:
    """The address that this place would send from."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as link:
        link.connect(place(address, 9))
        return str(link.getsockname()[0])


@FAMILY.attempt("every-protocol", "send a packet of each of the 256 IP protocols by a raw socket", _NO_SOCKET)
def every_protocol(here: Surroundings) -> Seen:
    return _protocols(here.targets)


@FAMILY.attempt("every-protocol-ipv6", "the same over IPv6", _NO_SOCKET)
def every_protocol_6(here: Surroundings) -> Seen:
    return _protocols(here.targets_6)


def _protocols(addresses: tuple[str, ...]) -> Seen:
    """Of one address, what answers come to each protocol: even 'no such protocol' is one, and comes from there."""
    if not addresses:
        return not_here("there is no address of this family to try")
    address = addresses[0]
    family = family_of(address)
    links: dict[socket.socket, int] = {}
    refusals: Counter[str] = Counter()
    # TCP and UDP have attempts of their own; their raw sockets hear what others are told.
    for protocol in (each for each in range(256) if each not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)):
        try:
            link = socket.socket(family, socket.SOCK_RAW, protocol)
            links[link] = protocol
            tell_errors(link)
            link.connect(place(address, 0))
            link.send(_whole(address, protocol, family) if protocol == _IPPROTO_RAW else b"governor attempt")
        except OSError as fault:
            refusals[words(fault)] += 1
    sent = len(links)
    answered, said = _answers(links, address)
    for link in links:
        link.close()
    told = ", ".join(f"{count} times {what}" for what, count in (refusals + said).most_common(3))
    if answered:
        return opened(
            f"{address} answered to protocol {', '.join(map(str, answered[:8]))}; {told or 'nothing refused'}"
        )
    if sent == 0 or (refusals + said):
        return closed(f"{address}: {told}")
    return silent(f"{sent} packets sent to {address}, and nothing came back")


def _whole(address: str, protocol: int, family: int) -> bytes:
    if family == socket.AF_INET6:
        return packets.ipv6(_source(address), address, 59, b"")
    return packets.ipv4(_source(address), address, protocol, b"governor attempt")


def _answers(links: dict[socket.socket, int], address: str) -> tuple[list[int], Counter[str]]:
    answered, said = [], Counter[str]()
    until = time.monotonic() + _LISTEN_SECONDS
    waiting = dict(links)
    while waiting and (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select(list(waiting), [], [], left)
        for link in ready:
            protocol = waiting.pop(link)
            heard = complaint(link, address)
            if heard is None or heard.contact is Contact.ARRIVED:
                answered.append(protocol)
            else:
                said[heard.said] += 1
    return sorted(answered), said


def _forged(here: Surroundings, source: str) -> Seen:
    """A whole packet under a source that is not ours."""
    if not here.targets:
        return not_here("there is no IPv4 address to try")
    target = here.targets[0]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, _IPPROTO_RAW) as link:
            link.sendto(packets.ipv4(source, target, packets.ICMP, packets.echo(ipv6=False)), (target, 0))
    except OSError as fault:
        return refused(fault)
    return _one_way(here, f"a packet from {source} to {target} was taken")


FAMILY.add(
    "forged-source", "send a packet under a forged source address", _NO_SOCKET, partial(_forged, source="192.0.2.77"))
FAMILY.add(
    "forged-loopback", "send a packet under a loopback source address", _NO_SOCKET,
    partial(_forged, source="127.0.0.1"))


@FAMILY.attempt("igmp", "join a multicast group by a raw report to the routers", _NO_SOCKET)
def igmp(here: Surroundings) -> Seen:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP) as link:
            link.sendto(packets.igmp_report("239.255.255.250"), ("224.0.0.22", 0))
    except OSError as fault:
        return refused(fault)
    return _one_way(here, "a report to 224.0.0.22 was taken")


def _echoed(here: Surroundings, options: bytes = b"", pieces: bool = False) -> Seen:
    """An echo in a packet made by hand, to be answered."""
    if not here.targets:
        return not_here("there is no IPv4 address to try")
    target, payload = here.targets[0], packets.echo(ipv6=False)
    try:
        source = _source(target)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_RAW, packets.ICMP) as ear,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, _IPPROTO_RAW) as link,
        ):
            tell_errors(ear)
            ear.connect((target, 0))
            parts = ((payload[:8], True, 0), (payload[8:], False, 1)) if pieces else ((payload, False, 0),)
            for part, more, offset in parts:
                link.sendto(
                    packets.ipv4(
                        source, target, packets.ICMP, part, options=options, more=more, offset=offset, identity=7),
                    (target, 0),
                )
            return _heard(ear, target)
    except OSError as fault:
        return refused(fault)


def _heard(ear: socket.socket, target: str) -> Seen:
    ready, _, _ = select.select([ear], [], [], _LISTEN_SECONDS)
    if not ready:
        return silent(f"sent to {target}, and nothing came back")
    try:
        return opened(f"{target} answered with {len(ear.recv(2048))} bytes")
    except OSError as fault:
        return closed(f"{target}: {words(fault)}")


@FAMILY.attempt("raw-source-route", "send a packet with a loose source route by a raw socket", _NO_SOCKET)
def raw_source_route(here: Surroundings) -> Seen:
    if not here.targets:
        return not_here("there is no IPv4 address to try")
    return _echoed(here, options=bytes((131, 7, 4)) + socket.inet_aton(here.targets[-1]) + b"\0")


@FAMILY.attempt("raw-record-route", "send a packet with the record route option by a raw socket", _NO_SOCKET)
def raw_record_route(here: Surroundings) -> Seen:
    return _echoed(here, options=bytes((7, 7, 4)) + bytes(5))


@FAMILY.attempt("raw-fragments", "send an echo in two fragments by a raw socket", _NO_SOCKET)
def raw_fragments(here: Surroundings) -> Seen:
    return _echoed(here, pieces=True)


def _extended(here: Surroundings, kind: int) -> Seen:
    """An ICMPv6 echo behind an extension header, in a packet made by hand."""
    if not here.targets_6:
        return not_here("there is no IPv6 address to try")
    target = here.targets_6[0]
    try:
        source = _source(target)
        payload = packets.extension(kind, packets.ICMP6, target) + packets.echo_6(source, target)
        with (
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, packets.ICMP6) as ear,
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, _IPPROTO_RAW) as link,
        ):
            tell_errors(ear)
            ear.connect((target, 0))
            link.sendto(packets.ipv6(source, target, kind, payload), (target, 0))
            return _heard(ear, target)
    except OSError as fault:
        return refused(fault)


for name, what, kind in (
    ("hop-by-hop", "hop-by-hop options", packets.HOP_BY_HOP),
    ("routing", "routing", packets.ROUTING),
    ("fragment", "fragment", packets.FRAGMENT),
    ("destination", "destination options", packets.DESTINATION),
):
    FAMILY.add(
        f"ipv6-{name}", f"send an IPv6 packet with a {what} header by a raw socket", _NO_SOCKET,
        partial(_extended, kind=kind))


@FAMILY.attempt("ipv6-option", "send a datagram with destination options by an ordinary socket", "EPERM, or no route")
def ipv6_option(here: Surroundings) -> Seen:
    def prepare(link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes((0, 0, 1, 4, 0, 0, 0, 0)))

    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as link:
            prepare(link)
    except OSError as fault:
        return refused(fault)
    return worst(
        (each.seen(40004) for each in datagrams(here.targets_6, 40004, b"governor attempt", prepare)),
        "there is no IPv6 address to try")


@FAMILY.attempt("packet-socket", "open a packet socket and send whole frames on each link", _NO_SOCKET)
def packet_socket(here: Surroundings) -> Seen:
    return _frames(here, socket.SOCK_RAW)


@FAMILY.attempt("packet-socket-cooked", "open a packet socket for datagrams", _NO_SOCKET)
def cooked_packet_socket(here: Surroundings) -> Seen:
    return _frames(here, socket.SOCK_DGRAM)


def _frames(here: Surroundings, kind: int) -> Seen:
    """An echo to a target in a frame for the gateway, or for everyone, and what is heard of it on the link."""
    try:
        with socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_ALL)) as link:
            seen = [_frame(link, name, kind, here) for name in interfaces()[:2]]
    except OSError as fault:
        return refused(fault)
    return worst(seen, "a packet socket opens, and there is no link but loopback")


def _frame(link: socket.socket, name: str, kind: int, here: Surroundings) -> Seen:
    if not here.targets:
        return not_here("there is no IPv4 address to try")
    target = here.targets[0]
    try:
        packet = _sealed(packets.ipv4(_source(target), target, packets.ICMP, packets.echo(ipv6=False)))
        own, beyond = _hardware(name), _neighbour(name) or b"\xff" * 6
        link.bind((name, _ETH_ALL))
        if kind == socket.SOCK_RAW:
            link.send(beyond + own + struct.pack("!H", _ETH_IP) + packet)
        else:
            link.sendto(packet, (name, _ETH_IP, 0, 0, beyond))
    except OSError as fault:
        return refused(fault)
    until = time.monotonic() + _LISTEN_SECONDS
    while (left := until - time.monotonic()) > 0 and select.select([link], [], [], left)[0]:
        heard = link.recv(2048)
        if socket.inet_aton(target) in heard and b"governor attempt" in heard and packet not in heard:
            return opened(f"a frame on {name} was answered by {target}")
    return silent(f"a packet socket opens and a frame on {name} was taken; nothing came back")


def _sealed(packet: bytes) -> bytes:
    """An IPv4 packet with the checksum that the kernel does not compute for a frame."""
    head = packet[:2] + struct.pack("!H", len(packet)) + packet[4:20]
    return head[:10] + struct.pack("!H", packets.checksum(head)) + head[12:] + packet[20:]


def _hardware(name: str) -> bytes:
    try:
        return bytes.fromhex(Path(f"/sys/class/net/{name}/address").read_text().strip().replace(":", ""))[:6]
    except (OSError, ValueError):
        return b"\x02" + bytes(5)


def _neighbour(name: str) -> bytes | None:
    """The hardware address of somebody on this link."""
    for fields in lines("/proc/net/arp")[1:]:
        if len(fields) > 5 and fields[5] == name and fields[3] != "00:00:00:00:00:00":
            return bytes.fromhex(fields[3].replace(":", ""))
    return None

"""DNS: every server, transport and kind of question that could carry a message out."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from functools import partial

from addons.attempts.attempt import Family, Seen, closed, opened, refused, silent, worst
from addons.attempts.reaching import Contact, Reached, compared, datagrams, streams
from addons.attempts.speaking import SECONDS
from addons.attempts.surroundings import NOBODY, NOBODY_6, Surroundings, lines

FAMILY = Family("dns")
_REFUSED_ALL = "REFUSED by Governor, or no answer; no question leaves"
_A, _NULL, _TXT, _AAAA, _AXFR, _ANY, _HTTPS = 1, 10, 16, 28, 252, 255, 65
_SERVFAIL, _NXDOMAIN, _REFUSED, _NOTIMP = 2, 3, 5, 4
_CODES = {
    0: "NOERROR",
    1: "FORMERR",
    _SERVFAIL: "SERVFAIL",
    _NXDOMAIN: "NXDOMAIN",
    _NOTIMP: "NOTIMP",
    _REFUSED: "REFUSED",
}
_QUERY, _UPDATE = 0, 5


def question(name: str, kind: int = _A, *, framed: bool = False, operation: int = _QUERY) -> bytes:
    """A question in wire form; `framed` with its length before it, as TCP has it."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    flags = 0x0100 | operation << 11
    message = (
        struct.pack("!HHHHHH", secrets.randbits(16), flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    )
    return struct.pack("!H", len(message)) + message if framed else message


def unlisted() -> str:
    """A name that nobody lists, that differs each time, and that leads to nobody."""
    return f"{secrets.token_hex(8)}.governor-attempt.example.org"


def meaning(where: str, reply: bytes) -> Seen:
    """What a reply says. Governor answers REFUSED to what no rule allows, where a resolver of the world resolves."""
    if len(reply) < 12:
        return opened(f"{where} sent back {len(reply)} bytes that are no answer")
    code = reply[3] & 15
    said = f"{where} answered {_CODES.get(code, code)}"
    return closed(said) if code in (_REFUSED, _NOTIMP) else opened(said)


def _servers(here: Surroundings, ipv6: bool = False) -> tuple[str, ...]:
    return here.targets_6 if ipv6 else here.targets


def _own_resolvers() -> tuple[str, ...]:
    return tuple(fields[1] for fields in lines("/etc/resolv.conf") if len(fields) > 1 and fields[0] == "nameserver")


def _over_udp(_: Surroundings, servers: tuple[str, ...], payload: bytes, port: int = 53) -> Seen:
    return worst((_told(each, port) for each in datagrams(servers, port, payload)), "there is no address to try")


def _told(each: Reached, port: int) -> Seen:
    if each.contact is Contact.ANSWERED:
        return meaning(f"{each.address} port {port}", each.reply)
    return each.seen(port)


def _ask(here: Surroundings, make: Callable[[], bytes], ipv6: bool = False, port: int = 53) -> Seen:
    return _over_udp(here, _servers(here, ipv6), make(), port)


def _over_tcp(here: Surroundings, kind: int = _A, ipv6: bool = False) -> Seen:
    nobody = NOBODY_6 if ipv6 else NOBODY
    seen = []
    for each in compared(streams((nobody, *_servers(here, ipv6)), 53), nobody):
        if each.link is None:
            seen.append(each.seen(53))
            continue
        with each.link as link:
            link.settimeout(SECONDS / 3)
            try:
                link.sendall(question(unlisted(), kind, framed=True))
                reply = link.recv(4096)[2:]
            except OSError as fault:
                seen.append(silent(f"{each.address} port 53 over TCP: taken, then {refused(fault).what}"))
                continue
        seen.append(
            meaning(f"{each.address} port 53 over TCP", reply)
            if reply
            else silent(f"{each.address} port 53 over TCP: taken, and ended without an answer")
        )
    return worst(seen, "there is no address to try")


def _tunnel() -> bytes:
    """As a tunnel asks: as much in the labels as fits."""
    return question(".".join((*(secrets.token_hex(31) for _ in range(3)), "t.example.org")), _TXT)


for name, way, make in (
    ("dns-udp", "ask any server for an unlisted name", lambda: question(unlisted())),
    ("dns-aaaa", "ask any server for an IPv6 address", lambda: question(unlisted(), _AAAA)),
    ("dns-tunnel", "put 186 characters of data into the labels of a question", _tunnel),
    ("dns-txt", "ask for TXT records, in which tunnels answer", lambda: question(unlisted(), _TXT)),
    ("dns-null", "ask for NULL records, in which tunnels answer", lambda: question(unlisted(), _NULL)),
    ("dns-any", "ask for records of any type", lambda: question(unlisted(), _ANY)),
    ("dns-https", "ask for HTTPS records, which carry ECH keys", lambda: question(unlisted(), _HTTPS)),
    ("dns-update", "send a dynamic update in place of a question", lambda: question(unlisted(), operation=_UPDATE)),
):
    FAMILY.add(name, way, _REFUSED_ALL, partial(_ask, make=make))
FAMILY.add(
    "dns-ipv6", "ask any server over IPv6", _REFUSED_ALL, partial(_ask, make=lambda: question(unlisted()), ipv6=True))
FAMILY.add(
    "dns-5353", "ask any server at port 5353", _REFUSED_ALL,
    partial(_ask, make=lambda: question(unlisted()), port=5353))
FAMILY.add("dns-tcp", "ask any server over TCP", _REFUSED_ALL, _over_tcp)
FAMILY.add("dns-tcp-ipv6", "ask any server over TCP and IPv6", _REFUSED_ALL, partial(_over_tcp, ipv6=True))
FAMILY.add("dns-axfr", "ask any server for a whole zone", _REFUSED_ALL, partial(_over_tcp, kind=_AXFR))


@FAMILY.attempt("dns-own-resolver", "ask the resolver of /etc/resolv.conf for an unlisted name", _REFUSED_ALL)
def own_resolver(here: Surroundings) -> Seen:
    return _over_udp(here, _own_resolvers(), question(unlisted()))


def _multicast(_: Surroundings, group: str, port: int) -> Seen:
    """Ask whoever listens on this network."""
    with socket.socket(socket.AF_INET6 if ":" in group else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(0.8)
        try:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            link.sendto(question("governor-attempt.local"), (group, port))
            reply, (who, *_) = link.recvfrom(4096)
        except TimeoutError:
            return silent(f"sent to {group} port {port}, and nobody answered")
        except OSError as fault:
            return refused(fault)
        return opened(f"{who} answered with {len(reply)} bytes")


for name, way, group, port in (
    ("mdns", "ask the neighbours by multicast DNS", "224.0.0.251", 5353),
    ("mdns-ipv6", "ask the neighbours by multicast DNS over IPv6", "ff02::fb", 5353),
    ("llmnr", "ask the neighbours by LLMNR", "224.0.0.252", 5355),
    ("netbios", "ask the neighbours by a NetBIOS broadcast", "255.255.255.255", 137),
    ("ssdp", "ask the neighbours by SSDP", "239.255.255.250", 1900),
):
    FAMILY.add(name, way, "no route, refused, or nobody answers", partial(_multicast, group=group, port=port))

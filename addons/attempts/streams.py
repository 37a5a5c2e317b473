"""TCP to where no request goes: other ports, other options, other ways to open a connection."""

from __future__ import annotations

import errno
import select
import socket
from functools import partial

from addons.attempts import speaking
from addons.attempts.attempt import Family, Seen, not_here, refused, words, worst
from addons.attempts.reaching import (
    WAIT_SECONDS,
    Contact,
    Prepare,
    Reached,
    compared,
    family_of,
    judged,
    place,
    streams,
)
from addons.attempts.surroundings import NOBODY, NOBODY_6, Surroundings, interfaces

FAMILY = Family("tcp")
_NO_CONNECTION = "no connection: refused, no route, or judged by Governor"
_PORTS = {
    22: "SSH",
    25: "mail",
    53: "DNS",
    143: "IMAP",
    853: "DNS over TLS",
    1080: "SOCKS",
    3128: "another proxy",
    5432: "PostgreSQL",
    6379: "Redis",
    8080: "another web port",
    8443: "another web port",
    9418: "git",
    50000: "a high port",
}
_MPTCP = 262
_IP_OPTIONS, _IP_TRANSPARENT, _IP_FREEBIND, _SO_MARK, _SO_BINDTODEVICE = 4, 19, 15, 36, 25
_LOOSE, _STRICT = 131, 137


def _judge(address: str, link: socket.socket, port: int) -> Seen:
    return speaking.say(link, speaking.get(speaking.UNLISTED)).seen(f"{address} port {port}", interceptor=True)


def _port(
    here: Surroundings, port: int, prepare: Prepare = lambda _: None, protocol: int = 0, ipv6: bool = False
) -> Seen:
    nobody, targets = (NOBODY_6, here.targets_6) if ipv6 else (NOBODY, here.targets)
    reached = streams((nobody, *targets), port, prepare, protocol)
    return judged(reached, nobody, port, partial(_judge, port=port))


for number, what in _PORTS.items():
    FAMILY.add(f"tcp-{number}", f"connect to TCP port {number} ({what})", _NO_CONNECTION, partial(_port, port=number))
for number in (22, 443, 8443):
    FAMILY.add(
        f"tcp6-{number}", f"connect to TCP port {number} over IPv6", _NO_CONNECTION,
        partial(_port, port=number, ipv6=True))


@FAMILY.attempt(
    "tcp-mapped", "connect to an IPv4 address through an IPv6 socket (::ffff:a.b.c.d), port 22", _NO_CONNECTION)
def mapped(here: Surroundings) -> Seen:
    return judged(streams((NOBODY, *here.targets), 22, mapped=True), NOBODY, 22, partial(_judge, port=22))


@FAMILY.attempt("mptcp", "open a multipath TCP connection to port 22", _NO_CONNECTION)
def mptcp(here: Surroundings) -> Seen:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, _MPTCP).close()
    except OSError as fault:
        return refused(fault)
    return _port(here, 22, protocol=_MPTCP)


@FAMILY.attempt(
    "tcp-fast-open", "send data in the first packet of a connection (TCP fast open) to port 22", _NO_CONNECTION)
def fast_open(here: Surroundings) -> Seen:
    if not hasattr(socket, "MSG_FASTOPEN"):
        return not_here("no TCP fast open here")
    reached = [_fast(address) for address in (NOBODY, *here.targets[:2])]
    return worst((each.seen(22) for each in compared(reached, NOBODY)), "there is no IPv4 address to try")


def _fast(address: str) -> Reached:
    with socket.socket(family_of(address), socket.SOCK_STREAM) as link:
        link.settimeout(0)
        try:
            link.sendto(b"governor attempt\r\n", socket.MSG_FASTOPEN, place(address, 22))
        except OSError as fault:
            if fault.errno != errno.EINPROGRESS:
                return Reached(address, Contact.FORBIDDEN, words(fault))
        # Without a cookie from before the data waits for the answer, as in any connection.
        if not select.select([], [link], [], WAIT_SECONDS)[1]:
            return Reached(address, Contact.SILENT, "sent, and nothing came back")
        failure = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failure == 0:
        return Reached(address, Contact.ANSWERED, "the data was taken")
    return Reached(
        address, Contact.ARRIVED if failure == errno.ECONNREFUSED else Contact.FORBIDDEN, words(OSError(failure, "")))


def _with_option(here: Surroundings, level: int, option: int, value: int | bytes) -> Seen:
    """A connection from a socket with an option that would change its way; refused where the option is."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
            link.setsockopt(level, option, value)
    except OSError as fault:
        return refused(fault)
    return _port(here, 22, lambda link: link.setsockopt(level, option, value))


def _source_route(here: Surroundings, kind: int) -> Seen:
    if not here.targets:
        return not_here("there is no IPv4 address to try")
    # Kind, length, pointer, one hop; filled up to a multiple of four.
    option = bytes((kind, 7, 4)) + socket.inet_aton(here.gateways[0] if _has_ipv4(here) else here.targets[0]) + b"\0"
    return _with_option(here, socket.IPPROTO_IP, _IP_OPTIONS, option)


def _has_ipv4(here: Surroundings) -> bool:
    return bool(here.gateways) and ":" not in here.gateways[0]


FAMILY.add(
    "loose-source-route", "connect with a loose source route in the IP options", _NO_CONNECTION,
    partial(_source_route, kind=_LOOSE))
FAMILY.add(
    "strict-source-route", "connect with a strict source route in the IP options", _NO_CONNECTION,
    partial(_source_route, kind=_STRICT))
for name, way, level, option, value in (
    ("ip-transparent", "connect from somebody else's address (IP_TRANSPARENT)", socket.IPPROTO_IP, _IP_TRANSPARENT, 1),
    ("firewall-mark", "connect with the firewall mark of governed packets (SO_MARK)",
     socket.SOL_SOCKET, _SO_MARK, 0x60),
):
    FAMILY.add(name, way, f"EPERM, or {_NO_CONNECTION}",
               partial(_with_option, level=level, option=option, value=value))


@FAMILY.attempt("foreign-source", "connect from an address that is not this place's (IP_FREEBIND)", _NO_CONNECTION)
def foreign_source(here: Surroundings) -> Seen:
    def forge(link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        link.bind(("192.0.2.77", 0))

    return _port(here, 22, forge)


@FAMILY.attempt("bind-to-device", "connect with the socket tied to each link (SO_BINDTODEVICE)", _NO_CONNECTION)
def bind_to_device(here: Surroundings) -> Seen:
    seen = []
    for name in interfaces()[:2]:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
                link.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, name.encode())
        except OSError as fault:
            seen.append(refused(fault))
            continue
        seen.append(_port(here, 22, partial(_tie, name=name)))
    return worst(seen, "there is no link but loopback")


def _tie(link: socket.socket, name: str) -> None:
    link.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, name.encode())


@FAMILY.attempt("source-port-53", "connect from source port 53, as an answer of a resolver would come", _NO_CONNECTION)
def from_port_53(here: Surroundings) -> Seen:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
            link.bind(("", 53))
    except OSError as fault:
        return refused(fault)

    def bind(link: socket.socket) -> None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        link.bind(("", 53))

    return _port(here, 22, bind)

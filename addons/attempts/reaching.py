"""Reaching an address: streams and datagrams to several at once, and who said no."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from addons.attempts.attempt import Seen, closed, opened, silent, words, worst

# A refusal that was lost is heard at the first repetition, after a second.
WAIT_SECONDS = 1.3
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ICMP, _ICMP6 = 2, 3
# Destination unreachable, by protocol or port: what the destination itself says. By a firewall it is another code.
_SAID_BY_THE_DESTINATION = {(_ICMP, 3, 2), (_ICMP, 3, 3), (_ICMP6, 1, 4), (_ICMP6, 4, 1)}
_PENDING = (errno.EINPROGRESS, errno.EAGAIN, errno.EALREADY)

type Prepare = Callable[[socket.socket], object]


class Contact(Enum):
    """How far something went."""

    ANSWERED = auto()
    """The other end took the connection, or sent something back."""
    ARRIVED = auto()
    """The destination itself said that nobody listens there."""
    FORBIDDEN = auto()
    """Something on the way, or the kernel here, said no."""
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of one address. `link` is open where a stream was taken; the caller closes it."""

    address: str
    contact: Contact
    said: str
    link: socket.socket | None = None
    reply: bytes = b""

    def seen(self, port: int | None = None) -> Seen:
        """As an attempt tells it."""
        where = self.address if port is None else f"{self.address} port {port}"
        match self.contact:
            case Contact.ANSWERED:
                return opened(f"{where} answered: {self.said}")
            case Contact.ARRIVED if ipaddress.ip_address(self.address.partition("%")[0]).is_loopback:
                # This network's own: a list of name servers may be the host's, who has one there.
                return closed(f"{where}: nobody is there, {self.said}")
            case Contact.ARRIVED:
                return opened(f"{where} itself refused, so it was reached: {self.said}")
            case Contact.FORBIDDEN:
                return closed(f"{where}: {self.said}")
            case Contact.SILENT:
                return silent(f"{where}: {self.said}")


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def place(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """As a socket wants it, a link-local address with its link."""
    if ":" not in address:
        return address, port
    bare, _, link = address.partition("%")
    return bare, port, 0, socket.if_nametoindex(link) if link else 0


def streams(
    addresses: Sequence[str], port: int, prepare: Prepare = lambda _: None, protocol: int = 0, *, mapped: bool = False
) -> list[Reached]:
    """Connect to all of them at once. `prepare` gets each socket before. `mapped`: IPv4 through an IPv6 socket."""
    begun: dict[socket.socket, str] = {}
    reached = []
    for address in addresses:
        try:
            link = socket.socket(socket.AF_INET6 if mapped else family_of(address), socket.SOCK_STREAM, protocol)
        except OSError as fault:
            reached.append(Reached(address, Contact.FORBIDDEN, words(fault)))
            continue
        try:
            link.settimeout(0)
            prepare(link)
            failure = link.connect_ex(place(f"::ffff:{address}" if mapped else address, port))
        except OSError as fault:
            failure = fault.errno or errno.EIO
        if failure in (0, *_PENDING):
            begun[link] = address
        else:
            link.close()
            reached.append(_failed(address, failure))
    return sorted([*reached, *_finished(begun)], key=lambda each: list(addresses).index(each.address))


def _finished(begun: dict[socket.socket, str]) -> Iterator[Reached]:
    until = time.monotonic() + WAIT_SECONDS
    while begun and (left := until - time.monotonic()) > 0:
        _, writable, _ = select.select([], list(begun), [], left)
        for link in writable:
            address = begun.pop(link)
            failure = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                link.close()
                yield _failed(address, failure)
            else:
                yield Reached(address, Contact.ANSWERED, "the connection was taken", link)
    for link, address in begun.items():
        link.close()
        yield Reached(address, Contact.SILENT, f"no answer in {WAIT_SECONDS:g} s")


def _failed(address: str, failure: int) -> Reached:
    said = words(OSError(failure, ""))
    # A reset is what a closed port says; a firewall may say it in its place, which only a comparison shows.
    return Reached(address, Contact.ARRIVED if failure == errno.ECONNREFUSED else Contact.FORBIDDEN, said)


def datagrams(
    addresses: Sequence[str], port: int, payload: bytes, prepare: Prepare = lambda _: None,
    kind: int = socket.SOCK_DGRAM, protocol: int = 0
) -> list[Reached]:
    """Send one datagram to each, and wait for what comes back: a reply, or who says no."""
    sent: dict[socket.socket, str] = {}
    reached = []
    for address in addresses:
        try:
            link = socket.socket(family_of(address), kind, protocol)
        except OSError as fault:
            reached.append(Reached(address, Contact.FORBIDDEN, words(fault)))
            continue
        try:
            tell_errors(link)
            prepare(link)
            link.connect(place(address, port))
            link.send(payload)
        except OSError as fault:
            reached.append(complaint(link, address) or Reached(address, Contact.FORBIDDEN, words(fault)))
            link.close()
        else:
            sent[link] = address
    return [*reached, *_replies(sent)]


def tell_errors(link: socket.socket) -> None:
    """Have the kernel keep who said no, and how."""
    if link.family == socket.AF_INET6:
        link.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        link.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def _replies(sent: dict[socket.socket, str]) -> Iterator[Reached]:
    until = time.monotonic() + WAIT_SECONDS
    while sent and (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select(list(sent), [], [], left)
        for link in ready:
            address = sent.pop(link)
            yield _reply(link, address)
            link.close()
    for link, address in sent.items():
        link.close()
        yield Reached(address, Contact.SILENT, "sent, and nothing came back")


def _reply(link: socket.socket, address: str) -> Reached:
    heard = complaint(link, address)
    if heard is not None:
        return heard
    try:
        reply = link.recv(4096, socket.MSG_DONTWAIT)
    except OSError as fault:
        return complaint(link, address) or Reached(address, Contact.FORBIDDEN, words(fault))
    return Reached(address, Contact.ANSWERED, f"{len(reply)} bytes came back", reply=reply)


def complaint(link: socket.socket, address: str) -> Reached | None:
    """What an ICMP error says that the kernel kept for this socket, and who sent it."""
    with contextlib.suppress(OSError):
        _, ancillary, _, _ = link.recvmsg(512, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        for _, _, data in ancillary:
            if len(data) >= 16:
                return _understood(data, address)
    return None


def _understood(data: bytes, address: str) -> Reached:
    number, origin, kind, code = struct.unpack_from("=IBBB", data)
    offender = _offender(data[16:])
    said = f"{words(OSError(number, ''))}, ICMP {kind}/{code} from {offender or 'here'}"
    by_itself = (origin, kind, code) in _SAID_BY_THE_DESTINATION and _same(offender, address)
    return Reached(address, Contact.ARRIVED if by_itself else Contact.FORBIDDEN, said)


def _offender(raw: bytes) -> str | None:
    if len(raw) >= 8 and struct.unpack_from("=H", raw)[0] == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8])
    if len(raw) >= 24 and struct.unpack_from("=H", raw)[0] == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24])
    return None


def _same(offender: str | None, address: str) -> bool:
    bare = address.partition("%")[0]
    return offender is not None and ipaddress.ip_address(offender) == ipaddress.ip_address(bare)


def compared(reached: Sequence[Reached], nobody: str) -> list[Reached]:
    """The same without `nobody`, whose address no machine has: whoever resets for that one resets for all."""
    control = next((each.contact for each in reached if each.address == nobody), None)
    others = [each for each in reached if each.address != nobody]
    if control is not Contact.ARRIVED:
        return others
    return [
        replace(each, contact=Contact.FORBIDDEN, said=f"{each.said}, as for an address that nobody has")
        if each.contact is Contact.ARRIVED
        else each
        for each in others
    ]


def judged(reached: Sequence[Reached], nobody: str, port: int, judge: Callable[[str, socket.socket], Seen]) -> Seen:
    """What reaching all of these means, where `nobody` among them has an address that no machine has.

    Whoever takes a connection for that one takes them for all addresses: it stands on the way, and `judge` says
    whether it is Governor.
    """
    taken_for_all = any(each.address == nobody and each.contact is Contact.ANSWERED for each in reached)
    told = [
        judge(each.address, each.link) if taken_for_all and each.link is not None else each.seen(port)
        for each in compared(reached, nobody)
    ]
    for each in reached:
        if each.link is not None:
            each.link.close()
    return worst(told, "there is no address of this family to try")

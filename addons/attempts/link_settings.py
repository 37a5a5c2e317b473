"""Links, routes, addresses and tables of the network: changed, or read where that alone tells enough.

Where this process rules the machine itself nothing is tried: having the capability is answer enough.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from functools import partial

from addons.attempts import standing
from addons.attempts.attempt import Family, Seen, closed, opened, refused, words
from addons.attempts.surroundings import Surroundings

FAMILY = Family("network settings")
_NOT_PERMITTED = "EPERM"
_ROUTE, _NETFILTER, _XFRM, _AUDIT = 0, 12, 6, 9
_REQUEST, _ACK, _CREATE, _EXCLUSIVE, _DUMP = 0x1, 0x4, 0x400, 0x200, 0x300
_ERROR = 2
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE = 16, 17, 20, 21, 24, 25, 32, 33
_IFNAME, _LINKINFO, _INFO_KIND, _LINK = 3, 18, 1, 5
_NFT_NEWTABLE, _NFT_DELTABLE = 0x0A00, 0x0A02
_CT_DUMP = 0x0101
_XFRM_GETSA = 0x12
_AUDIT_GET = 1000
_TUNSETIFF, _IFF_TUN, _IFF_TAP, _NO_PI = 0x400454CA, 1, 2, 0x1000
_SIOCSIFFLAGS, _SIOCGIFFLAGS = 0x8914, 0x8913
_UNREACHABLE, _TABLE = 7, 253


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _message(kind: int, flags: int, body: bytes, number: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body


def _asked(protocol: int, *messages: bytes) -> None:
    """Have the kernel do these; `OSError` with the first refusal."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as link:
        link.settimeout(1.0)
        link.bind((0, 0))
        link.send(b"".join(messages))
        reply = link.recv(65536)
    while len(reply) >= 16:
        length, kind = struct.unpack_from("=IH", reply)
        if kind == _ERROR and (code := struct.unpack_from("=i", reply, 16)[0]):
            raise OSError(-code, os.strerror(-code))
        reply = reply[(length + 3) & ~3 :] if length >= 16 else b""


def _done(what: str, capability: int, do: bytes, undo: bytes, protocol: int = _ROUTE) -> Seen:
    """Do it and undo it at once."""
    if standing.rules_the_host(capability):
        return opened(f"this process may {what} on the machine itself; not tried")
    try:
        _asked(protocol, do)
    except TimeoutError:
        return closed("the kernel did not answer")
    except OSError as fault:
        return refused(fault)
    try:
        _asked(protocol, undo)
    except OSError as fault:
        return opened(f"it can {what}, and undoing it failed: {words(fault)}")
    return opened(f"it can {what}; undone")


def _link(_: Surroundings, kind: str) -> Seen:
    name = f"gva{os.getpid() % 100000}"
    what = _attribute(_IFNAME, name.encode() + b"\0")
    under = _attribute(_LINK, struct.pack("=I", _first_link())) if kind == "macvlan" else b""
    info = _attribute(_LINKINFO, _attribute(_INFO_KIND, kind.encode()))
    body = bytes(16) + what + under + info
    return _done(
        f"make a link of kind {kind}", standing.NET_ADMIN,
        _message(_NEWLINK, _REQUEST | _ACK | _CREATE | _EXCLUSIVE, body),
        _message(_DELLINK, _REQUEST | _ACK, bytes(16) + what))


def _first_link() -> int:
    return next((number for number, name in socket.if_nameindex() if name != "lo"), 1)


# One that tunnels in clear, one that tunnels in secret, one that joins the link of others, one that is always there.
for kind in ("ipip", "wireguard", "macvlan", "veth"):
    FAMILY.add(f"link-{kind}", f"make a link of kind {kind} (ip link add)", _NOT_PERMITTED, partial(_link, kind=kind))


@FAMILY.attempt("route", "add a route (ip route add)", _NOT_PERMITTED)
def route(_: Surroundings) -> Seen:
    # To nowhere, for one documentation address, in a table that no rule looks into.
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 77, 4, 0, _UNREACHABLE, 0) + _attribute(
        1, socket.inet_aton("198.51.100.254"))
    return _done(
        "add routes", standing.NET_ADMIN, _message(_NEWROUTE, _REQUEST | _ACK | _CREATE, body),
        _message(_DELROUTE, _REQUEST | _ACK, body))


@FAMILY.attempt("routing-rule", "add a routing rule (ip rule add)", _NOT_PERMITTED)
def routing_rule(_: Surroundings) -> Seen:
    body = (
        struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _TABLE, 0, 0, 1, 0)
        + _attribute(6, struct.pack("=I", 32000))
        + _attribute(10, struct.pack("=I", 0x676F76))
    )
    return _done(
        "add routing rules", standing.NET_ADMIN, _message(_NEWRULE, _REQUEST | _ACK | _CREATE | _EXCLUSIVE, body),
        _message(_DELRULE, _REQUEST | _ACK, body))


@FAMILY.attempt("address", "give a link another address (ip address add)", _NOT_PERMITTED)
def address(_: Surroundings) -> Seen:
    own = socket.inet_aton("192.0.2.254")
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 1) + _attribute(2, own) + _attribute(1, own)
    return _done(
        "give links addresses", standing.NET_ADMIN, _message(_NEWADDR, _REQUEST | _ACK | _CREATE | _EXCLUSIVE, body),
        _message(_DELADDR, _REQUEST | _ACK, body))


def _table_change(kind: int, flags: int) -> bytes:
    """A change of an nftables table, in the batch that the kernel wants it in."""
    generation = struct.pack("=BB", 1, 0)
    edge = struct.pack("=BB", 0, 0) + struct.pack("!H", 10)
    table = generation + struct.pack("!H", 0) + _attribute(1, b"governor_attempt\0")
    return _message(16, _REQUEST, edge, 1) + _message(kind, flags, table, 2) + _message(17, _REQUEST, edge, 3)


@FAMILY.attempt("tables", "change the tables of the packet filter (nft flush ruleset)", _NOT_PERMITTED)
def tables(_: Surroundings) -> Seen:
    return _done(
        "change the packet filter of this network namespace", standing.NET_ADMIN,
        _table_change(_NFT_NEWTABLE, _REQUEST | _ACK | _CREATE | _EXCLUSIVE),
        _table_change(_NFT_DELTABLE, _REQUEST | _ACK), _NETFILTER)


def _read(_: Surroundings, protocol: int, message: bytes, what: str) -> Seen:
    try:
        _asked(protocol, message)
    except TimeoutError:
        return closed("the kernel did not answer")
    except OSError as fault:
        return refused(fault)
    return opened(f"the kernel answers about {what}, and would change it")


FAMILY.add(
    "conntrack",
    "flush the table of connections (conntrack -F)",
    _NOT_PERMITTED,
    partial(
        _read, protocol=_NETFILTER, what="connections",
        message=_message(_CT_DUMP, _REQUEST | _DUMP, struct.pack("=BBH", socket.AF_INET, 0, 0))),
)
FAMILY.add(
    "ipsec-keys", "set up IPsec (ip xfrm state)", _NOT_PERMITTED,
    partial(_read, protocol=_XFRM, what="IPsec", message=_message(_XFRM_GETSA, _REQUEST | _DUMP, bytes(24))))
FAMILY.add(
    "audit", "turn the kernel's audit off", _NOT_PERMITTED,
    partial(_read, protocol=_AUDIT, what="its audit", message=_message(_AUDIT_GET, _REQUEST | _ACK, b"")))


def _tunnel_device(_: Surroundings, flags: int) -> Seen:
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        return closed(f"/dev/net/tun: {words(fault)}")
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", f"gva{os.getpid() % 100000}".encode(), flags | _NO_PI))
    except OSError as fault:
        return refused(fault)
    finally:
        os.close(device)
    return opened("a link of its own was made from /dev/net/tun")


FAMILY.add("tun", "make a TUN link", "no such device, or EPERM", partial(_tunnel_device, flags=_IFF_TUN))
FAMILY.add("tap", "make a TAP link", "no such device, or EPERM", partial(_tunnel_device, flags=_IFF_TAP))


@FAMILY.attempt("link-down", "set a link's flags to what they are (as taking it down would)", _NOT_PERMITTED)
def link_flags(_: Surroundings) -> Seen:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        try:
            # The same flags again: nothing changes where it is allowed.
            fcntl.ioctl(link, _SIOCSIFFLAGS, fcntl.ioctl(link, _SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0)))
        except OSError as fault:
            return refused(fault)
    return opened("it can set the flags of links")

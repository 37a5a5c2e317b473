"""Kinds of sockets that a network namespace does not hold, or that its tables do not see."""

from __future__ import annotations

import errno
import socket
from functools import partial

from addons.attempts.attempt import Family, Seen, opened, refused, silent, worst
from addons.attempts.surroundings import Surroundings

FAMILY = Family("socket")
_NO_SUCH = "the kernel gives no such socket"
_VSOCK = 40
_MANY_PORTS = (22, 80, 1024, 2222, 9464)
# Number of the family, kind, protocol, and what it would reach.
_KINDS = (
    ("bluetooth", 31, socket.SOCK_RAW, 1, "Bluetooth"),
    ("can", 29, socket.SOCK_RAW, 1, "a CAN bus"),
    ("qipcrtr", 42, socket.SOCK_DGRAM, 0, "Qualcomm's processors"),
    ("tipc", 30, socket.SOCK_RDM, 0, "a TIPC cluster"),
    ("rds", 21, socket.SOCK_SEQPACKET, 0, "RDS"),
    ("xdp", 44, socket.SOCK_RAW, 0, "a link's queues below all tables"),
    ("alg", 38, socket.SOCK_SEQPACKET, 0, "the kernel's cryptography"),
    ("kcm", 41, socket.SOCK_DGRAM, 0, "the kernel's multiplexor"),
    ("pppox", 24, socket.SOCK_STREAM, 0, "PPP over a link"),
    ("llc", 26, socket.SOCK_DGRAM, 0, "neighbours, below IP"),
    ("ieee802154", 36, socket.SOCK_DGRAM, 0, "a personal area network"),
    ("nfc", 39, socket.SOCK_SEQPACKET, 1, "NFC"),
    ("phonet", 35, socket.SOCK_DGRAM, 0, "a modem"),
    ("caif", 37, socket.SOCK_SEQPACKET, 0, "a modem"),
    ("x25", 9, socket.SOCK_SEQPACKET, 0, "X.25"),
    ("ax25", 3, socket.SOCK_DGRAM, 0, "amateur radio"),
    ("mctp", 45, socket.SOCK_DGRAM, 0, "the machine's controllers"),
    ("key", 15, socket.SOCK_RAW, 2, "the kernel's IPsec keys"),
)


def _given(_: Surroundings, family: int, kind: int, protocol: int) -> Seen:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as fault:
        return refused(fault)
    return opened("the kernel gives the socket, and no table of the sandbox looks into it")


for name, family, kind, protocol, what in _KINDS:
    FAMILY.add(
        f"af-{name}", f"open a socket to {what}", _NO_SUCH,
        partial(_given, family=family, kind=kind, protocol=protocol))


def _vsock(_: Surroundings, machine: int) -> Seen:
    """Outside a network namespace's reach: it leads to the hypervisor."""
    seen = []
    for port in _MANY_PORTS:
        try:
            with socket.socket(_VSOCK, socket.SOCK_STREAM) as link:
                link.settimeout(0.3)
                link.connect((machine, port))
        except TimeoutError:
            seen.append(silent(f"machine {machine} port {port}: no answer"))
        except OSError as fault:
            reset = fault.errno in (errno.ECONNRESET, errno.ECONNREFUSED)
            seen.append(
                opened(f"machine {machine} itself refused port {port}, so it was reached") if reset else refused(fault)
            )
        else:
            seen.append(opened(f"machine {machine} took a connection to port {port}"))
    return worst(seen, "")


for machine, what in ((2, "the hypervisor"), (1, "this machine"), (3, "a machine next door")):
    FAMILY.add(f"vsock-{machine}", f"connect to {what} by AF_VSOCK", _NO_SUCH, partial(_vsock, machine=machine))


@FAMILY.attempt("af-smc", "connect to port 22 by AF_SMC, which falls back to TCP", "no such socket, or no connection")
def smc(here: Surroundings) -> Seen:
    seen = []
    for address in here.targets[:3]:
        try:
            with socket.socket(43, socket.SOCK_STREAM) as link:
                link.settimeout(0.5)
                link.connect((address, 22))
        except TimeoutError:
            seen.append(silent(f"{address} port 22: no answer"))
        except OSError as fault:
            seen.append(refused(fault))
        else:
            seen.append(opened(f"{address} port 22 took the connection"))
    return worst(seen, "there is no IPv4 address to try")

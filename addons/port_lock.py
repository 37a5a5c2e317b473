"""One Governor a port: the right to (address, port), held for as long as the process serves there."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator

from addons.errors import StartCode, StartRefused


@contextlib.contextmanager
def port_lock(host: str, port: int, *, open_already: bool = False, datagrams: bool = False) -> Iterator[None]:
    """Hold (host, port) exclusively. Raises `StartRefused` (PORT_BUSY) when it is taken, by whomever.

    `open_already`: this process listens there, so that only the name is left to take. `datagrams`: UDP is served, too.
    """
    with contextlib.closing(_name_lock(host, port)):
        if not open_already:
            _probe(host, port, datagrams=datagrams)
        yield


def _name_lock(host: str, port: int) -> socket.socket:
    """A name that only one process can hold and that goes with it.

    Linux has a name space for that which belongs to the network namespace, as ports do. Elsewhere the probe stands
    alone: it is enough as long as no socket is opened with SO_REUSEPORT.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if sys.platform == "linux":
        try:
            lock.bind(f"\0governor/port/{host or '*'}/{port}")
        except OSError:
            lock.close()
            raise _busy(host, port, "another Governor serves there") from None
    return lock


def _probe(host: str, port: int, *, datagrams: bool) -> None:
    """Bind as mitmproxy will, and let go."""
    with contextlib.ExitStack() as bound:
        try:
            bind_everywhere(host, port, socket.SO_REUSEADDR, bound)
            # With that option a port of datagrams would be shared with whoever has it.
            for each in bound_sockets(host, port, socket.SOCK_DGRAM) if datagrams else ():
                bound.callback(each.close)
        except OSError as problem:
            raise _busy(host, port, problem.strerror or str(problem)) from None


def bind_everywhere(host: str, port: int, option: int, bound: contextlib.ExitStack) -> int:
    """Bind in every family in which mitmproxy will listen, at one port, which is returned. An empty host is every
    address of both families. The sockets, which have the socket option `option`, are closed with `bound`.
    """
    sockets = bound_sockets(host, port, socket.SOCK_STREAM, option)
    for each in sockets:
        bound.callback(each.close)
    return int(sockets[0].getsockname()[1]) if sockets else port


def bound_sockets(host: str, port: int, kind: socket.SocketKind, option: int | None = None) -> list[socket.socket]:
    """Sockets of this kind at one port, in every family in which mitmproxy will listen. Raises `OSError`."""
    with contextlib.ExitStack() as failing:
        sockets = []
        for family, address in _families(host):
            try:
                each = socket.socket(family, kind)
                failing.callback(each.close)
                if option is not None:
                    each.setsockopt(socket.SOL_SOCKET, option, 1)
                if family == socket.AF_INET6:
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                each.bind((address, port))
            except OSError as problem:
                # A machine without IPv6 has no such address to serve on; mitmproxy leaves it out too.
                if host or problem.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
            else:
                port = each.getsockname()[1]
                sockets.append(each)
        failing.pop_all()
    return sockets


def _families(host: str) -> tuple[tuple[int, str], ...]:
    """The family and address of each socket with which mitmproxy listens on a host; an empty one is every address."""
    return ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")) if not host else (_resolved(host),)


def _resolved(host: str) -> tuple[int, str]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except OSError as problem:
        raise StartRefused(StartCode.PORT_BUSY, f"cannot listen on {host}: {problem}") from None
    return family, str(address[0])


def _busy(host: str, port: int, reason: str) -> StartRefused:
    where = f"{host or '*'}:{port}"
    return StartRefused(StartCode.PORT_BUSY, f"{where}: {reason}; stop it or give --listen-port another number")

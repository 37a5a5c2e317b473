"""One port for several workers: chosen, kept and shared by SO_REUSEPORT.

The kernel gives each new connection to one of the sockets that listen. Whoever runs as the same user could listen
there, too; nobody else can, as long as the supervisor keeps the port.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.mode_specs import DnsMode, ProxyMode

from addons.errors import StartCode, StartRefused
from addons.port_lock import bind_everywhere

_TRIES = 16


def chosen(modes: Sequence[str], host: str, port: int | None) -> tuple[str, ...]:
    """The modes as mitmproxy's option has them, each port of 0 replaced by a free one. Raises `StartRefused`."""
    parsed = [ProxyMode.parse(mode) for mode in modes]
    if any(isinstance(mode, DnsMode) for mode in parsed):
        # The socket by which the supervisor keeps a port would take questions that nobody answers, and what one
        # worker told a client, the one to which the client then goes would not know.
        raise StartRefused(StartCode.MODE_REFUSED, "mode dns cannot be shared by several workers; start without "
                           "--workers, or names in a Governor of their own")
    return tuple(_with_port(mode, host, port) for mode in parsed)


def _with_port(mode: ProxyMode, host: str, port: int | None) -> str:
    if mode.listen_port(port) != 0:
        return mode.full_spec
    place = "" if mode.custom_listen_host is None else f"{mode.custom_listen_host}:"
    return f"{mode.type_name}@{place}{_free(mode.listen_host(host))}"


def _free(host: str) -> int:
    for _ in range(_TRIES):
        try:
            with ExitStack() as kept:
                return bind_everywhere(host, 0, socket.SO_REUSEPORT, kept)
        except OSError:
            # Free for one family and taken for the other.
            continue
    raise StartRefused(StartCode.PORT_BUSY, f"no port of {host or '*'} is free; give --listen-port a number")


@contextmanager
def kept(places: Iterable[tuple[str, int]]) -> Iterator[None]:
    """Keep these (host, port) so that nobody of another user can have them. Raises `StartRefused`.

    A socket that does not listen gets no connections.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise StartRefused(StartCode.OPTION_REFUSED, "on this system no port can be shared; start without --workers")
    with ExitStack() as bound:
        for host, port in places:
            try:
                bind_everywhere(host, port, socket.SO_REUSEPORT, bound)
            except OSError as problem:
                text = f"{host or '*'}:{port}: {problem.strerror or problem}"
                raise StartRefused(StartCode.PORT_BUSY, text) from None
        yield


def share() -> None:
    """Have mitmproxy in this process open its ports beside those of the other workers."""
    AsyncioServerInstance.listen = _listen  # type: ignore[method-assign, assignment]


async def _listen(self: Any, host: str, port: int) -> list[asyncio.Server]:
    return [await asyncio.start_server(self.handle_stream, host, port, reuse_port=True)]

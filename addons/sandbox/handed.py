"""mitmproxy at sockets that were made elsewhere: those of a command's network, of which it is no part itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from mitmproxy.proxy.mode_servers import AsyncioServerInstance, DnsInstance

from addons import dns_server


def serve_at(sockets: Mapping[str, socket.socket]) -> None:
    """Have mitmproxy in this process open no ports of its own. A name begins with the mode that the socket is for."""

    async def listen(self: Any, _host: str, _port: int) -> list[Any]:
        return [await asyncio.start_server(self.handle_stream, sock=each)
                for each in _of_mode(sockets, self.mode.type_name)]

    async def listen_for_names(self: Any, _host: str, _port: int) -> list[Any]:
        ours = _of_mode(sockets, self.mode.type_name)
        return await dns_server.serving([each for each in ours if each.type == socket.SOCK_STREAM],
                                        [each for each in ours if each.type == socket.SOCK_DGRAM])

    # Not to be replaced by what serves at ports of this network.
    listen_for_names.ungoverned = DnsInstance.listen  # type: ignore[attr-defined]
    AsyncioServerInstance.listen = listen  # type: ignore[method-assign, assignment]
    DnsInstance.listen = listen_for_names  # type: ignore[method-assign, assignment]


def _of_mode(sockets: Mapping[str, socket.socket], mode: str) -> list[socket.socket]:
    ours = [each for name, each in sockets.items() if name.partition("/")[0] == mode]
    if not ours:
        raise OSError(f"no socket was handed over for mode {mode}")
    return ours

"""A name server for the tests: it knows a few names, answers NXDOMAIN to all others and remembers every question."""

from __future__ import annotations

import contextlib
import ipaddress
import socketserver
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

A, NXDOMAIN = 1, 3


@dataclass
class NameServer:
    """A running name server, at port 53 of an own loopback address."""

    address: str
    names: Mapping[str, str]
    questions: list[str] = field(default_factory=list)

    def answer(self, message: bytes) -> bytes:
        """The response to one question; only A records exist."""
        name, end = _name(message)
        kind = struct.unpack("!H", message[end:end + 2])[0]
        self.questions.append(name)
        known = self.names.get(name)
        record = b""
        if known and kind == A:
            record = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 0, 4) + ipaddress.IPv4Address(known).packed
        flags = 0x8180 | (0 if known else NXDOMAIN)
        return message[:2] + struct.pack("!HHHHH", flags, 1, bool(record), 0, 0) + message[12:end + 4] + record


def _name(message: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1:at + 1 + length].decode("latin-1"))
        at += 1 + length
    return ".".join(labels).lower(), at + 1


@contextlib.contextmanager
def answering(names: Mapping[str, str], address: str = "127.53.0.1") -> Iterator[NameServer]:
    """Raises `OSError` where port 53 cannot be had: that takes root."""
    server = NameServer(address, names)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            message, connection = self.request
            connection.sendto(server.answer(message), self.client_address)

    class Server(socketserver.ThreadingUDPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A question that cannot be read is none."""

    listening = Server((address, 53), Handler)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()

"""One Governor in all modes that carry requests, and ways through it for any client: a socket, a port on loopback."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.origins import Origin
from tests.e2e.process import Governor
from tests.e2e.redirected_loopback import CLIENT_PORTS, can_redirect, marked

MODES = ("regular", "socks5", pytest.param("transparent", marks=pytest.mark.skipif(
    not can_redirect, reason="redirecting needs root, ip and nft")))


@dataclass(frozen=True)
class AllModes:
    """A Governor that listens for proxy requests, on the port `socks` for SOCKS5, and for what is redirected."""

    governor: Governor
    socks: int

    @contextlib.contextmanager
    def tunnel(self, mode: str, port: int) -> Iterator[socket.socket]:
        """A granted tunnel to this port of localhost, by name; or a connection there that is redirected."""
        match mode:
            case "regular":
                way = wire.connected(self.governor.port, f"localhost:{port}")
            case "socks5":
                way = wire.socks5_connected(self.socks, "localhost", port)
            case _:
                way = contextlib.closing(marked(port, wire.SECONDS))
        with way as connection:
            yield connection

    @contextlib.contextmanager
    def relay(self, mode: str, port: int) -> Iterator[int]:
        """A port for a client that knows no proxy: each connection to it is a tunnel of its own."""
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        threading.Thread(target=carry, args=(listening.accept()[0],), daemon=True).start()

            def carry(client: socket.socket) -> None:
                with client, self.tunnel(mode, port) as tunnel:
                    for end in (client, tunnel):
                        end.settimeout(None)
                    back = threading.Thread(target=_pipe, args=(tunnel, client), daemon=True)
                    back.start()
                    _pipe(client, tunnel)
                    back.join()

            threading.Thread(target=serve, daemon=True).start()
            yield listening.getsockname()[1]
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Way:
    """One mode, and one origin behind it."""

    place: AllModes
    mode: str
    origin: Origin

    def target(self, path: str) -> str:
        """What stands in the request line."""
        clear_to_a_proxy = (self.mode, self.origin.scheme) == ("regular", "http")
        return f"{self.origin.url}{path}" if clear_to_a_proxy else path

    @property
    def authority(self) -> str:
        return f"localhost:{self.origin.port}"

    @contextlib.contextmanager
    def opened(self, alpn: str = "http/1.1") -> Iterator[Any]:
        """A connection on which requests may be sent; over TLS where the origin has it."""
        if (self.mode, self.origin.scheme) == ("regular", "http"):
            with wire.dial(self.place.governor.port) as connection:
                yield connection
            return
        with self.place.tunnel(self.mode, self.origin.port) as connection:
            if self.origin.scheme == "http":
                yield connection
                return
            context = wire.trusting(self.place.governor.ca)
            context.set_alpn_protocols([alpn])
            with context.wrap_socket(connection, server_hostname="localhost") as inside:
                yield inside

    @contextlib.contextmanager
    def client(self) -> Iterator[http.client.HTTPConnection]:
        """Python's own client on such a connection."""
        with self.opened() as connection:
            client = http.client.HTTPConnection("localhost", self.origin.port)
            client.sock = connection
            yield client

    @property
    def curl(self) -> Sequence[str]:
        """How curl is told to go this way."""
        match self.mode:
            case "regular":
                return ()
            case "socks5":
                return "--socks5-hostname", f"127.0.0.1:{self.place.socks}"
        return "-4", "--noproxy", "*", "--local-port", CLIENT_PORTS


class Log:
    """What the log has of the requests since this was made."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._before = len(self._decisions())

    def _decisions(self) -> list[dict[str, Any]]:
        return [entry for entry in self._governor.entries("decision") if entry["stage"] == "request"]

    @property
    def codes(self) -> list[str]:
        """One for each request, in their order."""
        return [entry["code"] for entry in self._decisions()[self._before:]]

    def wait_for_codes(self, count: int, seconds: float = 10.0) -> list[str]:
        """The codes once there are `count` of them: of a request that nobody waits for any more."""
        deadline = time.monotonic() + seconds
        while len(codes := self.codes) < count:
            assert time.monotonic() < deadline, f"{len(codes)} of {count} decisions came"
            time.sleep(0.02)
        return codes

    def outcomes(self, seconds: float = 10.0) -> list[tuple[str, int, int]]:
        """Result, bytes up and bytes down of each request that was let through, once all have ended."""
        wanted = [f"{entry['lane']}/{entry['seq']}" for entry in self._decisions()[self._before:]
                  if entry["verdict"] == "allow"]
        deadline = time.monotonic() + seconds
        while True:
            ended = {entry["decision"]: entry for entry in self._governor.entries("outcome")}
            if all(decision in ended for decision in wanted):
                return [(ended[decision]["result"], ended[decision]["bytes_up"], ended[decision]["bytes_down"])
                        for decision in wanted]
            assert time.monotonic() < deadline, f"no outcome of one of {wanted}"
            time.sleep(0.02)

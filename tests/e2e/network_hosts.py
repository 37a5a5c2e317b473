"""Hosts made of network namespaces: each with an address of its own on one network, which can be cut."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

needs_networks = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and the command ip")
_NETWORK = "198.18.77"
_NUMBERS = itertools.count(1)

ORIGIN = """
import contextlib, http.server, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"data: x\\n\\n")
                time.sleep(0.005)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class NetworkHost:
    """A namespace with an address on the common network."""

    name: str
    address: str

    @property
    def inside(self) -> list[str]:
        """What is put before a command to run it there."""
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """Nothing reaches the network from here, or from there."""
        _ip("-n", self.name, "link", "set", "eth0", "down")

    def join(self) -> None:
        _ip("-n", self.name, "link", "set", "eth0", "up")

    @contextlib.contextmanager
    def running(self, *command: str, **more: object) -> Iterator[subprocess.Popen[bytes]]:
        """A process there, killed at the end."""
        process = subprocess.Popen([*self.inside, *command], **more)  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def streaming(self, port: int) -> Iterator[None]:
        """An origin on its loopback whose answers are streams without end."""
        with self.running(sys.executable, "-c", ORIGIN, str(port)):
            while subprocess.run([*self.inside, "curl", "-s", "-m", "0.2", "-o", "/dev/null",
                                  f"http://127.0.0.1:{port}/"], check=False).returncode == 7:
                pass
            yield


@contextlib.contextmanager
def networked(count: int) -> Iterator[Sequence[NetworkHost]]:
    """So many hosts on one network."""
    run = f"gov{os.getpid()}"
    switch = f"{run}s"
    hosts = [NetworkHost(f"{run}h{number}", f"{_NETWORK}.{number}") for number in range(1, count + 1)]
    with contextlib.ExitStack() as made:
        _made(made, switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        for host in hosts:
            _made(made, host.name)
            port = f"p{next(_NUMBERS)}"
            _ip("link", "add", port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("-n", switch, "link", "set", port, "master", "br0", "up")
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", link, "up")
        yield hosts


def _made(made: contextlib.ExitStack, name: str) -> None:
    _ip("netns", "add", name)
    made.callback(_ip, "netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
